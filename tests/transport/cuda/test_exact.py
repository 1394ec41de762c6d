"""``Exact`` on tensors of a pretended device, whose kernels an emulator runs, against ``Exact`` on the CPU."""

from __future__ import annotations

import copy
import gc
import io
import itertools
import math
import pickle
import warnings
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import otfew
from otfew.transport import complaints
from otfew.transport.cuda import exact as device_way
from otfew.transport.cuda import machines, programs
from otfew.transport.cuda.launches import Found
from otfew.transport.simplex.exact import Exact

from .emulator import Emulator, compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")

NAN, INF = math.nan, math.inf


@pytest.fixture
def gpu(pretended):
    """A pretended GPU, entered."""
    with pretended(Emulator()) as machine:
        yield machine


def random(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.rand(*shape, generator=generator, dtype=dtype) + 0.05


def weights(*shape, seed=0, dtype=torch.float64):
    drawn = random(*shape, seed=seed)
    return (drawn / drawn.sum(-1, keepdim=True)).to(dtype)


def problems(*batch, n=7, m=5, dtype=torch.float64):
    """A batch in general position."""
    return random(*batch, n, m, dtype=dtype), weights(*batch, n, seed=1, dtype=dtype), weights(*batch, m, dtype=dtype)


COST, A, B = problems(6)
F32 = torch.float32
CASES = {
    "batch": (COST, A, B),
    "one problem": (COST[0], A[0], B[0]),
    "tall": problems(3, n=9, m=2),
    "one row": problems(3, n=1, m=4),
    "float32": problems(6, dtype=F32),
    "float32 costs": (COST.float(), A, B),
    "float32 weights": (COST, A.float(), B.float()),
    "half": (COST.half(), A.half(), B.bfloat16()),
    "uniform": (COST, None, None),
    "uniform rows": (COST, None, 3 * B),
    "uniform columns": (COST, 3 * A, None),
    "totals of their own": (COST, 2.5 * A, 2.5 * (1 + 5e-5) * B),
    "shared cost": (COST[0], A, B),
    "shared weights": (COST, A[0], B[:1]),
    "one weight for all": (COST, A[0], None),
    "crossed": (random(4, 1, 7, 5), weights(3, 7), weights(4, 3, 5)),
    "expanded": (COST[:1].expand(6, 7, 5), A[0].expand(6, 7), B),
    "transposed": (random(6, 5, 7).mT, A, B),
    "permuted": (random(7, 3, 5, 2).permute(3, 1, 0, 2), weights(3, 2, 7).transpose(0, 1), weights(2, 3, 5)),
    "steps": (random(12, 14, 15)[::2, ::2, ::3], weights(6, 7), weights(6, 10)[:, ::2] * 0 + 0.2),
    "offset": (random(9, 7, 5)[3:], random(9, 8)[3:, 1:].softmax(-1), B),
    "uneven dimensions": (
        random(2, 1, 2, 1, 2, 1, 2, 1, 7, 5),
        weights(2, 1, 2, 1, 2, 1, 2, 7),
        weights(2, 1, 1, 1, 1, 1, 1, 1, 5),
    ),
}


def leaf(tensor, machine=None):
    """Make a leaf with the memory layout of a tensor, on a device if one is given."""
    size = 1 + sum((length - 1) * step for length, step in zip(tensor.shape, tensor.stride(), strict=True))
    memory = tensor.as_strided((size,), (1,)).clone()
    memory = memory if machine is None else machine.away(memory)
    return memory.as_strided(tensor.shape, tensor.stride(), 0).requires_grad_()


def solved(machine, tensors, solver, **options):
    """All that is found, and the gradients in what there is, on the CPU or a device; numbers come home."""
    leaves = [x if x is None else leaf(x, machine) for x in tensors]
    result = otfew.solve(*leaves, solver=solver, **options)
    factors = torch.linspace(1, 2, result.value.numel(), dtype=torch.float64).reshape(result.value.shape)
    (result.value * (factors if machine is None else machine.away(factors))).sum().backward()
    names = ("value", "value_linear", "plan", "gap", "marginal_error", "status")
    found = {name: getattr(result, name) for name in names} | dict(zip("fg", result.potentials, strict=True))
    found |= {f"d{name}": x.grad for name, x in zip("cab", leaves, strict=True) if x is not None}
    assert {tensor.device for tensor in found.values()} == {leaves[0].device}
    return {name: x.detach() if machine is None else machine.home(x) for name, x in found.items()}, result


def compare(gpu, tensors, solver="exact", tolerance=1e-9, **options):
    here, _ = solved(None, tensors, solver, **options)
    there, result = solved(gpu, tensors, solver, **options)
    assert gpu.launches.total() > 0
    assert result.solver == device_way.RAN
    for name, value in here.items():
        assert there[name].dtype == value.dtype, name
        torch.testing.assert_close(
            there[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("case", CASES)
def test_values_gradients_and_certificates_are_those_of_the_cpu(gpu, case):
    compare(gpu, CASES[case])


@pytest.mark.parametrize("mass", [0.4, "min"])
@pytest.mark.parametrize("case", ["batch", "one problem", "float32", "crossed", "shared cost", "transposed", "one row"])
def test_part_of_the_mass_is_transported_as_on_the_cpu(gpu, case, mass):
    cost, a, b = CASES[case]
    single = cost.dtype == F32
    compare(gpu, (cost, 1.5 * a, b), Exact(mass=mass), tolerance=2e-7 if single else 1e-9)


@pytest.mark.parametrize("level", [0.0, -2.0, 3.0])
def test_where_all_costs_are_the_same_the_whole_mass_is_moved(gpu, level):
    tensors = torch.full((2, 3, 4), level, dtype=torch.float64), weights(2, 3), weights(2, 4)
    result = otfew.solve(*gpu.away(tensors), solver=Exact(mass=0.5))
    assert (gpu.home(result.marginal_error) < 1e-12).all()
    torch.testing.assert_close(gpu.home(result.value), torch.full((2,), 0.5 * level, dtype=torch.float64))


def test_the_gap_covers_what_rounding_can_hide_as_on_the_cpu(gpu):
    """Bounds of rounding, far above the difference of value and dual value."""
    for mass in (0.37, "min"):
        tensors = COST + 1e3, 1.5 * A, B
        here, there = (solved(machine, tensors, Exact(mass=mass))[0]["gap"] for machine in (None, gpu))
        torch.testing.assert_close(there, here, rtol=0.2, atol=0)


def test_unsound_in_the_eyes_of_the_kernel_alone_is_sound(gpu, monkeypatch):
    """Totals that the kernel's sums put just beyond what is allowed, and torch's do not."""
    monkeypatch.setattr(device_way, "check_values", lambda *_, **__: None)
    tensors = UNSOUND["totals"]
    there = otfew.solve(*gpu.away(tensors))
    assert gpu.launches.total() == 2
    assert not gpu.home(there.status).any()
    torch.testing.assert_close(gpu.home(there.value), otfew.solve(*tensors, validate=False).value)


@pytest.mark.parametrize("mass", [0.37, "min"])
@pytest.mark.parametrize(("rows", "columns"), [(False, True), (True, False), (False, False)])
def test_a_missing_side_is_uniform_there_too(gpu, rows, columns, mass):
    if mass == "min" and rows != columns:
        pytest.skip("totals that are equal by construction are a kink")
    compare(gpu, (COST, A if rows else None, B if columns else None), Exact(mass=mass))


@pytest.mark.parametrize("given", ["both", "rows", "columns"])
@pytest.mark.parametrize("solver", ["exact", Exact(mass=0.37)], ids=["all", "mass"])
def test_gradients_are_those_of_finite_differences(gpu, solver, given):
    cost = random(2, 4, 3)
    a = weights(2, 4) if given != "columns" else None
    b = 1.00005 * weights(3) if given != "rows" else None
    grads = solved(gpu, (cost, a, b), solver, validate=False)[0]

    def totals(*tensors):
        values = otfew.solve(*gpu.away(list(tensors)), solver=solver, validate=False).value
        return (gpu.home(values) * torch.linspace(1, 2, 2, dtype=torch.float64)).sum(-1)

    step = 1e-6
    for k, name in enumerate("cab"):
        tensor = (cost, a, b)[k]
        if tensor is None:
            continue
        moves = step * torch.eye(tensor.numel(), dtype=tensor.dtype).reshape(-1, *tensor.shape)
        ends = []
        for sign in (1, -1):
            # One problem for every number that is moved, all at once; b is shared by the two of each.
            moved = [x if x is None else x.expand(len(moves), *x.shape).clone() for x in (cost, a, b)]
            moved[k] += sign * moves
            if b is not None:
                moved[2] = moved[2][:, None]
            ends.append(totals(*moved))
        measured = ((ends[0] - ends[1]) / (2 * step)).reshape(tensor.shape)
        torch.testing.assert_close(grads[f"d{name}"], measured, rtol=1e-6, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


def read(result):
    """Ask for everything."""
    return [result.plan, *result.potentials, result.gap, result.marginal_error, result.status, result.n_iter]


@pytest.mark.parametrize(
    ("solver", "operations"), [("exact", (6, 40, 70)), (Exact(mass=0.4), (190, 225, 245))], ids=["all", "mass"]
)
def test_the_host_waits_once_for_a_solution_and_once_for_the_range_of_a_plan(gpu, solver, operations):
    leaves = gpu.away([x.requires_grad_() for x in problems(6)])
    plain = [x.detach() for x in leaves]
    gpu.clear()
    otfew.solve(*plain, solver=solver)
    assert (gpu.waits, gpu.uploads) == (1, 0), gpu.report()
    assert gpu.operations <= operations[0], gpu.report()
    gpu.clear()
    result = otfew.solve(*leaves, solver=solver)
    result.value.sum().backward()
    assert (gpu.waits, gpu.uploads) == (1, 0), gpu.report()
    assert gpu.operations <= operations[1], gpu.report()
    read(result)
    assert (gpu.waits, gpu.uploads) == (2, 0), gpu.report()
    assert gpu.operations <= operations[2], gpu.report()


@pytest.mark.parametrize("solver", ["exact", Exact(mass=0.4), Exact(mass="min")], ids=["all", "mass", "min"])
@pytest.mark.parametrize("case", CASES)
def test_nothing_waits_where_nobody_wants_to_know(gpu, case, solver):
    leaves = [x if x is None else leaf(x, gpu) for x in CASES[case]]
    gpu.clear()
    result = otfew.solve(*leaves, solver=solver, validate=False, on_fail="ignore")
    result.value.sum().backward()
    read(result)
    assert (gpu.waits, gpu.uploads, gpu.draws) == (0, 0, 0), gpu.report()


def replaced(tensor, index, value):
    tensor = tensor.clone()
    tensor[index] = value
    return tensor


UNSOUND = {
    "NaN cost": (replaced(COST, (3, 2, 1), NAN), A, B),
    "infinite cost": (replaced(COST, (3, 2, 1), INF), A, B),
    "NaN in shared cost": (replaced(COST[0], (2, 1), NAN), A, B),
    "NaN row": (COST, replaced(A, (3, 2), NAN), B),
    "infinite column": (COST, A, replaced(B, (3, 2), INF)),
    "negative row": (COST, replaced(A, (3, 2), -0.1), B),
    "negative column": (COST, A, replaced(B, (3, 2), -0.1)),
    "negative column alone": (COST, None, replaced(B, (3, 2), -0.1)),
    "nothing in a row": (COST, replaced(A, 3, 0.0), B),
    "nothing at all": (COST, replaced(A, 3, 0.0), replaced(B, 3, 0.0)),
    "totals": (COST, replaced(A, (3, 2), 0.9), B),
    "totals of halves": (COST.half(), replaced(A, (3, 2), 0.9).half(), B.half()),
    "huge totals": (COST, A * 1e295, B * 1e295),
    "tiny totals": (COST, A * 1e-295, B * 1e-295),
    "crossed": (random(4, 1, 7, 5), replaced(weights(3, 7), (2, 2), NAN), weights(4, 3, 5)),
    "one problem": (COST[0], A[0], replaced(B[0], 2, -1.0)),
    "mass": (COST, 0.1 * A, 0.1 * B),
    "mass of one problem": (COST, A, replaced(B, 3, 0.01)),
}


def outcome(tensors, **options):
    """What a user meets: the sentence of an error, or statuses."""
    try:
        return otfew.solve(*tensors, **options).status
    except (ValueError, otfew.ConvergenceError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("options", [{}, {"validate": False}], ids=["validated", "taken as sound"])
@pytest.mark.parametrize("solver", ["exact", Exact(mass=0.5)], ids=["all", "mass"])
@pytest.mark.parametrize("case", UNSOUND)
def test_what_is_unsound_is_said_as_on_the_cpu(gpu, case, solver, options):
    here = outcome(UNSOUND[case], solver=solver, **options)
    there = outcome(gpu.away(UNSOUND[case]), solver=solver, **options)
    if isinstance(here, str):
        assert there == here
    else:
        assert torch.equal(gpu.home(there), here)
    assert gpu.launches.total() > 0


def test_what_nobody_looks_at_has_an_honest_status(gpu):
    for case in ("NaN cost", "negative row", "nothing at all"):
        for solver in ("exact", Exact(mass=0.5)):
            result = otfew.solve(*gpu.away(UNSOUND[case]), solver=solver, validate=False, on_fail="ignore")
            assert gpu.home(result.status).tolist() == [0, 0, 0, otfew.Status.FAILED, 0, 0]
    # On the CPU, which looks, this is an error.
    result = otfew.solve(
        *gpu.away(UNSOUND["mass of one problem"]), solver=Exact(mass=0.5), validate=False, on_fail="ignore"
    )
    assert gpu.home(result.status).tolist() == [0, 0, 0, otfew.Status.FAILED, 0, 0]


@pytest.mark.parametrize("scaled", [COST.float() * 3e38, COST * 1e308], ids=["float32", "float64"])
def test_sums_that_overflow_are_no_fault_of_sound_numbers(gpu, scaled):
    """The sum of the costs is infinite, the costs are not."""
    assert scaled.sum().isinf()
    here, there = otfew.solve(scaled, A, B), otfew.solve(*gpu.away([scaled, A, B]))
    torch.testing.assert_close(gpu.home(there.value), here.value, rtol=1e-12, atol=0)
    assert not gpu.home(there.status).any()
    assert gpu.launches.total() > 0


FAR = torch.cat([COST[:, :, :1] + 1e7 * (torch.arange(7) == 2)[:, None], COST[:, :, 1:]], -1)


def test_what_the_kernel_is_not_sure_of_is_settled(gpu):
    status = otfew.solve(*gpu.away([FAR, A, B]), validate=False, on_fail="ignore").status
    unsure = gpu.home(status) == otfew.Status.FAILED
    assert unsure.any()
    here, _ = solved(None, (FAR, A, B), "exact")
    there, _ = solved(gpu, (FAR, A, B), "exact")
    assert not there["status"].any()
    for name, value in here.items():
        torch.testing.assert_close(there[name], value, rtol=1e-9, atol=1e-9)
    # In a batch of its own, of more dimensions, and with dummies.
    shape = (2, 3)
    compare(gpu, (FAR.reshape(*shape, 7, 5), A.reshape(*shape, 7), B.reshape(*shape, 5)))
    compare(gpu, (FAR[0], A[0], B[0]))
    compare(gpu, (FAR, A, B), Exact(mass=0.9))


@pytest.mark.parametrize("policy", ["raise", "warn", "ignore"])
@pytest.mark.parametrize("validate", [True, False])
def test_stopping_early_is_reported(gpu, policy, validate):
    expected = {
        "raise": pytest.raises(
            otfew.ConvergenceError, match=r"exact did not reach .* \(MAX_ITER, gap .*raise max_iter"
        ),
        "warn": pytest.warns(otfew.ConvergenceWarning, match="exact did not reach"),
        "ignore": nullcontext(),
    }[policy]
    with expected:
        result = otfew.solve(*gpu.away([COST, A, B]), solver=Exact(max_iter=1), on_fail=policy, validate=validate)
        assert (gpu.home(result.status) == otfew.Status.MAX_ITER).any()
        stopped = gpu.home(result.status) == otfew.Status.MAX_ITER
        assert (gpu.home(result.gap)[stopped] > 1e-3).all()
        assert (gpu.home(result.marginal_error) < 1e-12).all()


def test_writing_into_a_result_leaves_gradients_alone(gpu):
    for tensors in (COST, A, B), (COST, None, B):
        wanted, _ = solved(None, tensors, "exact")
        leaves = [x if x is None else leaf(x, gpu) for x in tensors]
        result = otfew.solve(*leaves)
        for part in (*read(result), result.value.detach(), *(result._parts.arcs() or ())):
            part.zero_()
        factors = torch.linspace(1, 2, 6, dtype=torch.float64)
        result.value.backward(gpu.away(factors))
        for name, x in zip("cab", leaves, strict=True):
            if x is not None:
                torch.testing.assert_close(gpu.home(x.grad), wanted[f"d{name}"])


def test_gradients_are_not_differentiated_again(gpu):
    leaves = [leaf(x, gpu) for x in (COST, A, B)]
    grads = torch.autograd.grad(otfew.solve(*leaves).value.sum(), leaves, create_graph=True)
    with pytest.raises(RuntimeError, match="gradient of an exact optimum cannot be differentiated again"):
        grads[0].sum().backward()


def test_deterministic_algorithms_are_enough(gpu):
    torch.use_deterministic_algorithms(True)
    try:
        for solver in ("exact", Exact(mass=0.4)):
            compare(gpu, (COST, A, B), solver)
        compare(gpu, (FAR, A, B))
    finally:
        torch.use_deterministic_algorithms(False)


def test_transforms_are_refused_in_the_same_words(gpu):
    with pytest.raises(RuntimeError, match=r"does not work under torch\.vmap"):
        torch.vmap(lambda cost: otfew.solve(cost).value)(gpu.away(COST))


def test_point_clouds_are_solved_there(gpu):
    x, y = random(3, 6, 2), random(3, 4, 2)
    here = otfew.solve_points(x, y, solver="exact")
    there = otfew.solve_points(*gpu.away((x, y)), solver="exact")
    assert there._parts.solver == device_way.RAN
    torch.testing.assert_close(gpu.home(there.value), here.value)
    torch.testing.assert_close(gpu.home(there.plan.dense()), here.plan.dense())


def test_a_batch_of_more_than_65535_problems(gpu):
    cost = random(66_000, 2, 2, dtype=F32)
    value = otfew.solve(gpu.away(cost)).value
    torch.testing.assert_close(gpu.home(value), otfew.solve(cost).value)


def test_an_empty_batch(gpu):
    leaves = gpu.away([x[:0].requires_grad_() for x in (COST, A, B)])
    result = otfew.solve(*leaves)
    result.value.sum().backward()
    assert result.value.device == result.plan.device == gpu.device
    assert (result.plan.shape, leaves[0].grad.shape) == ((0, 7, 5), (0, 7, 5))
    assert not gpu.launches


def test_weights_may_lie_on_the_cpu(gpu):
    a, b = leaf(A), leaf(B)
    cost = leaf(COST, gpu)
    result = otfew.solve(cost, a, b)
    result.value.sum().backward()
    assert a.grad.is_cpu
    here = [leaf(x) for x in (COST, A, B)]
    otfew.solve(*here).value.sum().backward()
    for found, wanted in zip((gpu.home(cost.grad), a.grad, b.grad), (x.grad for x in here), strict=True):
        torch.testing.assert_close(found, wanted)


def test_arrays_stay_on_the_cpu(gpu):
    assert isinstance(otfew.solve(COST.numpy()).value, np.ndarray)
    assert not gpu.launches


@pytest.fixture
def unsaid(monkeypatch):
    """Nothing was said yet."""
    monkeypatch.setattr(complaints, "_said", set())


@pytest.mark.parametrize(("n", "solver"), [(129, "exact"), (128, Exact(mass=0.5))], ids=["all", "mass"])
def test_larger_problems_go_to_the_cpu_which_is_said_once(gpu, unsaid, n, solver):
    cost = random(1, n, 2)
    with pytest.warns(RuntimeWarning, match="of more than 128 rows or columns") as caught:
        there = otfew.solve(gpu.away(cost), solver=solver)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        otfew.solve(gpu.away(cost), solver=solver)
    assert not gpu.launches
    assert there.value.device == gpu.device
    assert torch.equal(gpu.home(there.value), otfew.solve(cost, solver=solver).value)


def test_devices_without_kernels_go_to_the_cpu_which_is_said_once(pretended, unsaid):
    with pretended() as machine:
        machines.register(machine.device.type, None)
        with pytest.warns(RuntimeWarning, match="on a device of kind 'meta' to the CPU"):
            there = otfew.solve(machine.away(COST))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            otfew.solve(machine.away(COST))
        assert torch.equal(machine.home(there.value), otfew.solve(COST).value)


def test_where_the_machine_has_said_why_nothing_is_added(pretended, unsaid):
    with pretended() as machine, warnings.catch_warnings():
        warnings.simplefilter("error")
        machines.register(machine.device.type, lambda device: None)
        assert otfew.solve(machine.away(COST)).solver.startswith("exact")


class Recorder:
    """A machine that writes down what it is told."""

    def __init__(self):
        self.launched = []

    def address(self, tensor):
        return tensor.data_ptr()

    def launch(self, kernel, problems, arguments):
        self.launched.append((kernel, problems, type(arguments).from_buffer_copy(arguments)))


@pytest.fixture
def on_the_cpu():
    """Let a machine run what lies on the CPU, and solve there by the way of devices."""

    def set_(machine):
        machines.register("cpu", lambda device: machine)

        def solve(*tensors, solver=None, looks=False, rtol=math.inf):
            batch = torch.broadcast_shapes(tensors[0].shape[:-2], *(x.shape[:-1] for x in tensors[1:] if x is not None))
            parts = device_way.parts_there(solver or Exact(), *tensors, batch, looks, rtol)
            return otfew.OTResult(parts, (*batch, *tensors[0].shape[-2:]), False)

        return solve

    yield set_
    machines.register("cpu", None)


@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_answer_proves_itself(on_the_cpu, examples, prove, data):
    solve = on_the_cpu(Emulator())
    example = data.draw(examples.filter(lambda example: max(example.cost.shape) <= 32))
    result = solve(*map(torch.from_numpy, (example.cost, example.a, example.b)), looks=True, rtol=1e-4)
    assert int(result.status) == otfew.Status.OPTIMAL
    prove(result, example)


def test_tensors_are_read_where_they_are(on_the_cpu):
    machine = Recorder()
    solve = on_the_cpu(machine)
    cost, b = random(2, 128, 9, dtype=F32).mT, random(2, 256, dtype=torch.float64)[:, ::2]
    assert cost.shape == (2, 9, 128)
    solve(cost, None, b, solver=Exact(tol=0.5, max_iter=7), rtol=0.25)
    ((kernel, problems, given),) = machine.launched
    assert kernel is programs.exact(9, 128, F32)
    assert problems == given.problems == 2
    assert (given.n, given.m, given.dims) == (9, 128, 1)
    assert (given.cost, given.a, given.b) == (cost.data_ptr(), None, b.data_ptr())
    assert (given.size[0], given.cost_stride[0], given.b_stride[0]) == (2, 128 * 9, 256)
    assert (given.cost_row, given.cost_col, given.b_step) == (1, 9, 2)
    assert (given.tol, given.max_iter, given.totals_rtol) == (0.5, 7, 0.25)
    solve(cost, None, b)
    given = machine.launched[1][2]
    assert (given.max_iter, given.totals_rtol) == (10_000 + 20 * 9 * 128, INF)
    # As large as can be: 128, dummies included.
    solve(random(128, 128), None, None)
    solve(random(127, 127), None, None, solver=Exact(mass=0.5))
    assert [kernel.name for kernel, _, given in machine.launched if given.n == 128] == ["exact_4_4_f64"] * 2


def test_outputs_lie_beside_each_other_and_a_value_holds_nothing_else(on_the_cpu):
    machine = Recorder()
    result = on_the_cpu(machine)(*problems(6))
    given = machine.launched[0][2]
    spans = [
        (given.flow, 8 * 6 * 11), (given.f, 8 * 6 * 7), (given.g, 8 * 6 * 5), (given.gap, 48), (given.error, 48),
        (given.n_iter, 48), (given.rows, 4 * 6 * 11), (given.cols, 4 * 6 * 11), (given.status, 24),
    ]  # fmt: skip
    assert all(first % 8 == 0 for first, _ in spans)
    assert all(first + size <= after for (first, size), (after, _) in itertools.pairwise(spans))
    assert result.value.untyped_storage().nbytes() == 48
    assert result.value.data_ptr() == given.value


def test_a_result_is_freed_without_the_garbage_collector(on_the_cpu):
    solve = on_the_cpu(Recorder())
    gc.collect()
    gc.disable()
    try:
        result = solve(*(x.requires_grad_() for x in problems(6)))
        (cell,) = result._parts.sound.__closure__
        watched = weakref.ref(cell.cell_contents)
        assert isinstance(watched(), Found)
        del cell
        del result
        assert watched() is None
    finally:
        gc.enable()


def test_results_can_be_sent_and_copied(on_the_cpu):
    solve = on_the_cpu(Emulator())
    result = solve(COST, A, B)
    for copied in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        for found, wanted in zip((copied.value, *read(copied)), (result.value, *read(result)), strict=True):
            assert torch.equal(found, wanted)
        assert copied.solver == result.solver
    file = io.BytesIO()
    torch.save(result, file)
    file.seek(0)
    with torch.serialization.safe_globals([otfew.OTResult]):
        loaded = torch.load(file, weights_only=True)
    assert torch.equal(loaded.plan, result.plan)
