"""What the picture of the latent space shows, as figures: how the features of one episode lie before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.evaluation.study import Panel
from otfew.methods.latent_space import latent_space

Floats = npt.NDArray[np.float64]
QUERIES = 60
"""Images of each class that are shown beside the shots; an episode's few would make a ragged histogram."""
BINS = 60


def measure(panel: Panel, vectors: Tensor) -> dict[str, Any]:
    """Look at the classes of the first episode as raw features, and as PT and LST make them.

    Args:
        panel: With entries "PT+MAP" and "LST+MAP", whose options are taken.
        vectors: (images, channels) of the panel's material.

    Returns:
        JSON-ready: "dataset", "network", "classes" (names), "images" (of each, beside the shots), "shot", and "spaces":
        for each its "title", "edges" of the histograms, "shares" (class by bin), "shots" and "images" (class by image
        by two: coordinates at the first two principal components, which know no classes), "explained" (share of the
        variance) and "right" (share of the images that are nearest to the mean of their class's shots, Euclidean, in
        the whole space).
    """
    episode = panel.sampler(0, 1)
    labels, names = panel.material.labels, panel.material.classes
    classes = episode.classes[0].tolist()
    support = episode.support[0]
    spare = [np.setdiff1d(np.flatnonzero(labels == c), support[i])[:QUERIES] for i, c in enumerate(classes)]
    query, of = np.concatenate(spare), np.repeat(np.arange(len(classes)), [len(s) for s in spare])
    shots = vectors[torch.from_numpy(support.reshape(-1))]
    rest = vectors[torch.from_numpy(query)]
    spaces = [_space("raw features", shots, rest, of)]
    options = {v.name: v.options for v in panel.entries}
    for title, entry in (("PT", "PT+MAP"), ("LST", "LST+MAP")):
        chosen = options[entry]
        s, q = latent_space(
            shots[None], rest[None], beta=chosen["beta"], delta=chosen.get("delta", 1.0),
            gamma=chosen.get("gamma", 1.0), joint=title == "LST",
        )  # fmt: skip
        spaces.append(_space(title, s[0], q[0], of))
    told = panel.material.describe()
    network = (told.get("backbone") or {}).get("name", "own features")
    return {
        "classes": [str(names[c]) for c in classes],
        "dataset": told["data"]["dataset"],
        "images": [len(s) for s in spare],
        "network": network,
        "shot": int(support.shape[1]),
        "spaces": spaces,
    }


def _space(title: str, support: Tensor, query: Tensor, of: npt.NDArray[np.intp]) -> dict[str, Any]:
    """Measure one space of (images, channels)."""
    shots, images = support.double().numpy(), query.double().numpy()
    way = int(of.max()) + 1
    low, high = np.quantile(images, (0.0005, 0.9995)).tolist()
    edges = np.linspace(low, high, BINS + 1)
    counts = [np.histogram(images[of == c], edges)[0] / images[of == c].size for c in range(way)]
    means = shots.reshape(way, -1, shots.shape[1]).mean(1)
    nearest = ((images[:, None] - means) ** 2).sum(-1).argmin(1)
    placed, explained = _projected(np.concatenate([shots, images]))
    ends = placed[len(shots) :]
    return {
        "edges": _rounded(edges),
        "explained": round(explained, 4),
        "images": [_rounded(ends[of == c]) for c in range(way)],
        "right": round(float((nearest == of).mean()), 6),
        "shares": [_rounded(each) for each in counts],
        "shots": [_rounded(each) for each in placed[: len(shots)].reshape(way, -1, 2)],
        "title": title,
    }


def _projected(points: Floats) -> tuple[Floats, float]:
    """Place points at their first two principal components; also the share of the variance that these have."""
    centred = points - points.mean(0)
    left, singular, axes = np.linalg.svd(centred, full_matrices=False)
    # The sign of a component is arbitrary: the largest loading is made positive.
    signs = np.sign(axes[:2][np.arange(2), np.abs(axes[:2]).argmax(1)])
    return left[:, :2] * singular[:2] * signs, float((singular[:2] ** 2).sum() / (singular**2).sum())


def _rounded(values: Floats) -> Any:
    """Keep four digits: more is not seen."""
    return np.vectorize(lambda value: float(f"{value:.4g}"), otypes=[float])(values).tolist()
