"""TIM and alpha-TIM against autograd and torch's Adam, episode by episode, in float64."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from otfew.baselines import _information as information
from otfew.baselines._information import LossGradient, Objective, maximise, power_slope, steps_in_torch
from otfew.baselines.alpha_tim import AlphaTIM
from otfew.baselines.tim import TIM
from otfew.errors import UserError

STEPS = 60
LR = 0.01


def entropy(p, alpha):
    return -(p * p.log()).sum(-1) if alpha == 1 else (1 - (p**alpha).sum(-1)) / (alpha - 1)


def agreement(p, prior, alpha):
    """Minus the divergence from the prior, up to a constant."""
    prior = prior.clamp_min(1e-3)
    if alpha == 1:
        return -(p * (p / prior).log()).sum()
    return entropy(p, alpha) + alpha / (alpha - 1) * (prior ** (alpha - 1) * p).sum()


def loss(weights, shots, labels, query, prior, alpha, terms):
    temperature, support, marginal, conditional = terms

    def scores(x):
        return -temperature / 2 * (x[:, None] - weights).square().sum(-1)

    errors = torch.nn.functional.cross_entropy(scores(shots), labels, reduction="none")
    by_class = torch.stack([errors[labels == c].mean() for c in range(len(weights))])
    p = scores(query).softmax(-1)
    total = support * by_class.mean() + conditional * entropy(p, alpha).mean()
    return total - marginal * agreement(p.mean(0), prior, alpha)


def looped(support, query, mask, prior, alpha, terms):
    logits = []
    for e in range(len(support)):
        labels = mask[e].nonzero()[:, 0]
        shots = normalize(support[e].mean(-2)[mask[e]], dim=-1)
        vectors = normalize(query[e].mean(-2), dim=-1)
        start = torch.stack([shots[labels == c].mean(0) for c in range(support.shape[1])])
        if prior == "uniform":
            share = torch.full((len(start),), 1 / len(start), dtype=start.dtype)
        elif prior == "estimated":
            distances = (vectors[:, None] - start).square().sum(-1)
            share = (-terms[0] / 2 * distances).softmax(-1).mean(0)
        else:
            share = prior[e] / prior[e].sum()
        weights = start.clone().requires_grad_()
        adam = torch.optim.Adam([weights], lr=LR)
        for _ in range(STEPS):
            adam.zero_grad()
            loss(weights, shots, labels, vectors, share, alpha[e], terms).backward()
            adam.step()
        logits.append(-terms[0] / 2 * (vectors[:, None] - weights.detach()).square().sum(-1))
    return torch.stack(logits)


PRIORS = {
    "uniform": "uniform",
    "estimated": "estimated",
    # Counts, one class absent.
    "given": torch.tensor([[2.0, 1, 1, 1], [5, 0, 3, 2], [1, 1, 1, 9]], dtype=torch.float64),
}


@pytest.mark.parametrize("prior", PRIORS)
def test_tim_is_adam_on_its_loss(prior, episodes, uneven):
    support, query = episodes()
    expected = looped(support, query, uneven, PRIORS[prior], [1, 1, 1], (15.0, 0.1, 1.0, 0.1))
    method = TIM(lr=LR, n_steps=STEPS, class_prior="estimated" if prior == "estimated" else "uniform")
    given = PRIORS[prior] if prior == "given" else None
    logits = method(support, query, support_mask=uneven, class_prior=given)
    assert_close(logits, expected, rtol=1e-7, atol=1e-7)
    assert (logits - TIM(n_steps=1)(support, query, support_mask=uneven)).abs().max() > 0.1


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("alpha", [0.5, 2, 7])
def test_alpha_tim_is_adam_on_its_loss(prior, alpha, episodes, uneven):
    support, query = episodes()
    expected = looped(support, query, uneven, PRIORS[prior], [alpha] * 3, (15.0, 1.0, 1.0, 1.0))
    method = AlphaTIM(alpha, lr=LR, n_steps=STEPS, class_prior="estimated" if prior == "estimated" else "uniform")
    given = PRIORS[prior] if prior == "given" else None
    logits = method(support, query, support_mask=uneven, class_prior=given)
    assert_close(logits, expected, rtol=1e-7, atol=1e-7)


def test_published_defaults():
    assert TIM().objective == Objective(15.0, 0.1, 1.0, 0.1)
    assert AlphaTIM().objective == Objective(15.0, 1.0, 1.0, 1.0)
    assert (TIM().lr, TIM().n_steps) == (AlphaTIM().lr, AlphaTIM().n_steps) == (1e-4, 1000)


def test_alpha_goes_by_the_shots_of_each_episode(episodes):
    """2 for one shot, 7 from five on, 5 between; also on average over uneven classes."""
    support, query = episodes(n=6, shot=6)
    mask = torch.zeros(6, 4, 6, dtype=torch.bool)
    for e, shots in enumerate((1, 2, 4, 5, 6)):
        mask[e, :, :shots] = True
    mask[5, 0], mask[5, 1:, :4] = True, True
    logits = AlphaTIM(n_steps=5, lr=LR)(support, query, support_mask=mask)
    for e, alpha in enumerate((2.0, 5.0, 5.0, 7.0, 7.0, 5.0)):
        one = slice(e, e + 1)
        alone = AlphaTIM(alpha, n_steps=5, lr=LR)(support[one], query[one], support_mask=mask[one])
        assert_close(logits[one], alone)
        other = AlphaTIM(12.0 - alpha, n_steps=5, lr=LR)(support[one], query[one], support_mask=mask[one])
        assert (logits[one] - other).abs().max() > 1e-4


def problem(seed=0, episodes=3, way=3, shots=5, n_query=7, channels=6):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    support, query = normal(episodes, shots, channels), normal(episodes, n_query, channels)
    labels = torch.zeros(episodes, shots, way, dtype=torch.float64)
    labels[:, torch.arange(shots), torch.arange(shots) % way] = 1 / shots
    labels[0, -1] = 0
    prior = torch.rand(episodes, way, generator=g, dtype=torch.float64)
    alpha = torch.tensor([1.0, 2.5, 0.7], dtype=torch.float64)[:episodes]
    return normal(episodes, way, channels), support, labels, query, prior / prior.sum(-1, keepdim=True), alpha


def test_gradient_is_autograds():
    weights, support, labels, query, prior, alpha = problem()
    terms = (2.0, 0.3, 1.1, 0.7)
    pull = power_slope(prior.log(), alpha[:, None])
    for e in range(3):
        own = (x[e : e + 1] for x in (weights, support, labels, query, pull, alpha))
        gradient = LossGradient(*own, Objective(*terms), bool(alpha[e] == 1))()[0]
        w = weights[e].clone().requires_grad_()

        def log_p(x, w=w):
            return (-terms[0] / 2 * (x[:, None] - w).square().sum(-1)).log_softmax(-1)

        p = log_p(query[e]).exp()
        a = float(alpha[e])
        value = -terms[1] * (labels[e] * log_p(support[e])).sum() + terms[3] * entropy(p, a).mean()
        value = value - terms[2] * agreement(p.mean(0), prior[e], a)
        assert_close(gradient, torch.autograd.grad(value, w)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [{}, {"shots": 8, "n_query": 8}, {"shots": 1, "n_query": 1, "way": 2, "channels": 1}])
def test_compiled_steps_are_those_in_torch(dtype, sizes):
    start, support, labels, query, prior, alpha = (x.to(dtype) for x in problem(**sizes))
    objective = Objective(2.0, 0.3, 1.1, 0.7)
    compiled = maximise(start, support, labels, query, prior, alpha, objective, 0.01, 30)
    pull = power_slope(prior.clamp_min(1e-3).log(), alpha[:, None])
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    plain = steps_in_torch(start, support, labels, query, pull, alpha, objective, 0.01, 30)
    assert_close(compiled, plain, rtol=tolerance, atol=tolerance)
    assert (compiled - start).abs().max() > 0.1


def test_the_way_for_other_devices_gives_the_same_logits(episodes, uneven, monkeypatch):
    support, query = episodes()
    logits = TIM(n_steps=50)(support, query, support_mask=uneven)
    monkeypatch.setattr(information, "_compiled", steps_in_torch)
    assert_close(TIM(n_steps=50)(support, query, support_mask=uneven), logits)


def test_alpha_tim_at_one_is_tim(episodes):
    support, query = episodes()
    same = {"support_weight": 0.1, "conditional_weight": 0.1, "lr": LR, "n_steps": STEPS}
    tim = TIM(lr=LR, n_steps=STEPS)(support, query)
    assert torch.equal(AlphaTIM(1.0, **same)(support, query), tim)
    for alpha in (1 - 1e-6, 1 + 1e-6):
        assert_close(AlphaTIM(alpha, **same)(support, query), tim, rtol=1e-4, atol=1e-4)
    assert (AlphaTIM(2.0, **same)(support, query) - tim).abs().max() > 1e-2


@pytest.mark.parametrize("kind", [TIM, AlphaTIM])
def test_a_uniform_prior_is_the_default_and_scale_does_not_matter(kind, episodes):
    support, query = episodes()
    method = kind(n_steps=20)
    assert torch.equal(method(support, query, class_prior=torch.full((3, 4), 15)), method(support, query))
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1]).expand(3, 4)
    logits = method(support, query, class_prior=prior)
    assert_close(method(support, query, class_prior=75 * prior), logits)
    estimated = kind(n_steps=20, class_prior="estimated")
    assert torch.equal(estimated(support, query, class_prior=prior), logits)
    assert not torch.equal(estimated(support, query), method(support, query))


@pytest.mark.parametrize(("kind", "tolerance"), [(TIM, 2e-4), (partial(AlphaTIM, 2.0), 5e-3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_predictions_follow_the_prior(kind, tolerance, dtype, episodes):
    """Even one that leaves a class out, which is finite; that class gets the least share there is."""
    support, query = episodes(n_query=40, dtype=dtype)
    prior = torch.tensor([0.7, 0.2, 0.1, 0.0]).expand(3, 4)
    method = kind(lr=LR, n_steps=500, marginal_weight=1e4)
    floored = prior[0].clamp_min(information.PRIOR_FLOOR)
    for given, expected in ((prior, floored / floored.sum()), (None, torch.full((4,), 0.25))):
        logits = method(support, query, class_prior=given)
        assert logits.isfinite().all()
        mean = logits.softmax(-1).mean(1)
        assert_close(mean, expected.to(dtype).expand(3, 4), rtol=0, atol=tolerance)


def test_classes_with_more_shots_weigh_no_more(episodes):
    """The published mean over images is kept where shots are even; a class's copies of one shot add nothing."""
    support, query = episodes()
    support[:, 1] = support[:, 1, :1]
    mask = torch.ones(3, 4, 3, dtype=torch.bool)
    mask[:, 1, 1:] = False
    method = TIM(lr=LR, n_steps=STEPS, support_weight=5.0)
    assert_close(method(support, query, support_mask=mask), method(support, query))


@pytest.mark.parametrize("alpha", [0.5, 1, 2, 7])
def test_agreement_is_largest_at_the_prior(alpha):
    """The term that the oracle differentiates is what it is said to be: a divergence, and the entropy's if uniform."""
    generator = torch.Generator().manual_seed(0)
    p, prior = torch.rand(2, 100, 4, generator=generator, dtype=torch.float64).clamp_min(0.01)
    p, prior = p / p.sum(-1, keepdim=True), prior / prior.sum(-1, keepdim=True)
    for x, at in zip(p, prior, strict=True):
        assert agreement(x, at, alpha) < agreement(at, at, alpha)
    uniform = torch.full((4,), 0.25, dtype=torch.float64)
    offsets = [agreement(x, uniform, alpha) - entropy(x, alpha) for x in p]
    assert_close(torch.stack(offsets), offsets[0].expand(100))


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (torch.ones(4), "shape"),
        (torch.ones(3, 5), "shape"),
        (torch.tensor([[1.0, 1, 1, 1], [1, 1, -1, 1], [1, 1, 1, 1]]), "episode 1"),
        (torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]), "episode 2"),
        (torch.tensor([[1.0, torch.nan, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]), "episode 0"),
    ],
)
def test_priors_that_make_no_sense(prior, message, episodes):
    with pytest.raises(ValueError, match=message):
        TIM()(*episodes(), class_prior=prior)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_prior": "true"}, "unknown `class_prior` 'true'; there are: uniform, estimated"),
        ({"marginal_weight": -1.0}, "`marginal_weight` must be"),
        ({"support_weight": float("nan")}, "`support_weight` must be"),
        ({"alpha": 0.0}, "`alpha` must be"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(UserError, match=f"alpha-tim: {message}"):
        AlphaTIM(**options)
