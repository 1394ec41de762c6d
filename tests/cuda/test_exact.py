"""The exact solver's kernel: certified, equal to the CPU's optimum, the same bits whatever lies around a problem."""

from __future__ import annotations

import re

import pytest
import torch

import otfew
from otfew import ConvergenceError, Exact, Status
from otfew.transport.cuda import driver
from otfew.transport.cuda.machines import machine_for

from .conftest import KINDS
from .places import on_each

EXACT = 1e-9
"""Of values, in units of mass x range of the costs."""

kinds = pytest.mark.parametrize("kind", KINDS)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def outputs(result):
    """All that a result holds, by name."""
    f, g = result.potentials
    names = ("value", "plan", "gap", "marginal_error", "status", "n_iter")
    return {**{name: getattr(result, name) for name in names}, "f": f, "g": g}


def same_bits(one, other):
    assert one.keys() == other.keys()
    for name, x in one.items():
        torch.testing.assert_close(x, other[name], rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")


def check(cost, a, b, found):
    """Certify answers with sums of this test alone, and compare values with those of the CPU's solver."""
    expected = otfew.solve(cost, a, b)
    c, mass = cost.double(), a.sum(-1)
    largest = mass * c.abs().amax((1, 2))
    exact = EXACT * mass * (c.amax((1, 2)) - c.amin((1, 2))) + 1e-14 * largest
    eps = 4e-6 if cost.dtype == torch.float32 else 1e-12
    assert (found["status"] == Status.OPTIMAL).all()
    assert ((found["value"] - expected.value).abs() <= exact).all()
    plan, f, g = found["plan"].double(), found["f"].double(), found["g"].double()
    assert (plan >= 0).all()
    assert ((plan.sum(2) - a).abs().amax(1) <= eps * mass).all()
    assert ((plan.sum(1) - b).abs().amax(1) <= eps * mass).all()
    assert (((plan * c).sum((1, 2)) - found["value"]).abs() <= eps * largest).all()
    slack = c - f[:, :, None] - g[:, None]
    assert (slack >= -eps * c.abs().amax((1, 2), keepdim=True)).all()
    dual = (f * a).sum(-1) + (g * b).sum(-1)
    assert ((found["value"] - dual).abs() <= exact + eps * largest).all()
    assert (found["gap"].abs() <= exact).all()
    assert (found["marginal_error"] <= 1e-12).all()


@kinds
@dtypes
def test_every_answer_is_certified(kind, dtype, place, problems):
    for n in place.all_or(range(1, 129), (1, 2, 5, 16, 25, 32)):
        given = problems(kind, 6 if n < 65 else 3, n, dtype=dtype)
        check(*given, place.home(outputs(otfew.solve(*place.away(given)))))


SHAPES = [(1, 7), (7, 1), (5, 32), (33, 4), (31, 65), (128, 3), (2, 128), (65, 64)]


@pytest.mark.parametrize("kind", ["bar", "zeros"])
@pytest.mark.parametrize(("place", "shape"), on_each(SHAPES, SHAPES[:3]), indirect=["place"], ids=str)
def test_rows_and_columns_need_not_be_as_many(kind, shape, place, problems):
    n, m = shape
    given = problems(kind, 4, n, m, torch.float32)
    check(*given, place.home(outputs(otfew.solve(*place.away(given)))))


def test_a_kernel_ran(place, problems):
    """Else all of this would hold of the CPU's solver."""
    if not place.real and machine_for(place.device) is None:
        pytest.skip("there is no C++ compiler: kernels cannot run on the CPU")
    result = otfew.solve(*place.away(problems()))
    assert result.value.device == place.device
    assert "CPU" not in result.solver
    if not place.real:
        assert sum(place.machine.launches.values()) == 1


def test_one_size_more_goes_the_processors_way(place, problems):
    given = problems("bar", 1, 129)
    found = otfew.solve(*place.away(given))
    assert found.value.device == place.device
    check(*given, place.home(outputs(found)))
    if not place.real:
        assert not place.machine.launches


@dtypes
def test_the_same_bits_whatever_the_batch(dtype, place, problems):
    given = problems("bar", place.all_or([500], [12])[0], 25, dtype=dtype)
    whole = place.home(outputs(otfew.solve(*place.away(given))))
    order = torch.randperm(len(given[0]), generator=torch.Generator().manual_seed(0))
    mixed = place.home(outputs(otfew.solve(*place.away(tuple(x[order] for x in given)))))
    same_bits({name: x[order] for name, x in whole.items()}, mixed)
    alone = place.home(outputs(otfew.solve(*place.away(tuple(x[5] for x in given)))))
    same_bits({name: x[5] for name, x in whole.items()}, alone)


def test_the_same_bits_again(place, problems):
    given = place.away(problems("ties", 40, place.all_or([33], [30])[0], dtype=torch.float32))
    first = place.home(outputs(otfew.solve(*given)))
    for _ in range(place.all_or([20], [1])[0]):
        same_bits(first, place.home(outputs(otfew.solve(*given))))


def at_most(most):
    """Choose the largest shape of a block that the device holds, up to so many warps: ``driver.warps_a_block``."""

    def warps(resident, wanted):
        return max(shape for shape, held in zip(driver.SHAPES, resident, strict=True) if held and shape <= most)

    return warps


def test_shapes_of_blocks_are_chosen_where_these_tests_choose_them():
    """The next test needs a GPU; that what it replaces is there, is known here."""
    resident = [8] * len(driver.SHAPES)
    assert driver.warps_a_block(resident, 1) in driver.SHAPES
    assert [at_most(shape)(resident, 1) for shape in driver.SHAPES] == list(driver.SHAPES)
    assert at_most(8)([8, 8, *[0] * (len(driver.SHAPES) - 2)], 1) == driver.SHAPES[1]


@pytest.mark.cuda
@pytest.mark.parametrize("n", [25, 49, 100])
def test_the_same_bits_whatever_the_launch(n, problems, monkeypatch):
    given = [x.cuda() for x in problems("bar", 50, n, dtype=torch.float32)]
    found = []
    for warps in driver.SHAPES:
        monkeypatch.setattr(driver, "warps_a_block", at_most(warps))
        found.append(outputs(otfew.solve(*given)))
    for other in found[1:]:
        same_bits(found[0], other)


def test_no_problem_one_problem_and_very_many(place, problems):
    cost, a, b = place.away(problems("bar", 3, 4, dtype=torch.float32))
    none = otfew.solve(cost[:0], a[:0], b[:0])
    assert none.value.shape == (0,)
    assert none.plan.shape == (0, 4, 4)
    one = otfew.solve(cost[0], a[0], b[0])
    assert one.value.shape == ()
    assert one.plan.shape == (4, 4)
    many = place.all_or([70_001], [301])[0]
    index = torch.arange(many, device=place.device) % 3
    found = otfew.solve(cost[index], a[index], b[index])
    three = otfew.solve(cost, a, b)
    same_bits(
        {name: place.home(x)[index.cpu() if place.real else place.home(index)] for name, x in outputs(three).items()},
        place.home(outputs(found)),
    )


def layouts(cost, a, b):
    """The same six problems in other layouts of memory: name -> cost, a, b."""
    wide = cost.new_full((6, 9, 20), torch.nan)
    wide[:, 1:8, 2:20:2] = cost
    weights = a.new_full((6, 16), torch.nan)
    weights[:, 3:10] = a
    return {
        "transposed": (cost.transpose(1, 2).contiguous().transpose(1, 2), a, b),
        "batch last": (cost.permute(1, 2, 0).contiguous().permute(2, 0, 1), a.T.contiguous().T, b.T.contiguous().T),
        "cut out": (wide[:, 1:8, 2:20:2], weights[:, 3:10], b),
        "backwards": (cost.flip(0).contiguous().flip(0), a, b),
        "two batch dimensions": (cost.view(2, 3, 7, 9), a.view(2, 3, 7), b.view(2, 3, 9)),
        "swapped batch dimensions": (
            cost.view(2, 3, 7, 9).transpose(0, 1).contiguous().transpose(0, 1),
            a.view(2, 3, 7),
            b.view(2, 3, 9),
        ),
    }


@dtypes
def test_layouts_of_memory_change_nothing(dtype, place, problems):
    given = place.away(problems("bar", 6, 7, 9, dtype))
    expected = place.home(outputs(otfew.solve(*given)))
    for name, other in layouts(*given).items():
        found = place.home(outputs(otfew.solve(*other)))
        flat = {key: x.reshape(expected[key].shape) for key, x in found.items()}
        assert all(torch.equal(expected[key], flat[key]) for key in expected), name


@dtypes
def test_what_is_shared_is_expanded_without_copies(dtype, place, problems):
    cost, a, b = place.away(problems("bar", 6, 7, 9, dtype))
    some = {
        "one cost": (cost[0], a, b),
        "one cost, expanded": (cost[:1].expand(6, 7, 9), a, b),
        "costs by weights": (cost[:, None], a[:2], b[:2]),
        "all combinations": (cost[:2, None, None], a[:3, None], b[:4]),
    }
    for name, (c, *weights) in some.items():
        x, y = (w / w.sum(-1, keepdim=True) for w in weights)
        batch = torch.broadcast_shapes(c.shape[:-2], x.shape[:-1], y.shape[:-1])
        copies = (
            c.expand(*batch, 7, 9).contiguous(),
            x.expand(*batch, 7).contiguous(),
            y.expand(*batch, 9).contiguous(),
        )
        found, expected = (place.home(outputs(otfew.solve(*each))) for each in ((c, x, y), copies))
        assert all(torch.equal(expected[key], found[key]) for key in expected), name


@pytest.mark.parametrize(("a", "b"), [(None, None), (0, None), (None, 0)])
def test_missing_weights_are_uniform(a, b, place, problems):
    cost, x, y = problems("bar", 5, 7, 9)
    given = (cost, x if a == 0 else None, y if b == 0 else None)
    found = otfew.solve(*place.away(given))
    torch.testing.assert_close(place.home(found.value), otfew.solve(*given).value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mass", [0.3, "min"])
def test_some_of_the_mass(mass, place, problems):
    cost, a, b = problems("bar", 5, 7, 9)
    a, b = a / a.sum(-1, keepdim=True), 1.4 * b / b.sum(-1, keepdim=True)
    solver = Exact(mass=mass)
    expected = outputs(otfew.solve(cost, a, b, solver=solver))
    found = place.home(outputs(otfew.solve(*place.away((cost, a, b)), solver=solver)))
    for name in ("value", "f", "g", "plan"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-9)


def spoilt(cost, a, b):
    """Unsound problems, by what is wrong."""

    def put(x, value, *at):
        x = x.clone()
        x[at] = value
        return x

    return {
        "NaN in a cost": (put(cost, torch.nan, 3, 1, 2), a, b),
        "infinity in a cost": (put(cost, -torch.inf, 4, 0, 0), a, b),
        "NaN in a": (cost, put(a, torch.nan, 2, 1), b),
        "a negative weight": (cost, put(a, -0.1, 1, 1), b),
        "a negative weight of b": (cost, a, put(b, -0.1, 5, 0)),
        "no weight": (cost, put(a, 0.0, 3), b),
        "totals apart": (cost, put(a, 3.0, 2, 1), b),
    }  # fmt: skip


@pytest.mark.parametrize("wrong", ["NaN in a cost", "infinity in a cost", "NaN in a", "a negative weight",
                                   "a negative weight of b", "no weight", "totals apart"])  # fmt: skip
@dtypes
def test_unsound_problems_are_refused_in_the_processors_words(wrong, dtype, place, problems):
    given = spoilt(*problems("bar", 6, 7, 9, dtype))[wrong]
    with pytest.raises(ValueError, match=r"cost|a|b") as expected:
        otfew.solve(*given)
    with pytest.raises(ValueError, match=r"cost|a|b") as found:
        otfew.solve(*place.away(given))
    assert str(found.value) == str(expected.value)
    # Nothing of it stays behind.
    sound = problems("bar", 2, 7, 9, dtype)
    check(*sound, place.home(outputs(otfew.solve(*place.away(sound)))))


def test_who_stops_early_is_named_in_the_processors_words(place, problems):
    given = problems("bar", 3, 25)
    solver = Exact(max_iter=1)
    with pytest.raises(ConvergenceError) as expected:
        otfew.solve(*given, solver=solver)
    with pytest.raises(ConvergenceError) as found:
        otfew.solve(*place.away(given), solver=solver)
    # The first pivots of one may be better than those of the other.
    here, there = (re.sub(r"gap [\d.e+-]+", "gap", str(each.value)) for each in (expected, found))
    assert there == here
    ignored = otfew.solve(*place.away(given), solver=solver, on_fail="ignore")
    assert (place.home(ignored.status) == Status.MAX_ITER).all()


def test_costs_far_above_the_others(place, problems):
    """What the kernel is unsure of is settled, as on the CPU."""
    cost, a, b = problems("bar", 4, 9)
    cost = cost.clone()
    cost[1, 2, 3], cost[2, :, 0] = 1e12, 1e9
    found = otfew.solve(*place.away((cost, a, b)))
    expected = otfew.solve(cost, a, b)
    torch.testing.assert_close(place.home(found.value), expected.value, rtol=1e-9, atol=1e-9)
    assert (place.home(found.status) == Status.OPTIMAL).all()
