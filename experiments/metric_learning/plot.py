"""Learning curves as pictures: mAP of five losses, and everything that was measured of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from otfew.experiments.metric_learning.names import PAIRS, REFERENCE, role_of, short
from otfew.experiments.metric_learning.report import HEADINGS, Histories
from otfew.reporting import canvas
from otfew.reporting.canvas import COLOURS, MARKERS, SMALL, WIDTH, caption, to_png
from otfew.reporting.forest_plot import signed, with_half

PANELS = ("r_precision", "map_at_r", "p_at_1", "st", "e", "dcg", "knn", "linear")
SAME = {"r_precision": " (= FT)", "p_at_1": " (= NN)"}
PLANS = {"entropy": "entropy of the plan", "violating_mass": "mass on violating pairs, %"}
RIVALS = 2
"""Other losses in the first picture."""
_BANDS = "Lines: means over seeds; bands: from the least to the largest."
Summary = Mapping[str, Mapping[str, Any]]


def picture(histories: Histories, summary: Summary, reference: str, about: str) -> bytes:
    """Draw mAP of the losses of ``chosen`` against epochs and against seconds of training.

    Args:
        histories: Finished runs.
        summary: Of each loss, as in results.json.
        reference: Loss that differences are to, "" for none.
        about: Data and network.

    Returns:
        A PNG file.
    """
    return to_png(curves(histories, summary, reference, about))


def curves(histories: Histories, summary: Summary, reference: str, about: str) -> Any:
    """Draw what ``picture`` writes, as a figure."""
    shown = chosen(summary)
    title, handles = finding(summary, reference), _key(shown)
    subtitle = f"{about}. {_BANDS}"
    head, foot = canvas.headline_height(title, subtitle), canvas.key_height(handles) + 0.12
    figure = canvas.blank((WIDTH, head + 3.2 + 0.5 + foot))
    top = canvas.headline(figure, title, subtitle)
    first, second = (canvas.add_axes(figure, left, top, 3.35, 3.2) for left in (0.6, 4.6))
    for i, loss in enumerate(shown):
        runs = list(histories[loss].values())
        maps = _figures(runs, "map")
        _draw(first, np.arange(len(runs[0])), maps, _style(i))
        _draw(second, np.mean([_seconds(run) for run in runs], axis=0), maps, _style(i))
    _finish(first, "mAP on test items, %", "epoch")
    _finish(second, "", "seconds of training")
    canvas.add_key(figure, handles)
    return figure


def everything(histories: Histories, about: str) -> bytes:
    """Draw all losses: mAP against epochs and seconds, the other figures, and what plans did.

    Args:
        histories: Finished runs.
        about: Data and network.

    Returns:
        A PNG file.
    """
    handles = _key(list(histories))
    title = f"All that was measured of {len(histories)} losses, epoch by epoch"
    subtitle = f"{about}. {_BANDS}"
    head, foot = canvas.headline_height(title, subtitle), canvas.key_height(handles) + 0.12
    figure = canvas.blank((WIDTH, head + 4 * 2.2 + foot))
    top = canvas.headline(figure, title, subtitle)
    axes = [canvas.add_axes(figure, 0.5 + 2.65 * (k % 3), top + 2.2 * (k // 3), 2.1, 1.65) for k in range(12)]
    first, second, *others = axes
    for i, seeds in enumerate(histories.values()):
        runs, style = list(seeds.values()), _style(i)
        epochs = np.arange(len(runs[0]))
        maps = _figures(runs, "map")
        _draw(first, epochs, maps, style)
        _draw(second, np.mean([_seconds(run) for run in runs], axis=0), maps, style)
        for panel, name in zip(others, PANELS, strict=False):
            values = _figures(runs, name)
            if np.isfinite(values).any():
                _draw(panel, epochs, values, style)
        for panel, name in zip(others[len(PANELS) :], PLANS, strict=True):
            if runs[0][-1]["diagnostics"]:
                scale = 100 if name == "violating_mass" else 1
                values = scale * np.array([[record["diagnostics"][name] for record in run[1:]] for run in runs])
                _draw(panel, epochs[1:], values, style)
    labels = ["mAP, %", "mAP, %", *(f"{HEADINGS[name]}{SAME.get(name, '')}, %" for name in PANELS), *PLANS.values()]
    for panel, label in zip(axes, labels, strict=True):
        _finish(panel, label, "seconds of training" if panel is second else "epoch")
    canvas.add_key(figure, handles)
    return to_png(figure)


def chosen(summary: Summary) -> list[str]:
    """Choose five losses: the best by a plan, all pairs, matched pairs, and the two best others.

    Args:
        summary: Of each loss, as in results.json.

    Returns:
        Those that ran, by mAP after the last epoch, the best first.
    """
    ranked = sorted(summary, key=lambda loss: -_last(summary, loss))
    plans = [loss for loss in ranked if role_of(loss) is canvas.TRANSPORT_ROLE][:1]
    parts = [loss for loss in ranked if loss in {REFERENCE, PAIRS}]
    others = [loss for loss in ranked if loss not in {*plans, *parts} and role_of(loss) is canvas.RIVAL_ROLE]
    kept = {*plans, *parts, *others[:RIVALS]}
    return [loss for loss in ranked if loss in kept] or ranked[:5]


def finding(summary: Summary, reference: str) -> str:
    """Say which loss ends best, and what the plan adds to the reference.

    Args:
        summary: Of each loss, as in results.json.
        reference: Loss that differences are to, "" for none.
    """
    best = max(summary, key=lambda loss: _last(summary, loss))
    said = f"{short(best)} ends with the highest mAP, {100 * _last(summary, best):.1f} %"
    plan = next((loss for loss in chosen(summary) if role_of(loss) is canvas.TRANSPORT_ROLE), "")
    difference = summary[plan].get("difference") if plan else None
    found = difference["last_epoch"] if difference else None
    if not reference or found is None:
        return said
    half = None if found["seed_ci"] is None else 100 * found["seed_ci"]
    verdict = f": {found['verdict']}" if found["verdict"] else ""
    points = with_half(signed(100 * found["mean"], 1), half, 1)
    return f"{said}; {short(plan)} against {short(reference)}: {points} points{verdict}"


def _last(summary: Summary, loss: str) -> float:
    return float(summary[loss]["map"]["last_epoch"]["mean"])


def _key(losses: list[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], label=caption(short(loss)), **_style(i)) for i, loss in enumerate(losses)]


def _style(i: int) -> dict[str, Any]:
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": "-" if i < len(COLOURS) else "--",
        "markersize": 4,
        "linewidth": 1.4,
    }


def _finish(panel: Any, ylabel: str, xlabel: str) -> None:
    panel.set_ylabel(ylabel, fontsize=SMALL)
    panel.set_xlabel(xlabel, fontsize=SMALL)
    panel.tick_params(labelsize=SMALL)
    if xlabel == "epoch":
        panel.xaxis.get_major_locator().set_params(integer=True)
    panel.grid()


def _figures(runs: Any, name: str) -> Any:
    return 100 * np.array([[record["figures"][name] for record in run] for run in runs], dtype=float)


def _seconds(run: Any) -> Any:
    return np.cumsum([record["seconds"] for record in run])


def _draw(panel: Any, x: Any, values: Any, style: dict[str, Any]) -> None:
    panel.plot(x, values.mean(0), **style)
    if len(values) > 1:
        panel.fill_between(x, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0)
