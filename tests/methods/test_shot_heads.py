"""The heads for several shots against plain loops of the published arithmetic, and their laws."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

import otfew
from otfew import catalogue
from otfew.errors import UserError
from otfew.methods import (
    METHODS,
    BarycenterHead,
    FusionHead,
    KMeansHead,
    MeanHead,
    MergeHead,
    NearestHead,
    PrototypeHead,
    StructuredFC,
)
from otfew.methods.deepemd import HEADS

DeepEMD = METHODS["deepemd"]

UNFITTED = [
    MeanHead(),
    NearestHead(),
    FusionHead(),
    FusionHead("sum"),
    MergeHead(),
    MergeHead("partial"),
    PrototypeHead(),
]

every = pytest.mark.parametrize("head", UNFITTED, ids=repr)

COMBINED = [BarycenterHead(), BarycenterHead("uniform", "medoid"), KMeansHead()]
"""Heads that combine the shots' nodes by more than a formula; their plain loops are in a file of their own."""

every_one = pytest.mark.parametrize("head", UNFITTED + COMBINED, ids=repr)


def few(name):
    """A head by its name; the fitted one takes two steps."""
    return StructuredFC(iterations=2) if name == "sfc" else name


@pytest.fixture
def uneven():
    """A mask for (2, 3, 3) shots: one to three, not only at the end."""
    return torch.tensor([[[1, 0, 0], [1, 1, 0], [0, 1, 1]], [[1, 1, 1], [0, 0, 1], [1, 0, 1]]]).bool()


def pooled_cosine(u, v):
    u, v = u.mean(0), v.mean(0)
    return 12.5 * cosine_similarity(u - u.mean(), v - v.mean(), dim=0)


def plain_logit(head, score, u, shots):
    """Score one query against one class of shots (shot, nodes, channels)."""
    if head.name == "mean":
        return score(u, shots.mean(0))
    if head.name == "prototype":
        return pooled_cosine(u, shots.flatten(0, 1))
    if head.name == "merge":
        return score(u, shots.flatten(0, 1), equal=head.mass == "equal")
    scores = torch.stack([score(u, v) for v in shots])
    if head.name == "nn":
        return scores.max()
    return scores.sum() if head.combine == "sum" else scores.mean()


def plain_logits(head, score, support, query, mask=None):
    """Loop over episodes, queries and classes, with the shots that count."""
    mask = torch.ones(support.shape[:3], dtype=torch.bool) if mask is None else mask
    return torch.stack(
        [
            torch.stack(
                [
                    torch.stack([plain_logit(head, score, u, s[k]) for s, k in zip(classes, kept, strict=True)])
                    for u in queries
                ]
            )
            for classes, kept, queries in zip(support, mask, query, strict=True)
        ]
    )


@every
@pytest.mark.parametrize("sizes", [{}, {"query_nodes": 8}, {"nodes": 8, "query_nodes": 3}], ids=str)
def test_logits_are_those_of_plain_loops(head, sizes, episodes, plain_score):
    """With partial merging, of 3 times 5 nodes with 5 or 8, and of 3 times 8 nodes with 3."""
    support, query = episodes(**sizes)
    expected = plain_logits(head, plain_score, support, query)
    assert_close(DeepEMD(shot_head=head)(support, query), expected, rtol=0, atol=1e-4)


def test_partial_merging_of_fewer_nodes_than_the_query_has(episodes, plain_score):
    """Only as much of the query is matched as the class has nodes, and the rest counts as nothing."""
    head = UNFITTED[5]
    support, query = episodes(shot=2, nodes=2, query_nodes=7)
    expected = plain_logits(head, plain_score, support, query)
    assert_close(DeepEMD(shot_head=head)(support, query), expected, rtol=0, atol=1e-4)


@every
def test_uneven_shots_are_those_of_plain_loops(head, episodes, uneven, plain_score):
    support, query = episodes()
    expected = plain_logits(head, plain_score, support, query, uneven)
    spoiled = support.masked_fill(~uneven[..., None, None], torch.nan)
    assert_close(DeepEMD(shot_head=head)(spoiled, query, support_mask=uneven), expected, rtol=0, atol=1e-4)


@every_one
def test_masked_shots_are_as_if_absent(head, episodes):
    support, query = episodes()
    mask = torch.tensor([[0, 1, 1], [1, 0, 1], [1, 1, 0]]).bool().expand(2, 3, 3)
    kept = support[mask].view(2, 3, 2, *support.shape[3:])
    spoiled = support.masked_fill(~mask[..., None, None], torch.nan)
    logits = DeepEMD(shot_head=head)(spoiled, query, support_mask=mask)
    assert_close(logits, DeepEMD(shot_head=head)(kept, query), rtol=0, atol=1e-12)
    full = torch.ones_like(mask)
    assert_close(DeepEMD(shot_head=head)(support, query, support_mask=full), DeepEMD(shot_head=head)(support, query))


@pytest.mark.parametrize("head", [*UNFITTED[:-1], *COMBINED, StructuredFC()], ids=repr)
def test_one_shot_leaves_nothing_to_choose(head, episodes):
    support, query = episodes(shot=1)
    assert_close(DeepEMD(shot_head=head)(support, query), DeepEMD()(support, query), rtol=0, atol=1e-12)


@every_one
def test_permutations(head, episodes):
    support, query = episodes(shot=2)
    method = DeepEMD(shot_head=head)
    whole = method(support, query)
    classes, queries, nodes = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2]), torch.tensor([4, 2, 0, 1, 3])
    assert_close(method(support[:, classes], query), whole[:, :, classes], rtol=0, atol=1e-12)
    assert_close(method(support[:, :, [1, 0]], query), whole, rtol=0, atol=1e-12)
    assert_close(method(support, query[:, queries]), whole[:, queries], rtol=0, atol=1e-12)
    assert_close(method(support[:, :, :, nodes], query[:, :, nodes.flip(0)]), whole, rtol=0, atol=1e-12)


@every_one
def test_episodes_do_not_see_their_batch_mates(head, episodes, uneven):
    support, query = episodes(n=4)
    mask = torch.cat([uneven, uneven.flip(0)])
    method = DeepEMD(shot_head=head)
    for given in (None, mask):
        whole = method(support, query, support_mask=given)
        for e in range(4):
            alone = method(support[[e]], query[[e]], support_mask=None if given is None else given[[e]])
            assert_close(whole[[e]], alone, rtol=0, atol=1e-12)


def test_the_nearest_support_image_gives_the_label(episodes):
    support, query = episodes(n=3, way=4, shot=3)
    labels = DeepEMD(shot_head="nn")(support, query).argmax(-1)
    single = DeepEMD()(support.flatten(1, 2)[:, :, None], query)
    assert torch.equal(labels, single.argmax(-1) // 3)


def test_a_support_image_finds_itself(episodes):
    """The nearest image to a support image is itself, at the largest score there is."""
    support, _ = episodes(n=1)
    logits = DeepEMD(shot_head="nn")(support, support.flatten(1, 2))
    own = logits[0, torch.arange(9), torch.arange(3).repeat_interleave(3)]
    assert_close(own, torch.full((9,), 12.5, dtype=torch.float64))


def test_partial_merging_matches_better_than_equal_totals(episodes):
    """With uniform weights, what must not be matched can only help: a class of one good and one bad image."""
    support, query = episodes(shot=2, n_query=2)
    equal, partial = (DeepEMD(shot_head=MergeHead(m), weights="uniform")(support, query) for m in ("equal", "partial"))
    assert (partial >= equal - 1e-12).all()
    best = DeepEMD(shot_head="nn", weights="uniform")(support, query)
    assert (partial >= best - 1e-12).all()


@pytest.mark.parametrize("head", UNFITTED[1:], ids=repr)
def test_gradients_are_those_of_gradcheck(head, episodes):
    support, query = episodes(n=1, way=2, shot=2, nodes=3, n_query=2, channels=5)
    inputs = tuple((x + 0.1).requires_grad_() for x in (support, query))
    assert torch.autograd.gradcheck(DeepEMD(weight_gradient=True, shot_head=head), inputs)


@pytest.mark.parametrize("head", UNFITTED[1:5], ids=repr)
def test_gradients_with_uneven_shots_are_those_of_gradcheck(head, episodes):
    support, query = episodes(n=1, way=2, shot=2, nodes=2, n_query=2, channels=5)
    mask = torch.tensor([[[True, True], [False, True]]])
    inputs = tuple((x + 0.1).requires_grad_() for x in (support, query))
    method = DeepEMD(weight_gradient=True, shot_head=head)
    assert torch.autograd.gradcheck(lambda s, q: method(s, q, support_mask=mask), inputs)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("solver", "tolerance"),
    [("pot", 1e-7), ("scipy", 1e-7), ("opencv", 1e-3), (otfew.Sinkhorn(reg=0.002), 0.1), ("pot-sinkhorn", None)],
    ids=str,
)
def test_any_solver_of_dense_costs(head, solver, tolerance, episodes):
    support, query = episodes(n=1, shot=2)
    options = {"shot_head": few(head)}
    logits = DeepEMD(solver=solver, **options)(support, query)
    assert logits.isfinite().all()
    if tolerance:
        assert_close(logits, DeepEMD(**options)(support, query), rtol=0, atol=tolerance)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("weights", ["uniform", "kmeans", otfew.scores.node_weights.MeanShift(2.0)], ids=str)
def test_any_weights(head, weights, episodes):
    support, query = episodes(n=1, shot=2, nodes=7)
    method = DeepEMD(shot_head=few(head), weights=weights)
    logits = method(support, query)
    assert logits.isfinite().all()
    # Clusters of no image depend on which other images there are.
    assert_close(method(support, query[:, :2]), logits[:, :2], rtol=0, atol=1e-12)


def test_unknown_heads_and_forms_are_errors():
    names = "mean, sfc, nn, fusion, merge, prototype, barycenter, kmeans"
    with pytest.raises(UserError, match=rf"deepemd: unknown `shot_head` 'cnn'; there are: {names}"):
        DeepEMD(shot_head="cnn")
    with pytest.raises(UserError, match=r"unknown `combine` 'max'; there are: mean, sum"):
        FusionHead("max")
    with pytest.raises(UserError, match=r"unknown `mass` 'half'; there are: equal, partial"):
        MergeHead("half")
    with pytest.raises(UserError, match=r"partial mass needs `solver` 'exact', not 'scipy'"):
        DeepEMD(shot_head=MergeHead("partial"), solver="scipy")


OLD = [
    (
        {"shot_head": "sfc", "sfc_lr": 20, "sfc_epochs": 2, "sfc_batch_size": 3, "seed": 5},
        StructuredFC(20, 2, 3, None, 5),
    ),
    ({"shot_head": "sfc", "sfc_iterations": 2}, StructuredFC(iterations=2)),
    ({"shot_head": "fusion", "fusion": "sum"}, FusionHead("sum")),
    ({"shot_head": "merge", "merge_mass": "partial"}, MergeHead("partial")),
]


@pytest.mark.parametrize(("options", "head"), OLD, ids=str)
def test_names_of_earlier_releases_still_work_and_say_once_what_to_write(options, head, episodes):
    support, query = episodes(n=1, shot=2)
    with pytest.warns(DeprecationWarning, match=rf"give shot_head={type(head).__name__}\(") as told:
        method = METHODS["deepemd-fcn"](**options)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert method.shot_head == head
    assert torch.equal(method(support, query), DeepEMD(shot_head=head)(support, query))


@pytest.mark.parametrize(("options", "head"), OLD, ids=str)
def test_run_folders_have_the_names_of_earlier_releases_without_a_word(options, head):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method = catalogue.build("deepemd", **options, temperature=3.0)
    assert method.shot_head == head
    assert method.temperature == 3


@pytest.mark.parametrize("make", [DeepEMD, functools.partial(catalogue.build, "deepemd")])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sfc_lr": 10}, "`sfc_lr` has no effect with `shot_head` 'mean': it is an option of 'sfc'"),
        ({"shot_head": "nn", "fusion": "sum"}, "`fusion` has no effect with `shot_head` 'nn'"),
        ({"shot_head": "sfc", "merge_mass": "partial"}, "`merge_mass` has no effect with `shot_head` 'sfc'"),
        ({"shot_head": StructuredFC(), "sfc_lr": 10}, "`sfc_lr` goes into the object that `shot_head` is"),
        ({"shot_head": "sfc", "sfc_lr": -1}, "`sfc_lr` must be a number above 0, not -1"),
        ({"shot_head": "sfc", "sfc_epochs": 2.5}, "`sfc_epochs` must be a whole number"),
    ],
)
def test_options_without_effect_are_refused(make, options, said):
    with pytest.raises(UserError, match=f"deepemd: {said}"):
        make(**options)
