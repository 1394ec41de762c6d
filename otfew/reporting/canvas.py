"""Figures without a window, as PNG."""

from __future__ import annotations

import io
from typing import Any

from otfew.reporting.plain import plain

TRANSPORT = "#c1440e"
CONTROL = "#31688e"
INK = "#1a1a1a"
MARKERS = "osD^vP*X<>ph"
COLOURS = (
    "#c1440e", "#31688e", "#35a05a", "#8e4585", "#e0a526", "#5b5b5b", "#1f9e9e", "#a0522d", "#d6719d", "#6a7fdb",
)  # fmt: skip


def make_figure(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Any, Any]:
    """Make a figure and its (rows, columns) axes.

    Args:
        rows: Of axes.
        columns: Of axes.
        size: Inches.
        **options: Of ``Figure.subplots``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    # Notebooks ask an object how it looks; without a window, matplotlib's own answer is its size.
    vars(figure)["_repr_png_"] = lambda: to_png(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def caption(text: str) -> str:
    """Prepare a text with names in it for a picture: dollars begin no formula, and a first "_" hides no legend."""
    text = plain(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def to_png(figure: Any, dpi: int = 130) -> bytes:
    """Render."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dpi, bbox_inches="tight")
    return picture.getvalue()


def bars(axes: Any, x: float, record: Any, colour: str, *, marker: str = "o", label: str | None = None) -> None:
    """Draw a mean in per cent with a thick bar over episodes and a thin one over classes."""
    y = 100 * record["mean"]
    if record["class_ci"] is not None:
        axes.errorbar(x, y, 100 * record["class_ci"], color=colour, alpha=0.4, linewidth=1, capsize=3)
    if record["episode_ci"] is not None:
        axes.errorbar(x, y, 100 * record["episode_ci"], color=colour, alpha=0.8, linewidth=3)
    axes.plot(x, y, marker, color=colour, markersize=6, label=label)
