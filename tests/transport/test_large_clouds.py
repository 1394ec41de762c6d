"""Large point clouds on the CPU: sums by cells against all pairs, and answers against those of the other path."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import otfew
from otfew.transport.backends import keops
from otfew.transport.costs import pairwise
from otfew.transport.entropic import annealed
from otfew.transport.entropic.cell_kernel import CELL
from otfew.transport.entropic.cells import CellSums
from otfew.transport.entropic.ordered import neighbours, order_clouds
from otfew.transport.entropic.reductions import SQUARED, ChunkedTorch, Metric

METRICS = [SQUARED, Metric("euclidean"), Metric("power", 1.0)]
NAMES = {SQUARED: "sqeuclidean", METRICS[1]: "euclidean", METRICS[2]: "lp:1"}


def pytest_generate_tests(metafunc):
    if "metric" in metafunc.fixturenames:
        metafunc.parametrize("metric", METRICS, ids=[NAMES[metric] for metric in METRICS])


@pytest.fixture
def every_size(monkeypatch):
    """Take clouds of any size for large ones, and merge those above 40 points."""
    monkeypatch.setattr(keops, "LARGE", 1)
    monkeypatch.setattr(annealed, "COARSEST", 40)


def sums_problem(metric, n, m, d, reg, dtype, seed=0):
    """Scaled clouds in order, and potentials of the size that they have at the solution."""
    rng = np.random.default_rng(seed)
    x, y = rng.random((1, n, d)), rng.random((1, m, d))
    x, y = (torch.from_numpy(z * reg ** (-1 / metric.degree)) for z in (x, y))
    x, y = (order_clouds(z, CELL).sort(z).to(dtype) for z in (x, y))
    c = torch.from_numpy(0.1 / reg * rng.random((1, m)) - math.log(m))
    r = -ChunkedTorch(metric).logsumexp(x.double(), y.double(), c)
    return x, y, r, c, rng


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("n", "m", "d", "reg"),
    [(300, 200, 3, 0.5), (900, 800, 3, 0.01), (700, 900, 2, 1e-3), (65, 1, 5, 0.1), (200, 300, 1, 1e-4)],
)
def test_sums_against_all_pairs(metric, n, m, d, reg, dtype):
    """As accurate as their dtype, with what is left out; vectors of any sign, and columns without weight."""
    x, y, r, c, rng = sums_problem(metric, n, m, d, reg, dtype)
    c[0, : m // 3] = -1e30
    if m == 1:
        c[0] = 0.0
    r[0, 2] = -1e30
    v, s, t = (torch.from_numpy(rng.standard_normal(size)) for size in ((1, m, 3), (1, n), (1, m)))
    v[0, : m // 4] = 0
    ours, plain = CellSums(metric), ChunkedTorch(metric)
    wide = (x.double(), y.double())
    # Scores are as large as costs over reg, and rounded; so are those of the other side, in float64.
    eps = (
        (4 if dtype == torch.float32 else 20)
        * torch.finfo(dtype).eps
        * (10 + float(pairwise(NAMES[metric], *wide).median()))
    )
    torch.testing.assert_close(ours.logsumexp(x, y, c), plain.logsumexp(*wide, c), rtol=eps, atol=eps)
    for weighted in (False, True):
        for factors in (v, v[..., :1].abs()):
            found, expected = (z.apply(*w, r, c, factors, weighted) for z, w in ((ours, (x, y)), (plain, wide)))
            heavy = factors.abs().sum(-1, keepdim=True)
            sizes = plain.apply(*wide, r, c, heavy) + plain.apply(*wide, r, c, heavy, weighted)
            assert ((found - expected).abs() <= eps * (sizes + 1e-30)).all()
            assert (found[0, 2] == 0).all()
    for weights in (None, (s, t)):
        found, expected = (z.gradient(*w, r, c, weights) for z, w in ((ours, (x, y)), (plain, wide)))
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=0, atol=max(eps, 1e-13) * scale + 1e-30)


def test_what_is_left_out_is_within_its_bound(monkeypatch):
    """With a thousandth in the place of the rounding, sums are too small by that at most, and much is left out."""
    x, y, r, c, _ = sums_problem(SQUARED, 2000, 2000, 2, 1e-2, torch.float64)
    monkeypatch.setattr("otfew.transport.entropic.cells.LEFT_OUT", 1e-3 / torch.finfo(torch.float64).eps)
    missing = ChunkedTorch(SQUARED).logsumexp(x, y, c) - CellSums(SQUARED).logsumexp(x, y, c)
    assert (missing >= -1e-13).all()
    assert missing.max() <= -math.log1p(-1e-3)
    assert missing.max() > 1e-6
    ones = torch.ones(1, 2000, 1, dtype=torch.float64)
    masses = CellSums(SQUARED).apply(x, y, r, c, ones)[..., 0]
    assert ((1 - masses <= 1e-3) & (masses <= 1 + 1e-12)).all()


def test_sums_do_not_depend_on_threads():
    x, y, r, c, rng = sums_problem(SQUARED, 1500, 900, 3, 0.01, torch.float32)
    v = torch.from_numpy(rng.random((1, 900, 2)))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            sums = CellSums(SQUARED)
            found.append((sums.logsumexp(x, y, c), sums.apply(x, y, r, c, v), sums.gradient(x, y, r, c)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_nothing_in_a_cell_is_lost_in_far_clouds():
    """Clouds so far apart, or so many regs, that every exponential underflows by itself."""
    x, y, _, c, _ = sums_problem(SQUARED, 200, 200, 3, 1e-4, torch.float32)
    far = ChunkedTorch(SQUARED).logsumexp(x.double(), y.double() + 300, c)
    found = CellSums(SQUARED).logsumexp(x, y + 300, c)
    torch.testing.assert_close(found, far, rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000])
def test_order(size):
    points = np.random.default_rng(0).random((size, 3))
    order = neighbours(points, 64)
    assert sorted(order) == list(range(size))
    # Cells of a thousand points are narrower than the cloud.
    if size == 1000:
        sides = [np.ptp(points[order[k : k + 64]], 0).prod() for k in range(0, 960, 64)]
        assert np.mean(sides) < 0.15
    tensor = torch.from_numpy(points)[None]
    both = order_clouds(tensor, 64)
    assert torch.equal(both.restore(both.sort(tensor)), tensor)
    assert (neighbours(np.zeros((200, 2)), 64) < 200).all()


def problem(size=2, n=150, m=130, d=3, mass=1.0, seed=0):
    rng = np.random.default_rng(seed)
    x, y, a, b = rng.random((size, n, d)), rng.random((size, m, d)), rng.random((size, n)), rng.random((size, m))
    a, b = a + 0.05, b + 0.05
    given = (x, y, a * (mass / a.sum(-1, keepdims=True)), b * (mass / b.sum(-1, keepdims=True)))
    return tuple(torch.from_numpy(z) for z in given)


def solver(backend="auto", **options):
    return otfew.KeOps(**{"reg": 0.1, "tol": 1e-12, "backend": backend, **options})


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine", "lp:1", "lp:3"])
@pytest.mark.parametrize("reg", [1.0, 0.02])
def test_answers_are_those_of_blocks_of_torch(cost, reg, every_size):
    x, y, a, b = problem(mass=2.5)
    x = x - 0.2
    a[:, 7] = b[:, :3] = 0
    b *= 2.5 / b.sum(-1, keepdim=True)
    a *= 2.5 / a.sum(-1, keepdim=True)
    found, expected = (otfew.solve_points(x, y, a, b, cost=cost, solver=solver(z, reg=reg)) for z in ("auto", "torch"))
    assert found.solver == "keops[cells]"
    assert (found.status == 0).all()
    assert (found.marginal_error <= 1e-12).all()
    torch.testing.assert_close(found.value, expected.value, rtol=1e-10, atol=0)
    torch.testing.assert_close(found.value_linear, expected.value_linear, rtol=1e-8, atol=0)
    torch.testing.assert_close(found.plan.dense(), expected.plan.dense(), rtol=0, atol=1e-9)
    for one, two in zip(found.potentials, expected.potentials, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-7)
    v = torch.rand(2, 130, 2, dtype=torch.float64)
    torch.testing.assert_close(found.plan @ v, found.plan.dense() @ v, rtol=0, atol=1e-12)
    u = torch.rand(2, 150, dtype=torch.float64)
    torch.testing.assert_close(found.plan.T @ u, (found.plan.dense().mT @ u[..., None])[..., 0], rtol=0, atol=1e-12)


def test_float32_large(every_size):
    x, y, a, b = problem()
    expected = otfew.solve_points(x, y, a, b, solver=solver("torch", reg=0.02)).value
    found = otfew.solve_points(x.float(), y.float(), a, b, solver=solver(reg=0.02, tol=1e-6))
    assert (found.status == 0).all()
    assert ((found.value - expected).abs() <= found.gap + 1e-6).all()
    torch.testing.assert_close(found.value, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("output", ["value", "value_linear"])
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "lp:1", "cosine"])
def test_gradients_of_large_clouds(output, cost, every_size, monkeypatch):
    monkeypatch.setattr(annealed, "COARSEST", 4)
    given = [z.requires_grad_() for z in problem(size=1, n=6, m=4, d=2, mass=1.5)]
    large = solver(reg=0.5)
    assert gradcheck(lambda *z: getattr(otfew.solve_points(*z, cost=cost, solver=large), output), given, atol=1e-6)


def test_gradients_across_cells(every_size):
    """Several cells a cloud, in an order of their own; along random directions."""
    given = [z.requires_grad_() for z in problem(size=1, mass=1.5)]
    large = solver(reg=0.05)
    grads = torch.autograd.grad(otfew.solve_points(*given, solver=large).value.sum(), given)
    rng = torch.Generator().manual_seed(0)
    for k, grad in enumerate(grads):
        way = torch.randn(grad.shape, generator=rng, dtype=torch.float64)
        if k >= 2:
            way = way * given[k].detach()
            way = way - given[k].detach() * way.sum() / given[k].detach().sum()
        ends = []
        for step in (1e-4, -1e-4):
            moved = [z.detach() for z in given]
            moved[k] = moved[k] + step * way
            ends.append(otfew.solve_points(*moved, solver=large).value)
        slope = (ends[0] - ends[1]) / 2e-4
        torch.testing.assert_close((grad * way).sum()[None], slope, rtol=1e-5, atol=1e-8)


def test_a_large_answer_does_not_depend_on_batch_mates(every_size):
    x, y, a, b = problem(size=3)
    x[1] *= 20
    together = otfew.solve_points(x, y, a, b, solver=solver(tol=1e-8))
    for k in range(3):
        alone = otfew.solve_points(x[k], y[k], a[k], b[k], solver=solver(tol=1e-8))
        assert alone.value == together.value[k]
        assert alone.n_iter == together.n_iter[k]
        assert torch.equal(alone.potentials[0], together.potentials[0][k])
        assert torch.equal(alone.plan.dense(), together.plan.dense()[k])


def test_the_gap_of_large_clouds_bounds_the_error(every_size):
    x, y, a, b = problem()
    best = otfew.solve_points(x, y, a, b, solver=solver("torch", reg=0.02, tol=1e-13)).value
    for tol in (1e-2, 1e-4, 1e-6):
        found = otfew.solve_points(x, y, a, b, solver=solver(reg=0.02, tol=tol))
        assert ((best - found.value).abs() <= found.gap).all()
        plan = found.plan.dense()
        torch.testing.assert_close(plan.sum(2), a)
        torch.testing.assert_close((plan.sum(1) - b).abs().amax(-1), found.marginal_error, rtol=1e-6, atol=1e-14)


def test_the_gap_accounts_for_what_is_left_out(every_size, monkeypatch):
    """Where a hundredth may be left out, the value is off by that, and the gap says so."""
    x, y, a, b = problem(size=1, n=600, m=700)
    monkeypatch.setattr("otfew.transport.entropic.cells.LEFT_OUT", 1e-2 / torch.finfo(torch.float64).eps)
    found = otfew.solve_points(x, y, a, b, solver=solver(reg=0.02, tol=1e-3))
    monkeypatch.undo()
    best = otfew.solve_points(x, y, a, b, solver=solver("torch", reg=0.02, tol=1e-6)).value
    assert ((best - found.value).abs() <= found.gap).all()
    assert (found.gap >= 2 * 0.02 * 1e-2).all()


@pytest.mark.parametrize("max_iter", [1, 3])
def test_too_few_iterations_on_all_points_warn(max_iter, every_size):
    x, y, a, b = problem()
    with pytest.warns(otfew.ConvergenceWarning, match=r"keops did not reach .* 2 of 2 problems.*raise max_iter"):
        found = otfew.solve_points(x, y, a, b, solver=solver(reg=0.003, max_iter=max_iter))
    assert (found.status == otfew.Status.MAX_ITER).all()
    assert (found.n_iter == max_iter).all()
    plan = found.plan.dense()
    torch.testing.assert_close(plan.sum(2), a)
    torch.testing.assert_close((plan.sum(1) - b).abs().amax(-1), found.marginal_error)


def test_large_numbers_that_overflow_fail_alone(every_size):
    x, y, a, b = problem(size=3)
    x[1] *= 1e160
    found = otfew.solve_points(x, y, a, b, solver=solver(), on_fail="ignore")
    assert found.status.tolist() == [0, 2, 0]
    assert torch.isnan(found.value).tolist() == [False, True, False]


def test_coincident_points_and_a_cloud_beside_itself(every_size):
    x, _, a, _ = problem()
    x[:, 50:] = x[:, :1]
    found = otfew.solve_points(x, x, a, a, solver=solver())
    expected = otfew.solve_points(x, x, a, a, solver=solver("torch"))
    torch.testing.assert_close(found.value, expected.value, rtol=0, atol=1e-10)


def test_progress_on_request(every_size, capsys):
    x, y, a, b = problem(size=1)
    otfew.solve_points(x, y, a, b, solver=solver())
    assert capsys.readouterr() == ("", "")
    lines = []
    otfew.solve_points(x, y, a, b, solver=solver(progress=lines.append))
    assert len(lines) == 2
    assert lines[-1].startswith("150 x 130 points, temperature 0.1: ")
    assert capsys.readouterr() == ("", "")
    otfew.solve_points(x, y, a, b, solver=solver(progress=True))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 2
    assert said.err.startswith("otfew: ")
    with pytest.raises(ValueError, match="KeOps: progress must be True, False or a function"):
        otfew.KeOps(progress="yes")


def test_small_clouds_and_other_backends_go_the_other_way():
    x, y, a, b = problem()
    assert otfew.solve_points(x, y, a, b, solver=solver()).solver == "keops[torch]"
    small, plain = (otfew.solve_points(x, y, a, b, solver=solver(z)) for z in ("auto", "torch"))
    assert torch.equal(small.value, plain.value)


def test_memory_grows_with_the_points():
    """8,000 points: their costs would take 256 MB in float32."""
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 8000, 3)).astype(np.float32)
    tracemalloc.start()
    found = otfew.solve_points(x, y, solver=otfew.KeOps(reg=0.01, tol=1e-5))
    assert found.gap <= 1e-2
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.status == 0
    assert peak < 2**26


def test_divergences_of_large_clouds(every_size):
    x, y, a, b = problem()
    found, expected = (
        otfew.sinkhorn_divergence_points(x, y, a, b, solver=solver(z, reg=0.3)) for z in ("auto", "torch")
    )
    assert found.within_x.solver == "keops[cells]"
    assert (found.status == 0).all()
    torch.testing.assert_close(found.value, expected.value, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(found.within_y.plan.dense(), expected.within_y.plan.dense(), rtol=0, atol=1e-9)
