"""What a classifier may be made of: a method, and the views of a photo that it sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from otfew import nodes

LARGER = 10 / 7
"""The second resolution, over the first: 320 for 224 pixels."""
STRIDE = 32
"""Resolutions are multiples of what most networks shrink an image by."""
CROPS = "grid:2,3"
"""The kind of crops that is tried."""


@dataclass(frozen=True, order=True)
class View:
    """How a photo becomes nodes.

    Attributes:
        backbone: Name of the network.
        resolution: Side in pixels of what goes through it.
        nodes: Kind of nodes.
    """

    backbone: str
    resolution: int
    nodes: str

    @property
    def pixels(self) -> int:
        """Pixels that go through the network for one photo: nearly all of its time."""
        return nodes.parse(self.nodes).n_views * self.resolution**2

    def __str__(self) -> str:
        """Name it in reports."""
        return f"{self.nodes} at {self.resolution} px"


@dataclass(frozen=True, order=True)
class Candidate:
    """A method on a view.

    Attributes:
        method: Key of the catalogue.
        view: What it sees.
    """

    method: str
    view: View

    def __str__(self) -> str:
        """Name it in reports."""
        return f"{self.method} on {self.view}"


HEADS: dict[str, tuple[str, ...]] = {
    "fcn": ("cosine-centroid", "matchingnet", "deepemd"),
    "larger": ("cosine-centroid", "matchingnet", "deepemd"),
    "crops": ("cosine-centroid", "matchingnet", "fusion", "logistic", "knn", "deepemd"),
}
"""Methods that are tried on each view: fixed, and such that all refits of 12 classes of 8 photos take seconds.

Left out are those that take long on many nodes, those that are fitted by many steps, and
those that need base classes or see all new photos at once.
"""
TURNABLE = frozenset({"logistic"})
"""Those that a turn of all vectors changes nothing for and that take long on many channels: see ``Photos.turned``."""

MANY = 600
"""Labelled photos beyond which whole maps are too large to be kept and matched: their averages and crops remain."""
_ON_MANY = {"fcn": ("cosine-centroid", "matchingnet"), "larger": (), "crops": HEADS["crops"]}


def candidates(
    backbones: Sequence[tuple[str, int]],
    *,
    nodes: str | None = None,
    resolution: int | None = None,
    photos: int = 0,
) -> list[Candidate]:
    """List what is tried.

    Args:
        backbones: Name and resolution of training of each.
        nodes: The only kind of nodes, where the user has settled it.
        resolution: The only resolution, where the user has settled it.
        photos: How many are labelled; beyond ``MANY`` fewer candidates are tried.
    """
    found = []
    table = _ON_MANY if photos > MANY else HEADS
    for backbone, side in backbones:
        sides = (resolution,) if resolution else (side, larger(side))
        for kind, wanted in (("fcn", sides[0]), ("larger", sides[-1]), ("crops", sides[0])):
            if kind == "larger" and len(set(sides)) == 1:
                continue
            spec = nodes or (CROPS if kind == "crops" else "fcn")
            heads = table["crops"] if nodes and kind == "fcn" else table[kind]
            found += [Candidate(head, View(backbone, wanted, spec)) for head in heads]
    return list(dict.fromkeys(found))


def larger(side: int) -> int:
    """Return the second resolution for a network trained on the first; the first itself where that is too small."""
    return max(side, round(side * LARGER / STRIDE) * STRIDE)
