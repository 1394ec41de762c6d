"""The one style of all charts: figures without a window, colours with fixed roles, titles, keys, and PNG.

Charts are 8 inches wide, so that a page which shows them at 800 px shows letters of 9 points 12 px high. A title says
what was found, left-aligned; a subtitle on what: data, network, episodes. Colours are those of Okabe and Ito (2008),
which the colour-blind tell apart, and no role is told by its colour alone: each has a marker, too.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from otfew.reporting.plain import plain

TRANSPORT = "#d55e00"
"""Vermilion: a method that solves a transport problem."""
CONTROL = "#0072b2"
"""Blue: the same nodes without transport."""
RIVAL = "#6e6e6e"
"""Grey: other methods."""
REFERENCE = "#000000"
"""Black: what differences are to."""
INK = "#1a1a1a"
FAINT = "#5b5b5b"
"""Of subtitles and notes."""
GRID = "#dddddd"
MARKERS = "os^Dv*PX<>ph"
COLOURS = (
    "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f", "#882255", "#999933",
)  # fmt: skip
"""Of series without a role; told apart by ``MARKERS`` and dashes as well."""
WIDTH = 8.0
"""Inches of a chart."""
TITLE, SUBTITLE, TEXT, SMALL = 12.5, 9.5, 9.5, 8.5
"""Points of the title, the subtitle, labels and values, and notes."""
DPI = 160
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": TEXT,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.labelsize": TEXT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "xtick.labelsize": TEXT,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
    "ytick.labelsize": TEXT,
}


@dataclass(frozen=True)
class Role:
    """What a mark stands for.

    Attributes:
        words: In the key.
        colour: Of mark and bars.
        marker: Of matplotlib's.
        filled: Or hollow.
        edge: Of the marker; the colour where it is left out.
    """

    words: str
    colour: str
    marker: str
    filled: bool = True
    edge: str = ""

    def style(self, size: float = 6.0) -> dict[str, Any]:
        """Return matplotlib's options of the marker."""
        return {
            "marker": self.marker,
            "markersize": size,
            "markerfacecolor": self.colour if self.filled else "white",
            "markeredgecolor": self.edge or self.colour,
            "markeredgewidth": 1.2,
            "linestyle": "none",
        }


TRANSPORT_ROLE = Role("transport", TRANSPORT, "s")
CONTROL_ROLE = Role("control: same nodes, no transport", CONTROL, "o")
RIVAL_ROLE = Role("other methods", RIVAL, "^")
REFERENCE_ROLE = Role("reference of the differences", REFERENCE, "P")
PUBLISHED_ROLE = Role("published", "#000000", "D", filled=False)


def make_figure(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Any, Any]:
    """Make a figure and its (rows, columns) axes, in the style of all charts.

    Args:
        rows: Of axes.
        columns: Of axes.
        size: Inches.
        **options: Of ``Figure.subplots``.
    """
    import matplotlib as mpl

    figure = blank(size)
    with mpl.rc_context(STYLE):
        axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes


def blank(size: tuple[float, float]) -> Any:
    """Make a figure without axes or window; notebooks show it.

    Args:
        size: Inches.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    # Notebooks ask an object how it looks; without a window, matplotlib's own answer is its size.
    vars(figure)["_repr_png_"] = lambda: to_png(figure)
    return figure


def add_axes(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Add axes at a place in inches from the figure's left upper corner.

    Args:
        figure: Where.
        left: Of their left edge.
        top: Of their upper edge, downwards.
        width: Of theirs.
        height: Of theirs.
    """
    import matplotlib as mpl

    across, down = figure.get_size_inches()
    with mpl.rc_context(STYLE):
        return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def caption(text: str) -> str:
    """Prepare a text with names in it for a picture: dollars begin no formula, and a first "_" hides no legend."""
    text = plain(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def to_png(figure: Any, dpi: int = DPI) -> bytes:
    """Render; the same bytes for the same figure and version of matplotlib."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": ""})
    return picture.getvalue()


@lru_cache(4096)
def width_of(text: str, size: float, weight: str = "normal") -> float:
    """Measure a line of text, which may have been through ``caption``.

    Args:
        text: Of one line.
        size: Points.
        weight: "normal" or "bold".

    Returns:
        Inches.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    if not text.strip():
        return 0.0
    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    return float(TextPath((0, 0), text, prop=font).get_extents().x1) / 72


def wrapped(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Break text into lines that are at most as wide as that; a longer word is broken, too.

    Args:
        text: Any.
        width: Inches.
        size: Points.
        weight: "normal" or "bold".
    """
    letters = max(8, len(text))
    while letters > 8:
        lines = textwrap.wrap(text, letters, break_on_hyphens=False)
        widest = max((width_of(line, size, weight) for line in lines), default=0.0)
        if widest <= width:
            return lines
        letters = min(letters - 1, max(8, math.ceil(letters * width / widest)))
    return textwrap.wrap(text, 8, break_on_hyphens=False)


def headline(figure: Any, title: str, subtitle: str = "", left: float = 0.0, bold: bool = True) -> float:
    """Write title and subtitle at the top of a figure, wrapped to its width.

    Args:
        figure: Where.
        title: What was found, in words.
        subtitle: On what: data, network, episodes.
        left: Inches from the left edge.
        bold: Letters of the title.

    Returns:
        Inches from the figure's top that they take, with the room below.
    """
    across, down = figure.get_size_inches()
    top = 0.04
    weight = "bold" if bold else "normal"
    for text, size, thick, colour in ((title, TITLE, weight, INK), (subtitle, SUBTITLE, "normal", FAINT)):
        lines = wrapped(text, across - left, size, thick) if text else []
        for line in lines:
            figure.text(
                left / across, 1 - top / down, caption(line), fontsize=size, fontweight=thick, color=colour, va="top",
                ha="left", family="DejaVu Sans",
            )  # fmt: skip
            top += 1.32 * size / 72
        top += 0.03 if lines else 0.0
    return top + 0.08


def headline_height(title: str, subtitle: str = "", width: float = WIDTH) -> float:
    """Return the inches that ``headline`` will take of a figure of that width."""
    lines = len(wrapped(title, width, TITLE, "bold")), len(wrapped(subtitle, width, SUBTITLE)) if subtitle else 0
    taken = sum(n * 1.32 * size / 72 + (0.03 if n else 0.0) for n, size in zip(lines, (TITLE, SUBTITLE), strict=True))
    return 0.04 + taken + 0.08


def bar_key(thick: str = "95 % over episodes", thin: str = "95 % over classes") -> list[Any]:
    """Make the entries of a key that say what thick and thin bars are; "" leaves one out."""
    from matplotlib.lines import Line2D

    found = []
    if thick:
        found.append(Line2D([], [], color=FAINT, linewidth=7, alpha=0.4, solid_capstyle="butt", label=thick))
    if thin:
        found.append(Line2D([], [], color=FAINT, linewidth=1.2, label=thin))
    return found


def role_key(roles: Sequence[Role], size: float = 6.5) -> list[Any]:
    """Make an entry of a key for each role."""
    from matplotlib.lines import Line2D

    return [Line2D([], [], label=caption(role.words), **role.style(size)) for role in dict.fromkeys(roles)]


def add_key(figure: Any, handles: Sequence[Any], left: float = 0.0, bottom: float = 0.0) -> None:
    """Put the key below everything, in as many rows as its entries need.

    Args:
        figure: Where.
        handles: Of the key.
        left: Inches from the left edge.
        bottom: Inches from the bottom.
    """
    across, down = figure.get_size_inches()
    for row, entries in enumerate(reversed(_key_rows(handles, across - left))):
        figure.legend(
            handles=entries, loc="lower left", bbox_to_anchor=(left / across, (bottom + _KEY * row) / down),
            ncols=len(entries), frameon=False, borderaxespad=0, borderpad=0, handletextpad=0.5, columnspacing=_GAP,
            prop={"family": "DejaVu Sans", "size": SMALL}, handlelength=1.8,
        )  # fmt: skip


def key_height(handles: Sequence[Any], width: float = WIDTH) -> float:
    """Return the inches that ``add_key`` will take of a figure of that width."""
    return _KEY * len(_key_rows(handles, width))


_KEY = 0.2
"""Inches of a row of the key."""
_GAP = 1.6
"""Between its columns, in letters."""


def _key_rows(handles: Sequence[Any], width: float) -> list[list[Any]]:
    """Divide the entries of a key into rows."""
    rows: list[list[Any]] = []
    room = 0.0
    for handle in handles:
        needed = width_of(handle.get_label(), SMALL) + (1.8 + 0.5 + _GAP) * SMALL / 72
        if not rows or needed > room:
            rows.append([])
            room = width
        rows[-1].append(handle)
        room -= needed
    return rows


def bars(axes: Any, x: float, record: Any, colour: str, *, marker: str = "o", label: str | None = None) -> None:
    """Draw a mean in per cent with a thick bar over episodes and a thin one over classes."""
    y = 100 * record["mean"]
    if record["class_ci"] is not None:
        axes.errorbar(x, y, 100 * record["class_ci"], color=colour, linewidth=1.2)
    if record["episode_ci"] is not None:
        axes.errorbar(x, y, 100 * record["episode_ci"], color=colour, linewidth=4)
    axes.plot(x, y, marker, color=colour, markersize=6, label=label)
