"""Accuracies of a joined run, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otfew.reporting.canvas import COLOURS, MARKERS, caption, make_figure
from otfew.reporting.comparison import mark
from otfew.reporting.sentences import wide


def figure(title: str, headings: Sequence[str], records: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> Any:
    """Draw a group of points for each column, a point for each method, with its wide interval.

    Args:
        title: Above it.
        headings: Of the columns.
        records: Of the columns, with "methods".
        methods: In the order of the legend.

    Returns:
        A figure of matplotlib's that no window knows of; notebooks show it.
    """
    drawn, ((axes,),) = make_figure(1, 1, (max(6.0, 1.0 + 0.25 * len(headings) * len(methods)), 5.0))
    step = 0.8 / max(1, len(methods))
    for i, name in enumerate(methods):
        places = [c for c, record in enumerate(records) if name in record["methods"]]
        own = [records[c]["methods"][name] for c in places]
        axes.errorbar(
            [c + step * (i - (len(methods) - 1) / 2) for c in places],
            [100 * method["accuracy"]["mean"] for method in own],
            [100 * (wide(method["accuracy"]) or method["accuracy"]["episode_ci"] or 0) for method in own],
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            linestyle="none",
            capsize=2,
            label=caption(mark(name, own[0])),
        )
    axes.set_xticks(range(len(headings)), [caption(heading.replace("\n", ", ")) for heading in headings])
    over = "photos" if records[0]["protocol"].get("fixed_classes") else "classes"
    axes.set_ylabel(f"accuracy, %   (bars: 95 % over {over})")
    axes.set_title(caption(title), fontsize=10)
    axes.grid(alpha=0.25, axis="y")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return drawn
