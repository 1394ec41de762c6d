"""One cell of the measurement: every solver on the same problems, its time in turns and the accuracy it reached."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

import otfew
from otfew.experiments.solver_timings.clock import History, Pace, take_turns
from otfew.experiments.solver_timings.problems import Problems
from otfew.transport import OTResult, Solver

Solve = Callable[..., OTResult]
Row = dict[str, Any]

JUDGED_POINTS = 1000
"""Larger clouds are not solved exactly to judge the others: the dense cost alone would take long."""


def measure_dense(
    where: Row, problems: Problems, contenders: Mapping[str, Solver], histories: Mapping[str, History], pace: Pace
) -> list[Row]:
    """Time ``otfew.solve`` and judge its answers by those of ``exact``.

    Args:
        where: What all rows begin with: "panel", "n" and "batch".
        problems: The batch.
        contenders: Name -> solver.
        histories: Name -> times so far; this cell's are added.
        pace: How long to look.

    Returns:
        A row a contender: times in ms, accuracy, or "skipped" with the reason.
    """
    reference = otfew.solve(problems.cost, problems.a, problems.b)
    spread = (problems.cost.amax((-2, -1)) - problems.cost.amin((-2, -1))).double()
    scale = (spread * problems.a.sum(-1)).cpu()

    def judge(result: OTResult) -> Row:
        error = (result.value_linear.detach().cpu() - reference.value.cpu()).abs() / scale
        return {"value_error": _worst(error), **certificate(result, scale)}

    def calls(solver: Solver) -> Solve:
        return lambda *leaves: otfew.solve(*leaves, solver=solver, on_fail="ignore")

    leaves = (problems.cost, problems.a, problems.b)
    return _measure(where, {n: calls(s) for n, s in contenders.items()}, leaves, judge, histories, pace)


def measure_points(
    where: Row,
    points: tuple[Tensor, Tensor, Tensor, Tensor],
    contenders: Mapping[str, Solver],
    histories: Mapping[str, History],
    pace: Pace,
) -> list[Row]:
    """Time ``otfew.solve_points`` on squared Euclidean costs; solvers of dense costs pay for making theirs.

    Args:
        where: What all rows begin with.
        points: x, y, a, b of one problem.
        contenders: Name -> solver of either kind.
        histories: Name -> times so far; this cell's are added.
        pace: How long to look.
    """
    x, y, a, _ = points
    judged = where["n"] <= JUDGED_POINTS
    optimum = otfew.solve_points(*points, solver="exact").value.cpu() if judged else torch.tensor(torch.nan)
    scale = (torch.cdist(x, y).square().amax((-2, -1)).double() * a.sum(-1)).cpu()

    def calls(solver: Solver) -> Solve:
        return lambda *leaves: otfew.solve_points(*leaves, solver=solver, on_fail="ignore")

    def judge(result: OTResult) -> Row:
        error = (result.value_linear.detach().cpu() - optimum).abs() / scale
        return {"value_error": _worst(error), **certificate(result, scale)}

    return _measure(where, {n: calls(s) for n, s in contenders.items()}, points, judge, histories, pace)


def certificate(result: OTResult, scale: Tensor) -> Row:
    """Worst gap in units of mass x range, worst marginal error, and how many problems did not reach the optimum."""
    return {
        "gap": _worst(result.gap.detach().cpu() / scale),
        "marginal_error": _worst(result.marginal_error.detach().cpu()),
        "not_converged": int((result.status != otfew.Status.OPTIMAL).sum()),
    }


def in_a_line(error: Exception) -> str:
    """Say in one line what went wrong."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _measure(
    where: Row,
    solve: Mapping[str, Solve],
    leaves: tuple[Tensor, ...],
    judge: Callable[[OTResult], Row],
    histories: Mapping[str, History],
    pace: Pace,
) -> list[Row]:
    """Try each contender once, then time those that worked and are quick enough."""
    rows = {name: {**where, "solver": name} for name in solve}
    works: dict[str, Callable[[], object]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, call in solve.items():
            predicted = histories[name].predict(where["n"], where["batch"])
            if predicted is not None and predicted > pace.limit:
                rows[name]["skipped"] = f"a call would take about {predicted:.2g} s"
                continue
            # Whatever a backend cannot do is a finding of this table.
            try:
                forward = _forward(call, leaves)
                rows[name] |= judge(forward())
                works[f"{name} forward"] = forward
            except Exception as error:
                rows[name]["skipped"] = in_a_line(error)
                continue
            try:
                backward = _backward(call, leaves)
                if backward is not None:
                    backward()
                    works[f"{name} backward"] = backward
            except Exception as error:
                rows[name]["no_gradients"] = in_a_line(error)
        timings = take_turns(works, pace)
    for name, row in rows.items():
        for kind in ("forward", "backward"):
            timing = timings.get(f"{name} {kind}")
            if timing is not None:
                row |= {f"{kind}_ms": 1e3 * timing.seconds, f"{kind}_rounds": timing.rounds}
                if kind == "forward":
                    histories[name].seen[where["n"], where["batch"]] = timing.seconds
    return list(rows.values())


def _forward(call: Solve, leaves: tuple[Tensor, ...]) -> Callable[[], OTResult]:
    """Prepare a call without gradients."""

    def forward() -> OTResult:
        with torch.no_grad():
            result = call(*leaves)
        _wait(leaves[0])
        return result

    return forward


def _backward(call: Solve, leaves: tuple[Tensor, ...]) -> Callable[[], object] | None:
    """Prepare a call with the gradient of the values in all that they depend on; None where there is none."""
    tracked = [leaf.clone().requires_grad_() for leaf in leaves]
    if not call(*tracked).value.requires_grad:
        return None

    def backward() -> object:
        grads = torch.autograd.grad(call(*tracked).value.sum(), tracked, allow_unused=True)
        _wait(leaves[0])
        return grads

    return backward


def _worst(values: Tensor) -> float | None:
    """Return the largest number, or None where one is not finite: JSON has no word for it."""
    worst = float(values.max())
    return worst if math.isfinite(worst) else None


def _wait(tensor: Tensor) -> None:
    """Let the clock see an accelerator's work."""
    if tensor.device.type == "cuda":
        torch.cuda.synchronize()
