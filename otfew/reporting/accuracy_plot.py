"""Accuracy with intervals against time, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otfew.reporting.canvas import caption, make_figure, to_png
from otfew.reporting.comparison import mark
from otfew.reporting.sentences import wide

SPACING = 0.045
"""Least distance between two labels, as a share of the picture's height."""


def accuracy_vs_time(results: Mapping[str, Any], timings: Mapping[str, Any]) -> bytes:
    """Draw ``figure`` as a PNG file."""
    return to_png(figure(results, timings), dpi=150)


def figure(results: Mapping[str, Any], timings: Mapping[str, Any]) -> Any:
    """Draw every method: accuracy in per cent against ms per episode, features cached.

    Thick bars are the intervals over episodes, thin ones those over classes where they are known. Names stand in a
    column at the right, in the order of accuracy, with a line to their point.

    Args:
        results: With "methods" and "protocol".
        timings: With "methods": name -> "ms_per_episode".

    Returns:
        A figure of matplotlib's that no window knows of; notebooks show it.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    methods = results["methods"]
    names = sorted(methods, key=lambda name: methods[name]["accuracy"]["mean"])
    drawn, ((axes,),) = make_figure(1, 1, (9, max(4.5, 0.32 * len(names) + 1.5)))
    drawn.subplots_adjust(right=0.78)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    for name in names:
        accuracy = methods[name]["accuracy"]
        x, y = timings["methods"][name]["ms_per_episode"], 100 * accuracy["mean"]
        transport = name in results["transport_adds"]
        color = "#c1440e" if transport else "#31688e"
        if (width := wide(accuracy)) is not None:
            axes.errorbar(x, y, 100 * width, color=color, alpha=0.35, linewidth=1, capsize=3)
        if accuracy["episode_ci"] is not None:
            axes.errorbar(x, y, 100 * accuracy["episode_ci"], color=color, linewidth=3, alpha=0.8)
        axes.plot(x, y, "s" if transport else "o", color=color, markersize=6)
    # Set by hand: what matplotlib chooses around a single point may have no width.
    times = [timings["methods"][name]["ms_per_episode"] for name in names]
    axes.set_xlim(min(times) / 1.5, max(times) * 1.5)
    low, high = _limits([methods[name]["accuracy"] for name in names])
    axes.set_ylim(low, high)
    means = [100 * methods[name]["accuracy"]["mean"] for name in names]
    places = spread([(mean - low) / (high - low) for mean in means], SPACING)
    for name, place in zip(names, places, strict=True):
        point = (timings["methods"][name]["ms_per_episode"], 100 * methods[name]["accuracy"]["mean"])
        axes.annotate(
            caption(mark(name, methods[name])),
            point,
            xytext=(1.04, place),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            color="#c1440e" if name in results["transport_adds"] else "#1a1a1a",
            arrowprops={"arrowstyle": "-", "color": "0.75", "linewidth": 0.7, "shrinkB": 3, "relpos": (0, 0.5)},
            annotation_clip=False,
        )
    p = results["protocol"]
    title = f"{p['data']['dataset']}, {p['way']}-way {p['shot']}-shot, {p['episodes']:,} episodes"
    axes.set_title(caption(title), fontsize=11)
    axes.set_xlabel("ms per episode, features cached (log scale)")
    over = "photos" if p.get("fixed_classes") else "classes"
    axes.set_ylabel(f"accuracy, %   (thick: 95 % over episodes; thin: over {over})")
    axes.grid(alpha=0.25)
    return drawn


def _limits(accuracies: list[Mapping[str, Any]]) -> tuple[float, float]:
    """Find limits, in per cent, that hold all bars with some room."""
    widths = [max(wide(a) or 0, a["episode_ci"] or 0) for a in accuracies]
    low = min(100 * (a["mean"] - w) for a, w in zip(accuracies, widths, strict=True))
    high = max(100 * (a["mean"] + w) for a, w in zip(accuracies, widths, strict=True))
    room = max(0.05 * (high - low), 0.5)
    return low - room, high + room


def spread(wanted: list[float], spacing: float) -> list[float]:
    """Move sorted places in [0, 1] apart until neighbours keep their distance, as near to where they were as it goes.

    Args:
        wanted: Ascending.
        spacing: Least distance; lowered to what fits.

    Returns:
        Ascending places in [0, 1].
    """
    if len(wanted) < 2:
        return list(wanted)
    spacing = min(spacing, 1 / (len(wanted) - 1))
    groups: list[tuple[float, int]] = []
    for place in wanted:
        groups.append((place, 1))
        while len(groups) > 1 and _overlap(groups[-2], groups[-1], spacing):
            (a, m), (b, n) = groups[-2:]
            groups[-2:] = [((a * m + b * n) / (m + n), m + n)]
    places = [
        min(max(centre, spacing * (n - 1) / 2), 1 - spacing * (n - 1) / 2) + spacing * (k - (n - 1) / 2)
        for centre, n in groups
        for k in range(n)
    ]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + spacing)
    for i in reversed(range(len(places))):
        places[i] = min(places[i], 1 - spacing * (len(places) - 1 - i))
    return places


def _overlap(first: tuple[float, int], second: tuple[float, int], spacing: float) -> bool:
    """Tell whether two groups (centre, size) of labels come too near."""
    return second[0] - first[0] < spacing * (first[1] + second[1]) / 2
