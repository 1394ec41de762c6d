"""The page of metric learning: its tables, and what the losses find for some queries, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from otfew.data.base import Image
from otfew.experiments.metric_learning.material import Material
from otfew.reporting.canvas import COLOURS
from otfew.reporting.pages import Grid, render, thumbnail
from otfew.reporting.tables import Cell, Table

SHOWN = 3
"""Losses whose finds are shown: the best by mAP."""
SIDE, FRAME = 64, 5
OF_CLASS, OF_ANOTHER = COLOURS[1], COLOURS[0]

Found = Mapping[str, Sequence[Sequence[Any]]]
"""Loss -> (query, items found) of some queries."""


def html(
    tables: Sequence[Table],
    lines: Sequence[str],
    material: Material,
    found: Found,
    summary: Mapping[str, Any],
    title: str,
) -> str:
    """Write it.

    Args:
        tables: Of the report.
        lines: Sentences below them.
        material: What queries and finds are taken from.
        found: By the first seed of each loss.
        summary: Of each loss, as in results.json.
        title: What the losses were compared on.
    """
    ranked = sorted(summary, key=lambda loss: -summary[loss]["map"]["last_epoch"]["mean"])
    best = ranked[0]
    figure = f"{100 * summary[best]['map']['last_epoch']['mean']:.1f} % mAP"
    return render(
        "metric.html",
        f"{title}: {best} has the highest mean, {figure}, of {len(ranked)} losses",
        tables=[(table.title, Grid(table.head, table.rows)) for table in tables],
        finds=[(loss, _finds(material, found[loss])) for loss in ranked if loss in found][:SHOWN],
        note="Framed in blue: of the query's class. In orange: of another. The first seed of each loss; the queries "
        "are the first of each of some classes, evenly spaced, chosen before anything was found.",
        lines=lines,
    )


def _finds(material: Material, pairs: Sequence[Sequence[Any]]) -> Grid:
    """Lay out queries with what was found for each, the nearest first."""
    gallery, asked = material.splits["test"][0], material.splits["test"][-1]
    names = material.classes if material.shared_classes else material.test_classes
    rows: list[list[Cell]] = []
    for query, items in pairs:
        label = int(asked.labels[query])
        right = [int(gallery.labels[item]) == label for item in items]
        pictures = [
            thumbnail(_framed(_picture(gallery.pixels[item]), OF_CLASS if hit else OF_ANOTHER), SIDE + 2 * FRAME)
            for item, hit in zip(items, right, strict=True)
        ]
        score = f"{sum(right)} of {len(right)}"
        rows.append([names[label], thumbnail(_picture(asked.pixels[query]), SIDE), score, *pictures])
    count = max((len(row) - 3 for row in rows), default=0)
    return Grid(["class", "query", "right", *(str(place + 1) for place in range(count))], rows)


def _picture(pixels: Tensor) -> Image:
    """Take an item's picture, its first view: (side, side, 3)."""
    first = pixels if pixels.ndim == 3 else pixels[0]
    image = np.ascontiguousarray(first.permute(1, 2, 0).numpy())
    return np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _framed(image: Image, colour: str) -> Image:
    value = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    framed = cv2.copyMakeBorder(image, FRAME, FRAME, FRAME, FRAME, cv2.BORDER_CONSTANT, value=value)
    return np.asarray(framed, np.uint8)
