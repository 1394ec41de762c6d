"""Figures 1 and 5 of the OT re-weighting paper: learned weights for three costs; costs, plans and learned measures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from otfew.experiments.long_tail.arms import COSTS, Weights
from otfew.reporting.canvas import CONTROL, INK, TRANSPORT, make_figure, to_png

CLASSES = 10
"""Classes in the pictures of plans, evenly spaced from the largest to the smallest."""
SAMPLES = 40
"""Samples of each class there, at most."""


def weights_by_class(weights: Weights) -> bytes:
    """Draw the weight of every sample, class by class, from the largest to the smallest; one panel a cost.

    Args:
        weights: Of the setting.

    Returns:
        A PNG file.
    """
    labels, counts = weights.cached.features.train_labels, weights.cached.features.counts
    order, starts = _by_size(labels, counts)
    figure, axes = make_figure(len(COSTS), 1, (10, 9), sharex=True)
    reference = (weights.inverse_frequency() / len(labels))[order]
    for panel, cost in zip(axes[:, 0], COSTS, strict=True):
        values = weights.ot(cost).weights[order]
        panel.scatter(np.arange(len(values)), values, s=2, color=TRANSPORT, alpha=0.5, label="learned")
        panel.plot(reference, color=CONTROL, linewidth=1.2, drawstyle="steps-mid", label="1 / (K n), inverse frequency")
        panel.set_yscale("log")
        panel.set_title(f"{cost} cost", fontsize=10)
        panel.set_ylabel("weight")
        if len(starts) <= 20:
            for start in starts[1:]:
                panel.axvline(start, color="0.85", linewidth=0.6, zorder=0)
    axes[0, 0].legend(loc="upper left", fontsize=8)
    axes[-1, 0].set_xlabel("training samples, classes from the largest to the smallest")
    figure.tight_layout()
    return to_png(figure)


def plans(weights: Weights) -> bytes:
    """Draw, for each cost: the costs, the plan at uniform weights, the plan at the learned ones, and those weights.

    Rows are meta points, columns training samples. The problem solved is the whole one; shown are ten classes and at
    most forty samples of each.

    Args:
        weights: Of the setting.

    Returns:
        A PNG file.
    """
    from matplotlib.colors import PowerNorm

    features = weights.cached.features
    columns, bounds, classes = _columns(features.train_labels, features.counts)
    rows = _rows(weights, classes)
    figure, axes = make_figure(len(COSTS), 4, (15, 8))
    for line, cost in zip(axes, COSTS, strict=True):
        solved = weights.ot(cost)
        assert solved.cost is not None
        uniform = torch.full_like(solved.weights, 1 / len(solved.weights))
        pictures = (
            ("cost", solved.cost),
            ("plan, uniform weights", solved.plan(uniform)),
            ("plan, learned weights", solved.plan()),
        )
        for panel, (title, matrix) in zip(line, pictures, strict=False):
            picture = matrix[rows][:, columns].numpy()
            # Masses differ by orders of magnitude between classes.
            norm = PowerNorm(0.35) if "plan" in title else None
            shown = panel.imshow(picture, aspect="auto", interpolation="nearest", cmap="magma", norm=norm)
            figure.colorbar(shown, ax=panel, fraction=0.046)
            panel.set_title(f"{cost}: {title}", fontsize=9)
            _mark(panel, bounds)
        line[0].set_ylabel("meta points")
        line[3].bar(np.arange(len(columns)), solved.weights[columns], width=1.0, color=TRANSPORT)
        line[3].axhline(1 / len(uniform), color=INK, linewidth=0.8, linestyle="--")
        line[3].set_title("learned weights (dashed: uniform)", fontsize=9)
        line[3].margins(x=0)
        _mark(line[3], bounds)
    for panel in axes[-1]:
        panel.set_xlabel(f"samples of {len(classes)} classes, largest first")
    figure.tight_layout()
    return to_png(figure)


def _by_size(labels: Tensor, counts: Tensor) -> tuple[Tensor, list[int]]:
    """Order samples by the size of their class; the second result is where each class begins."""
    ranked = torch.argsort(counts, descending=True, stable=True)
    place = torch.empty_like(ranked)
    place[ranked] = torch.arange(len(ranked))
    starts = [0, *torch.cumsum(counts[ranked], 0)[:-1].tolist()]
    return torch.argsort(place[labels], stable=True), starts


def _columns(labels: Tensor, counts: Tensor) -> tuple[Tensor, list[int], list[int]]:
    """Choose classes evenly spaced by size, and their first samples; with the bounds between classes."""
    ranked = torch.argsort(counts, descending=True, stable=True).tolist()
    places = np.linspace(0, len(ranked) - 1, min(CLASSES, len(ranked))).round().astype(int)
    classes = [ranked[place] for place in places]
    parts = [(labels == label).nonzero()[:SAMPLES, 0] for label in classes]
    return torch.cat(parts), np.cumsum([len(part) for part in parts])[:-1].tolist(), classes


def _rows(weights: Weights, classes: list[int]) -> Tensor:
    """Find the meta points of the classes: prototypes lie in the order of labels, a whole set as it is."""
    labels = weights.cached.features.meta_labels
    if weights.options.meta == "prototypes":
        labels = torch.unique(labels)
    return torch.cat([(labels == label).nonzero()[:, 0] for label in classes])


def _mark(panel: Any, bounds: list[int]) -> None:
    """Draw lines between classes."""
    for bound in bounds:
        panel.axvline(bound - 0.5, color="0.6", linewidth=0.4)
