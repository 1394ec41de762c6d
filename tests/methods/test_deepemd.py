"""DeepEMD against the published arithmetic in plain loops, its laws, and its gradients against finite differences."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch.testing import assert_close

import otfew
from otfew import checks
from otfew.errors import UserError
from otfew.method import FewShotMethod
from otfew.methods import METHODS

DeepEMD = METHODS["deepemd"]


def draw(episodes=2, way=3, shot=1, nodes=6, n_query=4, query_nodes=None, channels=16, seed=0, dtype=torch.float64):
    """Draw non-negative node sets with class structure: support and query of contract 2."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    centres = normal(episodes, way, 1, 1, channels)
    support = (0.5 * centres + normal(episodes, way, shot, nodes, channels)).relu()
    chosen = torch.randint(way, (episodes, n_query), generator=generator)
    own = centres[torch.arange(episodes)[:, None], chosen, 0]
    query = (0.5 * own + normal(episodes, n_query, query_nodes or nodes, channels)).relu()
    return support.to(dtype), query.to(dtype)


def weights_of(nodes, others):
    """Cross-reference weights: relu of each node's product with the other side's mean, plus 1e-3; total 1."""
    weights = np.array([max(float(node @ others.mean(0)), 0.0) + 1e-3 for node in nodes])
    return weights / weights.sum()


def similarity_of(query, support):
    """Cosines of nodes centred over channels."""
    sim = np.empty((len(query), len(support)))
    for i, u in enumerate(query):
        for j, v in enumerate(support):
            x, y = u - u.mean(), v - v.mean()
            sim[i, j] = x @ y / (max(np.linalg.norm(x), 1e-8) * max(np.linalg.norm(y), 1e-8))
    return sim


def published_logit(query, support):
    """Score one query against one class map as the published code does, with cv2.EMD and totals of N."""
    n = len(query)
    sim = similarity_of(query, support)
    s, d = weights_of(query, support) * n, weights_of(support, query) * n
    columns = [w.astype(np.float32)[:, None] for w in (s, d)]
    flow = cv2.EMD(*columns, cv2.DIST_USER, (1 - sim).astype(np.float32))[2]
    return 12.5 / n * float((sim * flow).sum())


def published_logits(support, query):
    """Loop over episodes, queries and classes; several shots become their location-wise mean."""
    support, query = support.double().numpy().mean(2), query.double().numpy()
    logits = [
        [[published_logit(q, s) for s in classes] for q in queries]
        for classes, queries in zip(support, query, strict=True)
    ]
    return torch.tensor(logits, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shot", [1, 5])
def test_logits_are_those_of_the_published_code(shot, dtype):
    support, query = draw(shot=shot, nodes=9, dtype=dtype)
    logits = DeepEMD()(support, query)
    assert logits.shape == (2, 4, 3)
    assert logits.dtype == dtype
    assert_close(logits.double(), published_logits(support, query), rtol=0, atol=1e-4)


def test_logits_at_the_published_size():
    support, query = draw(episodes=1, way=5, nodes=25, n_query=3, channels=640, dtype=torch.float32)
    assert_close(DeepEMD()(support, query).double(), published_logits(support, query), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("nodes", "query_nodes"), [(4, 9), (9, 4), (1, 5), (5, 1)])
def test_support_and_query_may_differ_in_their_number_of_nodes(nodes, query_nodes):
    """Both sides carry the same total, so all mass is matched; cv2.EMD would match part of it if totals differed."""
    support, query = draw(nodes=nodes, query_nodes=query_nodes)
    assert_close(DeepEMD()(support, query), published_logits(support, query), rtol=0, atol=1e-4)


@pytest.mark.parametrize("solver", ["exact", otfew.Exact(threads=1), "pot", "scipy"], ids=str)
def test_any_exact_solver_gives_the_same_logits(solver):
    support, query = draw(shot=2)
    assert_close(DeepEMD(solver=solver)(support, query), DeepEMD()(support, query), rtol=0, atol=1e-7)


def test_temperature_scales_logits():
    support, query = draw()
    assert_close(DeepEMD(temperature=2.5)(support, query) * 5, DeepEMD()(support, query))


def test_identical_images_reach_the_temperature():
    """An image matches itself node by node: the score is T, and no other can be larger."""
    support, query = draw(n_query=3)
    query = support[:, :, 0].clone()
    logits = DeepEMD()(support, query)
    assert_close(logits.diagonal(dim1=1, dim2=2), torch.full((2, 3), 12.5, dtype=torch.float64))
    assert (logits <= 12.5 + 1e-12).all()


def test_scale_of_the_features_hardly_matters():
    """Cosine ignores scale, and so do the weights but for the 1e-3 that is added to them."""
    support, query = draw(channels=64)
    assert_close(DeepEMD()(support * 1e3, query * 1e3), DeepEMD()(support * 1e6, query * 1e6), rtol=0, atol=1e-6)


def test_dead_features_give_finite_logits():
    support, query = draw()
    support[0, 0] = 0
    query[1, 2] = 0
    logits = DeepEMD()(support, query)
    assert logits.isfinite().all()
    assert_close(logits[0, :, 0], torch.zeros(4, dtype=torch.float64))
    assert_close(logits[1, 2], torch.zeros(3, dtype=torch.float64))


def test_masked_shots_are_as_if_absent():
    support, query = draw(shot=3)
    mask = torch.tensor([True, False, True]).expand(2, 3, 3)
    spoiled = support.clone()
    spoiled[:, :, 1] = torch.nan
    assert_close(DeepEMD()(spoiled, query, support_mask=mask), DeepEMD()(support[:, :, [0, 2]], query))


def test_uneven_shots_are_averaged_class_by_class():
    support, query = draw(shot=3)
    mask = torch.tensor([[[1, 0, 0], [1, 1, 0], [0, 1, 1]], [[1, 1, 1], [0, 0, 1], [1, 0, 1]]]).bool()
    maps = torch.stack(
        [torch.stack([support[e, c, mask[e, c]].mean(0) for c in range(3)]) for e in range(2)]
    )[:, :, None]  # fmt: skip
    assert_close(DeepEMD()(support, query, support_mask=mask), DeepEMD()(maps, query))


def test_episodes_do_not_see_their_batch_mates():
    support, query = draw(episodes=5)
    whole = DeepEMD()(support, query)
    for e in range(5):
        assert_close(whole[e : e + 1], DeepEMD()(support[e : e + 1], query[e : e + 1]), rtol=0, atol=1e-12)
    spoiled = support.clone()
    spoiled[1:] = 7 * spoiled[1:] + 1
    assert_close(DeepEMD()(spoiled, query)[0], whole[0], rtol=0, atol=1e-12)


def test_queries_do_not_see_each_other():
    support, query = draw()
    assert not DeepEMD.transductive
    whole = DeepEMD()(support, query)
    for q in range(4):
        assert_close(DeepEMD()(support, query[:, [q]]), whole[:, [q]], rtol=0, atol=1e-12)


def test_permutations():
    support, query = draw(shot=2)
    whole = DeepEMD()(support, query)
    classes, queries, shots = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2]), torch.tensor([1, 0])
    assert_close(DeepEMD()(support[:, classes], query), whole[:, :, classes], rtol=0, atol=1e-12)
    assert_close(DeepEMD()(support, query[:, queries]), whole[:, queries], rtol=0, atol=1e-12)
    assert_close(DeepEMD()(support[:, :, shots], query), whole, rtol=0, atol=1e-12)
    # All shots of a class share locations, so their nodes move together.
    order, other = torch.tensor([5, 2, 0, 1, 4, 3]), torch.tensor([1, 0, 3, 2, 5, 4])
    assert_close(DeepEMD()(support[:, :, :, order], query[:, :, other]), whole, rtol=0, atol=1e-12)


def test_roles_of_support_and_query_can_be_swapped():
    support, query = draw(way=4, n_query=4)
    forward = DeepEMD()(support, query)
    backward = DeepEMD()(query[:, :, None], support[:, :, 0])
    assert_close(backward.mT, forward, rtol=0, atol=1e-12)


# Gradients with respect to features.


def oracle_logits(support, query, weights_from):
    """Score in float64 with HiGHS; weights come from ``weights_from``, another (support, query) or the same."""
    logits = np.empty((len(query), len(support)))
    for q, u in enumerate(query):
        for c, v in enumerate(support):
            sim = similarity_of(u, v)
            n, m = sim.shape
            raw_v, raw_u = weights_from[0][c], weights_from[1][q]
            s, d = weights_of(raw_u, raw_v), weights_of(raw_v, raw_u)
            sums = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
            found = linprog((1 - sim).ravel(), A_eq=sums[:-1], b_eq=np.concatenate([s, d])[:-1], method="highs-ds")
            logits[q, c] = 12.5 * (1 - found.fun)
    return logits


@pytest.mark.parametrize("weight_gradient", [True, False])
def test_gradients_in_features_are_finite_differences(weight_gradient):
    """Along random directions; without the weights' gradient, the weights stay as they were."""
    generator = np.random.default_rng(0)
    # Positive features: no kink of the weights and no dead node nearby.
    support = torch.tensor(generator.random((1, 2, 1, 4, 8)) + 0.1, requires_grad=True)
    query = torch.tensor(generator.random((1, 2, 4, 8)) + 0.1, requires_grad=True)
    upstream = generator.standard_normal((2, 2))
    logits = DeepEMD(weight_gradient=weight_gradient)(support, query)
    grads = torch.autograd.grad((logits[0] * torch.from_numpy(upstream)).sum(), (support, query))
    by_support, by_query = grads[0][0, :, 0].numpy(), grads[1][0].numpy()
    at_support, at_query = support.detach().numpy()[0, :, 0], query.detach().numpy()[0]
    step = 1e-6
    for _ in range(4):
        d_support, d_query = generator.standard_normal(at_support.shape), generator.standard_normal(at_query.shape)

        def score(t, d_support=d_support, d_query=d_query):
            moved = at_support + t * d_support, at_query + t * d_query
            return (upstream * oracle_logits(*moved, moved if weight_gradient else (at_support, at_query))).sum()

        expected = (score(step) - score(-step)) / (2 * step)
        found = (by_support * d_support).sum() + (by_query * d_query).sum()
        assert abs(found - expected) <= 1e-5 * max(1.0, abs(expected))


def test_the_two_gradients_differ():
    support, query = draw()
    grads = []
    for weight_gradient in (False, True):
        leaf = support.clone().requires_grad_()
        DeepEMD(weight_gradient=weight_gradient)(leaf, query)[:, 0, 0].sum().backward()
        grads.append(leaf.grad)
    assert not torch.allclose(*grads)
    assert all(g.isfinite().all() for g in grads)


def test_gradients_with_several_shots_are_those_of_gradcheck():
    support, query = draw(episodes=1, way=2, shot=2, nodes=3, n_query=2, channels=5)
    inputs = tuple((x + 0.1).requires_grad_() for x in (support, query))
    assert torch.autograd.gradcheck(DeepEMD(weight_gradient=True), inputs)


def test_a_training_step_reduces_the_loss():
    support, query = draw(way=3, n_query=3, channels=32, seed=1)
    labels = torch.tensor([0, 1, 2]).repeat(2)
    leaf = query.clone().requires_grad_()
    method = DeepEMD(weight_gradient=True)
    before = torch.nn.functional.cross_entropy(method(support, leaf).flatten(0, 1), labels)
    before.backward()
    after = torch.nn.functional.cross_entropy(method(support, (leaf - 0.1 * leaf.grad).detach()).flatten(0, 1), labels)
    assert after < before


# Construction.


@pytest.mark.parametrize("name", sorted(METHODS))
def test_presets_are_registered_under_their_names(name):
    method = METHODS[name]()
    assert isinstance(method, FewShotMethod)
    assert method.name == name
    assert method.preset_of == "" or method.preset_of in METHODS


def test_deepemd_fcn_is_deepemd_on_the_cells_of_the_map():
    method = METHODS["deepemd-fcn"](solver="exact", temperature=12.5)
    assert method.nodes == "fcn"
    assert method.preset_of == "deepemd"
    support, query = draw()
    assert_close(method(support, query), DeepEMD()(support, query), rtol=0, atol=0)


def test_unknown_names_are_errors_when_constructed():
    with pytest.raises(ValueError, match=r"unknown `shot_head` 'mode'.*mean"):
        DeepEMD(shot_head="mode")
    with pytest.raises(ValueError, match=r"unknown solver 'exakt'; did you mean 'exact'\?"):
        DeepEMD(solver="exakt")


def test_solvers_that_cannot_serve_are_user_errors(monkeypatch):
    monkeypatch.setattr(checks, "installed", lambda kind: True)
    with pytest.raises(UserError, match="deepemd: `solver` 'keops' takes point clouds"):
        DeepEMD(solver="keops")
    monkeypatch.setattr(checks, "installed", lambda kind: kind is not otfew.POT)
    for solver in ("pot", otfew.POT()):
        with pytest.raises(UserError, match="deepemd: `solver` 'pot' needs ot: pip install"):
            DeepEMD(solver=solver)
    assert DeepEMD(solver=otfew.Sinkhorn(reg=0.5)).solver == otfew.Sinkhorn(reg=0.5)


def test_shapes_that_do_not_fit_are_value_errors():
    support, query = draw(shot=2)
    with pytest.raises(ValueError, match="support must be"):
        DeepEMD()(support[:, :, 0], query)
    with pytest.raises(ValueError, match="differ in episodes or channels"):
        DeepEMD()(support, query[..., 1:])
    with pytest.raises(ValueError, match="leaves class 1 of episode 0 without a shot"):
        DeepEMD()(support, query, support_mask=torch.tensor([[[1, 1], [0, 0], [1, 1]]] * 2).bool())


def test_nan_in_features_is_an_error():
    support, query = draw()
    query[1, 2, 3, 0] = torch.nan
    with pytest.raises(ValueError, match=r"NaN"):
        DeepEMD()(support, query)


def test_class_prior_is_ignored():
    support, query = draw()
    assert_close(DeepEMD()(support, query, class_prior=torch.rand(2, 3)), DeepEMD()(support, query), rtol=0, atol=0)
