"""Views of many objects, kept on disk: one picture an object, its views side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from otfew.data.base import Image
from otfew.data.decoding.image import read_image
from otfew.data.shapes.mesh import Floats, Mesh, in_unit_ball
from otfew.data.shapes.render import VERSION, strip, views
from otfew.data.views import ViewSet, left_out
from otfew.errors import UserError
from otfew.runs.files import write_atomically


@dataclass(frozen=True)
class Solid:
    """An object before it is looked at.

    Attributes:
        name: Such as "chair/chair_0001".
        label: The place of its class.
        stamp: Changes whenever the mesh does.
        load: Reads or makes the mesh; raises ``UserError`` where it can't be rendered.
    """

    name: str
    label: int
    stamp: str
    load: Callable[[], Mesh]


@dataclass(frozen=True)
class Rendered(ViewSet):
    """Shapes whose views lie side by side in one file each.

    Attributes:
        every: The places of the views that are taken, in each file.
        total: How many views a file holds.
        skipped: Sentences on objects that could not be rendered.
    """

    every: tuple[int, ...] = ()
    total: int = 0
    skipped: tuple[str, ...] = ()

    @property
    def views(self) -> int:
        """Images of each shape."""
        return len(self.every)

    def read(self, index: int) -> list[Image]:
        """Decode the views of shape ``index``: each (side, side, 3) uint8 RGB."""
        parts = np.split(read_image(self.paths[index][0]), self.total, axis=1)
        return [parts[place] for place in self.every]


def render_all(
    solids: Sequence[Solid],
    classes: Sequence[str],
    folder: Path,
    directions: Floats,
    side: int,
    taken: int | None = None,
    on_item: Callable[[int], None] = lambda count: None,
) -> Rendered:
    """Render what is not there yet, and hand out all of it.

    A file is written whole or not at all, so that a second call goes on where a first was stopped.

    Args:
        solids: Which.
        classes: Names of their classes.
        folder: Where the pictures are kept; files of other stamps, cameras or sizes lie beside each other.
        directions: (views, 3) unit vectors to the cameras.
        side: Pixels of a view.
        taken: Views to hand out of each, evenly spaced; None hands out all.
        on_item: Called with the number of objects, then with 0 after each.

    Raises:
        UserError: More views asked for than there are, none of the objects can be rendered, all of a class can't be,
            or a picture can't be written.
    """
    total = len(directions)
    if taken is not None and not 1 <= taken <= total:
        raise UserError(f"the number of views must be between 1 and {total}, not {taken}.")
    on_item(len(solids))
    setting = f"{VERSION}-{total}x{side}"

    def one(solid: Solid) -> Path | str:
        path = folder / f"{solid.name}-{solid.stamp}-{setting}.png"
        try:
            if not path.exists():
                _write(path, strip(views(in_unit_ball(solid.load()), directions, side)))
        except UserError as error:
            # A disk that is full would make every object a bad one.
            if isinstance(error.__cause__, OSError):
                raise
            return str(error)
        finally:
            on_item(0)
        return path

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        found = list(pool.map(one, solids))
    kept = [(solid, path) for solid, path in zip(solids, found, strict=True) if isinstance(path, Path)]
    skipped = tuple(path for path in found if isinstance(path, str))
    present = {solid.label for solid, _ in kept}
    if gone := [name for label, name in enumerate(classes) if label not in present]:
        raise UserError(f"no mesh of the class {gone[0]!r} can be rendered; the first of all: {(*skipped, 'none')[0]}")
    return Rendered(
        classes=tuple(classes),
        labels=np.array([solid.label for solid, _ in kept], dtype=np.int64),
        names=tuple(solid.name for solid, _ in kept),
        paths=tuple((path,) for _, path in kept),
        notes=left_out(f"of {len(solids):,} meshes can't be rendered and", skipped),
        every=tuple(place * total // (taken or total) for place in range(taken or total)),
        total=total,
        skipped=skipped,
    )


def _write(path: Path, image: Image) -> None:
    done, content = cv2.imencode(".png", image[..., ::-1])
    if not done:
        raise UserError(f"{path} can't be encoded.")
    write_atomically(path, content.tobytes())
