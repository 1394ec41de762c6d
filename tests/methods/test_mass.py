"""DeepEMD with only a fraction of the mass to match: against POT, its laws, and its control without transport."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import otfew
from otfew import catalogue
from otfew.baselines import BASELINES
from otfew.errors import UserError
from otfew.methods import METHODS, BarycenterHead, MergeHead, StructuredFC
from otfew.scores.emd import EMDScore, mean_similarity
from otfew.scores.node_weights import resolve_weights
from otfew.scores.pairwise import cr_weights, similarities

DeepEMD = METHODS["deepemd"]
TrimmedChamfer = BASELINES["trimmed-chamfer"]
HEADS = ["mean", "nn", "fusion", "merge", "barycenter", "kmeans", StructuredFC(iterations=2)]


@pytest.mark.parametrize("mass", [0.2, 0.5, 0.9])
def test_scores_are_pots(mass, episodes):
    partial = pytest.importorskip("ot.partial")
    support, query = episodes(shot=1, n=1, query_nodes=4)
    s, d = (w[0].numpy() for w in cr_weights(support[:, :, 0], query))
    cost = 1 - similarities(support[:, :, 0], query)[0].numpy()
    found = DeepEMD(mass=mass, temperature=1.0)(support, query)[0]
    for q in range(4):
        for c in range(3):
            plan = partial.partial_wasserstein(s[q, c], d[q, c], cost[q, c], m=mass)
            assert np.isclose(plan.sum(), mass)
            expected = 1 - (plan * cost[q, c]).sum() / mass
            assert abs(found[q, c].item() - expected) < 1e-9


@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_of_the_mass_is_what_it_always_was(head, dtype, episodes):
    support, query = episodes(dtype=dtype)
    assert torch.equal(DeepEMD(shot_head=head, mass=1.0)(support, query), DeepEMD(shot_head=head)(support, query))
    assert torch.equal(DeepEMD(shot_head=head, mass=1)(support, query), DeepEMD(shot_head=head)(support, query))


@pytest.mark.parametrize("head", HEADS[:-1], ids=str)
def test_less_mass_matches_better_and_nearly_all_nearly_as_all(head, episodes):
    support, query = episodes(dtype=torch.float32)
    logits = [DeepEMD(shot_head=head, mass=m)(support, query) for m in (1.0, 1 - 1e-7, 0.7, 0.3)]
    assert_close(logits[1], logits[0], rtol=0, atol=1e-4)
    assert (logits[2] >= logits[1] - 1e-4).all()
    assert (logits[3] >= logits[2] - 1e-4).all()
    assert (logits[3] <= 12.5 + 1e-4).all()


def test_a_tiny_mass_is_the_best_pair(episodes):
    support, query = episodes(shot=1)
    found = DeepEMD(mass=1e-6, temperature=1.0)(support, query)
    assert_close(found, similarities(support[:, :, 0], query).amax((-2, -1)))


def test_what_is_clutter_need_not_match():
    """Half of each image the same, the other half something else: with half of the mass they are the same."""
    generator = torch.Generator().manual_seed(0)
    object_, clutter = torch.rand(3, 8, generator=generator), torch.rand(2, 3, 8, generator=generator)
    one, other = (torch.cat([object_, c])[None, None] for c in clutter)
    for mass, same in ((0.5, True), (1.0, False)):
        found = EMDScore(otfew.Exact(), resolve_weights("uniform"), mass=mass)(one, other)
        assert (abs(found.item() - 1) < 1e-6) is same


@pytest.mark.parametrize("head", HEADS[:4], ids=str)
def test_gradients_are_those_of_finite_differences(head, episodes):
    """With weights differentiated too, whose totals stay 1."""
    support, query = episodes(n=1, way=2, shot=2, nodes=3, n_query=2, channels=5)
    inputs = tuple((x + 0.1).requires_grad_() for x in (support, query))
    assert torch.autograd.gradcheck(DeepEMD(weight_gradient=True, shot_head=head, mass=0.63), inputs)


def test_the_constant_plan_has_the_value_and_gradient_of_the_score(episodes):
    support, query = episodes(shot=1)
    support = support[:, :, 0].requires_grad_()
    score = EMDScore(otfew.Exact(), resolve_weights("cross_reference"), mass=0.6)
    free, constant = score(support, query), score.of_constant_plan(support, query)
    assert_close(free, constant)
    gradients = [torch.autograd.grad(x.sum(), support)[0] for x in (free, constant)]
    assert_close(*gradients)


def test_the_structured_fc_is_fitted_with_the_same_mass(episodes):
    support, query = episodes(shot=2)
    head = StructuredFC(iterations=3)
    method = DeepEMD(shot_head=head, mass=0.6)
    layer = head.fit(support, None, method.score, 12.5)
    other = head.fit(support, None, DeepEMD().score, 12.5)
    assert (layer - other).abs().max() > 1e-6
    assert_close(method(support, query), DeepEMD(mass=0.6)(layer[:, :, None], query))


@pytest.mark.parametrize("mass", [0.3, 0.8, 1.0])
def test_the_control_is_never_below(mass, episodes):
    """Each half relaxes one side's marginals; with all of the mass it is chamfer."""
    support, query = episodes(query_nodes=7)
    trimmed = TrimmedChamfer(mass=mass)(support, query)
    assert (trimmed >= DeepEMD(mass=mass)(support, query) - 1e-9).all()
    assert (trimmed >= BASELINES["chamfer"]()(support, query) - 1e-9).all()
    if mass == 1:
        assert_close(trimmed, BASELINES["chamfer"]()(support, query))


def test_the_control_has_the_gradients_of_finite_differences(episodes):
    support, query = episodes(n=1, way=2, shot=2, nodes=3, n_query=2, channels=5)
    inputs = tuple((x + 0.1).requires_grad_() for x in (support, query))
    assert torch.autograd.gradcheck(TrimmedChamfer(mass=0.63), inputs)


def test_from_the_command_line_and_a_score_alone(episodes):
    support, query = episodes()
    made = catalogue.build("deepemd:mass=0.7,shot_head=barycenter")
    assert_close(made(support, query), DeepEMD(mass=0.7, shot_head=BarycenterHead())(support, query))
    similarity = torch.rand(2, 3, 4)
    assert_close(mean_similarity(similarity, mass=1.0), mean_similarity(similarity))
    assert (mean_similarity(similarity, mass=0.5) > mean_similarity(similarity)).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mass": 0.0}, "deepemd: `mass` must be a number above 0 and at most 1, not 0.0"),
        ({"mass": 1.1}, "deepemd: `mass` must be a number above 0 and at most 1"),
        ({"mass": "half"}, "deepemd: `mass` must be a number"),
        ({"mass": 0.5, "solver": "sinkhorn"}, "deepemd: `mass` below 1 needs `solver` 'exact', not 'sinkhorn'"),
        ({"mass": 0.5, "solver": otfew.Exact(mass="min")}, "deepemd: `mass` below 1 needs `solver` 'exact', not Exact"),
        ({"mass": 0.5, "shot_head": "prototype"}, "deepemd: `mass` has no effect with `shot_head` 'prototype'"),
        ({"mass": 0.5, "shot_head": MergeHead("partial")}, "deepemd: `mass` below 1 does not go with MergeHead"),
    ],
)
def test_impossible_masses_are_one_sentence(options, said):
    with pytest.raises(UserError, match=said):
        DeepEMD(**options)
    if options == {"mass": 1.1}:
        with pytest.raises(UserError, match="trimmed-chamfer: `mass` must be"):
            TrimmedChamfer(mass=1.1)
