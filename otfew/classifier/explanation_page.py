"""An explanation as a page: one file, pictures inside, nothing that runs."""

from __future__ import annotations

import base64
from html import escape
from typing import TypeAlias

import cv2
import numpy as np

from otfew.classifier.explanation_figure import Mark, panels, shrunk
from otfew.classifier.reasons import Reasons
from otfew.data.base import Image
from otfew.reporting.plain import plain

Row: TypeAlias = "tuple[object, ...]"

_QUALITY = 85
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1a1a1a }
h1 { font-size: 1.4rem } li { margin: .2rem 0 }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem }
figure { margin: 0 } figcaption { font-size: .85rem; min-height: 2.6rem; overflow-wrap: anywhere }
svg { width: 100%; height: auto; display: block }
.none { color: #5b5b5b; font-style: italic }
table { border-collapse: collapse; font-size: .9rem; margin: 1rem 0 } th, td { padding: .2rem .8rem; text-align: right }
th { border-bottom: 1px solid #5b5b5b } td:first-child, th:first-child { text-align: left }
"""


def page(told: Reasons) -> str:
    """Write an explanation as HTML: see ``Explanation.to_html``."""
    first, *others = (_text(sentence) for sentence in told.sentences())
    figures = "".join(_figure(title, picture, marks) for title, picture, marks in panels(told))
    photos: list[Row] = [
        (one.name, one.label, "the only one of its class" if one.effect is None else f"{one.effect:+.3f}")
        for one in told.evidence
    ]
    flows: list[Row] = [
        (one.number, f"{one.share:.3f}", f"{one.similarity:.3f}", f"{one.rival_similarity:.3f}") for one in told.flows
    ]
    title = _text(f"{told.name}: {told.answer}")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>{first}</h1>\n<ul>{''.join(f'<li>{sentence}</li>' for sentence in others)}</ul>\n"
        f'<div class="panels">{figures}</div>\n'
        + _table("Labelled photos, and the lead that the answer would lose without", ("photo", "label", "lead"), photos)
        + _table("Flows", ("number", "share of all mass", "similarity to the answer's", "to the runner-up's"), flows)
        + "</body></html>\n"
    )


def _figure(title: str, picture: Image | None, marks: list[Mark]) -> str:
    """A picture with its caption; marks are drawn over it."""
    told = "<br>".join(_text(line) for line in title.split("\n"))
    if picture is None:
        return f'<figure><figcaption>{told}</figcaption><p class="none">its picture was not kept</p></figure>\n'
    small, scale = shrunk(picture)
    height, width = small.shape[:2]
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(small[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    data = base64.b64encode(encoded.tobytes()).decode()
    over = "".join(_outline(mark, scale, width / 30) for mark in marks)
    return (
        f'<figure><figcaption>{told}</figcaption><svg viewBox="0 0 {width} {height}" role="img">'
        f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{data}"/>{over}</svg></figure>\n'
    )


def _outline(mark: Mark, scale: float, size: float) -> str:
    """A region's outline, and its number at its corner, of a height in pixels of the picture."""
    x0, y0, x1, y1 = (value * scale for value in mark.box)
    place = f'x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}" fill="none"'
    drawn = (
        f'<rect {place} stroke="#000" stroke-width="{size / 4:.1f}"/>'
        f'<rect {place} stroke="{mark.colour}" stroke-width="{size / 8:.1f}"/>'
    )
    if mark.text:
        left = x0 + 1.3 * size * mark.repeats
        drawn += (
            f'<rect x="{left:.1f}" y="{y0:.1f}" width="{1.2 * size:.1f}" height="{1.2 * size:.1f}" '
            f'fill="{mark.colour}"/><text x="{left + 0.6 * size:.1f}" y="{y0 + 0.97 * size:.1f}" fill="#fff" '
            f'font-size="{size:.1f}" font-weight="bold" text-anchor="middle">{_text(mark.text)}</text>'
        )
    return drawn


def _table(caption: str, head: tuple[str, ...], rows: list[Row]) -> str:
    cells = "".join("<tr>" + "".join(f"<td>{_text(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    heads = "".join(f"<th>{_text(name)}</th>" for name in head)
    return f"<h2>{_text(caption)}</h2><table><tr>{heads}</tr>{cells}</table>\n"


def _text(text: str) -> str:
    """Names from anywhere as text and nothing else."""
    return escape(plain(text))
