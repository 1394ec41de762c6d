"""Accuracy against the severity of a shift as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otfew.reporting.canvas import COLOURS, MARKERS, TRANSPORT, caption, make_figure, to_png

Record = Mapping[str, Any]
CLEAN = "clean"


def picture(records: Sequence[Record], only: Sequence[Sequence[str]] | None = None) -> bytes:
    """Draw accuracies of methods over severities: a row of axes for each record, a column for each shift.

    Severity 0 is the same in every column: queries as they are. Bars are 95 % intervals over episodes.

    Args:
        records: Of the command transfer, with the same shifts.
        only: The methods that are drawn, for each record; None draws all.

    Returns:
        A PNG file.
    """
    shifts = list(dict.fromkeys(_shift(view) for r in records for view in r["methods"] if view != CLEAN))
    size = (4.6 * len(shifts) + 1, 3.4 * len(records) + 1)
    figure, axes = make_figure(len(records), len(shifts), size, sharey="row")
    for row, record in enumerate(records):
        names = list(only[row]) if only is not None else record["order"]
        judged = {left for left, _ in record["effects"].get("pairs", {}).values()}
        for column, shift in enumerate(shifts):
            views = [CLEAN, *(view for view in record["methods"] if _shift(view) == shift)]
            places = [0, *(int(view.rpartition(":")[2]) for view in views[1:])]
            for i, name in enumerate(names):
                values = [record["methods"][view][name] for view in views]
                nudged = [place + 0.02 * (i - len(names) / 2) for place in places]
                axes[row][column].errorbar(
                    nudged,
                    [100 * value["mean"] for value in values],
                    [100 * (value["episode_ci"] or 0) for value in values],
                    label=caption(name),
                    color=TRANSPORT if name in judged else COLOURS[1 + i % (len(COLOURS) - 1)],
                    marker=MARKERS[i % len(MARKERS)],
                    linestyle="-" if name in judged else "--",
                    markersize=4,
                    linewidth=1.6 if name in judged else 1.0,
                )
            axes[row][column].set_xticks(places)
            axes[row][column].grid(alpha=0.25)
            axes[row][column].set_title(caption(shift) if not row else "", fontsize=10)
            axes[row][column].set_xlabel("severity of the queries' shift")
        told = [caption(record["data"]["dataset"]), caption(record["network"]), "accuracy, %"]
        axes[row][0].set_ylabel("\n".join(told), fontsize=8)
        axes[row][-1].legend(fontsize=6, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return to_png(figure)


def _shift(view: str) -> str:
    return view.rpartition(":")[0]
