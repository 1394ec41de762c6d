"""How spread out transport plans are."""

from __future__ import annotations

import torch
from torch import Tensor

from otfew.scores.node_weights import resolve_weights
from otfew.scores.pairwise import similarities
from otfew.transport import Solver, solve


def entropy(p: Tensor) -> Tensor:
    """Sum -p log p over the last axis, in nats; zeros contribute nothing."""
    total: Tensor = torch.special.xlogy(p, p).sum(-1)
    return -total


def partners(plan: Tensor) -> Tensor:
    """Count the nodes among which a node's mass is divided: exp of the entropy of the plan given the row.

    1 where every row goes to one column; as many as columns where each row is spread evenly.

    Args:
        plan: (..., n, m) of any total above zero.

    Returns:
        (...).
    """
    p = plan.double() / plan.double().sum((-1, -2), keepdim=True)
    return (entropy(p.flatten(-2)) - entropy(p.sum(-1))).exp()


def mean_partners(support_map: Tensor, query: Tensor, solver: Solver | str | None) -> tuple[float, float]:
    """Average entropy (nats) and ``partners`` of DeepEMD's plans over all pairs of queries and classes.

    Args:
        support_map: (episodes, way, n, channels).
        query: (episodes, n_query, m, channels).
        solver: As in ``otfew.solve``; None takes the product of the weights.
    """
    support_map, query, s, d = resolve_weights("cross_reference").weigh(support_map, query)
    if solver is None:
        plan = s[..., :, None] * d[..., None, :]
    else:
        plan = solve(1 - similarities(support_map, query), s, d, solver=solver).plan
    return float(entropy(plan.double().flatten(-2)).mean()), float(partners(plan).mean())
