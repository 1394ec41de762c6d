"""Solvers as pictures: time against size and against batch, point clouds, accuracy against the regularisation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from otfew.experiments.solver_timings.report import regularised
from otfew.reporting import canvas
from otfew.reporting.canvas import COLOURS, CONTROL, MARKERS, REFERENCE, TEXT, TRANSPORT, WIDTH, caption, to_png
from otfew.reporting.forest_plot import signed, tick, with_half

Row = dict[str, Any]
KINDS = {"forward_ms": "forward", "backward_ms": "with backward"}
STYLES = {"exact": "-", "entropic": (0, (4, 1.5)), "quadratic": ":"}
_PANEL = 2.05
"""Inches of a panel's height, with its title and ticks."""


def pictures(results: Row) -> dict[str, bytes]:
    """Draw what there is.

    Args:
        results: With "timings", "episodes" and "protocol".

    Returns:
        File name -> PNG.
    """
    return {name: to_png(figure) for name, figure in figures(results).items()}


def figures(results: Row) -> dict[str, Any]:
    """Compose what there is.

    Args:
        results: With "timings", "episodes" and "protocol".

    Returns:
        File name -> a figure of matplotlib's.
    """
    rows = [row for row in results["timings"] if "forward_ms" in row]
    p = results["protocol"]
    nodes = [r for r in rows if r["panel"] == "nodes" and r["n"] in p["sizes"] and r["batch"] in p["batches"]]
    points = [row for row in rows if row["panel"] == "points"]
    drawn = {
        "solver-time-n.png": _grid(results, nodes, "batch", "n", "problem", "nodes on each side", tuple(KINDS)),
        "solver-time-batch.png": _grid(results, nodes, "n", "batch", "node", "problems in the batch", ("forward_ms",)),
        "solver-points.png": _grid(results, points, "batch", "n", "pair", "points in each cloud", tuple(KINDS)),
        "solver-reg.png": _sweep(results),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def finding(results: Row, rows: Sequence[Row]) -> str:
    """Say how much longer other exact solvers take than ours, where both were timed on the same problems.

    Args:
        results: With "kinds".
        rows: Timed ones of one panel.
    """
    ours = {(r["n"], r["batch"]): r["forward_ms"] for r in rows if r["solver"] == "exact"}
    ratios: dict[str, list[float]] = {}
    for row in rows:
        place = row["n"], row["batch"]
        if row["solver"] != "exact" and results["kinds"].get(row["solver"]) == "exact" and place in ours:
            ratios.setdefault(row["solver"], []).append(row["forward_ms"] / ours[place])
    if not ratios:
        return "Times of the transport solvers"
    told = [f"{name} takes {_times(min(found))} to {_times(max(found))}" for name, found in ratios.items()]
    first = "The exact solver is the fastest of its kind: " if min(map(min, ratios.values())) > 1 else ""
    return f"{first}{', '.join(told)} times as long as exact, forward"


def _times(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 10 else f"{ratio:,.0f}"


def _subject(results: Row) -> str:
    """Say on which machine, and what lines are."""
    machine, p = results.get("machine", {}), results["protocol"]
    cores = machine.get("cores")
    place = f"{cores} cores of {machine.get('processor')}; " if cores else ""
    kinds = "solid: exact, dashed: entropic, dotted: quadratic"
    return f"{place}float64, entropic solvers at reg {p['reg']:g}; {kinds}"


def _grid(
    results: Row, rows: Sequence[Row], column: str, across: str, unit: str, label: str, shown: Sequence[str]
) -> Any | None:
    """Draw time against ``across``, a panel for each value of ``column`` and kind of time, a line for each solver."""
    values = sorted({r[column] for r in rows if len({s[across] for s in rows if s[column] == r[column]}) > 1})
    if not values:
        return None
    names = list(dict.fromkeys(row["solver"] for row in results["timings"] if "forward_ms" in row))
    cells = [(kind, value) for kind in shown for value in values]
    wide = min(3, len(values)) if len(values) > 1 else min(len(cells), 2)
    high = -(-len(cells) // wide)
    title, subtitle = finding(results, rows), _subject(results)
    drawn = [name for name in names if any(row["solver"] == name for row in rows)]
    key = [_line(name, names, results["kinds"]) for name in drawn]
    top, foot = canvas.headline_height(title, subtitle), canvas.key_height(key) + 0.15
    figure = canvas.blank((WIDTH, top + high * _PANEL + foot))
    canvas.headline(figure, title, subtitle)
    ends = _ends([row[kind] for row in rows for kind in shown if kind in row])
    panel = (WIDTH - 0.55) / wide
    for place, (kind, value) in enumerate(cells):
        i, j = divmod(place, wide)
        axes = canvas.add_axes(figure, 0.55 + panel * j, top + 0.22 + _PANEL * i, panel - 0.2, _PANEL - 0.62)
        for name in drawn:
            own = (r for r in rows if (r["solver"], r[column]) == (name, value) and kind in r)
            line = sorted((row[across], row[kind]) for row in own)
            if line:
                axes.loglog(*zip(*line, strict=True), **_style(name, names, results["kinds"]))
        plural = "" if value == 1 else "s"
        axes.set_title(f"{KINDS[kind]}, {value:,} {unit}{plural}", fontsize=TEXT, loc="left", pad=4)
        axes.grid(color=canvas.GRID)
        axes.set_ylim(ends)
        _plain_ticks(axes.xaxis, sorted({row[across] for row in rows}))
        _time_ticks(axes.yaxis, ends, labels=j == 0)
        if i == high - 1:
            axes.set_xlabel(label)
        if j == 0:
            axes.set_ylabel("ms for the batch")
    canvas.add_key(figure, key)
    return figure


def _ends(times: Iterable[float]) -> tuple[float, float]:
    found = list(times)
    return min(found) / 1.6, max(found) * 1.6


def _style(name: str, names: Sequence[str], kinds: Mapping[str, str]) -> Row:
    """Style a solver's line: the same in every picture."""
    place = names.index(name)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "markersize": 4,
        "linestyle": STYLES.get(kinds.get(name, ""), ":"),
        "linewidth": 2.2 if name == "exact" else 1.3,
        "zorder": 3 if name == "exact" else 2,
    }


def _line(name: str, names: Sequence[str], kinds: Mapping[str, str]) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=caption(name), **_style(name, names, kinds))


def _sweep(results: Row) -> Any | None:
    """Draw error of the value and few-shot accuracy against reg, with the two ends as lines."""
    rows = [r for r in results["timings"] if r.get("reg") and r.get("value_error")]
    accuracies = results["episodes"].get("given", {})
    regs = [reg for reg in results["protocol"]["regs"] if "accuracy" in accuracies.get(regularised(reg), {})]
    if len({r["reg"] for r in rows}) < 2:
        return None
    both = len(regs) > 1
    title = _said(accuracies, regs) if both else "Error of the entropic plan against reg"
    data = results["protocol"]["episodes"]
    subtitle = f"{data['dataset']}, {data['episodes']:,} episodes of {data['way']}-way {data['shot']}-shot"
    top = canvas.headline_height(title, subtitle)
    figure = canvas.blank((WIDTH, top + 3.9))
    canvas.headline(figure, title, subtitle)
    width = 3.2 if both else 6.5
    axes = canvas.add_axes(figure, 0.65, top + 0.1, width, 2.5)
    colours = {"sweep": ("drawn nodes", COLOURS[2], "o"), "sweep file": ("given features", COLOURS[3], "s")}
    for panel, (name, colour, marker) in colours.items():
        line = sorted((r["reg"], 100 * r["value_error"]) for r in rows if r["panel"] == panel)
        end = [r for r in results["timings"] if r["panel"] == panel and "reg" in r and r["reg"] is None]
        if line:
            axes.loglog(*zip(*line, strict=True), marker=marker, markersize=4.5, color=colour, label=name)
        if end:
            value = 100 * end[0]["value_error"]
            axes.axhline(value, color=colour, linestyle=":", label=f"{name}: product coupling")
    axes.set_ylabel("worst error of <plan, cost>,\n% of mass x range")
    _reg_axis(axes, [row["reg"] for row in rows])
    _time_ticks(axes.yaxis, axes.get_ylim(), labels=True)
    if both:
        axes = canvas.add_axes(figure, 4.7, top + 0.1, width, 2.5)
        means = [100 * accuracies[regularised(reg)]["difference"] for reg in regs]
        widths = [100 * (accuracies[regularised(reg)]["difference_ci"] or 0) for reg in regs]
        axes.errorbar(
            regs, means, widths, marker="s", markersize=4.5, linewidth=1.3, color=TRANSPORT,
            label="deepemd at reg; 95 % over episodes",
        )  # fmt: skip
        axes.axhline(0, color=REFERENCE, linewidth=1, label="exact")
        end_accuracy = accuracies["product-coupling"]["difference"]
        axes.axhline(100 * end_accuracy, color=CONTROL, linestyle=":", label="product coupling")
        axes.set_xscale("log")
        axes.set_ylabel("accuracy minus that of exact,\npoints")
        _reg_axis(axes, regs)
    # Below the axes, where no line can run through it.
    for axes in figure.axes:
        axes.legend(
            loc="upper left", bbox_to_anchor=(-0.02, -0.24), frameon=False, borderaxespad=0, fontsize=canvas.SMALL,
            prop={"family": "DejaVu Sans", "size": canvas.SMALL},
        )  # fmt: skip
    return figure


def _said(accuracies: Row, regs: Sequence[float]) -> str:
    """Say from which reg on accuracy falls beyond its interval, and what is lost without a plan."""
    lost = [reg for reg in regs if _beyond(accuracies[regularised(reg)])]
    end = accuracies["product-coupling"]
    half = end["difference_ci"]
    without = with_half(signed(100 * end["difference"]), None if half is None else 100 * half)
    beyond = f"beyond its interval over episodes at reg {', '.join(f'{reg:g}' for reg in lost)}"
    return f"DeepEMD's accuracy changes {beyond if lost else 'at no reg'}; product coupling: {without} points"


def _beyond(found: Row) -> bool:
    half = found["difference_ci"]
    return half is not None and abs(found["difference"]) > half


def _reg_axis(axes: Any, regs: Iterable[float]) -> None:
    axes.set_xlabel("reg, in units of the cost")
    axes.grid(color=canvas.GRID)
    _plain_ticks(axes.xaxis, sorted(set(regs)))


def _plain_ticks(axis: Any, values: Sequence[float]) -> None:
    """Mark the measured sizes as they are."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(values))
    axis.set_major_formatter(FuncFormatter(tick))
    axis.set_minor_locator(NullLocator())


def _time_ticks(axis: Any, ends: tuple[float, float], labels: bool) -> None:
    """Mark powers of ten in plain figures."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    axis.set_major_locator(FixedLocator([10.0**k for k in range(-6, 9) if ends[0] <= 10.0**k <= ends[1]]))
    axis.set_major_formatter(FuncFormatter(tick) if labels else NullFormatter())
    axis.set_minor_locator(NullLocator())
