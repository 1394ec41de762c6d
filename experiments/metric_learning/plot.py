"""Learning curves as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from otfew.experiments.metric_learning.report import HEADINGS, Histories
from otfew.reporting.canvas import COLOURS, MARKERS, caption, make_figure, to_png

PANELS = ("r_precision", "map_at_r", "p_at_1", "st", "e", "dcg", "knn", "linear")
SAME = {"r_precision": " (= FT)", "p_at_1": " (= NN)"}
PLANS = {"entropy": "entropy of the plan", "violating_mass": "mass on violating pairs, %"}


def picture(histories: Histories, title: str) -> bytes:
    """Draw mAP against epochs and against seconds of training, the other figures, and what plans did.

    Lines are means over seeds; bands span all seeds.

    Args:
        histories: Finished runs.
        title: Above all.

    Returns:
        A PNG file.
    """
    figure, axes = make_figure(3, 4, (17, 11.5), gridspec_kw={"hspace": 0.32, "wspace": 0.26})
    first, second, *others = axes.flat
    for i, (loss, seeds) in enumerate(histories.items()):
        style: dict[str, Any] = {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "markersize": 3,
        }
        style["linestyle"] = "-" if i < len(COLOURS) else "--"
        runs = list(seeds.values())
        epochs = np.arange(len(runs[0]))
        maps = _figures(runs, "map")
        _draw(first, epochs, maps, style, loss)
        _draw(second, np.mean([_seconds(run) for run in runs], axis=0), maps, style, loss)
        for panel, name in zip(others, PANELS, strict=False):
            values = _figures(runs, name)
            if np.isfinite(values).any():
                _draw(panel, epochs, values, style, loss)
        for panel, name in zip(others[len(PANELS) :], PLANS, strict=True):
            if runs[0][-1]["diagnostics"]:
                scale = 100 if name == "violating_mass" else 1
                values = scale * np.array([[record["diagnostics"][name] for record in run[1:]] for run in runs])
                _draw(panel, epochs[1:], values, style, loss)
    labels = ["mAP, %", "mAP, %", *(f"{HEADINGS[name]}{SAME.get(name, '')}, %" for name in PANELS), *PLANS.values()]
    for panel, label in zip(axes.flat, labels, strict=True):
        panel.set_ylabel(label)
        panel.set_xlabel("seconds of training" if panel is second else "epoch")
        if panel is not second:
            panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.25)
    # Below the panels: fourteen losses would hide a panel.
    handles, names = first.get_legend_handles_labels()
    figure.legend(handles, names, loc="upper center", bbox_to_anchor=(0.5, 0.06), ncols=5, fontsize=8)
    figure.suptitle(caption(title), fontsize=11, y=0.92)
    return to_png(figure)


def _figures(runs: Any, name: str) -> Any:
    return 100 * np.array([[record["figures"][name] for record in run] for run in runs], dtype=float)


def _seconds(run: Any) -> Any:
    return np.cumsum([record["seconds"] for record in run])


def _draw(panel: Any, x: Any, values: Any, style: dict[str, Any], label: str) -> None:
    panel.plot(x, values.mean(0), linewidth=1.2, label=caption(label), **style)
    if len(values) > 1:
        panel.fill_between(x, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0)
