"""Domain transport: POT's maps episode by episode, plain loops, laws, gradients by finite differences, refusals."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from otfew import catalogue
from otfew.errors import UserError
from otfew.methods import METHODS
from otfew.methods.domain_transport import PLANS
from otfew.scores.domains import two_domains


@pytest.fixture
def episodes(episodes):
    """Draw three episodes of four classes."""
    return functools.partial(episodes, n=3, way=4, nodes=6, n_query=5, channels=8)


@pytest.fixture
def uneven():
    """Give a mask for (3, 4, 3) shots."""
    return torch.tensor([[[1, 0, 1], [1, 1, 1], [0, 1, 0], [0, 0, 1]], [[1, 1, 1]] * 4, [[0, 0, 1]] * 4]).bool()


every = pytest.mark.parametrize("plan", PLANS)


def made(plan, step=1.0, **options):
    return METHODS["domain-transport"](plan=plan, step=step, **options)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def by_hand(ot, method, support, query, prior):
    """Answer one episode with POT: (n_query, way)."""
    x, y = unit(support.mean(-2).numpy()), unit(query.mean(-2).numpy())
    way, shot = x.shape[:2]
    x, labels = x.reshape(way * shot, -1), np.repeat(np.arange(way), shot)
    a, b = np.repeat(prior / shot, shot), np.full(len(y), 1 / len(y))
    source, target = x - a @ x, y - y.mean(0)
    cost = ot.dist(source, target)
    cost = cost / (a @ cost @ b)
    if method.plan == "exact":
        plan = ot.emd(a, b, cost)
    elif method.plan == "entropic":
        plan = ot.sinkhorn(a, b, cost, method.reg, numItermax=10_000, stopThr=1e-12)
    elif method.plan == "unbalanced":
        prices = (method.rho, float("inf"))
        plan = ot.unbalanced.sinkhorn_unbalanced(
            a, b, cost, method.reg, prices, reg_type="kl", numItermax=10_000, stopThr=1e-14
        )
    else:
        plan = np.outer(a, b)
        # POT's own conditional gradient ends short of the optimum after a few steps, where its line search fails.
        for k in range(300):
            norms = np.stack([np.linalg.norm(plan[labels == c], axis=0) for c in labels])
            found = ot.sinkhorn(a, b, cost + method.reg_classes * plan / norms, method.reg, stopThr=1e-10)
            plan = plan + 2 / (k + 2) * (found - plan)
    moved = plan @ target / plan.sum(1, keepdims=True) + y.mean(0)
    means = moved.reshape(way, shot, -1).mean(1)
    return -12.5 * ((y[:, None] - means) ** 2).sum(-1)


@every
def test_answers_are_those_of_pots_plans(plan, episodes):
    ot = pytest.importorskip("ot")
    support, query = episodes(n=2, n_query=9)
    prior = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    method = made(plan, reg=0.2, reg_classes=0.1)
    logits = method(support, query, class_prior=prior)
    for e in range(2):
        expected = by_hand(ot, method, support[e], query[e], prior[e].numpy())
        np.testing.assert_allclose(logits[e].numpy(), expected, atol=1e-3)


def test_a_step_goes_a_part_of_the_way(episodes):
    support, query = episodes()
    domains = two_domains("x", support.mean(-2), query.mean(-2), None, True)
    none, half, whole = (made("exact", step=step).moved(domains, domains.uniform()) for step in (0.0, 0.5, 1.0))
    assert_close(half, (none + whole) / 2)


@every
def test_no_step_is_mean_alignment(plan, episodes, uneven):
    support, query = episodes()
    control = catalogue.build("mean-alignment")(support, query, support_mask=uneven)
    assert_close(made(plan, step=0.0)(support, query, support_mask=uneven), control)


def test_equal_domains_change_nothing_at_the_exact_optimum(episodes):
    support, _ = episodes()
    query = support.flatten(1, 2)[:, torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    domains = two_domains("x", support.mean(-2), query.mean(-2), None, True)
    moved = made("exact").moved(domains, domains.uniform())
    assert_close(moved, domains.shots.flatten(1, 2))
    plain = METHODS["deepemd"]()(support, query)
    assert_close(made("exact", head="deepemd")(support, query), plain)


@every
def test_a_shift_of_the_queries_is_followed(plan, episodes):
    """Each domain is taken about its own mean, so answers stay the same, also where mass may be lost."""
    support, query = episodes()
    method = made(plan, normalise=False)
    shift = torch.linspace(-3, 5, 8, dtype=torch.float64)
    assert_close(method(support, query + shift), method(support, query), rtol=1e-5, atol=1e-5)


def test_of_one_shot_the_class_term_changes_nothing(episodes):
    support, query = episodes(shot=1, n_query=9)
    entropic = made("entropic", reg=0.2)(support, query)
    assert_close(made("class-regularised", reg=0.2, reg_classes=0.5)(support, query), entropic, rtol=0, atol=1e-3)
    support, query = episodes(shot=3, n_query=9)
    entropic = made("entropic", reg=0.2)(support, query)
    other = made("class-regularised", reg=0.2, reg_classes=0.5)(support, query)
    assert (entropic - other).abs().max() > 0.01


def test_a_high_price_of_other_shares_is_the_entropic_plan(episodes):
    support, query = episodes(n_query=9)
    hard, soft = made("entropic", reg=0.2)(support, query), made("unbalanced", reg=0.2, rho=1e5)(support, query)
    assert_close(soft, hard, rtol=0, atol=1e-3)


def test_relaxed_shares_leave_rare_classes_their_own_queries():
    """Of classes apart and 12 queries to 2, equal shares move the rare class onto the other's queries."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.eye(2, 6, dtype=torch.float64)
    support = (centres + 0.05 * torch.randn(2, 6, generator=generator, dtype=torch.float64))[None, :, None, None]
    truth = torch.tensor([0] * 12 + [1] * 2)
    query = (centres[truth] + 0.05 * torch.randn(14, 6, generator=generator, dtype=torch.float64))[None, :, None]
    domains = two_domains("x", support.mean(-2), query.mean(-2), None, True)
    goal = domains.queries[0, truth == 1].mean(0)
    away = {}
    for name, method in {"hard": made("exact"), "soft": made("unbalanced", reg=0.02, rho=0.02)}.items():
        away[name] = float((method.moved(domains, domains.uniform())[0, 1] - goal).norm())
    known = made("exact").moved(domains, torch.tensor([[12.0, 2.0]], dtype=torch.float64) / 14)[0, 1]
    assert away["hard"] > 0.4 > 0.2 > away["soft"]
    assert_close(known, goal)


def test_nodes_move_as_their_mean_does(episodes, monkeypatch):
    """All nodes of an image are shifted alike, and the mean of the moved ones points where the plan says."""
    support, query = episodes()
    seen = {}

    class Seen:
        def __call__(self, support, query, *, support_mask):
            seen["support"] = support
            return query.new_zeros(3, 5, 4)

    monkeypatch.setattr("otfew.methods.domain_transport.DeepEMD", Seen)
    method = made("entropic", head="deepemd", reg=0.2)
    method(support, query)
    shift = seen["support"] - support
    assert_close(shift, shift[:, :, :, :1].expand_as(shift))
    domains = two_domains("x", support.mean(-2), query.mean(-2), None, True)
    moved = method.moved(domains, domains.uniform()).reshape(3, 4, 3, 8)
    lengths = support.mean(-2).norm(dim=-1, keepdim=True)
    assert_close(seen["support"].mean(-2) / lengths, moved)


def test_deepemd_sees_nodes_and_the_others_their_mean(episodes, uneven):
    support, query = episodes()
    method = made("entropic", head="deepemd")
    assert (method.pools, made("entropic").pools) == (False, True)
    spoiled = support.masked_fill(~uneven[..., None, None], torch.nan)
    logits = method(support, query, support_mask=uneven)
    assert_close(method(spoiled, query, support_mask=uneven), logits)
    pooled = method(support.mean(-2, keepdim=True), query.mean(-2, keepdim=True), support_mask=uneven)
    assert (pooled - logits).abs().max() > 1e-3


def test_logistic_is_the_baseline_on_moved_shots(episodes, uneven):
    support, query = episodes()
    domains = two_domains("x", support.mean(-2), query.mean(-2), uneven, True)
    moved = made("entropic").moved(domains, domains.uniform()).reshape(3, 4, 3, 1, 8)
    expected = catalogue.build("logistic")(moved, query, support_mask=uneven)
    assert_close(made("entropic", head="logistic")(support, query, support_mask=uneven), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match="at least two classes"):
        made("entropic", head="logistic")(support[:, :1], query)


@pytest.mark.parametrize("plan", ["entropic", "unbalanced"])
def test_gradients(plan, episodes):
    support, query = (part.requires_grad_() for part in episodes(n=1, way=2, shot=2, nodes=2, n_query=3, channels=3))
    method = made(plan, reg=0.5)
    # Sinkhorn stops at a tolerance, below which differences say nothing.
    assert torch.autograd.gradcheck(method, (support, query), eps=1e-3, atol=2e-2, rtol=2e-2, fast_mode=True)


def test_shares_may_be_estimated(episodes):
    """From the queries, without any of their labels: classes that most queries are near to weigh more."""
    support, query = episodes(n=1, n_query=12)
    many = torch.cat([support[:, 0].flatten(1, 1).mean(1, keepdim=True).expand(-1, 9, -1, -1), query[:, :3]], 1)
    domains = two_domains("x", support.mean(-2), many.mean(-2), None, True)
    shares = domains.estimated(12.5)
    assert_close(shares.sum(-1), torch.ones(1, dtype=torch.float64))
    assert int(shares.argmax()) == 0
    told = made("exact")(support, many, class_prior=shares)
    assert_close(made("exact", class_prior="estimated")(support, many), told)


def test_equal_images_are_answered(episodes):
    """Without any spread there is nothing to divide by; a class of no share moves as the mean does."""
    support, query = episodes()
    same = torch.ones_like(support), torch.ones_like(query)
    for plan in PLANS:
        assert made(plan)(*same).isfinite().all()
    prior = torch.tensor([1.0, 0, 1, 1]).expand(3, 4)
    assert made("exact")(support, query, class_prior=prior).isfinite().all()


@every
def test_refusals(plan, episodes):
    support, query = episodes()
    method = made(plan)
    with pytest.raises(UserError, match="domain-transport looks at an episode's queries together and needs 2, not 1"):
        method(support, query[:, :1])
    spoiled = query.clone()
    spoiled[1, 2, 0, 0] = torch.nan
    with pytest.raises(UserError, match="query holds a NaN or an infinity in episode 1"):
        method(support, spoiled)
    spoiled = support.clone()
    spoiled[2, 0, 0, 0, 0] = torch.inf
    with pytest.raises(UserError, match="support holds a NaN or an infinity in episode 2"):
        method(spoiled, query)
    for prior in (torch.ones(3, 3), torch.zeros(3, 4), torch.full((3, 4), -1.0), torch.full((3, 4), torch.nan)):
        with pytest.raises(UserError, match="`class_prior`"):
            method(support, query, class_prior=prior)
