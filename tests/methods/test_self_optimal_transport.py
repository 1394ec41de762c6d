"""Self-optimal-transport features against a plain Sinkhorn loop without diagonal; its contract: with the baselines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from otfew.errors import UserError
from otfew.methods.self_optimal_transport import SelfOptimalTransport, self_softmax, self_transport


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(3, 4, 3, 2, 8, generator=generator, dtype=torch.float64).relu()
    query = torch.randn(3, 6, 2, 8, generator=generator, dtype=torch.float64).relu()
    mask = torch.rand(3, 4, 3, generator=generator) < 0.6
    mask[:, :, 1] = True
    return support, query, mask


def plain(x, reg):
    """Features of points (points, channels): 5,000 rounds of Sinkhorn on a kernel with a zero diagonal."""
    u = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-8)
    kernel = np.exp(-(1 - u @ u.T) / reg)
    np.fill_diagonal(kernel, 0)
    v = np.ones(len(x))
    for _ in range(5000):
        rows = 1 / (kernel @ v)
        v = 1 / (kernel.T @ rows)
    plan = rows[:, None] * kernel * v
    features = plan / plan.max()
    np.fill_diagonal(features, 1)
    return features, plan


def loop(support, query, mask, reg, known):
    logits = []
    for s, q, m in zip(support.numpy(), query.numpy(), mask.numpy(), strict=True):
        labels = m.nonzero()[0]
        features, _ = plain(np.concatenate([s.mean(-2)[m], q.mean(-2)]), reg)
        if known:
            features[: len(labels), : len(labels)] = labels[:, None] == labels
        means = np.array([features[: len(labels)][labels == c].mean(0) for c in range(len(s))])
        logits.append(-((features[len(labels) :, None] - means) ** 2).sum(-1))
    return torch.from_numpy(np.stack(logits))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("reg", [0.1, 0.5, 0.01])
def test_is_nearest_class_mean_on_a_plan_without_diagonal(reg, known, batch):
    """At reg = 0.01 the core works in the log domain."""
    support, query, mask = batch
    logits = SelfOptimalTransport(reg, known)(support, query, support_mask=mask)
    assert_close(logits, loop(*batch, reg, known), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_are_a_symmetric_doubly_stochastic_plan(dtype):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 60, 64, generator=generator).relu().to(dtype)
    features = self_transport(x, torch.ones(4, 60, dtype=torch.bool), 0.1)
    assert features.dtype == dtype
    assert_close(features, features.mT, rtol=0, atol=1e-4)
    assert torch.equal(features.diagonal(dim1=1, dim2=2), torch.ones(4, 60, dtype=dtype))
    rest = features - torch.eye(60, dtype=dtype)
    assert_close(rest.amax((1, 2)), torch.ones(4, dtype=dtype))
    sums = rest.sum(-1)
    assert_close(sums, sums.mean(-1, keepdim=True).expand_as(sums), rtol=1e-3, atol=0)
    expected = np.stack([plain(points.double().numpy(), 0.1)[0] for points in x])
    assert_close(features.double(), torch.from_numpy(expected), rtol=0, atol=1e-4)


def test_an_image_unlike_all_others_still_sends_nothing_to_itself():
    """Its cost to the others is far above the mean cost, and the diagonal's must be above that."""
    generator = torch.Generator().manual_seed(2)
    x = torch.ones(1, 9, 8, dtype=torch.float64) + 0.05 * torch.rand(1, 9, 8, generator=generator, dtype=torch.float64)
    x[0, 4] *= -1
    features = self_transport(x, torch.ones(1, 9, dtype=torch.bool), 0.05)
    expected, plan = plain(x[0].numpy(), 0.05)
    assert plan[4].max() < 0.2
    assert_close(features[0], torch.from_numpy(expected), rtol=0, atol=1e-3)
    # Masked shots are no company.
    padded = torch.cat([x, torch.zeros(1, 3, 8, dtype=torch.float64)], 1)
    features = self_transport(padded, torch.arange(12)[None] < 9, 0.05)
    assert_close(features[0, :9, :9], torch.from_numpy(expected), rtol=0, atol=1e-3)


def test_the_control_has_no_constraint_on_what_a_point_receives():
    """Each row is the softmax of the cosines to the others, written out; no plan of these rows costs less."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 9, 16, generator=generator, dtype=torch.float64)
    there = torch.ones(2, 9, dtype=torch.bool)
    there[1, 7:] = False
    found = self_softmax(x, there, 0.1)
    for points, features, valid in zip(x.numpy(), found.numpy(), there.numpy(), strict=True):
        some = points[valid] / np.linalg.norm(points[valid], axis=1, keepdims=True)
        shares = np.exp(some @ some.T / 0.1)
        np.fill_diagonal(shares, 0)
        shares /= shares.sum(1, keepdims=True)
        expected = shares / shares.max()
        np.fill_diagonal(expected, 1)
        np.testing.assert_allclose(features[np.ix_(valid, valid)], expected, atol=1e-10)
        assert (features[np.ix_(valid, ~valid)] == 0).all()
        assert np.ptp(shares.sum(0)) > 0.1

        def free_energy(plan, some=some):
            plan = np.where(np.eye(len(plan)) == 1, 0, plan)
            plan = plan / plan.sum(1, keepdims=True)
            return (plan * (1 - some @ some.T)).sum() + 0.1 * (plan * np.log(np.maximum(plan, 1e-300))).sum()

        transported = self_transport(torch.from_numpy(points[valid])[None], torch.ones(1, valid.sum(), dtype=bool), 0.1)
        assert free_energy(shares) < free_energy(transported[0].numpy()) - 1e-3


def test_shares_of_masked_shots_are_zero(batch):
    support, query, mask = batch
    features, queries, share = SelfOptimalTransport().transform(support, query, mask)
    assert features.shape == (3, 4, 3, 18)
    assert queries.shape == (3, 6, 18)
    assert_close(share.sum(-1), torch.ones(3, 4, dtype=torch.float64))
    assert (share[~mask] == 0).all()
    assert (queries[..., :12][(~mask).flatten(1)[:, None].expand(3, 6, 12)] == 0).all()


def test_gradient_through_the_plan(batch):
    support, query, mask = (x[:1, :, :2] if x.ndim > 4 else x[:1] for x in batch)
    mask = mask[:, :, :2]
    method = SelfOptimalTransport(0.3)
    query = query.clone().requires_grad_()
    method(support, query, support_mask=mask)[0, 0].log_softmax(-1)[1].backward()
    step = 1e-4
    for place in ((0, 0, 1, 3), (0, 3, 0, 5), (0, 5, 1, 7)):
        values = []
        for sign in (1, -1):
            moved = query.detach().clone()
            moved[place] += sign * step
            values.append(method(support, moved, support_mask=mask)[0, 0].log_softmax(-1)[1])
        assert_close(query.grad[place], (values[0] - values[1]) / (2 * step), rtol=1e-2, atol=1e-4)


def test_temperature_scales(batch):
    support, query, _ = batch
    assert_close(SelfOptimalTransport(temperature=4.0)(support, query) * 4, SelfOptimalTransport()(support, query))


@pytest.mark.parametrize("options", [{"reg": 0.0}, {"reg": float("inf")}, {"temperature": -1.0}])
def test_options_out_of_range_are_named(options):
    with pytest.raises(UserError, match=f"sot: `{next(iter(options))}` must be"):
        SelfOptimalTransport(**options)
