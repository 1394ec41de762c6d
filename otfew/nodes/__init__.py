"""Kinds of nodes: from images to local embeddings (images, nodes, channels)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from otfew import plugins
from otfew.errors import UserError
from otfew.registry import Registry, exported

if TYPE_CHECKING:
    from otfew.nodes.base import Extractor

__all__ = ["EXTRACTORS", "Extractor", "cuts_patches", "parse"]

EXTRACTORS: Registry[Callable[[str], Extractor]] = Registry(
    {
        "fcn": "otfew.nodes.fcn:parse",
        "grid": "otfew.nodes.grid:parse",
        "sampling": "otfew.nodes.sampling:parse",
    }
)
"""Kind -> a function of what follows the colon in "kind:arguments". A new kind is one file and one line."""


def __getattr__(name: str) -> Any:
    """Import the type of extractors when it is asked for."""
    return exported(__name__, {"Extractor": "otfew.nodes.base:Extractor"}, name)


def parse(spec: str) -> Extractor:
    """Build an extractor from a specification such as "fcn", "fcn:2,1", "grid:2,3" or "sampling:9".

    Args:
        spec: A kind, a key of ``EXTRACTORS``, with its arguments behind a colon, or ``package.module:Name`` of one of
            the user's own, see ``otfew.nodes.plugged``.

    Returns:
        The extractor.

    Raises:
        UserError: Unknown kind or malformed arguments.
    """
    kind, colon, arguments = spec.partition(":")
    if kind not in EXTRACTORS and plugins.plain(spec):
        from otfew.nodes import plugged

        return plugged.load(spec)
    if kind not in EXTRACTORS:
        raise UserError(
            f"unknown nodes {spec!r}: choose from {', '.join(EXTRACTORS)}, as in fcn:2,1 or grid:2,3, or give "
            "package.module:Name of your own."
        )
    if colon and not arguments:
        raise UserError(f"nodes {spec!r}: nothing follows the colon; give numbers, as in fcn:2,1 or grid:2,3.")
    return EXTRACTORS[kind](arguments)


def cuts_patches(spec: str) -> bool:
    """Tell whether nodes are patches of images, each with a run of the network of its own.

    Args:
        spec: As ``parse`` takes it, or "file". It may stand in a record: no module is imported for it.
    """
    from otfew.nodes.patches import PatchExtractor

    try:
        with plugins.only_imported("a record"):
            extractor = parse(spec)
    except UserError:
        return False
    return isinstance(getattr(extractor, "inner", extractor), PatchExtractor)
