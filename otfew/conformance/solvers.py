"""Laws of contract 1, that of transport solvers, as far as they can be tried on anybody's solver."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from otfew import transport
from otfew.conformance.chance import twice
from otfew.conformance.findings import Finding, Law, broken, judge, noted
from otfew.transport import OTResult, Solver
from otfew.transport.registry import PointSolver, installed, lookup

N, M, PROBLEMS = 5, 7, 4
EXACT, REGULARISED = 1e-6, 1e-3
"""How far sums of a plan and values may be off, relative to mass and range of costs."""


@dataclass
class Subject:
    """A solver.

    Attributes:
        spec: Name as it was given.
        kind: The class.
    """

    spec: str
    kind: type[Solver]

    @property
    def near(self) -> float:
        """How far numbers may be off."""
        return EXACT if self.kind.kind == "exact" else REGULARISED

    def ask(self, cost: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> OTResult:
        """Solve; a point solver gets points on a line whose squared distances are like costs."""
        solver: Any = self.spec
        with warnings.catch_warnings():
            # That an entropic solver stops early is said of each problem by its status.
            warnings.simplefilter("ignore")
            return transport.solve(cost, a, b, solver=solver)


def check(spec: str) -> tuple[Finding, ...]:
    """Try all laws on a solver.

    Args:
        spec: Its name, as ``otfew.transport.registry.lookup`` takes it.

    Raises:
        ValueError: There is no such solver.
    """
    kind = lookup(spec)
    return judge(Subject(spec, kind), POINT_LAWS if issubclass(kind, PointSolver) else LAWS)


def problems(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Draw costs (problems, N, M), and weights of the same totals, one of them with zeros."""
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(PROBLEMS, N, M, generator=generator, dtype=torch.float64)
    a = torch.rand(PROBLEMS, N, generator=generator, dtype=torch.float64) + 0.1
    b = torch.rand(PROBLEMS, M, generator=generator, dtype=torch.float64) + 0.1
    a[1, 2] = 0
    b = b * (a.sum(-1, keepdim=True) / b.sum(-1, keepdim=True))
    return cost.to(dtype), a.to(dtype), b.to(dtype)


def _class(solver: Subject) -> None:
    kind = solver.kind
    if kind.kind not in {"exact", "entropic", "quadratic"}:
        broken(f"'kind' is {kind.kind!r}: state exact (the linear program), entropic or quadratic.")
    if not installed(kind):
        broken(f"it requires {kind.requires!r}, which cannot be imported here: {kind.install}.")
    if not (dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen):
        broken(
            "it is no frozen dataclass: put @dataclass(frozen=True) above the class, so that its repr tells options."
        )


def _runs(solver: Subject) -> None:
    for dtype in (torch.float64, torch.float32):
        found = solver.ask(*problems(dtype))
        plan = found.plan
        if plan.shape != (PROBLEMS, N, M) or found.value.shape != (PROBLEMS,):
            broken(f"plan and value have shapes {tuple(plan.shape)} and {tuple(found.value.shape)}.")
        if not (bool(torch.isfinite(plan).all()) and bool(torch.isfinite(found.value).all())):
            broken("plan or value are not finite.")
    solver.ask(problems()[0])


def _marginals(solver: Subject) -> None:
    cost, a, b = problems()
    plan = solver.ask(cost, a, b).plan
    mass = float(a.sum(-1).max())
    if float(plan.min()) < -solver.near * mass:
        broken(f"the plan holds {float(plan.min()):.3g}: no flow may be negative.")
    for name, sums, wanted in (("rows", plan.sum(-1), a), ("columns", plan.sum(-2), b)):
        astray = float((sums - wanted).abs().max())
        if astray > solver.near * mass:
            broken(f"sums of the plan's {name} miss the weights by up to {astray:.3g}: a plan must meet both.")


def _value(solver: Subject) -> None:
    cost, a, b = problems()
    found = solver.ask(cost, a, b)
    linear = (found.plan * cost).sum((-1, -2))
    best = transport.solve(cost, a, b).value
    if float((found.value_linear - linear).abs().max()) > solver.near:
        broken("value_linear is not the sum of plan times cost.")
    if float((best - linear).max()) > solver.near:
        broken("the plan costs less than the optimum, which no plan that meets the weights can.")
    if solver.kind.kind == "exact" and float((linear - best).max()) > EXACT:
        broken(
            f"its plans cost up to {float((linear - best).max()):.3g} more than the optimum, but 'kind' says exact: "
            "state entropic where a regularised problem is solved."
        )
    if solver.kind.kind == "exact" and float((found.value - best).abs().max()) > EXACT:
        broken("value is not that of the optimum.")


def _deterministic(solver: Subject) -> None:
    cost, a, b = problems()
    given = [part.clone() for part in (cost, a, b)]
    first, second = twice(lambda: solver.ask(cost, a, b).plan)
    if not torch.equal(first, second):
        broken("the same problem gets another plan when generators are seeded otherwise: draw from a seed of your own.")
    if not all(map(torch.equal, given, (cost, a, b))):
        broken("it writes into cost or weights: copy them first.")


def _batch_mates(solver: Subject) -> None:
    cost, a, b = problems()
    together = solver.ask(cost, a, b).value
    alone = torch.cat([solver.ask(cost[k : k + 1], a[k : k + 1], b[k : k + 1]).value for k in range(PROBLEMS)])
    coupled = float((together - alone).abs().max()) > (1e-9 if solver.kind.kind == "exact" else REGULARISED)
    if coupled and not solver.kind.batch_coupled:
        broken(
            "a problem is answered otherwise among others than alone: let each stop by itself, or state "
            "'batch_coupled = True'."
        )


def _order(solver: Subject) -> None:
    cost, a, b = problems()
    rows, columns = torch.tensor([3, 1, 4, 0, 2]), torch.tensor([6, 0, 2, 1, 5, 3, 4])
    moved = solver.ask(cost[:, rows][:, :, columns], a[:, rows], b[:, columns]).value
    if float((moved - solver.ask(cost, a, b).value).abs().max()) > solver.near:
        broken("rows and columns in another order have another value.")


def _gradient(solver: Subject) -> None:
    cost, a, b = problems()
    cost.requires_grad_()
    value = solver.ask(cost, a, b).value.sum()
    if not value.requires_grad:
        noted("value has no gradient in the cost: metatrain cannot train through it.")
    (gradient,) = torch.autograd.grad(value, cost)
    along = torch.randn(cost.shape, generator=torch.Generator().manual_seed(1), dtype=cost.dtype)
    step = 1e-4
    with torch.no_grad():
        ends = [float(solver.ask(cost + sign * step * along, a, b).value.sum()) for sign in (1, -1)]
    measured, computed = (ends[0] - ends[1]) / (2 * step), float((gradient * along).sum())
    if abs(measured - computed) > 0.02 * max(abs(measured), abs(computed), 0.1):
        broken(f"the value's gradient in the cost is {computed:.3g} where finite differences say {measured:.3g}.")


def _points(solver: Subject) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, n, 3, generator=generator) for n in (N, M))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = transport.solve_points(x, y, solver=solver.spec)
    if found.value.shape != (2,) or not bool(torch.isfinite(found.value).all()):
        broken(f"values of two problems are {found.value}: give a finite one for each.")
    rows = found.plan @ torch.ones(2, M, 1)
    if float((rows[..., 0] - 1 / N).abs().max()) > 1e-2 / N:
        broken("sums of the plan's rows miss the weights.")


LAWS: tuple[Law[Subject], ...] = (
    Law("the class states what it must", _class, first=True),
    Law("it solves in float32 and float64", _runs, first=True),
    Law("the plan meets the weights", _marginals),
    Law("the plan costs what its kind promises", _value),
    Law("the same problem gets the same answer, and is left as it is", _deterministic),
    Law("a problem does not depend on its batch-mates, or it says so", _batch_mates),
    Law("order of rows and columns does not matter", _order),
    Law("the value's gradient is that of finite differences", _gradient),
)
POINT_LAWS: tuple[Law[Subject], ...] = (
    Law("the class states what it must", _class, first=True),
    Law("it solves point clouds, and meets the weights", _points),
)
