"""Entropic transport of point clouds: against a plain loop, POT, closed forms, laws and finite differences."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

import otfew
from otfew.transport.backends import keops
from otfew.transport.backends.keops_reductions import KeOpsReductions, obstacle
from otfew.transport.costs import pairwise
from otfew.transport.entropic.reductions import SQUARED, ChunkedTorch, Metric

REASON = obstacle("cpu")
needs_keops = pytest.mark.skipif(REASON is not None, reason=str(REASON))
backends = pytest.mark.parametrize("backend", [pytest.param("keops", marks=needs_keops), "torch"])
REG = 0.2


@pytest.fixture
def problem():
    """Draw point clouds in the unit cube and weights of one total, as float64 tensors; always in three dimensions."""

    def draw(size=3, n=8, m=6, mass=1.0, seed=0):
        rng = np.random.default_rng(seed)
        x, y, a, b = rng.random((size, n, 3)), rng.random((size, m, 3)), rng.random((size, n)), rng.random((size, m))
        a, b = a + 0.05, b + 0.05
        a, b = a * (mass / a.sum(-1, keepdims=True)), b * (mass / b.sum(-1, keepdims=True))
        return tuple(torch.from_numpy(z) for z in (x, y, a, b))

    return draw


def solver(backend="torch", **options):
    return otfew.KeOps(**{"reg": REG, "tol": 1e-12, "backend": backend, **options})


def plain_loop(cost, a, b, reg):
    """Sinkhorn in the log domain on matrices: value, <P, C>, plan, f, g with sum_j g_j b_j = 0."""
    total = a.sum()
    g = np.zeros(len(b))
    for _ in range(600):
        f = -reg * logsumexp((g - cost) / reg, axis=1, b=b / total)
        g = -reg * logsumexp((f[:, None] - cost) / reg, axis=0, b=a[:, None] / total)
    product = a[:, None] * b / total
    plan = product * np.exp((f[:, None] + g - cost) / reg)
    linear = (plan * cost).sum()
    value = linear + reg * (plan * np.log(plan / product) - plan + product).sum()
    shift = g @ b / total
    return value, linear, plan, f + shift, g - shift


@backends
@pytest.mark.parametrize("mass", [1.0, 3.5])
def test_against_a_plain_loop(backend, mass, problem):
    x, y, a, b = problem(mass=mass)
    result = otfew.solve_points(x, y, a, b, solver=solver(backend))
    assert result.solver == ("keops" if backend == "keops" else "keops[torch]")
    cost = pairwise("sqeuclidean", x, y).numpy()
    plan = result.plan.dense()
    for k in range(3):
        value, linear, expected, f, g = plain_loop(cost[k], a[k].numpy(), b[k].numpy(), REG)
        assert abs(result.value[k] - value) <= 1e-11 * mass
        assert abs(result.value_linear[k] - linear) <= 1e-10 * mass
        np.testing.assert_allclose(plan[k], expected, atol=1e-11 * mass)
        np.testing.assert_allclose(result.potentials[0][k], f, atol=1e-10)
        np.testing.assert_allclose(result.potentials[1][k], g, atol=1e-10)
    assert (result.status == otfew.Status.OPTIMAL).all()
    assert (result.marginal_error <= 1e-12).all()


@pytest.mark.parametrize("cost", ["euclidean", "cosine", "lp:1", "lp:3"])
def test_other_costs_against_pot(cost, problem):
    ot = pytest.importorskip("ot")
    x, y, a, b = problem()
    x = x - 0.3
    result = otfew.solve_points(x, y, a, b, cost=cost, solver=solver())
    matrix, plan = pairwise(cost, x, y).numpy(), result.plan.dense()
    for k in range(3):
        expected = ot.sinkhorn(a[k].numpy(), b[k].numpy(), matrix[k], REG, "sinkhorn_log", 5000, 1e-13)
        np.testing.assert_allclose(plan[k], expected, atol=1e-9)
        assert abs(result.value_linear[k] - (expected * matrix[k]).sum()) <= 1e-9


def test_zero_vectors_under_the_cosine_cost(problem):
    x, y, a, b = problem(size=1)
    x[0, 2] = y[0, 1] = 0
    found = otfew.solve_points(x, y, a, b, cost="cosine", solver=solver())
    value, linear, plan, f, g = plain_loop(pairwise("cosine", x, y)[0].numpy(), a[0].numpy(), b[0].numpy(), REG)
    assert abs(float(found.value) - value) <= 1e-11
    assert abs(float(found.value_linear) - linear) <= 1e-10
    np.testing.assert_allclose(found.plan.dense()[0], plan, atol=1e-11)
    np.testing.assert_allclose(found.potentials[0][0], f, atol=1e-10)
    np.testing.assert_allclose(found.potentials[1][0], g, atol=1e-10)


def test_gaussians():
    """Entropic transport of Gaussians (Janati et al. 2020, theorem 1), on grids."""
    u, v, shift, reg = 1.0, 0.5, 0.7, 0.4
    grid = np.linspace(-8, 8, 400)[:, None]
    a = np.exp(-(grid[:, 0] ** 2) / (2 * u))
    b = np.exp(-((grid[:, 0] - shift) ** 2) / (2 * v))
    found = otfew.solve_points(grid, grid, a / a.sum(), b / b.sum(), solver=solver(reg=reg, tol=1e-10)).value
    half = reg / 2
    d = np.sqrt(4 * u * v + half**2)
    expected = shift**2 + u + v - d + half * (1 - np.log(reg)) + half * np.log(d + half)
    assert abs(found - expected) <= 1e-9


def test_large_reg_gives_the_product_and_small_reg_the_linear_program(problem):
    x, y, a, b = problem()
    product = otfew.solve_points(x, y, a, b, solver=solver(reg=1e6))
    torch.testing.assert_close(product.plan.dense(), a[:, :, None] * b[:, None], rtol=1e-5, atol=0)
    exact = otfew.solve_points(x, y, a, b, solver="exact").value
    sharp = otfew.solve_points(x, y, a, b, solver=solver(reg=1e-3, tol=1e-7, max_iter=50_000))
    assert (sharp.value_linear - exact).abs().max() <= 2e-4


@backends
def test_translation(backend, problem):
    """|x + t - y|^2 = |x - y|^2 + 2 <t, x - y> + |t|^2, and the plan stays."""
    x, y, a, b = problem(mass=2.0)
    t = torch.tensor([3.0, -1.0, 200.0], dtype=torch.float64)
    first, second = (otfew.solve_points(z, y, a, b, solver=solver(backend)) for z in (x, x + t))
    means = (a[..., None] * x).sum(1) - (b[..., None] * y).sum(1)
    torch.testing.assert_close(second.value, first.value + 2 * means @ t + 2 * t @ t, rtol=1e-13, atol=0)
    torch.testing.assert_close(second.plan.dense(), first.plan.dense(), rtol=0, atol=1e-9)


def test_order_does_not_matter(problem):
    x, y, a, b = problem()
    rows = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    first = otfew.solve_points(x, y, a, b, solver=solver())
    second = otfew.solve_points(x[:, rows], y, a[:, rows], b, solver=solver())
    torch.testing.assert_close(second.value, first.value, rtol=1e-12, atol=0)
    torch.testing.assert_close(second.potentials[0], first.potentials[0][:, rows], rtol=0, atol=1e-11)


@backends
def test_points_without_weight_change_nothing(backend, problem):
    x, y, a, b = problem()
    inputs = [torch.cat([x, x[:, :3] + 5], 1), torch.cat([y[:, :2] - 7, y], 1)]
    inputs += [torch.nn.functional.pad(a, (0, 3)), torch.nn.functional.pad(b, (2, 0))]
    first = otfew.solve_points(x, y, a, b, solver=solver(backend))
    second = otfew.solve_points(*(z.requires_grad_() for z in inputs), solver=solver(backend))
    torch.testing.assert_close(second.value, first.value, rtol=1e-11, atol=0)
    torch.testing.assert_close(second.value_linear, first.value_linear, rtol=1e-9, atol=0)
    torch.testing.assert_close(second.plan.dense()[:, :8, 2:], first.plan.dense(), rtol=0, atol=1e-11)
    assert (second.plan.dense()[:, 8:] == 0).all()
    for output in (second.value, second.value_linear):
        by_x, by_y, by_a, by_b = torch.autograd.grad(output.sum(), inputs, retain_graph=True)
        assert all(torch.isfinite(grad).all() for grad in (by_x, by_y, by_a, by_b))
        assert (by_x[:, 8:] == 0).all()
        assert (by_y[:, :2] == 0).all()


@pytest.mark.parametrize("output", ["value", "value_linear"])
def test_derivative_towards_weight(output, problem):
    """At zero weights gradients are those from above."""
    x, y, a, b = problem(size=1)
    a[0, 3] = b[0, 2] = 0

    def at(step):
        moved_a, moved_b = a.clone(), b.clone()
        moved_a[0, 3] += step
        moved_b[0, 2] += 2 * step
        return moved_a.requires_grad_(), moved_b.requires_grad_()

    def value(inputs):
        return getattr(otfew.solve_points(x, y, *inputs, solver=solver(), validate=False), output).sum()

    start = at(0.0)
    by_a, by_b = torch.autograd.grad(value(start), start)
    step = 1e-6
    assert abs(float((value(at(step)) - value(start)).detach() / step) - float(by_a[0, 3] + 2 * by_b[0, 2])) <= 1e-4


def test_an_answer_does_not_depend_on_batch_mates(problem):
    x, y, a, b = problem(size=4)
    # One problem is far harder than the others, one has far larger costs.
    x[1] *= 20
    a[2] *= 30
    b[2] *= 30
    together = otfew.solve_points(x, y, a, b, solver=solver(tol=1e-8))
    assert len(set(together.n_iter.tolist())) > 1
    for k in range(4):
        alone = otfew.solve_points(x[k], y[k], a[k], b[k], solver=solver(tol=1e-8))
        assert alone.n_iter == together.n_iter[k]
        torch.testing.assert_close(together.value[k], alone.value, rtol=1e-12, atol=0)
        torch.testing.assert_close(together.plan.dense()[k], alone.plan.dense(), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine", "lp:3", "lp:1.5"])
@pytest.mark.parametrize("output", ["value", "value_linear"])
def test_gradients_in_points_and_weights(cost, output, problem):
    inputs = tuple(z.requires_grad_() for z in problem(size=2, n=4, m=3, mass=3.5))

    def found(x, y, a, b):
        return getattr(otfew.solve_points(x, y, a, b, cost=cost, solver=solver(reg=0.5)), output)

    assert gradcheck(found, inputs, atol=1e-6)


@needs_keops
@pytest.mark.parametrize("output", ["value", "value_linear"])
def test_gradients_by_keops(output, problem):
    inputs = tuple(z.requires_grad_() for z in problem(mass=3.5))
    upstream = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    by_backend = []
    for backend in ("keops", "torch"):
        result = otfew.solve_points(*inputs, solver=solver(backend))
        by_backend.append(torch.autograd.grad(getattr(result, output), inputs, upstream))
    for x, y in zip(*by_backend, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)


def test_gradients_through_normalised_weights_and_one_side(problem):
    x, y, a, b = (z.requires_grad_() for z in problem(size=1, n=4, m=3, mass=2.0))

    def normalised(x, a, b):
        a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
        return otfew.solve_points(x, y.detach(), a, b, solver=solver(reg=0.5)).value_linear

    assert gradcheck(normalised, (x, a, b), atol=1e-6)
    assert gradcheck(lambda x, b: otfew.solve_points(x, y.detach(), None, b, solver=solver(reg=0.5)).value, (x, b))


def test_gradients_are_finite_where_clouds_coincide(problem):
    x = problem()[0].requires_grad_()
    for cost in ("sqeuclidean", "euclidean", "cosine", "lp:1", "lp:3"):
        y = x.detach().clone().requires_grad_()
        result = otfew.solve_points(x, y, cost=cost, solver=solver())
        for grad in torch.autograd.grad(result.value.sum() + result.value_linear.sum(), (x, y)):
            assert torch.isfinite(grad).all(), cost


def test_the_gap_bounds_the_error(problem):
    x, y, a, b = problem()
    best = otfew.solve_points(x, y, a, b, solver=solver(reg=0.02, tol=1e-13)).value
    for tol in (1e-2, 1e-4, 1e-6):
        result = otfew.solve_points(x, y, a, b, solver=solver(reg=0.02, tol=tol))
        missed = best - result.value
        assert (missed >= -1e-14).all()
        assert (missed <= result.gap).all()
        assert (result.gap <= 100 * tol).all()
        plan = result.plan.dense()
        torch.testing.assert_close(plan.sum(2), a)
        torch.testing.assert_close((plan.sum(1) - b).abs().amax(-1), result.marginal_error, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("max_iter", [1, 3, 20])
def test_too_few_iterations_warn_and_are_certified(max_iter, problem):
    x, y, a, b = problem()
    with pytest.warns(
        otfew.ConvergenceWarning, match=r"keops did not reach .* 3 of 3 problems.*raise max_iter"
    ) as caught:
        result = otfew.solve_points(x, y, a, b, solver=solver(reg=0.01, max_iter=max_iter))
    assert caught[0].filename == __file__
    assert (result.status == otfew.Status.MAX_ITER).all()
    assert (result.n_iter == max_iter).all()
    plan = result.plan.dense()
    torch.testing.assert_close(plan.sum(2), a)
    torch.testing.assert_close((plan.sum(1) - b).abs().amax(-1), result.marginal_error)


def test_numbers_that_overflow_fail_alone(problem):
    x, y, a, b = problem()
    x[1] *= 1e160
    result = otfew.solve_points(x, y, a, b, solver=solver(), on_fail="ignore")
    assert result.status.tolist() == [0, 2, 0]


def test_float32(problem):
    x, y, a, b = problem(n=40, m=30)
    expected = otfew.solve_points(x, y, a, b, solver=solver())
    single = [z.float().requires_grad_() for z in (x, y, a, b)]
    result = otfew.solve_points(*single, solver=solver(tol=1e-6))
    assert (result.status == 0).all()
    torch.testing.assert_close(result.value, expected.value, rtol=1e-6, atol=0)
    torch.testing.assert_close(result.value_linear, expected.value_linear, rtol=1e-5, atol=0)
    for grad, z in zip(torch.autograd.grad(result.value_linear.sum(), single), single, strict=True):
        assert grad.dtype == z.dtype
        assert torch.isfinite(grad).all()


class Largest(TorchDispatchMode):
    """Record the size of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


@pytest.mark.parametrize("cost", ["sqeuclidean", "cosine", "lp:3"])
def test_the_matrix_is_never_made(cost, problem, monkeypatch):
    monkeypatch.setattr("otfew.transport.entropic.reductions.ELEMENTS_PER_THREAD", 2**12)
    n = 600
    x, y, a, b = (z.requires_grad_() for z in problem(size=1, n=n, m=n))
    with Largest() as largest:
        result = otfew.solve_points(x, y, a, b, cost=cost, solver=solver(tol=1e-6))
        loss = result.value.sum() + result.value_linear.sum() + (result.plan @ torch.ones(1, n, 2)).sum()
        loss.backward()
        assert float(result.gap) >= 0
    assert largest.numel < n * n / 10


@needs_keops
@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "dtype", "size"),
    [
        (Metric("euclidean"), torch.float32, 1),
        (Metric("power", 3.5), torch.float64, 3),
        (Metric("power", 1.0), torch.float64, 3),
    ],
)
def test_all_formulas_of_keops(metric, dtype, size, problem):
    x, y, r, c = problem(size=size, n=40, m=30)
    x, y = x.to(dtype), y.to(dtype)
    y[:, 0] = x[:, 0]
    r[:, 1] = -1e30
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    ours, theirs = ChunkedTorch(metric), KeOpsReductions(metric)
    calls = [("logsumexp", (y, x, r)), ("apply", (x, y, r, c, y.double())), ("gradient", (x, y, r, c))]
    calls += [("apply", (x, y, r, c, y.double(), True)), ("gradient", (x, y, r, c, (r.clamp(min=0), c)))]
    for name, arguments in calls:
        torch.testing.assert_close(getattr(theirs, name)(*arguments), getattr(ours, name)(*arguments), **tolerance)


@pytest.fixture
def on_a_gpu():
    """Compile nothing where KeOps says that it cannot; a GPU is there."""
    reason = obstacle("cuda")
    if reason is not None:
        pytest.skip(reason)
    return torch.device("cuda")


@pytest.mark.cuda
@pytest.mark.parametrize("size", [1, 3])
def test_a_gpu_against_a_plain_loop(size, problem, on_a_gpu):
    x, y, a, b = problem(size=size)
    result = otfew.solve_points(*(z.to(on_a_gpu) for z in (x, y, a, b)), solver=solver("keops"))
    assert result.solver == "keops"
    assert {z.device.type for z in (result.value, *result.potentials, result.plan.dense())} == {"cuda"}
    cost, plan = pairwise("sqeuclidean", x, y).numpy(), result.plan.dense().cpu()
    for k in range(size):
        value, linear, expected, f, _ = plain_loop(cost[k], a[k].numpy(), b[k].numpy(), REG)
        assert abs(float(result.value[k]) - value) <= 1e-11
        assert abs(float(result.value_linear[k]) - linear) <= 1e-10
        np.testing.assert_allclose(plan[k], expected, atol=1e-11)
        np.testing.assert_allclose(result.potentials[0][k].cpu(), f, atol=1e-10)
    assert (result.status == otfew.Status.OPTIMAL).all()


@pytest.mark.cuda
@pytest.mark.parametrize("output", ["value", "value_linear"])
def test_gradients_on_a_gpu_are_the_processors(output, problem, on_a_gpu):
    def gradients(backend, device):
        inputs = [z.to(device).requires_grad_() for z in problem(size=2)]
        getattr(otfew.solve_points(*inputs, solver=solver(backend)), output).sum().backward()
        return [z.grad.cpu() for z in inputs]

    for found, expected in zip(gradients("keops", on_a_gpu), gradients("torch", "cpu"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.cuda
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "lp:3"])
def test_float32_on_a_gpu(cost, problem, on_a_gpu):
    """Also larger clouds, of which a GPU's blocks of threads are not the only one."""
    x, y, a, b = (z.float() for z in problem(size=1, n=1500, m=1100))
    found = otfew.solve_points(*(z.to(on_a_gpu) for z in (x, y, a, b)), cost=cost, solver=solver("auto", tol=1e-5))
    expected = otfew.solve_points(*(z.double() for z in (x, y, a, b)), cost=cost, solver=solver("torch", tol=1e-7))
    assert found.solver == "keops"
    torch.testing.assert_close(found.value.cpu().double(), expected.value.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.cuda
def test_a_gpu_in_the_machine_leaves_tensors_on_the_processor_alone(problem, on_a_gpu):
    """KeOps would take them to the GPU by itself."""
    del on_a_gpu
    before = torch.cuda.memory_allocated()
    found = otfew.solve_points(*problem(), solver=solver("keops" if REASON is None else "torch"))
    expected = otfew.solve_points(*problem(), solver=solver("torch"))
    assert torch.cuda.memory_allocated() == before
    torch.testing.assert_close(found.value, expected.value, rtol=1e-10, atol=1e-12)


def test_without_keops_torch_takes_over_and_says_so_once(problem, monkeypatch):
    keops._say_once.cache_clear()
    monkeypatch.setattr(keops, "obstacle", lambda device: "KeOps finds no C++ compiler (install g++ or set CXX)")
    with pytest.warns(RuntimeWarning, match=r"no C\+\+ compiler .*: torch takes the sums") as caught:
        sums = keops.choose_sums(SQUARED, "auto", "cuda")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "\n" not in str(caught[0].message)
    assert sums == ChunkedTorch(SQUARED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keops.choose_sums(SQUARED, "auto", "cuda")
        # On the CPU torch is the faster, so that nobody misses KeOps there.
        assert otfew.solve_points(*problem(), solver=solver("auto")).solver == "keops[torch]"
        otfew.solve_points(*problem(), solver=solver("torch"))
    with pytest.raises(ImportError, match=r"solver 'keops' cannot run: KeOps finds no C\+\+ compiler"):
        otfew.solve_points(*problem(), solver=solver("keops"))
    keops._say_once.cache_clear()


CODE = """
import sys
{before}
import numpy, otfew
x = numpy.random.default_rng(0).random((5, 3))
print(otfew.solve_points(x, x).solver)
try:
    otfew.solve_points(x, x, solver=otfew.KeOps(backend="keops"))
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize("missing", ["pykeops", "compiler"])
def test_a_machine_without(missing, tmp_path):
    if missing == "compiler":
        pytest.importorskip("pykeops")
    before = "sys.modules['pykeops'] = None" if missing == "pykeops" else ""
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "KEOPS_CACHE_FOLDER": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-W", "always::RuntimeWarning", "-c", CODE.format(before=before)],
        capture_output=True, text=True, check=True, timeout=300, env=environment,
    )  # fmt: skip
    ran_by, said = ran.stdout.splitlines()
    assert ran_by == "keops[torch]"
    # Nobody misses KeOps on a CPU, so nothing is said there but to who asks for it.
    assert "RuntimeWarning" not in ran.stderr
    assert ("pykeops is not installed" if missing == "pykeops" else "no C++ compiler") in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reg": 0}, "reg must be positive"),
        ({"reg": float("nan")}, "reg must be positive"),
        ({"tol": 0}, "tol must be between"),
        ({"max_iter": 0}, "max_iter must be an integer of at least 1"),
        ({"scaling": 1.0}, "scaling must be between"),
        ({"backend": "jax"}, "backend must be one of auto, keops, torch"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=f"^KeOps: {message}"):
        otfew.KeOps(**options)
