"""Laws of LST, PT-MAP and their heads, what they refuse, and gradients; their parity is tested in its own file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from otfew.errors import UserError
from otfew.method import FewShotMethod
from otfew.methods import METHODS, centre_heads, lst
from otfew.methods.latent_space import latent_space, power_transform
from otfew.methods.lst import HEADS
from otfew.methods.presets import published

VARIANTS = [(name, {"head": head}) for name in ("lst", "pt-map") for head in HEADS]
VARIANTS += [("lst", {"class_prior": "estimated"}), ("pt-map", {"class_prior": "estimated"})]
every = pytest.mark.parametrize(("name", "options"), VARIANTS)

N, WAY, SHOT, QUERIES = 4, 3, 3, 12


@pytest.fixture
def batch(episodes):
    """Four episodes of 3-way 3-shot with 12 queries, 3 nodes, 24 channels."""
    return episodes(n=N, way=WAY, shot=SHOT, nodes=3, n_query=QUERIES, channels=24)


@pytest.fixture
def uneven():
    rows = [["101", "111", "010"], ["111", "111", "111"], ["001", "111", "110"], ["100", "010", "001"]]
    return torch.tensor([[[c == "1" for c in shots] for shots in classes] for classes in rows])


def make(name, options, **more):
    return METHODS[name](**options, **more)


@every
def test_contract(name, options, batch):
    method = make(name, options)
    assert isinstance(method, FewShotMethod)
    assert (method.name, method.transductive, method.pools, method.needs_nonnegative) == (name, True, True, True)
    assert method.preset_of == ""
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-3)):
        support, query = (x.to(dtype) for x in batch)
        logits = method(support, query)
        assert logits.shape == (N, QUERIES, WAY)
        assert logits.dtype == dtype
        assert_close(logits.double(), method(*batch), rtol=tolerance, atol=tolerance)


@every
def test_an_episode_does_not_depend_on_its_batch_mates(name, options, batch, uneven):
    support, query = batch
    # A batch-mate that takes long to solve.
    support[1], query[1] = support[1] ** 4, query[1] ** 4
    together = make(name, options)(support, query, support_mask=uneven)
    for e in range(N):
        one = slice(e, e + 1)
        alone = make(name, options)(support[one], query[one], support_mask=uneven[one])
        assert_close(alone, together[one], rtol=1e-6, atol=1e-6)


@every
def test_chunks_change_nothing(name, options, batch, uneven, monkeypatch):
    prior = torch.tensor([0.5, 0.3, 0.2]).expand(N, -1)
    whole = make(name, options)(*batch, support_mask=uneven, class_prior=prior)
    monkeypatch.setattr(lst, "TRANSFORMED", 1)
    monkeypatch.setattr(lst, "MAPPED", 1)
    assert_close(make(name, options)(*batch, support_mask=uneven, class_prior=prior), whole, rtol=1e-6, atol=1e-6)


@every
def test_points_and_their_inner_products_serve_alike(name, options, batch, monkeypatch):
    # Where the search for a plan stops is a matter of rounding, so it goes on to the end here.
    monkeypatch.setattr(centre_heads, "TOLERANCE", 1e-9)
    by_products = make(name, options)(*batch)
    for module in (lst, centre_heads):
        monkeypatch.setattr(module, "fewer_products", lambda n, channels: False)
    assert_close(make(name, options)(*batch), by_products, rtol=1e-6, atol=1e-6)


@every
def test_classes_shots_and_queries_in_any_order(name, options, batch, uneven):
    support, query = batch
    classes, shots, queries = torch.tensor([2, 0, 1]), torch.tensor([1, 2, 0]), torch.randperm(QUERIES)
    prior = torch.tensor([0.5, 0.3, 0.2]).expand(N, -1)
    logits = make(name, options)(support, query, support_mask=uneven, class_prior=prior)
    moved = make(name, options)(
        support[:, classes][:, :, shots], query[:, queries],
        support_mask=uneven[:, classes][:, :, shots], class_prior=prior[:, classes],
    )  # fmt: skip
    assert_close(moved, logits[:, queries][..., classes], rtol=1e-6, atol=1e-6)


@every
def test_masked_shots_are_as_if_absent(name, options, batch):
    support, query = batch
    mask = torch.tensor([True, False, True]).expand(N, WAY, SHOT)
    spoiled = support.clone()
    spoiled[:, :, 1] = torch.nan
    expected = make(name, options)(support[:, :, [0, 2]], query)
    assert_close(make(name, options)(spoiled, query, support_mask=mask), expected, rtol=1e-6, atol=1e-6)


@every
def test_only_the_average_of_nodes_matters(name, options, batch):
    pooled = make(name, options)(*(x.mean(-2, keepdim=True) for x in batch))
    assert_close(make(name, options)(*batch), pooled, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["lst", "pt-map"])
def test_map_keeps_the_shares_it_is_given(name, batch):
    def shares(**call):
        return METHODS[name]()(*batch, **call).softmax(-1).mean(1)

    assert_close(shares(), torch.full((N, WAY), 1 / WAY, dtype=torch.float64), rtol=0, atol=1e-6)
    counts = torch.tensor([[6, 4, 2], [1, 1, 10], [4, 4, 4], [12, 0, 0]])
    assert_close(shares(class_prior=counts), counts / 12.0, rtol=0, atol=1e-6, check_dtype=False)


def test_a_given_prior_overrides_the_constructors(batch):
    prior = torch.tensor([0.5, 0.3, 0.2]).expand(N, -1)
    estimated = METHODS["lst"](class_prior="estimated")
    assert_close(estimated(*batch, class_prior=prior), METHODS["lst"]()(*batch, class_prior=prior))


@pytest.mark.parametrize("head", ["map", "gmm"])
def test_a_class_without_queries_takes_none_and_logits_stay_finite(head, batch):
    prior = torch.tensor([0.5, 0.5, 0.0]).expand(N, -1)
    logits = METHODS["lst"](head=head)(*batch, class_prior=prior)
    assert logits.isfinite().all()
    assert (logits.argmax(-1) != 2).all()


def test_slack_lies_between_a_hard_prior_and_none(batch):
    def assigned(**options):
        return METHODS["lst"](n_steps=0, **options)(*batch).softmax(-1)

    hard, free = assigned(), assigned(head="ncm")
    assert_close(assigned(class_prior="estimated", slack=1e4), hard, rtol=0, atol=1e-3)
    assert_close(assigned(class_prior="estimated", slack=1e-4), free, rtol=0, atol=1e-3)
    # The optimum's own condition: shares are uniform ones times exp(-f / rho), f from a row of the plan.
    slack = 0.7
    plan = assigned(class_prior="estimated", slack=slack)
    shares = plan.mean(1)
    gibbs = plan.log() - free.log()
    f = gibbs - gibbs.mean(-1, keepdim=True)
    assert f.std(1).max() < 1e-6
    expected = (-f.mean(1) / slack).softmax(-1)
    assert_close(shares, expected, rtol=0, atol=1e-6)
    assert (shares - 1 / WAY).abs().max() > 1e-3


def by_loop(points, n_support, head, lam, n_steps, shares):
    """K-means or EM on one episode's transformed points (n, channels), three shots a class, in loops."""
    support, query = points[:n_support], points[n_support:]
    centres = np.array([support[SHOT * c : SHOT * (c + 1)].mean(0) for c in range(WAY)])
    for step in range(n_steps + 1):
        distances = np.array([[((q - c) ** 2).sum() for c in centres] for q in query])
        if step == n_steps:
            break
        if head == "kmeans":
            members = np.eye(WAY)[distances.argmin(1)]
        else:
            members = np.array([w / w.sum() for w in shares * np.exp(-lam * distances)])
        for c in range(WAY):
            total = support[SHOT * c : SHOT * (c + 1)].sum(0) + members[:, c] @ query
            centres[c] = total / (SHOT + members[:, c].sum())
    return distances


@pytest.mark.parametrize("name", ["lst", "pt-map"])
@pytest.mark.parametrize(("head", "n_steps"), [("ncm", 0), ("kmeans", 1), ("kmeans", 30), ("gmm", 3)])
def test_other_heads_by_loops(name, head, n_steps, batch):
    shares = np.array([0.6, 0.3, 0.1])
    prior = torch.from_numpy(shares).expand(N, -1)
    logits = METHODS[name](head=head, n_steps=n_steps, lam=7.0)(*batch, class_prior=prior)
    support, query = batch[0].mean(-2).flatten(1, 2), batch[1].mean(-2)
    transform = latent_space if name == "lst" else power_transform
    for e, points in enumerate(torch.cat(transform(support, query), 1).numpy()):
        expected = -7 * torch.from_numpy(by_loop(points, WAY * SHOT, head, 7.0, n_steps, shares))
        if head == "gmm":
            expected = (expected + prior[0].log()).log_softmax(-1)
        assert_close(logits[e], expected)


@every
def test_gradients_are_those_of_finite_differences(name, options, batch):
    method = make(name, options, n_steps=3)
    support, query = batch
    weights = torch.randn(N, QUERIES, WAY, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def loss(s, q):
        return (method(s, q).softmax(-1) * weights).sum()

    leaves = (support.clone().requires_grad_(), query.clone().requires_grad_())
    grads = torch.autograd.grad(loss(*leaves), leaves)
    generator = torch.Generator().manual_seed(2)
    # Features at zero stay there: the power transform is steep below.
    moves = [torch.rand(x.shape, generator=generator, dtype=x.dtype) * (x > 0.1) for x in (support, query)]
    step = 1e-4
    ahead, behind = (loss(*(x + sign * step * m for x, m in zip(batch, moves, strict=True))) for sign in (1, -1))
    expected = (ahead - behind) / (2 * step)
    found = sum((g * m).sum() for g, m in zip(grads, moves, strict=True))
    assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert abs(expected) > 0.05


@every
def test_gradients_are_finite_at_dead_images(name, options, batch, uneven):
    support, query = (x.clone() for x in batch)
    support[0, 0, 0], query[0, 1] = 0, 0
    query[1, 2] = support[1, 0, 0]
    query[2] = query[2, :1]
    support.requires_grad_()
    query.requires_grad_()
    make(name, options)(support, query, support_mask=uneven)[..., 0].sum().backward()
    for leaf in (support, query):
        assert leaf.grad.isfinite().all()
    assert (support.grad[~uneven] == 0).all()


def test_signed_features_without_a_power(batch):
    support, query = (x - 0.5 for x in batch)
    logits = METHODS["lst"](beta=1.0)(support, query)
    # Joint centring takes a common shift away; only delta sees it.
    moved = METHODS["lst"](beta=1.0, delta=0)(support, query)
    assert logits.isfinite().all()
    assert_close(moved, METHODS["lst"](beta=1.0, delta=0)(*batch), rtol=1e-6, atol=1e-6)


def spoil(batch, where, value):
    support, query = (x.clone() for x in batch)
    (support if where == "support" else query)[2, 1] = value
    return support, query


@pytest.mark.parametrize("name", ["lst", "pt-map"])
@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (
            "support",
            -0.5,
            r"support holds -0.5 in episode 2, but the power transform x\^0.5 needs features of at",
        ),
        ("query", -0.5, r"query holds -0.5 in episode 2.*ends? in ReLU, or beta=1"),
        ("support", torch.nan, "support holds a NaN or an infinity in episode 2"),
        ("query", torch.inf, "query holds a NaN or an infinity in episode 2"),
    ],
)
def test_bad_features_are_refused(name, where, value, said, batch, monkeypatch):
    monkeypatch.setattr(lst, "TRANSFORMED", 1)
    with pytest.raises(ValueError, match=said):
        METHODS[name]()(*spoil(batch, where, value))


@pytest.mark.parametrize("name", ["lst", "pt-map"])
def test_bad_calls_are_refused(name, batch):
    support, query = batch
    method = METHODS[name]()
    with pytest.raises(ValueError, match=f"{name} classifies an episode's queries by each other and needs 2, not 1"):
        method(support, query[:, :1])
    mask = torch.ones(N, WAY, SHOT, dtype=torch.bool)
    mask[3, 1] = False
    with pytest.raises(ValueError, match="leaves class 1 of episode 3 without a shot"):
        method(support, query, support_mask=mask)
    with pytest.raises(ValueError, match="support is empty"):
        method(support[:, :, :0], query)
    with pytest.raises(ValueError, match="support must be"):
        method(support[0], query)
    for prior, said in (
        (torch.ones(N, WAY + 1), r"must be \(episodes, way\) = \(4, 3\), not \(4, 4\)"),
        (torch.tensor([[1.0, 1, 1], [1, 1, -1], [1, 1, 1], [1, 1, 1]]), "`class_prior` of episode 1"),
        (torch.tensor([[1.0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 1, 1]]), "`class_prior` of episode 2"),
        (torch.full((N, WAY), torch.nan), "`class_prior` of episode 0"),
        (torch.full((N, WAY), torch.inf), "`class_prior` of episode 0"),
    ):
        with pytest.raises(ValueError, match=said):
            method(support, query, class_prior=prior)


def test_published_defaults():
    """Five-shot CUB of the paper's table 1; PT-MAP with the authors' values for it."""
    own = {"alpha": 0.2, "n_steps": 20, "lam": 10.0, "head": "map", "class_prior": "uniform", "slack": 0.3}
    for name, options in (
        ("lst", {"beta": 0.5, "delta": 0.3, "gamma": 0.9, "joint": True, **own}),
        ("pt-map", {"beta": 0.5, "delta": 1, "gamma": 1, "joint": False, **own}),
    ):
        assert vars(METHODS[name]()) == options
    for name in ("lst", "pt-map"):
        given = published(name, "cub", 5)
        assert {option: getattr(METHODS[name](), option) for option in given} == given


def test_published_options_for_a_data_set_come_with_the_class():
    """Table 1 of the paper: one shot of CIFAR-FS; shots between are served by those of five, and options can differ."""
    one = vars(METHODS["lst"].published("cifar-fs"))
    assert [one[name] for name in ("beta", "delta", "gamma", "alpha", "n_steps", "lam")] == [
        0.5,
        0.3,
        0.98,
        0.3,
        20,
        10,
    ]
    assert vars(METHODS["lst"].published("cub", 3)) == vars(METHODS["lst"].published("cub", 5))
    other = METHODS["pt-map"].published("cub", 1, head="ncm")
    assert (type(other), other.alpha, other.n_steps, other.head) == (METHODS["pt-map"], 0.3, 30, "ncm")
    for arguments, said in (
        (("mini",), "unknown `source` 'mini'; there are: cifar-fs, cub."),
        (("cub", 0), "`shot` must be"),
    ):
        with pytest.raises(UserError, match=said):
            METHODS["lst"].published(*arguments)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"beta": 0}, "`beta` must be"),
        ({"delta": -0.1}, "`delta` must be"),
        ({"gamma": float("nan")}, "`gamma` must be"),
        ({"alpha": 0}, "`alpha` must be"),
        ({"alpha": 1.5}, "`alpha` must be"),
        ({"n_steps": -1}, "`n_steps` must be"),
        ({"n_steps": 2.5}, "`n_steps` must be"),
        ({"lam": 0}, "`lam` must be"),
        ({"slack": 0}, "`slack` must be"),
        ({"head": "tails"}, "unknown `head` 'tails'; there are: map, kmeans, gmm, ncm"),
        ({"class_prior": "true"}, "unknown `class_prior` 'true'"),
    ],
)
def test_options_out_of_range_are_named(options, said):
    with pytest.raises(UserError, match=f"^lst: {said}"):
        METHODS["lst"](**options)
