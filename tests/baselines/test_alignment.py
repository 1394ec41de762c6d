"""Alignment by moments: plain dense computations, scikit-learn's shrinkage, POT's linear map, laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import OAS
from torch.testing import assert_close

from otfew.baselines import BASELINES
from otfew.baselines._shrunk_covariance import LowRank, of_both, shrunk_covariance
from otfew.errors import UserError

NAMES = ("mean-alignment", "coral", "whitening", "gaussian-transport")
every = pytest.mark.parametrize("name", NAMES)


def points(n, d, seed=0, episodes=2):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(0.5, 2, d, dtype=torch.float64)
    return torch.randn(episodes, n, d, generator=generator, dtype=torch.float64) * scales + seed


def even(x):
    return x.new_full(x.shape[:2], 1 / x.shape[1])


def power(matrix, exponent):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.T


def dense(covariance, e):
    """Write a matrix of low rank and a number on the diagonal out."""
    factor = covariance.factor[e].numpy()
    return factor.T @ factor + float(covariance.floor[e]) * np.eye(factor.shape[1])


@pytest.mark.parametrize(("n", "d"), [(5, 40), (30, 40), (60, 7)])
def test_covariances_are_scikit_learns(n, d):
    x = points(n, d)
    found, spread = shrunk_covariance(x, even(x))
    assert spread.all()
    for e in range(2):
        np.testing.assert_allclose(dense(found, e), OAS().fit(x[e].numpy()).covariance_, rtol=1e-9, atol=1e-12)


def test_masses_weigh_points():
    """As many times as there are whole numbers of them, but for the number of points that shrinkage knows."""
    x = points(4, 9)
    counts = torch.tensor([3, 1, 2, 2])
    found, _ = shrunk_covariance(x, (counts / counts.sum()).double().expand(2, 4))
    repeated = x.repeat_interleave(counts, 1)
    sample = [np.cov(repeated[e].numpy().T, bias=True) for e in range(2)]
    for e in range(2):
        own = dense(found, e)
        shrunk = np.trace(sample[e]) / 9
        rho = float(found.floor[e]) / shrunk
        np.testing.assert_allclose(own, (1 - rho) * sample[e] + rho * shrunk * np.eye(9), rtol=1e-9, atol=1e-12)
        # Masses 3/8, 1/8, 2/8, 2/8 count as 64 / 18 equal points.
        squares, trace, n = np.trace(sample[e] @ sample[e]), np.trace(sample[e]), 64 / 18
        assert abs(rho - min(1, (squares + trace**2) / ((n + 1) * (squares - trace**2 / 9)))) < 1e-9


@pytest.mark.parametrize(("n", "d"), [(5, 40), (60, 7)])
def test_roots_are_those_of_dense_matrices(n, d):
    x, v = points(n, d), points(3, d, seed=1)
    covariance, _ = shrunk_covariance(x, even(x))
    for e in range(2):
        matrix = dense(covariance, e)
        np.testing.assert_allclose(covariance.root(v)[e].numpy(), v[e].numpy() @ power(matrix, 0.5), atol=1e-10)
        np.testing.assert_allclose(covariance.inverse_root(v)[e].numpy(), v[e].numpy() @ power(matrix, -0.5), atol=1e-9)


@pytest.mark.parametrize("d", [40, 7])
def test_maps_are_those_of_dense_matrices(d):
    x, y = points(6, d), points(15, d, seed=2)
    masses = torch.tensor([1.0, 2, 3, 1, 1, 2], dtype=torch.float64).expand(2, 6) / 10
    first, second = of_both(x, masses, y)
    found = {name: BASELINES[name]().align(x, masses, y) for name in NAMES}
    for e in range(2):
        s, q = dense(first, e), dense(second, e)
        mean_x, mean_y = masses[e].numpy() @ x[e].numpy(), y[e].numpy().mean(0)
        centred, others = x[e].numpy() - mean_x, y[e].numpy() - mean_y
        middle = power(power(s, 0.5) @ q @ power(s, 0.5), 0.5)
        scale = np.sqrt(np.trace(q) / d)
        expected = {
            "mean-alignment": (centred + mean_y, y[e].numpy()),
            "coral": (centred @ power(s, -0.5) @ power(q, 0.5) + mean_y, y[e].numpy()),
            "whitening": (scale * centred @ power(s, -0.5), scale * others @ power(q, -0.5)),
            "gaussian-transport": (centred @ power(s, -0.5) @ middle @ power(s, -0.5) + mean_y, y[e].numpy()),
        }
        for name, pair in expected.items():
            for ours, theirs in zip(found[name], pair, strict=True):
                np.testing.assert_allclose(ours[e].numpy(), theirs, atol=1e-9, err_msg=name)


def test_gaussian_transport_is_pots_linear_map():
    """Of many points in few dimensions, where shrinkage hardly matters and POT's regularisation is none."""
    ot = pytest.importorskip("ot")
    x, y = points(2000, 3), points(2000, 3, seed=3)
    moved, _ = BASELINES["gaussian-transport"]().align(x, even(x), y)
    for e in range(2):
        theirs = ot.da.LinearTransport(reg=1e-12).fit(Xs=x[e].numpy(), Xt=y[e].numpy()).transform(Xs=x[e].numpy())
        np.testing.assert_allclose(moved[e].numpy(), theirs, atol=0.02)


def test_moved_moments_are_the_goals():
    """Recoloured points have the goal's covariance where nothing was shrunk, and its mean always."""
    x, y = points(50, 4), points(60, 4, seed=4)
    for name in ("coral", "gaussian-transport"):
        moved, _ = BASELINES[name]().align(x, even(x), y)
        assert_close(moved.mean(1), y.mean(1))
        first, second = of_both(x, even(x), y)
        for e in range(2):
            cov = np.cov(moved[e].numpy().T, bias=True)
            tolerance = 2 * float(max(first.floor[e], second.floor[e])) + 0.02
            np.testing.assert_allclose(cov, np.cov(y[e].numpy().T, bias=True), atol=tolerance)


@every
def test_a_shift_is_undone_exactly(name, make, episodes):
    support, query = episodes()
    method = make(name, normalise=False)
    shift = torch.linspace(-3, 5, 8, dtype=torch.float64)
    assert_close(method(support, query + shift), method(support, query), rtol=1e-7, atol=1e-7)


def test_mean_alignment_of_known_shares_leaves_domains_alone_that_are_one(make, episodes):
    support, _ = episodes(shot=2)
    query = support[:, [0, 0, 1, 2, 3], [0, 1, 0, 0, 1]]
    shares = torch.tensor([0.4, 0.2, 0.2, 0.2], dtype=torch.float64).expand(3, 4)
    masses = torch.tensor([0.2, 0.2, 0.2, 0.0, 0.2, 0.0, 0.0, 0.2], dtype=torch.float64).expand(3, 8)
    method = make("mean-alignment")
    moved, _ = method.align(support.mean(-2).flatten(1, 2), masses, query.mean(-2))
    assert_close(moved, support.mean(-2).flatten(1, 2))
    assert not torch.equal(method(support, query, class_prior=shares), method(support, query))


@every
def test_domains_without_spread_are_shifted(name, make, episodes):
    support, query = episodes()
    plain = make("mean-alignment")(torch.ones_like(support), query)
    other = make(name)(torch.ones_like(support), query)
    assert other.isfinite().all()
    if name != "whitening":
        assert_close(other, plain)
    assert make(name)(torch.ones_like(support), torch.ones_like(query)).isfinite().all()


def test_mean_alignment_has_true_gradients(make, episodes):
    support, query = (part.requires_grad_() for part in episodes(n=1, way=2, shot=2, nodes=2, n_query=3, channels=3))
    assert torch.autograd.gradcheck(make("mean-alignment"), (support, query), fast_mode=True)


@every
def test_logistic_head_and_estimated_shares(name, make, episodes, uneven):
    support, query = episodes()
    logits = make(name, head="logistic")(support, query, support_mask=uneven)
    spoiled = support.masked_fill(~uneven[..., None, None], torch.nan)
    assert_close(make(name, head="logistic")(spoiled, query, support_mask=uneven), logits, rtol=1e-3, atol=1e-3)
    uniform = torch.full((3, 4), 0.25)
    assert_close(make(name)(support, query, class_prior=uniform), make(name)(support, query))
    assert not torch.equal(make(name, class_prior="estimated")(support, query), make(name)(support, query))


@every
def test_refusals(name, make, episodes):
    support, query = episodes()
    with pytest.raises(UserError, match=f"{name} looks at an episode's queries together and needs 2, not 1"):
        make(name)(support, query[:, :1])
    with pytest.raises(UserError, match="query holds a NaN or an infinity in episode 0"):
        make(name)(support, query * torch.nan)
    with pytest.raises(UserError, match="`class_prior` of episode 0"):
        make(name)(support, query, class_prior=torch.zeros(3, 4))


def test_a_huge_number_is_finite():
    """Squares of it are not; vectors are normalised first, and the look for NaN does not take their sum for one."""
    big = torch.full((1, 2, 1, 1, 4), 1e300, dtype=torch.float64)
    big[0, 1, 0, 0, :2] = 1e299
    query = big[:, :, 0].clone()
    assert BASELINES["mean-alignment"]()(big, query).isfinite().all()
    assert LowRank(torch.ones(1), torch.zeros(1, 2, 3)).root(torch.ones(1, 1, 3)).eq(1).all()
