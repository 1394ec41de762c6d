"""Arguments of ``barycenter``, checked and laid out over a flat batch."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from otfew.transport.arguments import as_tensor
from otfew.transport.problem import TOTALS_RTOL, check_dtype, first_index
from otfew.transport.registry import PointSolver, Solver, resolve

COSTS = ("sqeuclidean", "cosine")


@dataclass(frozen=True)
class Asked:
    """A flat batch of problems.

    Attributes:
        batch: Shape that it unfolds to.
        points: (problems, sets, nodes, d); zero where a set does not count.
        weights: (problems, sets) float64, total 1, zero for sets that do not count.
        counts: (problems, sets) bool, or None where all do.
        masses: (problems, sets, nodes) float64 of total 1, or None for alike.
        node_masses: (problems, n) float64, or None.
        init: (problems, n, d), or None.
        n: Nodes of the barycentre.
        solver: An exact one.
    """

    batch: torch.Size
    points: Tensor
    weights: Tensor
    counts: Tensor | None
    masses: Tensor | None
    node_masses: Tensor | None
    init: Tensor | None
    n: int
    solver: Solver


def checked(
    points: Any,
    weights: Any,
    masses: Any,
    mask: Any,
    n_nodes: Any,
    node_masses: Any,
    init: Any,
    solver: str | Solver,
) -> Asked:
    """Check what problems are made of but for NaN in the points; see ``barycenter``."""
    if n_nodes is not None:
        n_nodes = check_count("n_nodes", n_nodes)
    given = as_tensor("points", points)
    if given is None or given.ndim < 3 or 0 in given.shape:
        got = "None" if given is None else str(tuple(given.shape))
        raise ValueError(
            f"points must be (*batch, sets, nodes, d) with at least one of each, got {got}; a single set needs an axis "
            "of its own: points[None]"
        )
    check_dtype("points", given)
    batch, (n_sets, m, d) = given.shape[:-3], given.shape[-3:]
    flat = given.reshape(-1, n_sets, m, d)
    lam, counts = _weights(weights, mask, batch, n_sets, flat)
    if counts is not None:
        flat = flat.masked_fill(~counts[..., None, None], 0)
    start = None if init is None else _init(init, batch, d, n_nodes, flat)
    n = (n_nodes or m) if start is None else start.shape[1]
    b = _simplex("node_masses", node_masses, (*batch, n), len(batch), flat)
    if b is not None:
        refuse("node_masses", b <= 0, batch, "a node without mass")
    a = _simplex("masses", masses, (*batch, n_sets, m), len(batch), flat, counts)
    return Asked(batch, flat, lam, counts, a, b, start, n, _exact(solver))


def check_count(name: str, count: Any) -> int:
    """Return a whole number of at least 1, of Python or numpy, as an int.

    Raises:
        ValueError: It is not.
    """
    if isinstance(count, bool) or not isinstance(count, numbers.Integral) or count < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {count!r}")
    return int(count)


def refuse(name: str, bad: Tensor, batch: tuple[int, ...], what: str, verb: str = "hold") -> None:
    """Say where something is wrong in (problems, ...), if it is.

    Raises:
        ValueError: It is; names the batch index.
    """
    if bool(bad.any()):
        of_problem = bad.flatten(1).any(1) if bad.ndim > 1 else bad
        raise ValueError(f"{name} {verb} {what}{first_index(of_problem.reshape(batch), len(batch))}")


def _exact(solver: str | Solver) -> Solver:
    chosen = resolve(solver)
    if isinstance(chosen, PointSolver) or chosen.kind != "exact" or not chosen.equal_totals:
        raise ValueError(
            "solver must be an exact one of dense costs that moves all the mass, since a blurred plan pulls all nodes "
            f"to their mean: got {chosen!r}"
        )
    return chosen


def _weights(weights: Any, mask: Any, batch: torch.Size, sets: int, flat: Tensor) -> tuple[Tensor, Tensor | None]:
    """Take the weights (problems, sets) of the sets, float64, and tell which count, if not all do."""
    if mask is None:
        counts = torch.ones(len(flat), sets, dtype=torch.bool, device=flat.device)
    else:
        allowed = torch.as_tensor(mask)
        if allowed.dtype != torch.bool:
            raise ValueError(f"mask must be bool, True where a set counts, got {allowed.dtype}")
        counts = _spread("mask", allowed, (*batch, sets), len(batch)).to(flat.device)
        refuse("mask", ~counts.any(-1), batch, "no set that counts")
    given = as_tensor("weights", weights)
    if given is None:
        lam = counts.double()
        return lam / lam.sum(-1, keepdim=True), None if bool(counts.all()) else counts
    check_dtype("weights", given)
    lam = _spread("weights", given, (*batch, sets), len(batch)).to(flat.device).double()
    refuse("weights", counts & ~((lam >= 0) & lam.isfinite()), batch, "a negative weight, NaN or infinity")
    lam = lam.masked_fill(~counts, 0)
    total = lam.sum(-1, keepdim=True)
    wrong = total <= 0 if mask is not None else (total - 1).abs() > TOTALS_RTOL
    refuse("weights", wrong, batch, "a total other than 1: divide them by their sum", "have")
    counts = counts & (lam > 0)
    return lam / total, None if bool(counts.all()) else counts


def _simplex(
    name: str, given: Any, shape: tuple[int, ...], batch_dims: int, flat: Tensor, counts: Tensor | None = None
) -> Tensor | None:
    """Take masses as (problems, ..., nodes) float64 of total 1; alike where a set does not count."""
    tensor = as_tensor(name, given)
    if tensor is None:
        return None
    check_dtype(name, tensor)
    batch = shape[:batch_dims]
    masses = _spread(name, tensor.detach(), shape, batch_dims).to(flat.device).double()
    if counts is not None:
        masses = masses.where(counts[..., None], 1 / shape[-1])
    refuse(name, ~((masses >= 0) & masses.isfinite()), batch, "a negative mass, NaN or infinity")
    total = masses.sum(-1, keepdim=True)
    refuse(name, (total - 1).abs() > TOTALS_RTOL, batch, "a total other than 1: divide them by their sum", "have")
    return masses / total


def _init(init: Any, batch: torch.Size, d: int, n_nodes: int | None, flat: Tensor) -> Tensor:
    tensor = as_tensor("init", init)
    assert tensor is not None
    check_dtype("init", tensor)
    n = tensor.shape[-2] if tensor.ndim >= 2 else 0
    if n < 1 or (n_nodes is not None and n != n_nodes):
        raise ValueError(f"init must be (*batch, {n_nodes or 'n_nodes'}, {d}), got {tuple(tensor.shape)}")
    start = _spread("init", tensor.detach(), (*batch, n, d), len(batch)).to(flat.device, flat.dtype)
    refuse("init", ~start.isfinite(), batch, "NaN or infinity")
    return start


def _spread(name: str, tensor: Tensor, shape: tuple[int, ...], batch_dims: int) -> Tensor:
    """Broadcast over the batch and flatten it."""
    own = shape[batch_dims:]
    try:
        fits = tensor.ndim >= len(own) and tuple(tensor.shape[tensor.ndim - len(own) :]) == own
        spread = tensor.expand(shape) if fits else None
    except RuntimeError:
        spread = None
    if spread is None:
        raise ValueError(f"{name} must be {shape} to fit points, got {tuple(tensor.shape)}")
    return spread.reshape(-1, *own)
