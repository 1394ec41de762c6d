"""Where a network gives an image one node, and transport between nodes has nothing to choose."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.evaluation.lineup import Entry
from otfew.evaluation.run import Ready


def trivial(entries: Sequence[Entry], ready: Sequence[Ready]) -> tuple[str, ...]:
    """Name the entries whose transport is between single nodes: one plan exists, all the mass from one to the other.

    Methods that transport between images, not between their nodes, are not among them: they pool the nodes anyway.

    Args:
        entries: Of a run.
        ready: The same with their features, in the same order.
    """
    return tuple(
        entry.name
        for entry, own in zip(entries, ready, strict=True)
        if entry.transport and not own.method.pools and own.features.nodes.shape[1] == 1
    )
