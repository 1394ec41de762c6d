"""The cells of the map, in one table, and the settings that are judged; imports nothing heavy.

A cell is one contrast: which images through which network, as how many nodes, in which episodes. Cells of an axis
differ from their base in what the axis names and in nothing else, and episodes have the same classes and, where images
are the same, the same images.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from otfew.errors import UserError

Part = Literal["map", "beside", "control", "held back"]
"""What a cell is for: the advice is fitted on the map; beside stands what is shown and decides nothing."""
Ways = Literal["any", "within", "across"]

MAP, BESIDE, CONTROL, HELD_BACK = "map", "beside", "control", "held back"


@dataclass(frozen=True)
class Images:
    """Images, and how many of each class take part, so that all cells of a data set ask about the same ones.

    Attributes:
        dataset: As ``otfew.data.find`` takes it, or "photos": a folder that is given with --photos.
        split: As commands take it.
        per_class: The first images of each class, in an order by the hash of their names; 0 takes all.
        most: Shots of the largest support; a smaller one is its beginning.
        query: Images to classify of each class.
    """

    dataset: str
    split: str = "test"
    per_class: int = 0
    most: int = 5
    query: int = 15


IMAGES = {
    "birds": Images("cub"),
    "birds-24": Images("cub", per_class=24),
    "cifar": Images("cifar-fs", per_class=100),
    "cifar-24": Images("cifar-fs", per_class=24),
    "fc100": Images("fc100", per_class=100),
    "fc100-24": Images("fc100", per_class=24),
    "cifar100": Images("fc100", split="all", per_class=16, most=1),
    "photos": Images("photos", split="all", most=1, query=5),
    "omniglot": Images("omniglot", per_class=20),
    "fashion": Images("fashion-mnist", per_class=100),
    "fashion-24": Images("fashion-mnist", per_class=24),
    "mosaics": Images("cifar-fs", most=1),
}
"""Name -> images."""

IMAGENET = "efficientnet-lite0"
NETWORKS: dict[str, tuple[str, ...]] = {
    "birds": ("cub-resnet12-quarter", "cub-resnet12-quarter-seed2", "cub-resnet12-quarter-seed3"),
    "birds-deepemd": ("cub-resnet12-quarter-deepemd",),
    "birds-full": (),
    "cifar": ("cifar-fs-resnet12-quarter", "cifar-fs-resnet12-quarter-seed2", "cifar-fs-resnet12-quarter-seed3"),
    "cifar-deepemd": (
        "cifar-fs-resnet12-quarter-deepemd",
        "cifar-fs-resnet12-quarter-seed2-deepemd",
        "cifar-fs-resnet12-quarter-seed3-deepemd",
    ),
    "cifar-60": (),
    "cifar-full": (),
    "fc100": ("fc100-resnet12-quarter",),
    "fc100-full": (),
    "omniglot": ("omniglot-conv4",),
    "imagenet": (IMAGENET,),
}
"""Name -> networks of one kind, which differ in their seed: what ``compare`` takes as a backbone. Those whose weights
are nowhere take no part; --networks NAME=BACKBONE adds one."""


@dataclass(frozen=True)
class Cell:
    """One place of the map.

    Attributes:
        id: Unique.
        axis: What differs from the base.
        level: How.
        part: What it is for.
        setting: Key of ``SETTINGS``, or "" where it decides nothing.
        images: Key of ``IMAGES``.
        network: Key of ``NETWORKS``.
        resolution: Side in pixels.
        pool: Nodes to a side, to which the network's map is averaged; 0 leaves it as it is.
        way: Classes of an episode.
        shot: Labelled images of each.
        view: NAME:SEVERITY of what is done to all images; "" for nothing.
        query_view: Of the queries alone.
        ways: Which classes meet: any, those within one superclass, or of as many superclasses as there are ways.
        weights: Of the nodes, on both sides and for all three methods: "cross_reference" or "uniform".
    """

    id: str
    axis: str
    level: str
    part: Part
    setting: str
    images: str
    network: str
    resolution: int
    pool: int = 0
    way: int = 5
    shot: int = 1
    view: str = ""
    query_view: str = ""
    ways: Ways = "any"
    weights: str = "cross_reference"

    @property
    def settings(self) -> dict[str, str | int]:
        """Return what it computes, the words about it apart: JSON-ready."""
        words = {"id", "axis", "level", "part", "setting"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in words}


_BASES: dict[str, tuple[str, str, int]] = {
    "birds": ("birds", "birds", 84),
    "cifar": ("cifar", "cifar", 32),
    "fc100": ("fc100", "fc100", 32),
    "birds-in": ("birds-24", "imagenet", 160),
    "cifar-in": ("cifar-24", "imagenet", 160),
    "fc100-in": ("fc100-24", "imagenet", 160),
    "cifar100-in": ("cifar100", "imagenet", 160),
    "photos-in": ("photos", "imagenet", 160),
    "omniglot": ("omniglot", "omniglot", 28),
    "fashion": ("fashion", "cifar", 32),
    "fashion-in": ("fashion-24", "imagenet", 160),
    "mosaics": ("mosaics", "cifar", 160),
}
"""Name -> images, network, resolution."""

PLAIN, SHOTS, NODES, RESOLUTION, NETWORK = "data set", "shots", "nodes", "resolution", "network"
CLUTTER, OCCLUSION, SCALE, CLASSES = "clutter", "occlusion", "scale of queries", "classes"
DESIGNED = "designed control"
AXES = (PLAIN, NETWORK, NODES, RESOLUTION, SHOTS, CLUTTER, OCCLUSION, SCALE, CLASSES, DESIGNED)

# Axis, level, part, setting, bases, and what differs from each base. The id is BASE/LEVEL.
_TABLE: tuple[tuple[str, str, Part, str, str, str], ...] = (
    (PLAIN, "plain", "map", "plain", "birds cifar fc100", ""),
    (PLAIN, "plain", "beside", "", "omniglot", ""),
    (PLAIN, "160px", "beside", "", "photos-in", ""),
    (NETWORK, "meta-trained", "map", "meta-trained", "birds cifar", "network=*-deepemd"),
    (NETWORK, "imagenet", "map", "imagenet", "birds-in cifar-in fc100-in", ""),
    (NETWORK, "60-epochs", "beside", "", "cifar", "network=*-60"),
    (NETWORK, "full-width", "beside", "", "birds cifar fc100", "network=*-full"),
    (NODES, "4-nodes", "map", "few-nodes", "birds cifar fc100", "pool=2"),
    (NODES, "9-nodes", "beside", "", "birds cifar fc100", "pool=3"),
    (NODES, "16-nodes", "beside", "", "birds", "pool=4"),
    (NODES, "4-nodes-320px", "beside", "", "birds-in", "pool=2 resolution=320"),
    (NODES, "49-nodes-320px", "beside", "", "birds-in", "pool=7 resolution=320"),
    (NODES, "100-nodes-320px", "map", "many-nodes", "birds-in photos-in", "resolution=320"),
    (RESOLUTION, "25-nodes-224px", "beside", "", "birds-in photos-in", "pool=5 resolution=224"),
    (RESOLUTION, "25-nodes-320px", "beside", "", "birds-in photos-in", "pool=5 resolution=320"),
    (RESOLUTION, "49-nodes-224px", "beside", "", "birds-in photos-in", "resolution=224"),
    (RESOLUTION, "60px", "beside", "", "birds", "resolution=60"),
    (RESOLUTION, "116px", "beside", "", "birds", "resolution=116"),
    (SHOTS, "5-shot", "map", "five-shots", "birds cifar fc100", "shot=5"),
    (SHOTS, "5-shot", "beside", "", "birds-in omniglot", "shot=5"),
    (CLUTTER, "clutter-1", "beside", "", "birds cifar fc100", "view=clutter:1"),
    (CLUTTER, "clutter-2", "map", "clutter", "birds cifar fc100", "view=clutter:2"),
    (CLUTTER, "clutter-3", "beside", "", "birds cifar fc100", "view=clutter:3"),
    (CLUTTER, "clutter-2", "beside", "", "birds-in", "view=clutter:2"),
    (OCCLUSION, "occlusion-1", "beside", "", "birds cifar fc100", "view=occlusion:1"),
    (OCCLUSION, "occlusion-2", "map", "occlusion", "birds cifar fc100", "view=occlusion:2"),
    (OCCLUSION, "occlusion-3", "beside", "", "birds cifar fc100", "view=occlusion:3"),
    (OCCLUSION, "occlusion-2", "beside", "", "birds-in", "view=occlusion:2"),
    (SCALE, "scale-1", "beside", "", "birds cifar fc100", "query_view=scale:1"),
    (SCALE, "scale-2", "map", "scale", "birds cifar fc100", "query_view=scale:2"),
    (SCALE, "scale-3", "beside", "", "birds cifar fc100", "query_view=scale:3"),
    (SCALE, "scale-2", "beside", "", "birds-in", "query_view=scale:2"),
    (CLASSES, "fine", "map", "fine", "fc100 cifar100-in", "ways=within way=4"),
    (CLASSES, "coarse", "map", "coarse", "fc100 cifar100-in", "ways=across way=4"),
    (DESIGNED, "proportions", "control", "control", "mosaics", "pool=5 weights=uniform"),
    (PLAIN, "plain", "held back", "plain", "fashion", ""),
    (NETWORK, "imagenet", "held back", "imagenet", "fashion-in", ""),
    (NODES, "4-nodes", "held back", "few-nodes", "fashion", "pool=2"),
    (NODES, "100-nodes-320px", "held back", "many-nodes", "fashion-in", "resolution=320"),
    (SHOTS, "5-shot", "held back", "five-shots", "fashion", "shot=5"),
    (CLUTTER, "clutter-2", "held back", "clutter", "fashion", "view=clutter:2"),
    (OCCLUSION, "occlusion-2", "held back", "occlusion", "fashion", "view=occlusion:2"),
    (SCALE, "scale-2", "held back", "scale", "fashion", "query_view=scale:2"),
)

SETTINGS = {
    "plain": "from one shot with a small network of one's own (16 to 25 nodes)",
    "meta-trained": "with a network that was meta-trained through transport",
    "imagenet": "with an ImageNet network at 160 px",
    "few-nodes": "with 4 nodes",
    "many-nodes": "with 100 nodes at 320 px",
    "five-shots": "from five shots with a small network of one's own",
    "clutter": "under clutter",
    "occlusion": "under occlusion",
    "scale": "where queries are of another scale",
    "fine": "among classes of one superclass",
    "coarse": "among classes of different superclasses",
}
"""Setting -> its words in the sentence of advice. They are the family of the rule, see ``rule``."""


def _made() -> tuple[Cell, ...]:
    """Spell the table out."""
    kinds = {f.name: int if f.type == "int" else str for f in fields(Cell)}
    cells = []
    for axis, level, part, setting, bases, differs in _TABLE:
        changes = dict(one.split("=", 1) for one in differs.split())
        for base in bases.split():
            images, network, resolution = _BASES[base]
            cell = Cell(f"{base}/{level}", axis, level, part, setting, images, network, resolution)
            own: dict[str, Any] = {name: kinds[name](value.replace("*", network)) for name, value in changes.items()}
            cells.append(replace(cell, **own))
    return tuple(cells)


CELLS = _made()
"""All of them, in the order of the page."""


def chosen(patterns: tuple[str, ...]) -> list[Cell]:
    """Take the cells whose id, axis, part or setting is named, with * and ? as in file names; () takes all.

    Raises:
        UserError: A pattern that none fits.
    """
    for pattern in patterns:
        if not any(_fits(cell, pattern) for cell in CELLS):
            raise UserError(f"--cells {pattern!r} fits no cell: --list prints them.")
    return [cell for cell in CELLS if not patterns or any(_fits(cell, pattern) for pattern in patterns)]


def _fits(cell: Cell, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (cell.id, cell.axis, cell.part, cell.setting) if name)


def networks(given: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Add networks to those of the table.

    Args:
        given: NAME=BACKBONE each.

    Raises:
        UserError: No such form, or no such name.
    """
    found = dict(NETWORKS)
    for one in given:
        name, equals, spec = one.partition("=")
        if not equals or not spec or name not in found:
            raise UserError(f"--networks {one!r}: give NAME=BACKBONE, where NAME is one of {', '.join(NETWORKS)}.")
        found[name] = (*found[name], spec)
    return found
