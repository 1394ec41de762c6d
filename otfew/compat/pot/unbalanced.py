"""``sinkhorn_unbalanced`` and ``sinkhorn_unbalanced2`` with POT's arguments and answers, solved by otfew's Sinkhorn.

POT regularises by reg KL(P | c), c = a b' or a matrix of ones or the caller's; otfew by reg KL(P | a b' / s), where s
is the geometric mean of the totals. KL(P | c) differs from that by sum P log(a b' / (s c)) and a constant, so POT's
problem is ours with the costs M + reg log(a b' / (s c)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otfew.compat.pot.arrays import same_library
from otfew.compat.pot.entropic import (
    FINEST,
    Entropic,
    allowed,
    balanced,
    check_limits,
    check_method,
    check_reg,
    read,
    report,
    run,
    sinkhorn_of,
)
from otfew.transport.complaints import warn
from otfew.transport.result import OTResult

METHODS = ("sinkhorn", "sinkhorn_stabilized", "sinkhorn_translation_invariant", "sinkhorn_reg_scaling")
"""POT's ways to one and the same plan: here all mean otfew's solver."""


def sinkhorn_unbalanced(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    reg_m: Any,
    method: str = "sinkhorn",
    reg_type: str = "kl",
    c: Any = None,
    warmstart: Any = None,
    numItermax: int = 1000,
    stopThr: float = 1e-6,
    verbose: bool = False,
    log: bool = False,
    **kwargs: Any,
) -> Any:
    """Return the plan of unbalanced entropic transport, as ``ot.sinkhorn_unbalanced`` does.

    min <P, M> + reg KL(P | c) + reg_m1 KL(P 1 | a) + reg_m2 KL(P' 1 | b), by otfew's Newton method on the dual. The
    plan is differentiable in tensors.

    Args:
        a: (n,) weights, [] or None for uniform ones; totals are free.
        b: (m,) weights, likewise; (m, k) for k histograms, of which the costs are returned, with c a matrix of ones
            whatever ``reg_type`` says, as POT does.
        M: (n, m) costs, numpy, torch or lists.
        reg: Regularisation, in the units of M.
        reg_m: Price of missed marginals, a number, or one or two in a list, tuple or array; infinity for a hard one.
        method: One of POT's names, see ``METHODS``.
        reg_type: "kl" (c = a b') or "entropy" (c = 1).
        c: (n, m) reference of the regularisation, in place of a b'; pairs where it is zero carry nothing.
        warmstart: A pair of potentials; the plan does not depend on them, and they are not used.
        numItermax: Newton's iterations.
        stopThr: Largest miss of the optimality of a marginal, relative to the mass.
        verbose: Print the iterations and the error at the end.
        log: Return a dictionary as well.
        **kwargs: Options of POT's methods (tau, ...), without effect.

    Returns:
        P (n, m) in the dtype of M, or the costs <P, M> (k,). With ``log`` a pair of it and a dictionary: "logu" and
        "logv", with P = diag(u) c exp(-M / reg) diag(v), "err" (a list with the last error), and for one histogram
        "cost", which is <P, M>, and "total_cost", as POT counts it: without the masses in its KL terms.

    Raises:
        MarginalError: Weights that do not fit M.
        ValueError: Unknown method or reg_type, NaN, negative weights, reg or reg_m not positive.

    Examples:
        >>> sinkhorn_unbalanced([0.5, 0.5], [0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]], 1, 1).round(7)
        array([[0.3220536, 0.1184769],
               [0.1184769, 0.3220536]])
    """
    del warmstart, kwargs
    found = _solve(a, b, M, (reg, reg_m, method, reg_type, c), numItermax, stopThr, verbose)
    answer = found.given.out(found.linear() if found.given.columns else found.plan)
    return (answer, found.log()) if log else answer


def sinkhorn_unbalanced2(
    a: Any,
    b: Any,
    M: Any,
    reg: float,
    reg_m: Any,
    method: str = "sinkhorn",
    reg_type: str = "kl",
    c: Any = None,
    warmstart: Any = None,
    returnCost: str = "linear",
    numItermax: int = 1000,
    stopThr: float = 1e-6,
    verbose: bool = False,
    log: bool = False,
    **kwargs: Any,
) -> Any:
    """Return the cost of unbalanced entropic transport, as ``ot.sinkhorn_unbalanced2`` does.

    What is not said here stands at ``sinkhorn_unbalanced``.

    Args:
        a: As in ``sinkhorn_unbalanced``.
        b: As in ``sinkhorn_unbalanced``.
        M: As in ``sinkhorn_unbalanced``.
        reg: As in ``sinkhorn_unbalanced``.
        reg_m: As in ``sinkhorn_unbalanced``.
        method: As in ``sinkhorn_unbalanced``.
        reg_type: As in ``sinkhorn_unbalanced``.
        c: As in ``sinkhorn_unbalanced``.
        warmstart: As in ``sinkhorn_unbalanced``.
        returnCost: "linear", <P, M>, or "total", "total_cost" of the log; for many histograms always "linear".
        numItermax: As in ``sinkhorn_unbalanced``.
        stopThr: As in ``sinkhorn_unbalanced``.
        verbose: As in ``sinkhorn_unbalanced``.
        log: Return a dictionary as well.
        **kwargs: As in ``sinkhorn_unbalanced``.

    Returns:
        The cost, (k,) for k histograms, and with ``log`` the dictionary.

    Raises:
        MarginalError: As ``sinkhorn_unbalanced``.
        ValueError: As ``sinkhorn_unbalanced``; unknown returnCost.
    """
    del warmstart, kwargs
    if returnCost not in {"linear", "total"}:
        raise ValueError(f"`returnCost` must be 'linear' or 'total', got {returnCost!r}")
    found = _solve(a, b, M, (reg, reg_m, method, reg_type, c), numItermax, stopThr, verbose)
    total = returnCost == "total" and not found.given.columns
    cost = found.given.out(found.total() if total else found.linear())
    return (cost, found.log()) if log else cost


@dataclass(slots=True, eq=False)
class _Found:
    """Plans and what they are worth; tensors with their graphs.

    Attributes:
        given: As the caller gave it, b rescaled where both marginals are hard.
        result: Of the problem in otfew's form.
        reference: c, (*batch, n, m).
        reg: Regularisation.
        rhos: Prices of the two marginals, None for a hard one.
    """

    given: Entropic
    result: OTResult
    reference: Tensor
    reg: float
    rhos: tuple[float | None, float | None]

    @property
    def plan(self) -> Tensor:
        """The plan (*batch, n, m), float64."""
        plan: Tensor = self.result.plan
        return plan

    def linear(self) -> Tensor:
        """<P, M> (*batch,)."""
        return (self.plan * allowed(self.given.cost)).sum((-2, -1))

    def total(self) -> Tensor:
        """What POT calls the total cost (*batch,)."""
        cost = self.linear() + self.reg * _divergence(self.plan, self.reference).sum((-2, -1))
        for rho, dim, weights in zip(self.rhos, (-1, -2), (self.given.a, self.given.b), strict=True):
            if rho is not None:
                cost = cost + rho * _divergence(self.plan.sum(dim), weights.double()).sum(-1)
        return cost

    def log(self) -> dict[str, Any]:
        """Make POT's dictionary."""
        given = self.given
        f, g = self.result.potentials
        # A node without weight sends nothing, whatever its potential is.
        ends = [
            given.per_column(torch.where(weights.detach() > 0, x / self.reg, -math.inf))
            for x, weights in ((f, given.a), (g, given.b))
        ]
        told = {"err": [float(self.result.marginal_error.max())], "logu": ends[0], "logv": ends[1]}
        if given.columns:
            return told
        return {**told, "cost": given.out(self.linear()), "total_cost": given.out(self.total())}


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """P log(p / q), zero where p is."""
    found: Tensor = torch.special.xlogy(p, p) - torch.special.xlogy(p, q)
    return found


def _solve(
    a: Any, b: Any, M: Any, options: tuple[Any, Any, Any, Any, Any], limit: Any, threshold: Any, verbose: bool
) -> _Found:
    reg, reg_m, method, reg_type, c = options
    named = check_method(method, METHODS)
    if named == "sinkhorn_reg_scaling":
        warn("`method` 'sinkhorn_reg_scaling' is not implemented by POT either: it means 'sinkhorn'", UserWarning)
    if check_reg(reg) == 0:
        raise ValueError("`reg` must be positive, got 0")
    check_limits(limit, threshold)
    rhos = _prices(reg_m)
    given = read(a, b, M)
    if rhos == (None, None):
        given = replace(given, b=balanced(given)[0])
    reference = _reference(given, reg_type, c)
    rows, cols = given.a.double(), given.b.double()
    scale = (rows.sum(-1) * cols.sum(-1)).sqrt()[..., None, None]
    shift = _logarithm(rows)[..., None] + _logarithm(cols)[..., None, :] - scale.log() - _logarithm(reference)
    cost = given.cost.double() + float(reg) * shift
    if c is not None:
        cost = torch.where(reference > 0, cost, math.inf)
    ours = replace(given, cost=cost)
    result = run(ours, ours.b, sinkhorn_of(float(reg), max(float(threshold), FINEST), limit, rhos))
    if verbose:
        report(result, float(result.marginal_error.max()))
    if bool((result.status != 0).any()):
        warn("Sinkhorn did not converge to `stopThr`: raise `numItermax` or `reg`", UserWarning)
    return _Found(given, result, reference, float(reg), rhos)


def _logarithm(x: Tensor) -> Tensor:
    """Logarithms, zero where nothing is: what stands there has no weight."""
    return torch.where(x > 0, x, 1.0).log()


def _prices(reg_m: Any) -> tuple[float | None, float | None]:
    """Read ``reg_m``.

    Raises:
        ValueError: Neither a number nor one or two of them, or not positive.
    """
    single = np.ndim(reg_m) == 0
    given = [reg_m] if single else list(reg_m)
    if not 1 <= len(given) <= 2:
        raise ValueError(f"`reg_m` must be a number, or one or two of them, got {len(given)}")
    prices = [float(x) for x in given]
    if not all(price > 0 for price in prices):
        raise ValueError(f"`reg_m` must be positive, infinity for a hard marginal, got {reg_m!r}")
    first, last = (None if math.isinf(price) else price for price in (prices[0], prices[-1]))
    return first, last


def _reference(given: Entropic, reg_type: Any, c: Any) -> Tensor:
    """Lay out c, (*batch, n, m) float64.

    Raises:
        ValueError: Unknown reg_type, or a c that does not fit.
    """
    if not isinstance(reg_type, str) or reg_type.lower() not in {"kl", "entropy"}:
        raise ValueError(f"`reg_type` must be 'kl' or 'entropy', got {reg_type!r}")
    if reg_type.lower() == "entropy" or given.columns:
        if c is not None:
            warn(
                "`c` has no effect: with `reg_type` 'entropy', or many histograms, it is a matrix of ones", UserWarning
            )
        return torch.ones_like(given.cost, dtype=torch.float64)
    if c is None:
        return given.a.double()[..., None] * given.b.double()[..., None, :]
    same_library(M=given.cost if given.tensors else given.cost.detach().numpy(), c=c)
    reference = c.double() if isinstance(c, Tensor) else torch.from_numpy(np.array(c, np.float64))
    if reference.shape != given.cost.shape:
        raise ValueError(f"`c` must be {tuple(given.cost.shape)} as M is, got {tuple(reference.shape)}")
    if not bool((reference >= 0).all()) or not bool(torch.isfinite(reference).all()):
        raise ValueError("`c` must be finite and not negative: it is what the plan is compared with")
    return reference
