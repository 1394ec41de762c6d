"""``emd`` and ``emd2`` with POT's arguments, answers and gradients, solved by otfew's exact solver."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from otfew.compat.optimum import Optimum
from otfew.compat.pot.problem import (
    MESSAGES,
    OPTIMAL,
    Histograms,
    check_start,
    read,
    tell_of_integers,
    tell_of_threads,
    uses_graph,
)
from otfew.transport.backward import EXACT, differentiable_once
from otfew.transport.complaints import warn
from otfew.transport.problem import Array


def emd(
    a: Any,
    b: Any,
    M: Any,
    numItermax: int = 100_000,
    log: bool = False,
    center_dual: bool = True,
    numThreads: int | str = 1,
    check_marginals: bool = True,
    potentials_init: Any = None,
) -> Any:
    """Return the optimal transport plan, as ``ot.emd`` does: min <G, M> over G >= 0 with row sums a, column sums b.

    A plan is exact to float64's rounding and comes with a certificate in the solver; POT's and ours may be two of
    several optimal plans where costs tie. Beyond POT, costs and weights may come in batches.

    Args:
        a: (n,) weights; [] or None for uniform ones; (*batch, n) where M is a batch.
        b: (m,) weights, likewise.
        M: (n, m) costs, numpy, torch or lists, or a sparse matrix of SciPy or torch, whose missing pairs carry nothing;
            infinity forbids a pair, too. (*batch, n, m) solves a batch.
        numItermax: Pivots; 100,000, POT's default, or more, and 0 mean no limit.
        log: Return a dictionary as well.
        center_dual: Centre the potentials so that sum(u a) = sum(v b); otherwise sum(v b) = 0.
        numThreads: Does nothing, as in POT.
        check_marginals: Refuse weights whose totals differ in the sixth decimal; if not, b is rescaled.
        potentials_init: A pair of potentials; the optimum does not depend on them, so they are checked and not used.

    Returns:
        G (n, m), or (*batch, n, m), in the dtype of a, else of b, else of M; sparse where M is. With ``log`` a pair of
        it and a dictionary: "cost", "u", "v" (feasible potentials, also of weights that are zero), "warning" (None or a
        sentence), "result_code" (1 optimal, 0 infeasible, 3 out of pivots).

    Raises:
        MarginalError: An AssertionError and ValueError: weights that do not fit M or each other, that are negative, NaN
            or zero altogether.
        ValueError: Costs that are NaN or minus infinity, arrays of two libraries.

    Examples:
        >>> emd([0.5, 0.5], [0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]])
        array([[0.5, 0. ],
               [0. , 0.5]])
    """
    given = read(a, b, M, check_marginals)
    tell_of_threads(numThreads)
    check_start(potentials_init, *given.cost.shape[1:])
    found = given.solve(numItermax)
    tell_of_integers(given.like)
    plan = _plan(given, found)
    if not log:
        return plan
    cost = found.value.reshape(given.batch) if given.batch else float(found.value[0])
    return plan, {"cost": cost, **_ends(given, found, center_dual)}


def emd2(
    a: Any,
    b: Any,
    M: Any,
    processes: int = 1,
    numItermax: int = 100_000,
    log: bool = False,
    return_matrix: bool = False,
    center_dual: bool = True,
    numThreads: int | str = 1,
    check_marginals: bool = True,
    potentials_init: Any = None,
) -> Any:
    """Return the optimal transport cost, as ``ot.emd2`` does; see ``emd`` for what is common.

    It is differentiable in tensors, with POT's gradients: the plan for M, u - mean(u) for a and v - mean(v) for b,
    times the gradient that comes in. They cannot be differentiated again.

    Args:
        a: As in ``emd``.
        b: As in ``emd``, or (m, k): k histograms for one a and M, solved as one batch.
        M: As in ``emd``.
        processes: Does nothing, as in POT.
        numItermax: As in ``emd``.
        log: Return a dictionary as well.
        return_matrix: Return a dictionary as well, with the plan under "G".
        center_dual: As in ``emd``.
        numThreads: As in ``emd``.
        check_marginals: As in ``emd``.
        potentials_init: As in ``emd``.

    Returns:
        The cost: a float, or a tensor without axes; a list of k for k histograms; (*batch,) for a batch. With ``log``
        or ``return_matrix`` a list [cost, dictionary], and a list of these for k histograms.

    Raises:
        MarginalError: As ``emd``.
        ValueError: As ``emd``.

    Examples:
        >>> emd2([0.5, 0.5], [0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]])
        0.0
    """
    given = read(a, b, M, check_marginals, columns=True)
    tell_of_threads(numThreads)
    check_start(potentials_init, *given.cost.shape[1:])
    found = given.solve(numItermax)
    tell_of_integers(given.like)
    if given.columns and processes > 1:
        warn("`processes` does nothing and is deprecated: the histograms are one batch", UserWarning)
    cost = _cost(given, found, a, b, M, center_dual)
    wants_log = log or return_matrix
    if not given.columns:
        return cost if not wants_log else [cost, _log(given, found, cost, center_dual, return_matrix)]
    costs = list(cost) if isinstance(cost, Tensor) else [float(x) for x in found.value]
    if not wants_log:
        return costs
    parts = [_part(found, k) for k in range(len(costs))]
    one = [
        Histograms(given.cost, given.a, given.b[k : k + 1], given.like, (), False, given.sparse)
        for k in range(len(costs))
    ]
    return [[costs[k], _log(one[k], parts[k], costs[k], center_dual, return_matrix)] for k in range(len(costs))]


def _log(given: Histograms, found: Optimum, cost: Any, center_dual: bool, plan: bool) -> dict[str, Any]:
    return {"cost": cost, **_ends(given, found, center_dual), **({"G": _plan(given, found)} if plan else {})}


def _part(found: Optimum, k: int) -> Optimum:
    """Take one problem of a batch."""
    one = slice(k, k + 1)
    return Optimum(
        found.value[one], found.f[one], found.g[one], found.status[one], found.rows[one], found.cols[one],
        found.flow[one], found.shape,
    )  # fmt: skip


def _plan(given: Histograms, found: Optimum) -> Any:
    """Lay the plan out as the caller's kind of array."""
    plans = found.plan()
    plan = given.like.out(plans.reshape(*given.batch, *found.shape) if given.batch else plans[0])
    return plan if given.sparse is None else given.sparse.plan(plan)


def potentials(given: Histograms, found: Optimum, center_dual: bool) -> tuple[Array, Array]:
    """Return u (problems, n) and v (problems, m) in POT's gauge."""
    if not center_dual:
        return found.f, found.g
    total = given.a.sum(-1) + given.b.sum(-1)
    shift = ((found.g * given.b).sum(-1) - (found.f * given.a).sum(-1)) / total
    return found.f + shift[:, None], found.g - shift[:, None]


def _ends(given: Histograms, found: Optimum, center_dual: bool) -> dict[str, Any]:
    """Make what a log says of the potentials and of how a problem ended."""
    u, v = potentials(given, found, center_dual)
    codes = [given.code(found, k) for k in range(len(found.value))]
    worst = next((code for code in codes if code != OPTIMAL), OPTIMAL)
    return {
        "u": given.like.out(u.reshape(*given.batch, u.shape[-1])),
        "v": given.like.out(v.reshape(*given.batch, v.shape[-1])),
        "warning": MESSAGES.get(worst),
        "result_code": np.array(codes).reshape(given.batch) if given.batch else codes[0],
    }


def _cost(given: Histograms, found: Optimum, a: Any, b: Any, M: Any, center_dual: bool) -> Any:
    """Hand out the cost, with its gradients where they are wanted."""
    if given.like.device is None:
        return found.value.reshape(given.batch) if given.batch else float(found.value[0])
    value = given.like.out(found.value.copy()).reshape(given.batch)
    leaves = [x if isinstance(x, Tensor) and x.is_floating_point() else None for x in (a, b, M)]
    if not (torch.is_grad_enabled() and uses_graph(*leaves)):
        return value
    out: Tensor = _Cost.apply(value, given, found, center_dual, *leaves)  # type: ignore[no-untyped-call]
    return out


class _Cost(torch.autograd.Function):
    """A cost with POT's gradients in a, b and M."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, given: Histograms, found: Optimum, center_dual: bool,
        a: Tensor | None, b: Tensor | None, M: Tensor | None,
    ) -> Tensor:  # fmt: skip
        ctx.given, ctx.found, ctx.center_dual = given, found, center_dual
        ctx.save_for_backward(a, b, M)
        return value.clone()

    @staticmethod
    @differentiable_once(EXACT)
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        given, found = ctx.given, ctx.found
        a, b, M = ctx.saved_tensors
        _, _, _, _, for_a, for_b, for_cost = ctx.needs_input_grad
        flat = grad.reshape(-1).double().cpu()
        u, v = (torch.from_numpy(x - x.mean(-1, keepdims=True)) for x in potentials(given, found, ctx.center_dual))
        grads: list[Tensor | None] = [None, None, None]
        if for_a:
            each = (flat[:, None] * u).reshape(*given.batch, -1)
            grads[0] = each.sum_to_size(a.shape).to(a.device, a.dtype)
        if for_b:
            each = flat[:, None] * v
            each = each.mT if given.columns else each.reshape(*given.batch, -1).sum_to_size(b.shape)
            grads[1] = each.to(b.device, b.dtype)
        if for_cost:
            plan = torch.from_numpy(found.plan()) * flat[:, None, None]
            if given.sparse is not None:
                pairs = plan.sum(0)[given.sparse.rows, given.sparse.cols]
                grads[2] = given.sparse.matrix(pairs.to(M.device, M.dtype))
            else:
                grads[2] = (plan.sum(0) if given.columns else plan).reshape(M.shape).to(M.device, M.dtype)
        return (None, None, None, None, *grads)
