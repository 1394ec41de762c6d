"""Figures 1 and 5 of the OT re-weighting paper, by class: learned weights, and costs and plans, for three costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from otfew.experiments.long_tail.arms import COSTS, Weights
from otfew.reporting.canvas import (
    CONTROL,
    INK,
    SMALL,
    TEXT,
    TRANSPORT,
    WIDTH,
    add_axes,
    add_key,
    blank,
    headline,
    headline_height,
    key_height,
    to_png,
)

CLASSES = 10
"""Classes in the pictures of plans, evenly spaced from the largest to the smallest."""
MIDDLE = 0.9
"""Share of a class's samples that the band of their weights holds."""
NAMES = {"label": "label cost", "feature": "feature cost", "combined": "both costs"}
Floats = npt.NDArray[np.float64]
Found = Mapping[str, Any]


def figures(weights: Weights) -> dict[str, Any]:
    """Compute what both pictures show, so that they can be drawn again from the record.

    Args:
        weights: Of the setting.

    Returns:
        JSON-ready: "sizes", the images of each class from the largest; "weights", by cost the quantiles of each class's
        weights times the number of samples (1 is uniform) and the share of the variance of all log weights that inverse
        frequency explains; "plans", by cost mean costs and % of the mass of a meta class (rows) that goes to training
        images of a class (columns), for some classes, and the % that stays within the class, a mean over all classes.
    """
    features = weights.cached.features
    labels, counts = features.train_labels.numpy(), features.counts.numpy()
    ranked = np.argsort(-counts, kind="stable")
    shown = np.linspace(0, len(ranked) - 1, min(CLASSES, len(ranked))).round().astype(int)
    frequent = np.log(weights.inverse_frequency().double().numpy())
    quantiles = ((1 - MIDDLE) / 2, 0.5, (1 + MIDDLE) / 2)
    found: dict[str, Any] = {"sizes": counts[ranked].tolist(), "shown": shown.tolist(), "weights": {}, "plans": {}}
    for cost in COSTS:
        solved = weights.ot(cost)
        assert solved.cost is not None
        factors = solved.weights.double().numpy() * len(labels)
        by_class = [np.quantile(factors[labels == label], quantiles).round(6).tolist() for label in ranked]
        found["weights"][cost] = {"quantiles": by_class, "explained": explained(np.log(factors.clip(1e-12)), frequent)}
        rows = meta_classes(weights)
        uniform = torch.full_like(solved.weights, 1 / len(solved.weights))
        plans = {"uniform": solved.plan(uniform).numpy(), "learned": solved.plan().numpy()}
        costs = averaged(solved.cost.numpy(), rows, labels, ranked)
        record: dict[str, Any] = {"cost": costs[np.ix_(shown, shown)].round(4).tolist()}
        for name, plan in plans.items():
            share = shares(plan, rows, labels, ranked)
            record[name] = share[np.ix_(shown, shown)].round(3).tolist()
            record[f"{name}_own"] = round(float(np.diag(share).mean()), 3)
        found["plans"][cost] = record
    return found


def explained(values: Floats, by: Floats) -> float:
    """Share of the variance of values that a line of another quantity explains: the square of their correlation.

    Args:
        values: (n,).
        by: (n,).

    Returns:
        From 0 to 1; 0 where either does not vary.
    """
    if values.std() == 0 or by.std() == 0:
        return 0.0
    return round(float(np.corrcoef(values, by)[0, 1] ** 2), 6)


def meta_classes(weights: Weights) -> npt.NDArray[np.int64]:
    """Tell the class of each meta point: prototypes lie in the order of labels, a whole set as it is."""
    labels = weights.cached.features.meta_labels
    found: npt.NDArray[np.int64] = (torch.unique(labels) if weights.options.meta == "prototypes" else labels).numpy()
    return found


def averaged(
    matrix: Floats, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], order: npt.NDArray[np.int64]
) -> Floats:
    """Average a matrix (meta points, samples) over pairs of classes: (classes, classes), both in an order."""
    return _summed(matrix, rows, columns, order) / _summed(np.ones_like(matrix), rows, columns, order)


def shares(
    plan: Floats, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], order: npt.NDArray[np.int64]
) -> Floats:
    """Say where the mass of each class's meta points goes, in per cent of it: (classes, classes), rows of total 100."""
    summed = _summed(plan, rows, columns, order)
    found: Floats = 100 * summed / summed.sum(1, keepdims=True)
    return found


def _summed(
    matrix: Floats, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], order: npt.NDArray[np.int64]
) -> Floats:
    """Add a matrix up over pairs of classes."""
    left, right = (np.equal.outer(order, labels).astype(np.float64) for labels in (rows, columns))
    found: Floats = left @ matrix @ right.T
    return found


def pictures(found: Found, about: str) -> dict[str, bytes]:
    """Draw both pictures.

    Args:
        found: See ``figures``.
        about: Data and network, for the subtitles.

    Returns:
        Name -> PNG.
    """
    drawn = {"weights.png": draw_weights(found, about), "plans.png": draw_plans(found, about)}
    return {name: to_png(figure) for name, figure in drawn.items()}


def draw_weights(found: Found, about: str) -> Any:
    """Draw the weights of each class's samples, classes from the largest to the smallest; a panel for each cost.

    Args:
        found: See ``figures``.
        about: Data and network.

    Returns:
        A figure.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter

    explains = ", ".join(f"{100 * found['weights'][cost]['explained']:.0f} % with {NAMES[cost]}" for cost in COSTS)
    title = f"How much of what sets log weights apart is inverse frequency: {explains}"
    subtitle = f"{about}. Weights times the number of samples: 1 is uniform. Share: square of the correlation."
    key = [
        Line2D([], [], color=TRANSPORT, linewidth=2, label="learned by OT: median of the class's images"),
        Patch(facecolor=TRANSPORT, alpha=0.3, label=f"{100 * MIDDLE:.0f} % of them"),
        Line2D([], [], color=CONTROL, linewidth=1.5, linestyle="--", label="inverse frequency"),
    ]
    sizes = np.array(found["sizes"], float)
    frequent = sizes.sum() / len(sizes) / sizes
    head, high, foot = headline_height(title, subtitle), 1.75, 0.55
    figure = blank((WIDTH, head + 3 * (high + 0.3) + foot + key_height(key)))
    top = headline(figure, title, subtitle)
    places = np.arange(1, len(sizes) + 1)
    for k, cost in enumerate(COSTS):
        axes = add_axes(figure, 0.75, top + 0.2 + k * (high + 0.3), WIDTH - 0.8, high)
        low, middle, most = np.array(found["weights"][cost]["quantiles"]).T
        axes.fill_between(places, low, most, color=TRANSPORT, alpha=0.3, linewidth=0, step="mid")
        axes.plot(places, middle, color=TRANSPORT, linewidth=2, drawstyle="steps-mid")
        axes.plot(places, frequent, color=CONTROL, linewidth=1.5, linestyle="--", drawstyle="steps-mid")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlim(0.5, len(sizes) + 0.5)
        axes.set_ylabel("weight, times uniform", fontsize=SMALL)
        axes.set_title(NAMES[cost], loc="left", fontsize=TEXT, fontweight="bold", color=INK)
        axes.grid(axis="y")
        _sized(axes, places, sizes, labelled=k == len(COSTS) - 1)
    axes.set_xlabel("class, from the largest to the smallest, by its training images")
    add_key(figure, key)
    return figure


def draw_plans(found: Found, about: str) -> Any:
    """Draw, for each cost, the costs between classes and where the mass of the meta classes goes.

    Args:
        found: See ``figures``.
        about: Data and network.

    Returns:
        A figure.
    """
    own = [
        f"{found['plans'][cost]['learned_own']:.0f} % with {NAMES[cost]} ({found['plans'][cost]['uniform_own']:.0f} %)"
        for cost in COSTS
    ]
    title = (
        f"Of a meta class's mass, to training images of its own class at learned weights (at uniform ones): "
        f"{', '.join(own)}"
    )
    sizes = np.array(found["sizes"])[found["shown"]]
    subtitle = (
        f"{about}. Rows: meta classes; columns: training classes; {len(sizes)} of {len(found['sizes'])} classes, named "
        "by their training images, from the largest. The shares in the title are means over all classes."
    )
    head, side, across = headline_height(title, subtitle), 1.7, 2.55
    figure = blank((WIDTH, head + 3 * (side + 0.75)))
    top = headline(figure, title, subtitle)
    panels = (
        ("cost", "mean cost", None),
        ("uniform", "plan at uniform weights, % of a row", 100.0),
        ("learned", "plan at learned weights, % of a row", 100.0),
    )
    for row, cost in enumerate(COSTS):
        for column, (name, words, most) in enumerate(panels):
            left, down = 0.45 + across * column, top + 0.25 + row * (side + 0.75)
            axes = add_axes(figure, left, down, side, side)
            matrix = np.array(found["plans"][cost][name])
            image = axes.imshow(matrix, cmap="cividis", vmin=0, vmax=most, interpolation="nearest")
            scale = add_axes(figure, left + side + 0.06, down, 0.09, side)
            figure.colorbar(image, cax=scale)
            scale.tick_params(labelsize=SMALL - 1, length=2)
            axes.set_title(f"{NAMES[cost]}: {words}" if column == 0 else words, loc="left", fontsize=SMALL, color=INK)
            places = np.arange(len(sizes))
            axes.set_xticks(places, sizes, rotation=90, fontsize=SMALL - 1.5)
            axes.set_yticks(places, sizes if column == 0 else [""] * len(sizes), fontsize=SMALL - 1.5)
            axes.tick_params(length=0)
    return figure


def _sized(axes: Any, places: npt.NDArray[np.int64], sizes: Floats, *, labelled: bool) -> None:
    """Name some classes by their training images."""
    chosen: Sequence[int] = np.linspace(0, len(sizes) - 1, min(CLASSES, len(sizes))).round().astype(int).tolist()
    axes.set_xticks(places[chosen], [f"{sizes[k]:,.0f}" if labelled else "" for k in chosen])
