"""``cv2.EMD`` on otfew's exact solver: OpenCV's arguments, answers and errors, without its limit of 500 pivots.

``import otfew.compat.opencv as cv2`` serves code that needs this one function. OpenCV itself is not imported.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.compat.optimum import optimum, short
from otfew.transport.problem import Array

DIST_USER, DIST_L1, DIST_L2, DIST_C = -1, 1, 2, 3
"""OpenCV's names of distances: the caller's costs, city block, Euclidean, largest coordinate."""

EQUAL = 1e-5
"""Totals that differ by less, relative to the larger, count as equal, as in OpenCV."""

Single = npt.NDArray[np.float32]


class error(ValueError):  # noqa: N801, N818  OpenCV's name
    """What is wrong with an argument; where OpenCV is loaded, what is raised is a ``cv2.error``, too."""


def EMD(  # noqa: N802  OpenCV's name
    signature1: Single,
    signature2: Single,
    distType: int,
    cost: Single | None = None,
    lowerBound: float | None = None,
    flow: Single | None = None,
) -> tuple[float, float | None, Single]:
    """Return the earth mover's distance between two weighted sets of points, as ``cv2.EMD`` does.

    The least cost of moving the smaller total, divided by the larger one, as OpenCV divides. It is the optimum whatever
    the size: OpenCV stops after 500 pivots and says nothing.

    Args:
        signature1: (n, 1 + d) float32: weights, not negative, then coordinates; (n, 1), or (n,), for weights alone.
        signature2: (m, 1 + d) float32, likewise.
        distType: DIST_L1, DIST_L2 or DIST_C between the coordinates, or DIST_USER: ``cost``.
        cost: (n, m) float32, used with DIST_USER only.
        lowerBound: A number: where totals are equal, the distance between the centres of mass is computed, too, and
            where that is at least this number, it is the answer, with a flow of zeros.
        flow: (n, m) float32 to write the flow into; else a new one is made.

    Returns:
        The distance; the distance between the centres, or ``lowerBound`` itself where totals differ, None where it is
        None; and the flow (n, m) float32.

    Raises:
        error: An argument does not fit; where OpenCV is loaded, it is a ``cv2.error``, too.

    Examples:
        >>> weights = np.array([[1.0], [3.0]], np.float32)
        >>> EMD(weights, weights[::-1].copy(), DIST_USER, np.array([[0, 2], [1, 0]], np.float32))[0]
        0.5
    """
    first, second = _signature("signature1", signature1), _signature("signature2", signature2)
    if first.shape[1] != second.shape[1]:
        raise _error(
            f"`signature1` and `signature2` must have equal numbers of columns, "
            f"got {first.shape[1]} and {second.shape[1]}"
        )
    shape = (len(first), len(second))
    if cost is not None:
        _check_cost(cost, shape, lowerBound)
    a, b = (_weights(name, x[:, 0]) for name, x in (("signature1", first), ("signature2", second)))
    total, other = float(np.add.reduce(a)), float(np.add.reduce(b))
    equal = abs(total - other) < EQUAL * max(total, other)
    if distType == DIST_USER:
        if cost is None:
            raise _error("`cost` must be given where `distType` is DIST_USER")
        costs = cost.astype(np.float64)
    else:
        costs = _distances(first[:, 1:], second[:, 1:], distType)
    out = _room(flow, shape)
    bound: float | None = None
    if lowerBound is not None:
        bound = float(np.float32(lowerBound))
        if equal and distType != DIST_USER:
            centres = [(w[None] @ x[:, 1:].astype(np.float64)) / w.sum() for w, x in ((a, first), (b, second))]
            least = float(np.float32(_distances(centres[0], centres[1], distType)[0, 0]))
            if least >= bound:
                out[:] = 0
                return least, least, out
            bound = least
    work = _solve(costs, a, b, total, total if equal else other, out)
    return float(np.float32(work / max(total, other))), bound, out


def _solve(costs: Array, a: Array, b: Array, total: float, other: float, out: Single) -> float:
    """Write the flow, and return what it costs; totals that differ are given here."""
    n, m = costs.shape
    if total == other:
        # Equal but for rounding, which the solver takes out.
        padded = costs
    elif total < other:
        # A row that takes what is too much of the columns, at no cost.
        padded, a = np.concatenate([costs, np.zeros((1, m))]), np.append(a, other - total)
    else:
        padded, b = np.concatenate([costs, np.zeros((n, 1))], 1), np.append(b, total - other)
    try:
        found = optimum(padded[None], a[None], b[None], "cost")
    except ValueError as problem:
        raise _error(str(problem)) from None
    if found.infeasible()[0] or short(found):
        reason = "forbids every plan" if found.infeasible()[0] else "holds numbers that differ by too many digits"
        raise _error(f"`cost` {reason}")
    out[:] = found.plan()[0, :n, :m]
    return float(found.value[0])


def _signature(name: str, given: Any) -> Single:
    if not isinstance(given, np.ndarray):
        raise _error(
            f"`{name}` is not a numpy array but {type(given).__name__}: give float32 weights in its first column"
        )
    if given.dtype != np.float32:
        raise _error(f"`{name}` must be float32 (32FC1), got {given.dtype}: convert it with .astype(numpy.float32)")
    signature = given[:, None] if given.ndim == 1 else given
    if signature.ndim != 2 or 0 in signature.shape:
        raise _error(f"`{name}` must be (points, 1 + coordinates) with at least one point, got shape {given.shape}")
    return signature


def _weights(name: str, given: Single) -> Array:
    weights = given.astype(np.float64)
    # Comparisons with NaN are false, and a NaN weight makes the total NaN.
    if np.minimum.reduce(weights) >= 0 and 0 < np.add.reduce(weights) < np.inf:
        return weights
    if not np.isfinite(weights).all():
        raise _error(f"`{name}` must not contain NaN or infinite weights")
    if (weights < 0).any():
        raise _error(f"`{name}` must not contain negative weights")
    raise _error(f"`{name}` must contain at least one non-zero weight")


def _check_cost(cost: Any, shape: tuple[int, int], bound: Any) -> None:
    if not isinstance(cost, np.ndarray) or cost.dtype != np.float32:
        got = cost.dtype if isinstance(cost, np.ndarray) else type(cost).__name__
        raise _error(f"`cost` must be a float32 (32FC1) numpy array, got {got}")
    if cost.shape != shape:
        raise _error(f"`cost` must be {shape} to fit the signatures, got {cost.shape}: cost matrix size does not match")
    if bound is not None:
        raise _error("`lowerBound` cannot be calculated if `cost` is used: leave it None")


def _distances(x: npt.NDArray[Any], y: npt.NDArray[Any], kind: Any) -> Array:
    """Distances (n, m) in float64."""
    if kind not in (DIST_L1, DIST_L2, DIST_C):
        raise _error(f"`distType` must be DIST_USER, DIST_L1, DIST_L2 or DIST_C, got {kind!r}")
    if not x.shape[1]:
        raise _error("the number of dimensions can be 0 only if a user-defined `cost` is used")
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise _error("`signature1` or `signature2` holds NaN or infinite coordinates")
    apart = np.abs(x.astype(np.float64)[:, None] - y.astype(np.float64))
    if kind == DIST_L2:
        lengths: Array = np.sqrt((apart**2).sum(-1))
        return lengths
    found: Array = apart.sum(-1) if kind == DIST_L1 else apart.max(-1)
    return found


def _room(flow: Any, shape: tuple[int, int]) -> Single:
    """Take the caller's array where it fits, as OpenCV does, else make one."""
    if isinstance(flow, np.ndarray) and flow.shape == shape and flow.dtype == np.float32 and flow.flags.c_contiguous:
        return flow
    return np.zeros(shape, np.float32)


def _error(message: str) -> Exception:
    """Make an error that ``except cv2.error`` catches, where there is such a thing."""
    theirs = getattr(sys.modules.get("cv2"), "error", None)
    if theirs is None:
        return error(message)
    both: type[Exception] = type("error", (error, theirs), {"__module__": __name__})
    return both(message)
