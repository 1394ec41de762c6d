"""Solvers as pictures: time against size and against batch, point clouds, accuracy against the regularisation."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from otfew.experiments.solver_timings.report import regularised
from otfew.reporting.canvas import caption

Row = dict[str, Any]
KINDS = {"forward_ms": "forward", "backward_ms": "forward and backward"}
STYLES = {"exact": "-", "entropic": "--", "quadratic": ":"}


def pictures(results: Row) -> dict[str, bytes]:
    """Draw what there is.

    Args:
        results: With "timings", "episodes" and "protocol".

    Returns:
        File name -> PNG.
    """
    rows = results["timings"]
    kinds = results["kinds"]
    p = results["protocol"]
    nodes = [r for r in rows if r["panel"] == "nodes" and r["n"] in p["sizes"] and r["batch"] in p["batches"]]
    drawn = {
        "solver-time-n.png": _grid(nodes, "batch", "n", kinds, "problem", "nodes on each side"),
        "solver-time-batch.png": _grid(nodes, "n", "batch", kinds, "node", "problems in the batch"),
        "solver-points.png": _grid(
            [r for r in rows if r["panel"] == "points"], "batch", "n", kinds, "pair", "points in each cloud"
        ),
        "solver-reg.png": _sweep(results),
    }
    return {name: picture for name, picture in drawn.items() if picture}


def _grid(
    rows: Sequence[Row], column: str, across: str, kinds: Mapping[str, str], unit: str, label: str
) -> bytes | None:
    """Draw time against ``across``, a column of panels for each value of ``column``, a line for each solver."""
    rows = [r for r in rows if "forward_ms" in r]
    values = sorted({r[column] for r in rows if len({s[across] for s in rows if s[column] == r[column]}) > 1})
    if not values:
        return None
    names = list(dict.fromkeys(r["solver"] for r in rows))
    figure, panels = _figure(len(KINDS), len(values), (3.4 * len(values) + 1.8, 6.4))
    for i, (kind, title) in enumerate(KINDS.items()):
        for j, value in enumerate(values):
            axes = panels[i][j]
            for k, name in enumerate(names):
                line = sorted(
                    (r[across], r[kind]) for r in rows if (r["solver"], r[column]) == (name, value) and kind in r
                )
                if line:
                    axes.loglog(
                        *zip(*line, strict=True),
                        STYLES.get(kinds.get(name, ""), ":"),
                        marker="o",
                        markersize=3,
                        color=f"C{k}",
                        label=caption(name),
                    )
            axes.set_title(f"{title}, {value} {unit}{'' if value == 1 else 's'}", fontsize=9)
            axes.grid(alpha=0.25)
            _plain_ticks(axes.xaxis, sorted({r[across] for r in rows}))
            if i == len(KINDS) - 1:
                axes.set_xlabel(label)
            if j == 0:
                axes.set_ylabel("ms for the batch")
    handles = {
        text: handle
        for row in panels
        for axes in row
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    shown = [name for name in map(caption, names) if name in handles]
    figure.legend([handles[name] for name in shown], shown, loc="center right", fontsize=9, frameon=False,
                  title="solid: exact\ndashed: entropic\ndotted: quadratic", title_fontsize=8)  # fmt: skip
    figure.tight_layout(rect=(0, 0, 1 - 1.5 / figure.get_figwidth(), 1))
    return _png(figure)


def _sweep(results: Row) -> bytes | None:
    """Draw error of the value and few-shot accuracy against reg, with the two ends as lines."""
    rows = [r for r in results["timings"] if r.get("reg") and r.get("value_error")]
    accuracies = results["episodes"].get("given", {})
    regs = [reg for reg in results["protocol"]["regs"] if "accuracy" in accuracies.get(regularised(reg), {})]
    if len({r["reg"] for r in rows}) < 2:
        return None
    figure, panels = _figure(1, 2 if len(regs) > 1 else 1, (10.4 if len(regs) > 1 else 5.2, 4))
    axes = panels[0][0]
    for k, (panel, name) in enumerate({"sweep": "drawn nodes", "sweep file": "given features"}.items()):
        line = sorted((r["reg"], 100 * r["value_error"]) for r in rows if r["panel"] == panel)
        end = [r for r in results["timings"] if r["panel"] == panel and "reg" in r and r["reg"] is None]
        if line:
            axes.loglog(*zip(*line, strict=True), marker="o", markersize=4, color=f"C{k}", label=name)
        if end:
            axes.axhline(100 * end[0]["value_error"], color=f"C{k}", linestyle=":", label=f"{name}: product coupling")
    axes.set_ylabel("worst error of <plan, cost>, % of mass x range")
    axes.legend(fontsize=8)
    if len(regs) > 1:
        axes = panels[0][1]
        means = [100 * accuracies[regularised(reg)]["difference"] for reg in regs]
        widths = [100 * (accuracies[regularised(reg)]["difference_ci"] or 0) for reg in regs]
        axes.errorbar(regs, means, widths, marker="o", markersize=4, capsize=3, color="C0", label="deepemd at reg")
        axes.axhline(0, color="C3", linestyle=":", label="exact")
        end_accuracy = accuracies["product-coupling"]["difference"]
        axes.axhline(100 * end_accuracy, color="C2", linestyle=":", label="product coupling")
        axes.set_xscale("log")
        axes.set_ylabel("accuracy minus that of exact, points")
        axes.legend(fontsize=8)
    for axes in panels[0]:
        axes.set_xlabel("reg, in units of the cost")
        axes.grid(alpha=0.25)
    figure.tight_layout()
    return _png(figure)


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """Make a figure without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharey="row" if rows > 1 else False)


def _plain_ticks(axis: Any, values: Sequence[int]) -> None:
    """Mark the measured sizes as they are."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(values))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _png(figure: Any) -> bytes:
    """Render."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    return picture.getvalue()
