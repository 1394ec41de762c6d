"""Accuracy against the number of shots as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otfew.reporting.canvas import COLOURS, MARKERS, caption, make_figure, to_png
from otfew.reporting.comparison import mark

Record = Mapping[str, Any]


def picture(records: Mapping[int, Record]) -> bytes:
    """Draw accuracies, and paired differences to the reference with their intervals over classes.

    Args:
        records: k -> a panel as ``compare`` writes it.

    Returns:
        A PNG file.
    """
    first = next(iter(records.values()))
    p, shots = first["protocol"], list(records)
    names, reference = p["order"], p["reference"]
    figure, ((left, right),) = make_figure(1, 2, (14, 5.6), gridspec_kw={"wspace": 0.16})
    for i, name in enumerate(names):
        transport = p["methods"][name]["method"] == "deepemd"
        style: dict[str, Any] = {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": "-" if transport else "--",
            "markersize": 4,
            "linewidth": 1.2,
        }
        # Side by side, so that bars of different methods do not cover each other.
        shifted = [k * (1 + 0.012 * (i - len(names) / 2)) for k in shots]
        accuracies = [r["methods"][name]["accuracy"] for r in records.values()]
        left.errorbar(
            shifted,
            [100 * a["mean"] for a in accuracies],
            [100 * (a["episode_ci"] or 0) for a in accuracies],
            label=caption(mark(name, first["methods"][name])),
            **style,
        )
        # Transductive methods have a reference of their own.
        if first["methods"][name].get("difference", {}).get("to") == reference:
            differences = [r["methods"][name]["difference"] for r in records.values()]
            right.errorbar(
                shifted,
                [100 * d["mean"] for d in differences],
                [100 * (d["class_ci"] or d["episode_ci"] or 0) for d in differences],
                elinewidth=0.6,
                **style,
            )
    right.axhline(0, color="0.3", linewidth=0.8, linestyle=":")
    left.set_ylabel("accuracy, %   (bars: 95 % over episodes)")
    right.set_ylabel(caption(f"difference to {reference}, points   (bars: 95 % over classes)"))
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(shots, [str(k) for k in shots])
        axes.minorticks_off()
        axes.set_xlabel("shots")
        axes.grid(alpha=0.25)
    left.legend(fontsize=8, ncols=2)
    title = f"{p['data']['dataset']}, {p['way']}-way, {p['episodes']:,} nested episodes"
    figure.suptitle(caption(title), fontsize=10)
    return to_png(figure)
