"""By which score a photo is refused: how well each tells unknown kinds from known ones, on validation classes.

The photos are those of the prior's table, of which no test class is one: what was chosen here is judged elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from otfew import catalogue
from otfew.backbones import load as load_backbone
from otfew.classifier import prior
from otfew.classifier.candidates import Candidate, View
from otfew.classifier.prior_study import CLASSES, IMAGES, SOURCES, part
from otfew.data import DataOptions
from otfew.data import load as load_images
from otfew.data.preparation import Preparation
from otfew.features.extract import FeatureSet, extract
from otfew.nodes import parse
from otfew.random.draws import uniforms
from otfew.runs.files import cache_directory
from otfew.runs.identity import versions
from otfew.runs.watch import SILENT, Watch
from otfew.statistics.detection import auroc, sureness
from otfew.statistics.intervals import episode_half_width
from otfew.statistics.temperature import softmax

Floats = npt.NDArray[np.float64]
Score = Callable[[Floats, float], Floats]

WAYS, SHOTS = (5, 10), (1, 3, 7)
UNKNOWN, NEW = 5, 4
"""Classes without labelled photos, and new photos of each class."""
METHODS = ("cosine-centroid", "deepemd")
CHOSEN = "best logit less their mean"


def _largest(logits: Floats, temperature: float) -> Floats:
    found: Floats = softmax(logits, temperature).max(1)
    return found


def _entropy(logits: Floats, temperature: float) -> Floats:
    shares = softmax(logits, temperature)
    found: Floats = (shares * np.log(np.maximum(shares, 1e-300))).sum(1)
    return found


def _second(logits: Floats, temperature: float) -> Floats:
    del temperature
    two = np.sort(logits, 1)[:, -2:]
    found: Floats = two[:, 1] - two[:, 0]
    return found


SCORES: Mapping[str, Score] = {
    CHOSEN: lambda logits, _: sureness(logits),
    "largest probability": _largest,
    "less entropy": _entropy,
    "best logit less the second": _second,
    "best logit": lambda logits, _: logits.max(1),
}
"""The larger, the surer that a photo is of a known kind; given logits (photos, way) and a temperature."""


@dataclass(frozen=True)
class Size:
    """How much is run.

    Attributes:
        episodes: Of each data set, method, way and number of shots.
        seed: Of the episodes.
    """

    episodes: int = 40
    seed: int = 1


def study(
    backbone: str,
    *,
    sources: Sequence[tuple[str, str]] = SOURCES,
    size: Size | None = None,
    data_root: Path | None = None,
    command: str = "",
    watch: Watch = SILENT,
) -> dict[str, Any]:
    """Compare the scores.

    Args:
        backbone: Name of a network of the prior's table.
        sources: Data sets and their splits.
        size: How much is run.
        data_root: Folder of data sets.
        command: For the record.
        watch: Where progress is shown.

    Returns:
        JSON-ready: mean AUROC of each score by data set, method and way, and how far each is behind the chosen one.
    """
    size = size or Size()
    network, table = load_backbone(backbone), prior.load()
    view = View(network.name, network.card.resolution, "fcn")
    rows: list[dict[str, Any]] = []
    apart: dict[str, list[float]] = {name: [] for name in SCORES}
    described = []
    for dataset, split in sources:
        images = part(load_images(dataset, split, data_root, DataOptions()), CLASSES, IMAGES)
        described.append(f"{dataset} ({split}): {len(images)} photos, sha256 {images.digest[:16]}")
        with watch.task(f"extracting {dataset}") as progress:
            features = extract(
                images,
                network,
                parse(view.nodes),
                Preparation(view.resolution, "none"),
                cache_directory() / "features",
                progress=progress,
            )
        for method in METHODS:
            for way in WAYS:
                found = [
                    scores
                    for shot in SHOTS
                    for scores in _episodes(features, Candidate(method, view), table, way, shot, size)
                ]
                watch.note(f"{method} on {dataset}, {way}-way")
                rows.append({"dataset": dataset, "method": method, "way": way, "auroc": _means(found)})
                for name in SCORES:
                    apart[name] += [scores[CHOSEN] - scores[name] for scores in found]
    return {
        "what": "AUROC of photos of known against unknown kinds, means over episodes",
        "line": command,
        "sources": described,
        "backbone": {"name": network.name, "digest": network.digest},
        "protocol": {"ways": WAYS, "shots": SHOTS, "unknown": UNKNOWN, "new": NEW, "episodes": size.episodes},
        "versions": versions(),
        "rows": rows,
        "mean": {name: round(float(np.mean([row["auroc"][name] for row in rows])), 4) for name in SCORES},
        "behind": {
            name: {
                "mean": round(float(np.mean(values)), 4),
                "half_width": round(episode_half_width(np.array(values)), 4),
            }
            for name, values in apart.items()
            if name != CHOSEN
        },
    }


def _episodes(
    features: FeatureSet, candidate: Candidate, table: prior.Prior, way: int, shot: int, size: Size
) -> list[dict[str, float]]:
    """Ask about new photos of known and of unknown classes: the AUROC of each score, an episode each."""
    method = catalogue.build(candidate.method)
    nodes = (features.pooled if method.pools else features).nodes
    expected = table.expected(candidate, way, shot)
    temperature = 1.0 if expected is None else math.exp(expected.log_mean)
    members = [np.flatnonzero(features.labels == c).tolist() for c in np.unique(features.labels)]
    found = []
    for episode in range(size.episodes):
        draws = uniforms("otfew refusal", size.seed, way, shot, episode)
        order = _shuffled(range(len(members)), draws)
        known, strange = order[:way], order[way : way + UNKNOWN]
        photos = {c: _shuffled(members[c], draws) for c in (*known, *strange)}
        support = nodes[torch.tensor([photos[c][NEW : NEW + shot] for c in known])]
        asked = nodes[torch.tensor([i for c in (*known, *strange) for i in photos[c][:NEW]])]
        logits = method(support[None], asked[None])[0].double().numpy()
        scores = {name: score(logits, temperature) for name, score in SCORES.items()}
        found.append({name: auroc(own[: way * NEW], own[way * NEW :]) for name, own in scores.items()})
    return found


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([scores[name] for scores in found])), 4) for name in SCORES}


def _shuffled(values: Sequence[int], draws: Any) -> list[int]:
    """Put values into a random order, by sorting as many draws."""
    keys = [next(draws) for _ in values]
    return [value for _, value in sorted(zip(keys, values, strict=True))]
