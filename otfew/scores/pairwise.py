"""Every query of an episode against every class: node similarities and cross-reference weights, batched.

Shapes: E episodes, Q queries, W classes (way), M query nodes, N support nodes, C channels.
Half precision is computed as float32, inside and outside autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from otfew.errors import UserError
from otfew.transport.precision import in_full_precision

NORM_EPS = 1e-8
"""Least norm of a centred node, as in ``torch.nn.functional.cosine_similarity``."""

WEIGHT_EPS = 1e-3
"""What DeepEMD's released code adds to each cross-reference weight, so that none is zero."""

# Temporaries of this many elements stay in the cache and in the allocator's pool; larger ones cost page faults that
# take as long as the product itself.
_CHUNK = 1 << 21


@in_full_precision
def centre(nodes: Tensor) -> Tensor:
    """Subtract from each node its mean over channels: the cosine becomes Pearson's correlation.

    Args:
        nodes: (..., channels).

    Returns:
        (..., channels).
    """
    return nodes - nodes.mean(-1, keepdim=True)


@in_full_precision
def centred_norms(nodes: Tensor) -> Tensor:
    """Measure the Euclidean norm of each node about its mean over channels, at least ``NORM_EPS``.

    Centres explicitly: |u|^2 - C * mean^2 would cancel in float32 where means are large relative to the spread.

    Args:
        nodes: (episodes, ..., channels).

    Returns:
        (episodes, ...).
    """
    parts = torch.split(nodes, _episodes_at_once(nodes))
    return torch.cat([torch.linalg.vector_norm(centre(part), dim=-1) for part in parts]).clamp_min(NORM_EPS)


@in_full_precision
def similarities(support_map: Tensor, query: Tensor) -> Tensor:
    """Cosine between channel-centred nodes, all queries against all classes.

    sim_ij = <u_i - mean(u_i), v_j - mean(v_j)> / (|u_i - mean(u_i)| * |v_j - mean(v_j)|), norms guarded from below by
    ``NORM_EPS`` (Zhang et al. 2020, released code: ``norm='center'``, ``metric='cosine'``). Both sides are centred
    explicitly before the product. A rank-1 correction of the raw products would save little and lose, in float32, the
    digits of (|u| / |u - mean(u)|)^2.

    Args:
        support_map: (E, W, N, C) float, one node set a class.
        query: (E, Q, M, C), same dtype and device.

    Returns:
        (E, Q, W, M, N) contiguous; differentiable in both.

    Raises:
        UserError: Shapes that do not fit.
    """
    check_pair(support_map, query)
    step = _episodes_at_once(query)
    parts = [_similarities(v, u) for v, u in zip(torch.split(support_map, step), torch.split(query, step), strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@in_full_precision
def cr_weights(support_map: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-reference weights of all queries against all classes, each normalised to sum 1.

    s_i = max(u_i . mean_j v_j, 0) + 1e-3 and d_j = max(v_j . mean_i u_i, 0) + 1e-3 on the raw, uncentred nodes, then
    divided by their sums (Zhang et al. 2020, cross-reference mechanism; the 1e-3 is the released code's).

    Args:
        support_map: (E, W, N, C) float, one node set a class.
        query: (E, Q, M, C), same dtype and device.

    Returns:
        s (E, Q, W, M), the query nodes' weights, and d (E, Q, W, N), the support nodes' weights; both contiguous and
        differentiable.

    Raises:
        UserError: Shapes that do not fit.
    """
    check_pair(support_map, query)
    episodes, way, n_support, _ = support_map.shape
    _, n_query, n_nodes, _ = query.shape
    s = query.flatten(1, 2) @ support_map.mean(2).mT
    d = query.mean(2) @ support_map.flatten(1, 2).mT
    return (
        normalised_weights(s.view(episodes, n_query, n_nodes, way).mT.contiguous()),
        normalised_weights(d.view(episodes, n_query, way, n_support)),
    )


def _similarities(support_map: Tensor, query: Tensor) -> Tensor:
    episodes, way, n_support, _ = support_map.shape
    _, n_query, n_nodes, _ = query.shape
    v, u = centre(support_map), centre(query)
    v = v / torch.linalg.vector_norm(v, dim=-1, keepdim=True).clamp_min(NORM_EPS)
    # Dividing the products, not the query nodes: W * N numbers a node instead of C.
    scale = torch.linalg.vector_norm(u, dim=-1).clamp_min(NORM_EPS).reciprocal()
    dots = u.flatten(1, 2) @ v.flatten(1, 2).mT
    by_class = dots.view(episodes, n_query, n_nodes, way, n_support).transpose(2, 3)
    sim: Tensor = by_class.contiguous() * scale[:, :, None, :, None]
    return sim


def normalised_weights(dots: Tensor) -> Tensor:
    """Make cross-reference weights of total 1 from products (..., nodes) with the other side's mean."""
    weights = dots.relu() + WEIGHT_EPS
    normalised: Tensor = weights / weights.sum(-1, keepdim=True)
    return normalised


def _episodes_at_once(nodes: Tensor) -> int:
    if nodes.device.type != "cpu":
        return max(1, len(nodes))
    return max(1, _CHUNK * len(nodes) // max(1, nodes.numel()))


def check_pair(support_map: Tensor, query: Tensor) -> None:
    """Raise ``UserError`` unless support_map (E, W, N, C) and query (E, Q, M, C) fit together."""
    if support_map.ndim != 4 or query.ndim != 4:
        raise UserError(
            "support_map must be (episodes, way, nodes, channels) and query (episodes, n_query, nodes, channels); "
            f"got {tuple(support_map.shape)} and {tuple(query.shape)}."
        )
    if support_map.shape[0] != query.shape[0] or support_map.shape[-1] != query.shape[-1]:
        raise UserError(
            "support_map and query differ in episodes or channels: "
            f"{tuple(support_map.shape)} and {tuple(query.shape)}."
        )
