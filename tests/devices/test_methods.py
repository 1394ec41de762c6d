"""Few-shot methods, baselines, heads, weights and scores on a device."""

import pytest
import torch

import otfew
from otfew import catalogue
from otfew.baselines import BASELINES
from otfew.methods import METHODS, StructuredFC
from otfew.methods.deepemd import HEADS
from otfew.methods.shot_heads import MergeHead
from otfew.scores import chamfer, cosine, cr_pooled, emd, product_coupling, spread
from otfew.scores.node_weights import NODE_WEIGHTS

from .both import on_both

NAMES = [name for name in (*METHODS, *BASELINES) if not catalogue.find(name).preset_of]
FEWER = {
    "lst": {"n_steps": 2},
    "pt-map": {"n_steps": 2},
    "cosine-classifier": {"epochs": 5},
    "linear-classifier": {"epochs": 5},
    "tim": {"n_steps": 50},
    "alpha-tim": {"n_steps": 50},
}
"""Fewer steps than by default, where they are all alike."""
LOOSE = {"lst": 1e-4, "pt-map": 1e-4, "sot": 1e-4, "deepemd": 1e-6}
"""Where Sinkhorn's iteration stops elsewhere than on the CPU, and where plans are the kernel's."""
PRIOR = torch.tensor([[2.0, 1.0, 2.0], [0.5, 3.0, 2.0]], dtype=torch.float64)


def made(name, **options):
    cls = catalogue.find(name)
    if cls.needs_base_mean:
        options["base_mean"] = torch.linspace(0.1, 0.4, 8, dtype=torch.float64)
    method = cls(**FEWER.get(name, {}), **options)
    if name not in {"lst", "pt-map"}:
        return method
    # Of assignments that are all but certain, logarithms are sharper than Sinkhorn's tolerance.
    return lambda *inputs, **masks: method(*inputs, **masks).softmax(-1)


@pytest.mark.parametrize("name", NAMES)
def test_methods(pretended, episodes, name):
    on_both(pretended, name, made(name), episodes(), tolerance=LOOSE.get(name))


@pytest.mark.parametrize("name", NAMES)
def test_methods_with_uneven_shots_and_a_prior(pretended, episodes, uneven, name):
    method = made(name)

    def work(support, query, mask, prior):
        return method(support, query, support_mask=mask, class_prior=prior)

    inputs = [*episodes(), uneven, PRIOR]
    on_both(pretended, f"{name}, uneven shots, class prior", work, inputs, tolerance=LOOSE.get(name))


@pytest.mark.parametrize("name", ["deepemd", "frn", "lst", "tim"])
def test_methods_in_half_precision(pretended, episodes, name):
    """They compute in float32, as on the CPU."""
    support, query = (x.detach() for x in episodes(dtype=torch.bfloat16))
    on_both(pretended, f"{name}, bfloat16", made(name), [support, query], tolerance=1e-3)


@pytest.mark.parametrize("solver", ["exact", "sinkhorn"])
@pytest.mark.parametrize("masked", [False, True], ids=["even", "uneven"])
@pytest.mark.parametrize("head", [*HEADS, "merge, partial"])
def test_shot_heads(pretended, episodes, uneven, head, masked, solver):
    chosen = MergeHead("partial") if head == "merge, partial" else StructuredFC(epochs=2) if head == "sfc" else head
    if solver == "sinkhorn" and head == "merge, partial":
        pytest.skip("partial mass is the exact solver's")
    method = METHODS["deepemd"](solver=solver, shot_head=chosen)

    def work(support, query, mask):
        return method(support, query, support_mask=mask if masked else None)

    name = f"deepemd, {solver}, {head}, {'uneven' if masked else 'even'}"
    on_both(pretended, name, work, [*episodes(), uneven], tolerance=1e-4 if solver == "sinkhorn" else 1e-6)


@pytest.mark.parametrize("weight_gradient", [False, True], ids=["constant", "differentiated"])
@pytest.mark.parametrize("weights", NODE_WEIGHTS)
def test_node_weights(pretended, episodes, weights, weight_gradient):
    method = METHODS["deepemd"](weights=weights, weight_gradient=weight_gradient, shot_head="mean")
    kind = "differentiated" if weight_gradient else "constant"
    on_both(pretended, f"deepemd, {weights} weights, {kind}", method, episodes(), tolerance=1e-6)


@pytest.mark.parametrize("kernels", [True, False])
def test_deepemd_with_and_without_kernels(pretended, episodes, kernels):
    name = f"deepemd, {'by' if kernels else 'without'} kernels"
    machine = on_both(pretended, name, METHODS["deepemd"](), episodes(shot=1), kernels=kernels, tolerance=1e-6)
    assert bool(machine.launches) <= kernels


SCORES = {
    "chamfer": chamfer.chamfer_similarities,
    "cr-pooled": cr_pooled.cr_pooled_cosines,
    "product coupling": product_coupling.product_coupling_similarities,
    "emd": emd.emd_similarity,
    "partners": lambda support, query: spread.mean_partners(support.detach(), query.detach(), "exact"),
    "cosines": lambda support, query: cosine.cosines(support.flatten(1, 2), query.flatten(1, 2)),
}


@pytest.mark.parametrize("name", SCORES)
def test_scores_of_node_sets(pretended, episodes, name):
    def work(support, query):
        return SCORES[name](support[:, :, 0], query)

    on_both(pretended, f"score, {name}", work, episodes(), tolerance=1e-6)


def test_sinkhorn_as_a_methods_solver(pretended, episodes):
    method = METHODS["deepemd"](solver=otfew.Sinkhorn(reg=0.2))
    on_both(pretended, "deepemd, sinkhorn", method, episodes(shot=1), tolerance=1e-4)
