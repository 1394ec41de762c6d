"""Sets of shapes by name: where their views and their sketches come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from otfew.data.base import ImageSet
from otfew.data.modalities import need_same_classes
from otfew.data.shapes import generated, layouts, objects
from otfew.data.shapes.cameras import around, dodecahedron
from otfew.data.shapes.mesh import Floats
from otfew.data.shapes.rendering import Rendered, render_all
from otfew.data.views import ViewSet, load_views
from otfew.errors import UserError
from otfew.random.keys import digest
from otfew.runs.files import cache_directory

SIDE = 224
"""Pixels of a view of a publisher's mesh."""

OnItem = Callable[[int], None]


@dataclass(frozen=True)
class ShapeSet:
    """A set of shapes.

    Attributes:
        name: Its name.
        summary: One line about it.
        shapes: (root, split, views to take or None, progress) -> the shapes of a split.
        sketches: (root, split) -> the sketches of a split; None where it has none.
        brought: Where a user gets it from; "" where it is made here.
        divided: Its shapes are divided into splits; else all of them are in each, and only sketches are divided.
        listed: (root) -> the classes of its shapes, before any is rendered; None where it has no sketches.
    """

    name: str
    summary: str
    shapes: Callable[[Path, str, int | None, OnItem], ViewSet]
    sketches: Callable[[Path, str], ImageSet] | None = None
    brought: str = ""
    divided: bool = True
    listed: Callable[[Path], Sequence[str]] | None = None


def _generated(root: Path, split: str, views: int | None, on_item: OnItem) -> ViewSet:
    del root
    return generated.load_shapes(split, views, on_item)


def _generated_sketches(root: Path, split: str) -> ImageSet:
    del root
    return generated.load_sketches(split)


def _modelnet(name: str) -> Callable[[Path, str, int | None, OnItem], ViewSet]:
    def load(root: Path, split: str, views: int | None, on_item: OnItem) -> ViewSet:
        if layouts.has_views(root, name):
            return load_views(layouts.below(root, name), split, views)
        return _rendered(root, layouts.modelnet(root, name, split), around(), views, on_item)

    return load


def _shrec(root: Path, split: str, views: int | None, on_item: OnItem) -> ViewSet:
    # The shapes are one gallery: only the sketches are divided.
    del split
    rendered = _rendered(root, layouts.shrec(root), dodecahedron(), views, on_item)
    note = "the gallery's shapes are trained on as well, as the benchmark has it; only sketches are divided"
    return replace(rendered, notes=(*rendered.notes, note))


def _shrec_sketches(name: str) -> Callable[[Path, str], ImageSet]:
    return lambda root, split: layouts.sketches(root, name, split)


def _rendered(root: Path, found: layouts.Solids, directions: Floats, views: int | None, on_item: OnItem) -> Rendered:
    """Render meshes into the caches; folders of the same name elsewhere do not meet there."""
    place = cache_directory() / "shapes" / digest(str(root.resolve())).hex()[:16]
    return render_all(found.solids, found.classes, place, directions, SIDE, views, on_item)


SHAPES: dict[str, ShapeSet] = {
    each.name: each
    for each in (
        ShapeSet(
            "shapes",
            "generated objects of 28 classes: a demonstration",
            _generated,
            _generated_sketches,
            listed=lambda root: tuple(objects.CLASSES),
        ),
        ShapeSet(
            "modelnet10",
            "CAD models of 10 kinds of furniture (Wu et al. 2015): meshes, or rendered views",
            _modelnet("modelnet10"),
            brought="https://modelnet.cs.princeton.edu (ModelNet10.zip, 473 MB)",
        ),
        ShapeSet(
            "modelnet40",
            "CAD models of 40 classes (Wu et al. 2015): meshes, or rendered views",
            _modelnet("modelnet40"),
            brought="https://modelnet.cs.princeton.edu (ModelNet40.zip, 2.0 GB)",
        ),
        ShapeSet(
            "shrec13",
            "sketches of 90 classes and 1,258 shapes to find by them (Li et al. 2013)",
            _shrec,
            _shrec_sketches("shrec13"),
            brought="the pages of SHREC 2013, track large scale sketch-based 3D shape retrieval",
            divided=False,
            listed=lambda root: layouts.shrec(root).classes,
        ),
        ShapeSet(
            "shrec14",
            "sketches of 171 classes and 8,987 shapes to find by them (Li et al. 2014)",
            _shrec,
            _shrec_sketches("shrec14"),
            brought="the pages of SHREC 2014, track extended large scale sketch-based 3D shape retrieval",
            divided=False,
            listed=lambda root: layouts.shrec(root).classes,
        ),
        ShapeSet(
            "views",
            "folders of rendered views of your own shapes",
            lambda root, split, views, on_item: load_views(root, split, views),
        ),
    )
}
"""Name -> set of shapes."""


def load_shapes(
    name: str,
    root: Path,
    split: str,
    views: int | None,
    on_item: OnItem = lambda count: None,
    sketched: Sequence[str] | None = None,
) -> ViewSet:
    """Load the shapes of a split, rendered where that was not done yet.

    Args:
        name: A key of ``SHAPES``.
        root: Folder of the data.
        split: "train", "val" or "test".
        views: Images to take of each shape, evenly spaced; None takes all.
        on_item: Called with the number of meshes, then with 0 after each.
        sketched: Classes that the sketches have, where those are loaded too.

    Raises:
        UserError: What is not there, or can't be read or rendered; where a user gets the set from is said then. Or
            shapes and sketches differ in classes, which is said before any shape is rendered.
    """
    each = SHAPES[name]
    try:
        if sketched is not None and each.listed is not None:
            need_same_classes(each.listed(root), sketched, split)
        return each.shapes(root, split, views, on_item)
    except UserError as error:
        if isinstance(error.__cause__, OSError) or not each.brought:
            raise
        raise UserError(f"{str(error).rstrip('.')}. {name} comes from {each.brought}.") from None


def load_sketches(name: str, root: Path, split: str) -> ImageSet:
    """Load the sketches of a split; errors as of ``need_sketches``, or that they are not there."""
    need_sketches(name)
    load = SHAPES[name].sketches
    assert load is not None
    return load(root, split)


def need_sketches(name: str) -> None:
    """Refuse a set without sketches.

    Raises:
        UserError: It has none.
    """
    if SHAPES[name].sketches is None:
        having = ", ".join(key for key, other in SHAPES.items() if other.sketches)
        raise UserError(f"{name} has no sketches; there are some in {having}.")
