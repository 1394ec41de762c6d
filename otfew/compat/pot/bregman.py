"""``sinkhorn`` and ``sinkhorn2`` with POT's arguments and answers, solved by otfew's Sinkhorn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from otfew.compat.pot.entropic import (
    Entropic,
    balanced,
    check_limits,
    check_method,
    check_reg,
    read,
    report,
    run,
    sinkhorn_of,
    tolerance,
)
from otfew.transport.complaints import warn as say
from otfew.transport.problem import Status
from otfew.transport.result import OTResult
from otfew.transport.simplex.exact import Exact

METHODS = ("sinkhorn", "sinkhorn_log", "greenkhorn", "sinkhorn_stabilized", "sinkhorn_epsilon_scaling")
"""Names that POT has for ways to one and the same plan: here all mean otfew's solver."""

LOSSES = ("sinkhorn", "sinkhorn_log", "sinkhorn_stabilized")
"""Those of them that POT has for losses and for many histograms."""


def sinkhorn(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    method: str = "sinkhorn",
    numItermax: int = 1000,
    stopThr: float = 1e-9,
    verbose: bool = False,
    log: bool = False,
    warn: bool = True,
    warmstart: Any = None,
    **kwargs: Any,
) -> Any:
    """Return the entropic transport plan, as ``ot.sinkhorn`` does: min <P, M> + reg sum P log P, sums a and b.

    The plan is that of otfew's Sinkhorn, whatever the method: accelerated in the plain domain, by Newton's method
    beyond, so that a small ``reg`` neither overflows nor takes thousands of iterations. It is differentiable in
    tensors.

    Args:
        a: (n,) weights, [] or None for uniform ones; zeros are fine.
        b: (m,) weights, likewise; (m, k) for k histograms, of which the losses are returned.
        M: (n, m) costs, numpy, torch or lists; (*batch, n, m) solves a batch.
        reg: Regularisation, in the units of M; 0 warns and returns an exact plan, the limit.
        method: One of POT's names, see ``METHODS``.
        numItermax: Iterations, those in the plain domain and Newton's.
        stopThr: Largest 2-norm of what the marginals miss, down to the rounding error.
        verbose: Print the iterations and the error at the end.
        log: Return a dictionary as well.
        warn: Warn where the threshold was not reached.
        warmstart: A pair of potentials; the plan does not depend on them, and they are not used.
        **kwargs: Options of POT's methods (tau, ...), without effect.

    Returns:
        P (n, m) in the dtype of M, or the losses <P, M> (k,). With ``log`` a pair of it and a dictionary: "u" and "v",
        with P = diag(u) exp(-M / reg) diag(v), their logarithms "log_u" = "logu" = "alpha" / reg (so in POT's units),
        and so for v, "warmstart", "err" (a list with the last error), "niter" and "n_iter".

    Raises:
        MarginalError: Weights that do not fit M.
        ValueError: Unknown method, NaN, negative weights, a negative reg.

    Examples:
        >>> sinkhorn([0.5, 0.5], [0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]], 1).round(4)
        array([[0.3655, 0.1345],
               [0.1345, 0.3655]])
    """
    del warmstart, kwargs
    named = check_method(method, METHODS)
    given = read(a, b, M)
    if given.columns and named not in LOSSES:
        raise ValueError(f"`b` must be one histogram for `method` {named!r}, got {given.b.shape[0]}")
    found = _solve(given, reg, numItermax, stopThr, verbose, warn)
    answer = _loss(given, found) if given.columns else given.out(found.result.plan)
    return (answer, _log(given, found, check_reg(reg))) if log else answer


def sinkhorn2(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    method: str = "sinkhorn",
    numItermax: int = 1000,
    stopThr: float = 1e-9,
    verbose: bool = False,
    log: bool = False,
    warn: bool = False,
    warmstart: Any = None,
    **kwargs: Any,
) -> Any:
    """Return the cost <P, M> of the entropic plan, as ``ot.sinkhorn2`` does; see ``sinkhorn``.

    Differentiable in tensors: P depends on M, a and b, which the gradient counts (implicitly, by one linear system).

    Args:
        a: As in ``sinkhorn``.
        b: As in ``sinkhorn``.
        M: As in ``sinkhorn``.
        reg: As in ``sinkhorn``.
        method: "sinkhorn", "sinkhorn_log" or "sinkhorn_stabilized".
        numItermax: As in ``sinkhorn``.
        stopThr: As in ``sinkhorn``.
        verbose: As in ``sinkhorn``.
        log: As in ``sinkhorn``.
        warn: As in ``sinkhorn``, but off by default.
        warmstart: As in ``sinkhorn``.
        **kwargs: As in ``sinkhorn``.

    Returns:
        The cost, (k,) for k histograms, (*batch,) for a batch; with ``log`` a pair of it and the dictionary.

    Raises:
        MarginalError: As ``sinkhorn``.
        ValueError: As ``sinkhorn``.
    """
    del warmstart, kwargs
    check_method(method, LOSSES)
    given = read(a, b, M)
    found = _solve(given, reg, numItermax, stopThr, verbose, warn)
    cost = _loss(given, found)
    return (cost, _log(given, found, check_reg(reg))) if log else cost


@dataclass(slots=True, eq=False)
class _Found:
    """A result, and by how much b misses its total, (*batch,), as a 2-norm; None where it does not."""

    given: Entropic
    result: OTResult
    astray: Tensor | None

    def error(self) -> float:
        """Bound the largest 2-norm of what the columns miss."""
        mass = self.given.a.detach().sum(-1).double()
        missed = (self.result.marginal_error * mass).max() * self.given.cost.shape[-1] ** 0.5
        return float(missed if self.astray is None else torch.maximum(missed, self.astray.max()))


def _solve(given: Entropic, reg: Any, limit: Any, threshold: Any, verbose: bool, warns: bool) -> _Found:
    """Solve, and say what POT says on the way."""
    reg = check_reg(reg)
    check_limits(limit, threshold)
    b, astray = balanced(given)
    if reg == 0:
        say(
            "`reg` is 0: numerical errors are certain for POT; this is an exact plan, the limit for small `reg`",
            UserWarning,
        )
        return _Found(given, run(given, b, Exact()), astray)
    found = _Found(given, run(given, b, sinkhorn_of(reg, tolerance(given, threshold), limit)), astray)
    if verbose:
        report(found.result, found.error())
    ends = set(found.result.status.reshape(-1).tolist())
    if Status.INFEASIBLE in ends:
        say("Problem infeasible: the pairs that `M` does not forbid cannot serve all of `a` and `b`", UserWarning)
    elif Status.FAILED in ends:
        say("Sinkhorn met numerical errors: costs or weights overflow, or differ too widely", UserWarning)
    elif warns and (ends != {0} or astray is not None or threshold <= 0):
        say(
            "Sinkhorn did not converge to `stopThr`: raise `numItermax` or `reg`, and give `a` and `b` of one sum",
            UserWarning,
        )
    return found


def _loss(given: Entropic, found: _Found) -> Any:
    return given.out(found.result.value_linear)


def _log(given: Entropic, found: _Found, reg: float) -> dict[str, Any]:
    """Make the union of the logs of POT's methods."""
    f, g = found.result.potentials
    a, b = given.a.detach().double(), given.b.detach().double()
    mass = a.sum(-1, keepdim=True)
    b = b * (mass / b.sum(-1, keepdim=True))
    # P = a b' / mass exp((f + g - M) / reg), and zero weights have u = 0.
    log_u = a.log() + f / reg
    log_v = b.log() + g / reg - mass.log()
    # The gauge is free: the largest u and v are the same, so that neither overflows before the other.
    shift = (log_v.amax(-1, keepdim=True) - log_u.amax(-1, keepdim=True)) / 2
    log_u, log_v = log_u + shift, log_v - shift
    logs = [given.per_column(x) for x in (log_u, log_v)]
    duals = [given.per_column(reg * x) for x in (log_u, log_v)]
    scalings = [given.per_column(x.exp()) for x in (log_u, log_v)]
    iterations = int(found.result.n_iter.max())
    return {
        "err": [found.error()],
        "niter": iterations,
        "n_iter": iterations,
        "u": scalings[0],
        "v": scalings[1],
        **{name: x for names, x in zip((("log_u", "logu"), ("log_v", "logv")), logs, strict=True) for name in names},
        "alpha": duals[0],
        "beta": duals[1],
        "warmstart": (duals[0], duals[1]),
    }
