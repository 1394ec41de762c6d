"""Batches in which some problems have forbidden pairs: each kind is solved by itself, so no bit of others changes."""

from __future__ import annotations

import math
from collections.abc import Callable

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
    pieces = []
    for group, support in found.groups:
        index = send(some[group], cost.device)
        pieces.append((index, within(index, support)))
    if len(rest):
        index = send(rest, cost.device)
        pieces.append((index, solve(index)))
    infeasible = send(some[found.infeasible], cost.device)
    cut = None
    if len(infeasible):
        pieces.append((infeasible, _refused(cost[infeasible], a[infeasible], b[infeasible], solver)))
        cut = tuple(
            x.new_zeros(x.shape, dtype=torch.bool).index_copy(0, away, send(side, cost.device))
            for x, side in ((a.detach(), found.rows), (b.detach(), found.columns))
        )
    with torch.no_grad():
        mass = (a.detach().sum(-1).sqrt() * b.detach().sum(-1).sqrt()).index_fill(0, infeasible, 1.0)
    return _merged(pieces, cost, mass, solver, cut)


def _refused(cost: Tensor, a: Tensor, b: Tensor, solver: str) -> Parts:
    """Answer for infeasible problems; what is to have a gradient has one, of zeros."""
    size, n, m = cost.shape
    never = torch.zeros(size, dtype=torch.bool, device=cost.device)
    linked = cost[:, 0, 0].double() + a[:, 0] + b[:, 0]

    def blank(fill: float) -> Tensor:
        return torch.where(never, linked, torch.full_like(linked, fill))

    def nothing(dtype: torch.dtype = torch.float64, fill: float = 0.0) -> Tensor:
        return torch.full((size,), fill, dtype=dtype, device=cost.device)

    return Parts(
        value=blank(math.inf),
        value_linear=lambda: blank(math.inf),
        plan=lambda: blank(0.0).to(cost.dtype)[:, None, None].expand(size, n, m),
        potentials=lambda: (cost.new_zeros(size, n), cost.new_zeros(size, m)),
        gap=lambda: nothing(fill=math.nan),
        marginal_error=lambda: nothing(fill=math.nan),
        status=lambda: nothing(torch.int8, int(Status.INFEASIBLE)),
        n_iter=lambda: nothing(torch.int64),
        solver=solver,
    )


def _merged(
    pieces: list[tuple[Tensor, Parts]], cost: Tensor, mass: Tensor, solver: str, cut: tuple[Tensor, ...] | None
) -> Parts:
    """Put the answers of parts of a batch together."""

    def joined(parts: list[Tensor]) -> Tensor:
        whole = parts[0].new_empty((len(cost), *parts[0].shape[1:]))
        for (index, _), part in zip(pieces, parts, strict=True):
            whole = whole.index_copy(0, index, part)
        return whole

    def all_of(name: str) -> Callable[[], Tensor]:
        return lambda: joined([getattr(parts, name)() for _, parts in pieces])

    def plan() -> Tensor:
        check_range(mass, cost.dtype)
        return joined([parts.plan() for _, parts in pieces])

    def potentials() -> tuple[Tensor, Tensor]:
        f, g = zip(*(parts.potentials() for _, parts in pieces), strict=True)
        return joined(list(f)), joined(list(g))

    return Parts(
        value=joined([parts.value for _, parts in pieces]),
        value_linear=all_of("value_linear"),
        plan=plan,
        potentials=potentials,
        gap=all_of("gap"),
        marginal_error=all_of("marginal_error"),
        status=all_of("status"),
        n_iter=all_of("n_iter"),
        solver=solver,
        sound=lambda: cut is None and all(parts.sound() for _, parts in pieces),
        cut=lambda: cut if cut is None else (cut[0], cut[1]),
    )
