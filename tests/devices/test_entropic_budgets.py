"""How often entropic transport, and what is built on it, waits for a device, and how many operations it asks of it."""

from __future__ import annotations

import shutil

import pytest
import torch

import otfew
from otfew.methods import METHODS, centre_heads
from otfew.transport import ConvergenceWarning
from otfew.transport.costs import pairwise

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def batch():
    """375 problems of 25 x 25: 5 episodes of 5-way with 15 queries."""
    weights = draw(2, 375, 25, seed=1) + 0.1
    a, b = weights / weights.sum(-1, keepdim=True)
    return draw(375, 25, 25), a, b


@pytest.fixture(scope="module")
def episodes():
    """Two 5-way 1-shot episodes with 15 queries a class, of 25 nodes with 64 channels."""
    centres = draw(2, 5, 1, 25, 64)
    support = centres + 0.5 * draw(2, 5, 1, 25, 64, seed=1)
    query = (centres + 0.5 * draw(2, 5, 15, 25, 64, seed=2)).flatten(1, 2)
    return support, query


def spend(machine, waits, operations, launches=None):
    """Fail where more was spent, with what spent it; ``machine`` ran one call."""
    assert machine.waits <= waits, machine.report()
    assert machine.operations <= operations, machine.report()
    assert machine.uploads == 0, machine.report()
    if launches is not None:
        assert sum(machine.launches.values()) == launches, machine.report()


@pytest.mark.parametrize(
    ("reg", "kernels", "waits", "operations"),
    [
        pytest.param(0.1, True, 1, 230, marks=needs_compiler),
        pytest.param(0.01, True, 1, 230, marks=needs_compiler),
        (0.1, False, 6, 900),
        (0.01, False, 10, 3_900),
    ],
)
def test_sinkhorn_with_its_gradient(pretended, batch, reg, kernels, waits, operations):
    with pretended(kernels=kernels) as machine:
        cost, a, b = machine.away(batch)
        cost.requires_grad_()
        machine.clear()
        result = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=reg))
        _ = result.plan
        forward = machine.waits
        (result.value.sum() + result.value_linear.sum()).backward()
        assert machine.waits == forward
        spend(machine, waits, operations, launches=int(kernels))


@needs_compiler
def test_sinkhorn_asks_nothing_where_nobody_looks(pretended, batch):
    with pretended() as machine:
        inputs = machine.away(batch)
        machine.clear()
        result = otfew.solve(*inputs, solver="sinkhorn", validate=False, on_fail="ignore")
        _ = result.plan, result.value_linear, result.potentials, result.gap
        spend(machine, 0, 120, launches=1)


METHOD_BUDGETS = [
    ("lst", {"class_prior": "uniform"}, 21, 2, 1_200),
    ("lst", {"class_prior": "estimated"}, 21, 2, 1_900),
    ("lst", {"head": "kmeans"}, 0, 7, 400),
    ("pt-map", {}, 21, 2, 1_200),
    ("sot", {}, 1, 1, 110),
    ("deepemd", {"solver": "sinkhorn"}, 1, 1, 110),
]


@needs_compiler
@pytest.mark.parametrize(("name", "options", "launches", "waits", "operations"), METHOD_BUDGETS, ids=str)
def test_methods(pretended, episodes, name, options, launches, waits, operations):
    method = METHODS[name](**options)
    expected = method(*episodes)
    with pretended() as machine:
        support, query = machine.away(episodes)
        machine.clear()
        logits = method(support, query)
        spend(machine, waits, operations, launches)
        torch.testing.assert_close(machine.home(logits).softmax(-1), expected.softmax(-1), rtol=0, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("name", ["lst", "pt-map"])
def test_published_settings(pretended, episodes, name):
    """The bar for two episodes: at most 60 waits and 3,000 operations."""
    method = METHODS[name].published("cub", shot=1)
    with pretended() as machine:
        support, query = machine.away(episodes)
        machine.clear()
        method(support, query)
        spend(machine, 2, 1_700)


@needs_compiler
def test_more_episodes_cost_no_more(pretended, episodes):
    """However many, they go through in one set of launches."""
    support, query = (x.repeat(20, *[1] * (x.ndim - 1)) for x in episodes)
    with pretended() as machine:
        support, query = machine.away((support, query))
        machine.clear()
        METHODS["lst"]()(support, query)
        spend(machine, 2, 1_200, launches=21)


def test_methods_without_kernels(pretended, episodes):
    with pretended(kernels=False) as machine:
        support, query = machine.away(episodes)
        machine.clear()
        METHODS["lst"]()(support, query)
        spend(machine, 140, 31_000, launches=0)


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cosine"])
def test_costs_ask_nothing(pretended, cost):
    x, y = draw(3, 9, 40), draw(3, 7, 40, seed=1)
    y[:, 2] = x[:, 3]
    expected = pairwise(cost, x, y)
    with pretended() as machine:
        there = machine.away((x, y))
        machine.clear()
        found = pairwise(cost, *there)
        spend(machine, 0, 60)
        torch.testing.assert_close(machine.home(found), expected)


def test_point_clouds_are_looked_at_every_eight_iterations(pretended):
    x, y = draw(4, 60, 3), draw(4, 50, 3, seed=1)
    solver = otfew.KeOps(reg=0.01, backend="torch")
    expected = otfew.solve_points(x, y, solver=solver)
    with pretended() as machine:
        there = machine.away((x, y))
        machine.clear()
        found = otfew.solve_points(*there, solver=solver)
        steps = int(expected.n_iter.max())
        assert steps > 40
        spend(machine, steps // 8 + 8, 110 * steps)
        torch.testing.assert_close(machine.home(found.value), expected.value, rtol=1e-5, atol=1e-6)
        assert machine.home(found.n_iter).tolist() == expected.n_iter.tolist()


def test_gradients_of_point_clouds_are_looked_at_every_eight_steps(pretended):
    x, y = draw(4, 30, 3), draw(4, 20, 3, seed=1)
    solver = otfew.KeOps(reg=0.1, backend="torch")

    def gradient(x, y):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(otfew.solve_points(x, y, solver=solver).value_linear.sum(), x)[0]

    expected = gradient(x, y)
    with pretended() as machine:
        there = machine.away((x, y))
        leaf = there[0].requires_grad_()
        linear = otfew.solve_points(leaf, there[1], solver=solver).value_linear.sum()
        machine.clear()
        found = torch.autograd.grad(linear, leaf)[0]
        assert machine.operations > 500
        spend(machine, 6, 5_000)
        torch.testing.assert_close(machine.home(found), expected, rtol=1e-4, atol=1e-6)


@needs_compiler
def test_assignments_short_of_their_optimum_are_said_once(pretended, episodes, monkeypatch):
    monkeypatch.setattr(centre_heads, "TOLERANCE", 1e-290)
    with pretended() as machine:
        support, query = machine.away([x[:, :2] if x.ndim == 5 else x[:, :6] for x in episodes])
        machine.clear()
        with pytest.warns(
            ConvergenceWarning, match=r"of \d of 4 assignments of queries at reg 0\.1; lower lam"
        ) as said:
            METHODS["lst"](n_steps=1)(support, query)
        assert len(said) == 1
        assert machine.waits == 2
