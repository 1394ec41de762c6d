"""Support images as vectors, nodes or labelled items, with the masked shots left out."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from otfew.method import even_groups, global_vectors


def shot_weights(support: Tensor, support_mask: Tensor | None) -> Tensor:
    """Give every shot of a class the same weight, masked ones none.

    Args:
        support: (episodes, way, shot, ...), for its shape, dtype and device.
        support_mask: (episodes, way, shot) bool or None.

    Returns:
        (episodes, way, shot), summing to 1 over shots.
    """
    if support_mask is None:
        return support.new_full(support.shape[:3], 1 / support.shape[2])
    return support_mask.to(support.dtype) / support_mask.sum(-1, keepdim=True)


def mean_shots(support: Tensor, support_mask: Tensor | None) -> Tensor:
    """Count the shots of a class, on average over the classes: (episodes,), of the support's dtype."""
    if support_mask is None:
        return support.new_full((len(support),), support.shape[2])
    return support_mask.to(support.dtype).sum(-1).mean(-1)


def shot_vectors(support: Tensor, support_mask: Tensor | None) -> Tensor:
    """Average each support image's nodes; zeros where masked.

    Args:
        support: (episodes, way, shot, nodes, channels).
        support_mask: (episodes, way, shot) bool or None.

    Returns:
        (episodes, way, shot, channels).
    """
    vectors = global_vectors(support)
    return vectors if support_mask is None else vectors.masked_fill(~support_mask[..., None], 0)


def pooled_nodes(support: Tensor, support_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Put the nodes of all shots of a class into one set.

    Args:
        support: (episodes, way, shot, nodes, channels).
        support_mask: (episodes, way, shot) bool or None.

    Returns:
        Nodes (episodes, way, shot * nodes, channels), zeros where masked, and whether each counts, bool
        (episodes, way, shot * nodes).
    """
    valid = support.new_ones(support.shape[:3], dtype=torch.bool) if support_mask is None else support_mask
    kept = support if support_mask is None else support.masked_fill(~support_mask[..., None, None], 0)
    return kept.flatten(2, 3), valid.repeat_interleave(support.shape[3], -1)


def labelled_items(vectors: Tensor, support_mask: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """List the support vectors that count, with their classes, in groups of episodes with equally many.

    Args:
        vectors: (episodes, way, shot, channels).
        support_mask: (episodes, way, shot) bool or None.

    Yields:
        Episode indices (group,), items (group, items, channels) in order of class and shot, labels (group, items)
        int64.
    """
    episodes, way, shot = vectors.shape[:3]
    items = vectors.flatten(1, 2)
    if support_mask is None:
        labels = torch.arange(way, device=vectors.device).repeat_interleave(shot).expand(episodes, -1)
        yield torch.arange(episodes, device=vectors.device), items, labels
        return
    for group, chosen in even_groups(support_mask, vectors.device):
        yield group, items[group[:, None], chosen], chosen // shot
