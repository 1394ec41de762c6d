"""Proof of optimality: feasible potentials, duality gap and marginal error, from any plan and potentials."""

from __future__ import annotations

import numpy as np

from otfew.transport.problem import Array


def c_transform(cost: Array, g: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Make column potentials feasible and extreme, and put them in the gauge sum_j g_j b_j = 0.

    f_i = min_j cost_ij - g_j over columns with mass, then for columns without mass g_j = min_i cost_ij - f_i: where
    only one side has zero weights, these are the one-sided derivatives of the value.

    Args:
        cost: (n, m).
        g: (m,) potentials of the columns; entries at zero weights are ignored.
        a: (n,) weights.
        b: (m,) weights.

    Returns:
        f (n,) and g (m,) with f_i + g_j <= cost_ij.
    """
    held = b > 0
    f = (cost[:, held] - g[held]).min(1)
    g = np.where(held, g, (cost - f[:, None]).min(0))
    shift = float(g @ b / b.sum())
    return f + shift, g - shift


def certify_plan(cost: Array, a: Array, b: Array, plan: Array, f: Array, g: Array) -> tuple[float, float, float]:
    """Value, duality gap and relative marginal error of a dense plan.

    Args:
        cost: (n, m).
        a: (n,).
        b: (m,), same total as a.
        plan: (n, m).
        f: (n,) feasible potentials of the rows.
        g: (m,) feasible potentials of the columns.
    """
    value = float((plan * cost).sum())
    gap = value - float(f @ a + g @ b)
    error = max(np.abs(plan.sum(1) - a).max(), np.abs(plan.sum(0) - b).max()) / a.sum()
    return value, gap, float(error)
