"""Pages that need nothing else: one file, pictures inside, every name escaped, no word to the network.

Templates are in the folder ``templates``. What they are given is escaped by ``otfew.reporting.tables.in_html``, the one
place for that; what a browser may load or run is narrowed by the page itself to its own pictures and its one script.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from otfew.data.base import Image
from otfew.reporting.canvas import COLOURS
from otfew.reporting.tables import Cell, in_html

if TYPE_CHECKING:
    from jinja2 import Environment

SIDE = 700
"""Pictures are drawn with at most so many pixels to a side."""
_QUALITY = 85


@dataclass(frozen=True)
class Grid:
    """A table whose columns can be sorted.

    Attributes:
        head: Of the columns; line breaks stay.
        rows: As many cells each: text, figures, or a ``thumbnail``; the first column is a name.
        texts: Places of further columns that are text.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    texts: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Mark:
    """A numbered region of a picture.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the picture as it was given.
        text: At its corner; "" for an outline alone.
        colour: Of the outline.
        repeats: How many marks before it have the same corner.
        weight: Width of the outline, as a share of the widest.
    """

    box: tuple[float, ...]
    text: str = ""
    colour: str = "#ffffff"
    repeats: int = 0
    weight: float = 0.5


def numbered(boxes: Sequence[tuple[float, ...]], masses: Sequence[float] | None = None) -> list[Mark]:
    """Number regions from 1, each in its colour.

    Args:
        boxes: As in ``Mark``.
        masses: As many; outlines are as wide as these are large. None makes all alike.
    """
    most = max(masses or (), default=0.0)
    weights = [mass / most for mass in masses] if masses and most > 0 else [0.5] * len(boxes)
    return [
        Mark(box, str(i + 1), COLOURS[i % len(COLOURS)], sum(other[:2] == box[:2] for other in boxes[:i]), weight)
        for i, (box, weight) in enumerate(zip(boxes, weights, strict=True))
    ]


@dataclass(frozen=True)
class Panel:
    """A picture with a caption, as the templates want it.

    Attributes:
        caption: Above it.
        uri: The picture itself; "" where there is none.
        width: In pixels.
        height: In pixels.
        marks: Outlines in pixels of the picture.
    """

    caption: str
    uri: str = ""
    width: int = 0
    height: int = 0
    marks: list[dict[str, Any]] = field(default_factory=list)


def panel(caption: str, picture: Image | None, marks: Sequence[Mark] = ()) -> Panel:
    """Prepare a picture.

    Args:
        caption: Above it.
        picture: (height, width, 3) uint8, or None where it is not at hand.
        marks: Regions of it.
    """
    if picture is None:
        return Panel(caption)
    small, scale = _shrunk(picture, SIDE)
    height, width = small.shape[:2]
    size = round(width / 30, 1)
    drawn = []
    for mark in marks:
        x0, y0, x1, y1 = (round(value * scale, 1) for value in mark.box)
        drawn.append(
            {
                "x": x0,
                "y": y0,
                "width": round(x1 - x0, 1),
                "height": round(y1 - y0, 1),
                "size": size,
                "left": round(x0 + 1.3 * size * mark.repeats, 1),
                "colour": mark.colour,
                "line": round(size / 4 * mark.weight, 2),
                "text": mark.text,
            }
        )
    return Panel(caption, _uri(small), width, height, drawn)


def thumbnail(picture: Image, side: int = 96) -> Cell:
    """Make a small picture that can stand in a cell of a table."""
    from markupsafe import Markup

    return Markup('<img alt="" src="{}">').format(_uri(_shrunk(picture, side)[0]))


def _shrunk(picture: Image, side: int) -> tuple[Image, float]:
    import cv2

    scale = min(1.0, side / max(picture.shape[:2]))
    if scale == 1:
        return picture, 1.0
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def _uri(picture: Image) -> str:
    import cv2

    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(picture[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def render(template: str, headline: str, **parts: Any) -> str:
    """Write a page.

    Args:
        template: Name of its file, such as "classify.html".
        headline: The one sentence that stands above all.
        **parts: What the template asks for.
    """
    from markupsafe import Markup

    environment = _environment()
    script, style = (_source(environment, name) for name in ("sort.js", "page.css"))
    return environment.get_template(template).render(
        kind=template.partition(".")[0],
        headline=headline,
        script=Markup(script),
        style=Markup(style),
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **parts,
    )


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("otfew.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_escaped,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _escaped(value: object) -> object:
    """Escape what a template writes, unless it is of our own making."""
    from markupsafe import Markup

    if isinstance(value, Markup):
        return value
    return "" if value is None else Markup(in_html(str(value)))
