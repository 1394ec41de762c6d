"""The latent space before and after: histograms of the features of each class, and the first two components."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from otfew.evaluation.study import Panel
from otfew.methods.latent_space import latent_space
from otfew.reporting.canvas import COLOURS, caption, make_figure, to_png

QUERIES = 60
"""Images of each class that are drawn beside the shots; an episode's few would make a ragged histogram."""
LEAST = 1e-3
"""Least share of a bin that is drawn."""


def pictures(panel: Panel, vectors: Tensor) -> dict[str, bytes]:
    """Draw the classes of the first episode as raw features, and as PT and LST make them.

    Args:
        panel: With entries "PT+MAP" and "LST+MAP", whose options are taken.
        vectors: (images, channels) of the panel's material.

    Returns:
        File name -> PNG.
    """
    episode = panel.sampler(0, 1)
    labels, names = panel.material.labels, panel.material.classes
    classes = episode.classes[0].tolist()
    support = episode.support[0]
    spare = [np.setdiff1d(np.flatnonzero(labels == c), support[i])[:QUERIES] for i, c in enumerate(classes)]
    query, of = np.concatenate(spare), np.repeat(np.arange(len(classes)), [len(s) for s in spare])
    shots = vectors[torch.from_numpy(support.reshape(-1))]
    rest = vectors[torch.from_numpy(query)]
    spaces = {"raw features": (shots, rest)}
    options = {v.name: v.options for v in panel.entries}
    for title, entry in (("PT", "PT+MAP"), ("LST", "LST+MAP")):
        chosen = options[entry]
        s, q = latent_space(
            shots[None], rest[None], beta=chosen["beta"], delta=chosen.get("delta", 1.0),
            gamma=chosen.get("gamma", 1.0), joint=title == "LST",
        )  # fmt: skip
        spaces[title] = (s[0], q[0])
    figure, axes = make_figure(2, len(spaces), (5 * len(spaces), 8.4), gridspec_kw={"hspace": 0.25})
    shot = support.shape[1]
    for column, (title, (s, q)) in enumerate(spaces.items()):
        _histograms(axes[0, column], q.numpy(), of, [names[c] for c in classes])
        _projection(axes[1, column], s.numpy(), q.numpy(), of, shot)
        axes[0, column].set_title(title)
    axes[0, 0].legend(fontsize=8)
    axes[0, 0].set_ylabel("share of features (log)")
    described = panel.material.describe()["data"]["dataset"]
    figure.suptitle(
        caption(f"{described}: the classes of the first episode, up to {QUERIES} images each beside the shots (stars)"),
        fontsize=10,
        y=0.95,
    )
    return {"latent-space.png": to_png(figure)}


def _histograms(axes: Any, points: Any, of: Any, names: list[str]) -> None:
    """Draw how the features of each class are distributed, over all its images and channels."""
    low, high = np.quantile(points, (0.0005, 0.9995)).tolist()
    edges = np.linspace(low, high, 61)
    for c, name in enumerate(names):
        values = points[of == c].reshape(-1)
        counts, _ = np.histogram(values, edges)
        axes.stairs(counts / len(values), edges, color=COLOURS[c % len(COLOURS)], label=caption(name))
    axes.set_yscale("log")
    axes.set_ylim(bottom=LEAST)
    axes.set_xlabel("value of a feature")


def _projection(axes: Any, support: Any, query: Any, of: Any, shot: int) -> None:
    """Draw images at their first two principal components, which know no classes."""
    everything = np.concatenate([support, query])
    model = PCA(2, svd_solver="full")
    placed = model.fit_transform(everything)
    shots, images = placed[: len(support)], placed[len(support) :]
    colours = [COLOURS[c % len(COLOURS)] for c in range(len(support) // shot)]
    for c, colour in enumerate(colours):
        axes.plot(*images[of == c].T, ".", color=colour, markersize=4, alpha=0.6)
        axes.plot(*shots[c * shot : (c + 1) * shot].T, "*", color=colour, markersize=13, markeredgecolor="black")
    explained = 100 * model.explained_variance_ratio_.sum()
    axes.set_xlabel(f"first two principal components, {explained:.0f} % of the variance")
    axes.set_xticks([])
    axes.set_yticks([])
