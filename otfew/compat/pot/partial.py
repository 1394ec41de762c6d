"""``partial_wasserstein`` and ``partial_wasserstein2`` with POT's arguments and answers, solved exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from otfew.compat.optimum import LEAST_MASS, partial_optimum
from otfew.compat.pot.arrays import MarginalError, is_empty, like_of, same_library, to_numpy
from otfew.compat.pot.entropic import allowed
from otfew.compat.pot.problem import INFEASIBLE, MESSAGES, OPTIMAL, STOPPED, UNLIMITED
from otfew.transport.api import solve
from otfew.transport.complaints import warn
from otfew.transport.problem import Array, Status
from otfew.transport.simplex.exact import Exact

ROUNDING = 1e-9
"""The mass may be this much above what there is, relative to it: sums of weights are rounded."""


def partial_wasserstein(
    a: Any, b: Any, M: Any, m: float | None = None, nb_dummies: int = 1, log: bool = False, **kwargs: Any
) -> Any:
    """Return the optimal plan of a mass, as ``ot.partial.partial_wasserstein`` does: row sums at most a, columns b.

    Args:
        a: (n,) weights, [] or None for uniform ones; totals are free.
        b: (k,) weights, likewise.
        M: (n, k) costs, of any sign.
        m: How much to transport, at most the smaller total; None for that total.
        nb_dummies: Has no effect: the solver needs none of POT's reservoirs.
        log: Return a dictionary as well.
        **kwargs: ``numItermax`` and other options of ``emd``, of which that one counts.

    Returns:
        The plan (n, k) in the dtype of a. With ``log`` a pair of it and a dictionary: "cost" and "partial_w_dist" (the
        same; the latter is differentiable in M, with the plan as the gradient), "u" and "v", the derivatives of the
        cost in a and b, "warning", "result_code".

    Raises:
        ValueError: m is negative or more than there is; arrays of two libraries; NaN.
        MarginalError: Weights that do not fit M.
    """
    plan, told = _solve(a, b, M, m, nb_dummies, kwargs)
    return (plan, told) if log else plan


def partial_wasserstein2(
    a: Any, b: Any, M: Any, m: float | None = None, nb_dummies: int = 1, log: bool = False, **kwargs: Any
) -> Any:
    """Return the least cost of a mass, as ``ot.partial.partial_wasserstein2`` does; see ``partial_wasserstein``.

    Differentiable in M.

    Args:
        a: As in ``partial_wasserstein``.
        b: As in ``partial_wasserstein``.
        M: As in ``partial_wasserstein``.
        m: As in ``partial_wasserstein``.
        nb_dummies: As in ``partial_wasserstein``.
        log: Return a dictionary as well, with the plan under "T".
        **kwargs: As in ``partial_wasserstein``.

    Returns:
        The cost, and with ``log`` the dictionary.

    Raises:
        ValueError: As ``partial_wasserstein``.
        MarginalError: As ``partial_wasserstein``.
    """
    plan, told = _solve(a, b, M, m, nb_dummies, kwargs)
    cost = told["partial_w_dist"]
    return (cost, {**told, "T": plan}) if log else cost


def _solve(a: Any, b: Any, M: Any, m: Any, nb_dummies: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    if isinstance(nb_dummies, bool) or nb_dummies != int(nb_dummies) or nb_dummies < 1:
        raise ValueError(f"`nb_dummies` must be a positive whole number, got {nb_dummies!r}")
    a, b = ([] if x is None else x for x in (a, b))
    tensors = same_library(a=a, b=b, M=M)
    like = like_of(tensors, (a, b), M)
    cost = to_numpy("M", M)
    if cost.ndim != 2 or 0 in cost.shape:
        raise ValueError(f"`M` must be (n, k) with at least one row and column, got {cost.shape}")
    # Comparisons with NaN are false, and a NaN cost is the least.
    if not cost.min() > -np.inf:
        raise ValueError("`M` holds NaN or minus infinity: costs are numbers")
    rows, cols = _weights("a", a, cost.shape[0]), _weights("b", b, cost.shape[1])
    most = float(min(rows.sum(), cols.sum()))
    mass = most if m is None else float(m)
    if not 0 <= mass <= most * (1 + ROUNDING):
        raise ValueError(f"`m` must be from 0 to the smaller total of `a` and `b`, {most:.9g}, got {mass:.9g}")
    limit = int(options.get("numItermax", UNLIMITED))
    plan, u, v, value, status = _transport(cost, rows, cols, mass, limit if 0 < limit < UNLIMITED else None)
    code = OPTIMAL if status == 0 else INFEASIBLE if status == Status.INFEASIBLE else STOPPED
    if code != OPTIMAL:
        warn(MESSAGES[code], UserWarning)
    out = like.out(plan)
    if isinstance(M, Tensor):
        distance: Any = (allowed(M) * out.to(M.dtype)).sum()
    else:
        distance = np.result_type(np.asarray(M), out).type(value)
    ends = {"warning": MESSAGES.get(code), "result_code": code}
    return out, {"cost": value, "u": like.out(u), "v": like.out(v), **ends, "partial_w_dist": distance}


def _weights(name: str, given: Any, size: int) -> Array:
    """Read weights (size,), uniform where there are none.

    Raises:
        MarginalError: They do not fit, or are not finite and not negative.
    """
    if is_empty(given):
        return np.full(size, 1 / size)
    weights = to_numpy(name, given)
    if weights.shape != (size,):
        raise MarginalError(f"`{name}` must be ({size},) to fit M, got {weights.shape}")
    if not 0 <= weights.min() <= weights.max() < np.inf:
        raise MarginalError(f"`{name}` holds NaN, infinity or a negative weight: weights are finite and not negative")
    return weights


def _transport(
    cost: Array, a: Array, b: Array, mass: float, max_iter: int | None
) -> tuple[Array, Array, Array, float, int]:
    """Return the plan, the derivatives of its cost in a and in b, its cost and its status."""
    if mass < LEAST_MASS:
        return np.zeros(cost.shape), np.zeros(len(a)), np.zeros(len(b)), 0.0, 0
    if cost.max() < np.inf:
        plan, u, v, status = partial_optimum(cost, a, b, mass, max_iter)
        return plan, u, v, float((plan * cost).sum()), int(status)
    whole = mass >= min(a.sum(), b.sum())
    solver = Exact(mass="min" if whole else mass, max_iter=max_iter)
    result = solve(cost, a, b, solver=solver, on_fail="ignore")
    f, g = result.potentials
    return result.plan, f, g, float(result.value), int(result.status)
