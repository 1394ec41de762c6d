"""The classes of generated objects."""

from __future__ import annotations

from collections.abc import Callable

from otfew.data.shapes import furniture, outdoors, vessels
from otfew.data.shapes.chances import Chances
from otfew.data.shapes.mesh import Mesh, in_unit_ball

CLASSES: dict[str, Callable[[Chances], Mesh]] = {
    make.__name__: make
    for make in (
        outdoors.airplane, furniture.bed, furniture.bench, outdoors.boat, furniture.bookshelf, vessels.bottle,
        vessels.bowl, outdoors.car, furniture.chair, vessels.cup, vessels.dumbbell, outdoors.fir, vessels.goblet,
        vessels.hammer, furniture.house, furniture.ladder, furniture.lamp, outdoors.mushroom, outdoors.palm,
        outdoors.rocket, outdoors.snowman, furniture.stool, vessels.sword, furniture.table, vessels.teapot,
        vessels.umbrella, vessels.vase, furniture.windmill,
    )
}  # fmt: skip
"""Name -> what makes an object of the class."""


def make(name: str, *identity: str | int) -> Mesh:
    """Make one object.

    Args:
        name: Its class.
        *identity: What tells it from the others of its class: its split and number.

    Returns:
        It, in the unit ball, z upwards; the front is where y is negative.
    """
    return in_unit_ball(CLASSES[name](Chances(name, *identity)))
