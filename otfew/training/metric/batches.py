"""Streams of batches for metric learning: functions of seed and epoch, the same for every loss."""

from __future__ import annotations

import torch
from torch import Tensor

from otfew.random.keys import hashed


def batches(labels: Tensor, size: int, seed: int, epoch: int, per_class: int = 0) -> Tensor:
    """Draw the batches of one epoch.

    Args:
        labels: (items,) int64, from 0.
        size: Items of a batch.
        seed: Of the stream.
        epoch: From 0.
        per_class: 0 cuts a random order of all items, without what does not fill the last batch. Otherwise every batch
            holds so many items of each of size / per_class classes, drawn anew; classes of fewer items repeat them.

    Returns:
        (batches, size) indices; len(labels) // size batches.
    """
    generator = torch.Generator().manual_seed(hashed(seed, epoch))
    count = len(labels) // size
    if per_class == 0:
        return torch.randperm(len(labels), generator=generator)[: count * size].view(count, size)
    members = [(labels == label).nonzero()[:, 0] for label in torch.unique(labels)]
    return torch.stack([_balanced(members, size, per_class, generator) for _ in range(count)])


def _balanced(members: list[Tensor], size: int, per_class: int, generator: torch.Generator) -> Tensor:
    drawn: list[Tensor] = []
    while len(drawn) * per_class < size:
        for label in torch.randperm(len(members), generator=generator)[: size // per_class - len(drawn)].tolist():
            items = members[label]
            order = torch.randperm(len(items), generator=generator)
            drawn.append(items[order[torch.arange(per_class) % len(items)]])
    chosen = torch.cat(drawn)
    return chosen[torch.randperm(size, generator=generator)]


def partners(chosen: Tensor, labels: Tensor, others: Tensor, seed: int, epoch: int, batch: int, itself: bool) -> Tensor:
    """Draw for each item an item of its class from another modality.

    Args:
        chosen: (batch,) indices into ``labels``.
        labels: (items,) of the first modality.
        others: (others,) labels of the second; every class of the first is there.
        seed: Of the stream.
        epoch: From 0.
        batch: From 0.
        itself: Whether item i of the second modality may go with item i of the first; False where both are pictures of
            one thing, and every class then has two items or more.

    Returns:
        (batch,) indices into ``others``.
    """
    generator = torch.Generator().manual_seed(hashed(seed, epoch, batch, 1))
    found = torch.empty_like(chosen)
    for label in torch.unique(labels[chosen]):
        members = (others == label).nonzero()[:, 0]
        (places,) = (labels[chosen] == label).nonzero(as_tuple=True)
        if itself:
            found[places] = members[torch.randint(len(members), (len(places),), generator=generator)]
        else:
            step = torch.randint(1, len(members), (len(places),), generator=generator)
            found[places] = members[(torch.searchsorted(members, chosen[places]) + step) % len(members)]
    return found
