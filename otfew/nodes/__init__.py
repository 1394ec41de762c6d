"""Kinds of nodes: from images to local embeddings (images, nodes, channels)."""

from __future__ import annotations

from collections.abc import Callable

from otfew.errors import UserError
from otfew.nodes import fcn
from otfew.nodes.base import Extractor

EXTRACTORS: dict[str, Callable[[str], Extractor]] = {
    "fcn": fcn.parse,
}
"""Kind -> a function of what follows the colon in ``--nodes kind:arguments``. A new kind is one file and one line."""


def parse(spec: str) -> Extractor:
    """Build an extractor from a specification such as "fcn".

    Raises:
        UserError: Unknown kind or malformed arguments.
    """
    kind, _, arguments = spec.partition(":")
    if kind not in EXTRACTORS:
        raise UserError(f"unknown nodes {spec!r}: choose from {', '.join(sorted(EXTRACTORS))}.")
    return EXTRACTORS[kind](arguments)


__all__ = ["EXTRACTORS", "Extractor", "parse"]
