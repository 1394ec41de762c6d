"""Batches in which some problems have forbidden pairs: each kind is solved by itself, so no bit of others changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from otfew.transport.entropic.newton import Rhos
from otfew.transport.entropic.support import Support, survey
from otfew.transport.problem import Status
from otfew.transport.result import Parts, check_range
from otfew.transport.sending import send

SolveSome = Callable[[Tensor], Parts]
"""Solves the problems of an index (some,)."""

SolveWithin = Callable[[Tensor, Support], Parts]
"""Solves the problems of an index, all feasible, within the pairs that plans use."""


def forbids(cost: Tensor) -> bool:
    """Tell whether any pair is forbidden; waits for a device."""
    return bool((cost.detach() == math.inf).any())


def solve_apart(
    cost: Tensor, a: Tensor, b: Tensor, rhos: Rhos, rounding: float, solve: SolveSome, within: SolveWithin, solver: str
) -> Parts:
    """Solve a flat batch in which pairs are forbidden.

    An infeasible problem has the value infinity, no gap, and a plan, potentials and gradients of zeros.

    Args:
        cost: (problems, n, m), infinite for forbidden pairs.
        a: (problems, n) float64.
        b: (problems, m) float64.
        rhos: Prices of soft marginals, None for hard ones.
        rounding: Largest relative error of one rounding of a weight.
        solve: Solves problems without forbidden pairs.
        within: Solves others.
        solver: Name of the code that runs.
    """
    here = torch.device("cpu")
    allowed = cost.detach() < math.inf
    some = send((~allowed).flatten(1).any(1), here).nonzero()[:, 0]
    rest = torch.ones(len(cost), dtype=torch.bool).index_fill_(0, some, False).nonzero()[:, 0]
    away = send(some, cost.device)
    found = survey(allowed[away], a[away], b[away], rhos, rounding)
    feasible = send(some[~found.infeasible], cost.device)
    pieces = [(feasible, within(feasible, found.support))] if len(feasible) else []
    if len(rest):
        index = send(rest, cost.device)
        pieces.append((index, solve(index)))
    infeasible = send(some[found.infeasible], cost.device)
    with torch.no_grad():
        mass = (a.detach().sum(-1).sqrt() * b.detach().sum(-1).sqrt()).index_fill(0, infeasible, 1.0)
        rows, columns = (
            x.new_zeros(x.shape, dtype=torch.bool).index_copy(0, away, send(cut, cost.device))
            for x, cut in ((a, found.rows), (b, found.columns))
        )
    return _merged(pieces, cost, mass, solver, (rows, columns) if len(infeasible) else None)


def _merged(
    pieces: list[tuple[Tensor, Parts]], cost: Tensor, mass: Tensor, solver: str, cut: tuple[Tensor, Tensor] | None
) -> Parts:
    """Put the answers of parts of a batch together; what none of them speaks of is infeasible, as ``cut`` proves."""
    size, n, m = cost.shape

    def joined(make: Callable[[Parts], Tensor], blank: float, *shape: int, dtype: torch.dtype) -> Tensor:
        whole = torch.full((size, *shape), blank, dtype=dtype, device=cost.device)
        for index, parts in pieces:
            whole = whole.index_copy(0, index, make(parts))
        return whole

    def number(name: str, blank: float, dtype: torch.dtype = torch.float64) -> Callable[[], Tensor]:
        def make(parts: Parts) -> Tensor:
            value: Any = getattr(parts, name)
            return value if isinstance(value, Tensor) else value()

        return lambda: joined(make, blank, dtype=dtype)

    def plan() -> Tensor:
        check_range(mass, cost.dtype)
        return joined(lambda parts: parts.plan(), 0.0, n, m, dtype=cost.dtype)

    def potentials() -> tuple[Tensor, Tensor]:
        sides = [parts.potentials() for _, parts in pieces]
        f, g = (torch.zeros(size, k, dtype=cost.dtype, device=cost.device) for k in (n, m))
        for (index, _), (x, y) in zip(pieces, sides, strict=True):
            f, g = f.index_copy(0, index, x), g.index_copy(0, index, y)
        return f, g

    return Parts(
        value=number("value", math.inf)(),
        value_linear=number("value_linear", math.inf),
        plan=plan,
        potentials=potentials,
        gap=number("gap", math.nan),
        marginal_error=number("marginal_error", math.nan),
        status=number("status", int(Status.INFEASIBLE), torch.int8),
        n_iter=number("n_iter", 0, torch.int64),
        solver=solver,
        sound=lambda: cut is None and all(parts.sound() for _, parts in pieces),
        cut=lambda: cut,
    )
