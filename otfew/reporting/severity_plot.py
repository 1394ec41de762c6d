"""Accuracy against the severity of a shift as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otfew.reporting import canvas
from otfew.reporting.canvas import COLOURS, CONTROL, FAINT, INK, MARKERS, REFERENCE, TEXT, TRANSPORT, WIDTH, caption
from otfew.reporting.forest_plot import signed, tick, with_half
from otfew.reporting.sentences import wide

Record = Mapping[str, Any]
CLEAN = "clean"
_PANEL, _HEAD = 1.35, 0.27
"""Inches of a row of panels with its ticks, and of the words above it."""
_LEFT = 0.55


def picture(records: Sequence[Record], only: Sequence[Sequence[str]] | None = None, title: str = "") -> bytes:
    """Draw ``figure`` as a PNG file."""
    return canvas.to_png(figure(records, only, title))


def figure(records: Sequence[Record], only: Sequence[Sequence[str]] | None = None, title: str = "") -> Any:
    """Draw accuracies of methods over severities: a row of axes for each record, a column for each shift.

    Severity 0 is the same in every column: queries as they are. Bars are 95 % intervals over episodes.

    Args:
        records: Of the command transfer, with the same shifts.
        only: The methods that are drawn, for each record; None draws all.
        title: What was found; "" says what the first record found.

    Returns:
        A figure of matplotlib's.
    """
    shifts = list(dict.fromkeys(_shift(view) for r in records for view in r["methods"] if view != CLEAN))
    shown = [list(names) for names in (only if only is not None else [r["order"] for r in records])]
    judged = {left for r in records for left, _ in r["effects"].get("pairs", {}).values()}
    styles = _styles(
        list(dict.fromkeys(name for names in shown for name in names)), judged, records[0].get("reference", "")
    )
    title = title or finding(records[0])
    settings = records[0]["settings"]
    subtitle = (
        f"{settings['episodes']:,} episodes of {settings['way']}-way {settings['shot']}-shot for each point; bars: "
        "95 % over episodes; severity 0: queries as they are"
    )
    key = [_line(name, style) for name, style in styles.items()]
    top, foot = canvas.headline_height(title, subtitle), canvas.key_height(key) + 0.5
    drawn = canvas.blank((WIDTH, top + 0.2 + (_PANEL + _HEAD) * len(records) + foot))
    canvas.headline(drawn, title, subtitle)
    panel = (WIDTH - _LEFT) / max(1, len(shifts))
    for row, (record, names) in enumerate(zip(records, shown, strict=True)):
        down = top + 0.2 + (_PANEL + _HEAD) * row + _HEAD
        words = f"{record['data']['dataset']}; {record['network']}"
        height = drawn.get_figheight()
        drawn.text(
            0, 1 - (down - 0.13) / height, caption(words), fontsize=TEXT, fontweight="bold", va="center", color=INK
        )
        ends = _ends(record, names)
        for column, shift in enumerate(shifts):
            axes = canvas.add_axes(drawn, _LEFT + panel * column, down, panel - 0.15, _PANEL - 0.25)
            _draw(axes, record, names, shift, styles)
            axes.set_ylim(ends)
            if not row:
                axes.set_title(caption(shift), fontsize=TEXT, color=FAINT, loc="right", pad=8)
            if row == len(records) - 1:
                axes.set_xlabel("severity of the queries' shift")
            if column:
                axes.set_yticklabels([])
            else:
                axes.set_ylabel("accuracy, %")
    canvas.add_key(drawn, key)
    return drawn


def finding(record: Record) -> str:
    """Say what transport gains more under a shift than without, where the record has that.

    Args:
        record: Of the command transfer.
    """
    effect = record["effects"].get("all")
    if not effect:
        return "Accuracy against the severity of the queries' shift"
    half = wide(effect) if wide(effect) is not None else effect["episode_ci"]
    points = with_half(signed(100 * effect["mean"]), None if half is None else 100 * half)
    return f"What transport gains under a shift less what it gains without: {points} points"


def _draw(axes: Any, record: Record, names: Sequence[str], shift: str, styles: Mapping[str, dict[str, Any]]) -> None:
    """Draw a line for each method."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    views = [CLEAN, *(view for view in record["methods"] if _shift(view) == shift)]
    places = [0, *(int(view.rpartition(":")[2]) for view in views[1:])]
    for i, name in enumerate(names):
        values = [record["methods"][view][name] for view in views]
        axes.errorbar(
            [place + 0.03 * (i - (len(names) - 1) / 2) for place in places],
            [100 * value["mean"] for value in values],
            [100 * (value["episode_ci"] or 0) for value in values],
            **styles[name],
        )
    axes.set_xticks(places)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(tick))
    axes.grid(color=canvas.GRID)


def _ends(record: Record, names: Sequence[str]) -> tuple[float, float]:
    """Find the ends of the axis that a row of panels shares."""
    values = [view[name] for view in record["methods"].values() for name in names]
    low = min(100 * (value["mean"] - (value["episode_ci"] or 0)) for value in values)
    high = max(100 * (value["mean"] + (value["episode_ci"] or 0)) for value in values)
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _styles(names: Sequence[str], judged: set[str], reference: str) -> dict[str, dict[str, Any]]:
    """Give every method its look: what was judged in the colour of transport, the reference black."""
    styles: dict[str, dict[str, Any]] = {}
    # The colours of roles are taken.
    others = [colour for colour in COLOURS if colour not in {TRANSPORT, REFERENCE}]
    others.sort(key=lambda colour: colour != CONTROL)
    dashes = iter(["-", (0, (4, 1.5)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5))] * (1 + len(names) // 4))
    plain = 0
    for i, name in enumerate(names):
        style: dict[str, Any] = {"marker": MARKERS[i % len(MARKERS)], "markersize": 4, "linewidth": 1.3}
        if name in judged:
            style |= {"color": TRANSPORT, "linestyle": next(dashes), "marker": "s", "linewidth": 1.8}
        elif name == reference:
            style |= {"color": REFERENCE, "linestyle": "-", "marker": "P"}
        else:
            style |= {"color": others[plain % len(others)], "linestyle": (0, (3, 1))}
            plain += 1
        styles[name] = style
    return styles


def _line(name: str, style: Mapping[str, Any]) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=caption(name), **style)


def _shift(view: str) -> str:
    return view.rpartition(":")[0]
