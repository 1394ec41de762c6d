"""Feasible problems in which pairs are forbidden, solved within the pairs that plans use."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from otfew.transport.cuda.machines import machine_for
from otfew.transport.cuda.sinkhorn import solve_entropic
from otfew.transport.entropic import newton, plain
from otfew.transport.entropic.finishing import finish
from otfew.transport.entropic.newton import Rhos
from otfew.transport.entropic.solved import Solved, dual_value
from otfew.transport.entropic.support import Support
from otfew.transport.problem import Status


def solve_within(
    cost: Tensor, a: Tensor, b: Tensor, scale: Tensor, support: Support, reg: float, rhos: Rhos, tol: float,
    max_iter: int, most: int,
) -> tuple[Solved, Tensor]:  # fmt: skip
    """Solve a flat batch, wherever it is.

    Args:
        cost: (problems, n, m), infinite for forbidden pairs.
        a: (problems, n) float64; the geometric mean of the totals of a and b is 1.
        b: (problems, m) float64.
        scale: (problems,) float64, what the weights were divided by.
        support: The pairs that plans use.
        reg: Regularisation, in the units of the cost.
        rhos: Prices of soft marginals, None for hard ones.
        tol: Largest deviation from a marginal condition.
        max_iter: Iterations a problem may take.
        most: Of these, in the plain domain.

    Returns:
        What was found, and its dual values (problems,).
    """
    closed, filled = support.closed(), support.filled(cost)
    costs, parts = filled.masked_fill(closed, math.inf), (support.row_part, support.column_part)
    seen = support.seen(a, b)
    hard = rhos == (None, None)
    finite = support.finite(cost)
    # Where a marginal is soft, nodes that nothing serves have their price, which only the solver does not see.
    held = seen if hard else (a, b)
    machine = machine_for(cost.device)
    found = None
    if machine is not None:
        found = solve_entropic(machine, costs, *seen, reg, rhos, tol, max_iter, parts=parts)
    if found is not None:
        at = found.solved
        solved = Solved(
            finite, *held, scale, reg, rhos, at.phi, at.psi, at.offset, at.error, at.status, at.n_iter, at.plan, support
        )
    elif hard:
        scaled = plain.scale(filled, *seen, reg, tol, min(most, max_iter), closed)
        solved = Solved(
            finite, *held, scale, reg, rhos, scaled.phi, scaled.psi, scaled.offset.clone(), scaled.error.clone(),
            scaled.status, scaled.n_iter, scaled.plan, support,
        )  # fmt: skip
        finish(solved, costs, scaled.plan, scaled.status != Status.OPTIMAL, tol, max_iter)
    else:
        dual = newton.maximise(costs, *seen, reg, rhos, tol, max_iter, None, parts)
        solved = Solved(
            finite, *held, scale, reg, rhos, dual.phi, dual.psi, torch.zeros_like(scale), dual.error, dual.status,
            dual.n_iter, None, support,
        )  # fmt: skip
    net = (finite.double() - solved.offset[:, None, None]) / reg
    solved.phi, solved.psi = support.settle(solved.phi, solved.psi, net, *held, reg, rhos)
    if solved.plan is not None:
        # Between two nodes without weight a solver may have left zeros of either sign, or what it saw as uniform.
        solved.plan = solved.plan.where(support.live, 0.0)
    return solved, scale * dual_value(solved)
