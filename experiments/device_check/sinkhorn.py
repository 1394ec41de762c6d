"""Entropic transport of many small problems: ours, POT's batched solver and geomloss, on the same device."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

import otfew
from otfew.experiments.device_check.bench import CARD, Bench, Row, tracked
from otfew.experiments.solver_timings.measure import in_a_line

REG = 0.1
"""Strength in units of the cost, which is the half of a squared distance between points in a cube of side 1."""
TOL = 1e-6
DIMENSION = 8
SIZES = ((25, 375), (25, 10_000), (9, 10_000), (49, 375))
TOY_SIZES = ((5, 4),)


def measure(bench: Bench) -> Iterator[Row]:
    """Yield a row a solver and size.

    Each solver stops by its own rule: ours at a marginal error of 1e-6, POT's too or after 1,000 steps, geomloss after
    the steps that its scaling of 0.5 asks for. "value_error" tells what that came to, against ours at 1e-10.
    """
    for n, count in TOY_SIZES if bench.toy else SIZES:
        generator = torch.Generator().manual_seed(0)
        x, y = (torch.rand(count, n, DIMENSION, generator=generator).to(bench.device) for _ in range(2))
        a, b = (torch.rand(count, n, generator=generator).add(0.1).to(bench.device) for _ in range(2))
        a, b = a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)
        cost = 0.5 * torch.cdist(x, y).square()
        exact = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=REG, tol=1e-10), on_fail="ignore")
        solvers: dict[str, tuple[Callable[[], Tensor], Tensor]] = {
            CARD: (partial(_value, cost, a, b), exact.value),
        }
        if importlib.util.find_spec("ot") is not None:
            # Its value counts the plan's entropy, ours the divergence from a b: their linear parts mean the same.
            solvers["ot.batch"] = (partial(_pots, cost, a, b), exact.value_linear)
        if importlib.util.find_spec("geomloss") is not None:
            solvers["geomloss"] = (partial(_geomloss, x, y, a, b), exact.value)
        where = {"what": "sinkhorn", "size": f"{n}x{n}", "count": count}
        for name, (solve, optimum) in solvers.items():
            yield {**where, "by": name, **_timed(bench, solve, optimum, count)}
        leaves = tracked(cost, a, b)

        timing = bench.turns(partial(_gradients, leaves))
        yield {**where, "what": "sinkhorn with gradients", "by": CARD, **timing.figures(count)}


def _timed(bench: Bench, solve: Callable[[], Tensor], optimum: Tensor, count: int) -> Row:
    """Time a solver and look at its values; what a rival cannot do is a finding, and no end of the part."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            error = float((solve().double() - optimum).abs().max())
            return {**bench.turns(solve).figures(count), "value_error": error if math.isfinite(error) else None}
    except Exception as error:
        return {"skipped": in_a_line(error)}


def _value(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
    value: Tensor = otfew.solve(cost, a, b, solver=otfew.Sinkhorn(reg=REG, tol=TOL), on_fail="ignore").value
    return value


def _gradients(leaves: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(_value(*leaves).sum(), leaves)


def _pots(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
    from ot.batch import solve_batch

    value: Tensor = solve_batch(cost, REG, a, b, max_iter=1000, tol=TOL).value_linear
    return value


def _geomloss(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    import geomloss

    loss = geomloss.SamplesLoss("sinkhorn", p=2, blur=REG**0.5, debias=False, backend="tensorized")
    value: Tensor = loss(a, x, b, y)
    return value
