"""Makes the table of ``otfew.classifier.prior``: candidates on episodes of validation classes of several data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from otfew import catalogue, nodes
from otfew.backbones import Backbone
from otfew.backbones import load as load_backbone
from otfew.classifier.candidates import Candidate, View, candidates
from otfew.classifier.prior import FORMAT, Cell
from otfew.data import DataOptions, ImageSet
from otfew.data import load as load_images
from otfew.data.parts import subset
from otfew.data.preparation import Preparation
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.features.extract import FeatureSet, extract
from otfew.random.keys import digest
from otfew.runs.files import cache_directory
from otfew.runs.identity import versions
from otfew.runs.watch import SILENT, Watch
from otfew.statistics.temperature import fit, from_scale, grid, log_losses

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

SOURCES = (("cub", "val"), ("cifar-fs", "train"))
"""Data sets of photographs and their parts: never a test split, so that those are there to judge the classifier by."""
WAYS = (5, 20)
SHOTS = (1, 3, 7)
CLASSES, IMAGES = 20, 11
"""Classes of a source and images of each, in the order of their names' hashes: small, since every view is extracted."""
FLOOR = 0.25
"""Least spread of a log temperature: few data sets agree by chance."""


@dataclass(frozen=True)
class Size:
    """How much is run.

    Attributes:
        episodes: Of each source, way and number of shots.
        query: Images of each class to classify.
        seed: Of the episodes.
    """

    episodes: int = 20
    query: int = 4
    seed: int = 1


def study(
    backbones: Sequence[str],
    *,
    sources: Sequence[tuple[str, str]] = SOURCES,
    size: Size | None = None,
    data_root: Path | None = None,
    download: bool | None = None,
    command: str = "",
    watch: Watch = SILENT,
) -> dict[str, Any]:
    """Run every candidate of some backbones on every source, and make the table.

    Args:
        backbones: Names.
        sources: Data sets and their splits.
        size: How much is run.
        data_root: Folder of data sets.
        download: Fetch what is missing where the publisher allows it; None asks about what is large.
        command: That makes it, for the record.
        watch: Where progress is shown.

    Returns:
        JSON-ready, as ``otfew.classifier.prior.from_json`` takes it.

    Raises:
        UserError: Data or a backbone are missing.
    """
    size = size or Size()
    networks = {name: load_backbone(name) for name in backbones}
    tried = candidates([(name, network.card.resolution) for name, network in networks.items()])
    options = DataOptions(download=download)
    images = [part(load_images(*source, data_root, options), CLASSES, IMAGES) for source in sources]
    found: dict[Candidate, dict[tuple[int, int], list[tuple[Floats, Indices]]]] = {c: {} for c in tried}
    for view in dict.fromkeys(candidate.view for candidate in tried):
        for one in images:
            features = _features(one, networks[view.backbone], view, watch)
            for candidate in (c for c in tried if c.view == view):
                for way, shot in ((way, shot) for way in WAYS for shot in SHOTS if way <= len(one.classes)):
                    watch.note(f"{candidate} on {one.dataset}, {way}-way {shot}-shot")
                    answers = episodes(candidate, features, one, way, shot, size)
                    found[candidate].setdefault((way, shot), []).append(answers)
    return {
        "format": FORMAT,
        "command": command,
        "what": "log-loss, accuracy and log temperature of candidates, means over data sets with equal weights",
        "sources": [_described(one) for one in images],
        "protocol": {**asdict(size), "classes": CLASSES, "images_per_class": IMAGES},
        "backbones": {name: network.digest for name, network in networks.items()},
        "versions": versions(),
        "candidates": [
            {
                "method": candidate.method,
                **asdict(candidate.view),
                "cells": [asdict(_cell(way, shot, answers)) for (way, shot), answers in cells.items()],
            }
            for candidate, cells in found.items()
        ],
    }


def part(images: ImageSet, classes: int, each: int) -> ImageSet:
    """Keep some classes and some images of each, in the order of their names' hashes."""
    kept = sorted(range(len(images.classes)), key=lambda c: digest(images.classes[c]))[:classes]
    chosen: list[int] = []
    for c in sorted(kept):
        members = np.flatnonzero(images.labels == c).tolist()
        chosen += sorted(members, key=lambda i: digest(images.names[i]))[:each]
    return subset(images, chosen)


def episodes(
    candidate: Candidate, features: FeatureSet, images: ImageSet, way: int, shot: int, size: Size
) -> tuple[Floats, Indices]:
    """Run a candidate on episodes: logits (rows, way) and answers (rows,) of all their queries."""
    used, labels = np.unique(images.labels, return_inverse=True)
    protocol = Protocol(images.dataset, images.variant, images.split, size.seed, way, shot, size.query)
    drawn = Sampler(protocol, labels, [images.classes[c] for c in used])(0, size.episodes)
    method = catalogue.build(candidate.method)
    own = (features.pooled if method.pools else features).nodes
    logits = []
    for i in range(len(drawn)):
        support, query = (own[torch.from_numpy(index[i])] for index in (drawn.support, drawn.query))
        logits.append(method(support[None], query.flatten(0, 1)[None])[0].double().numpy())
    return np.concatenate(logits), drawn.answers.reshape(-1)


def _features(images: ImageSet, backbone: Backbone, view: View, watch: Watch) -> FeatureSet:
    preparation = Preparation(view.resolution, "none")
    with watch.task(f"extracting {view} of {images.dataset}") as progress:
        return extract(
            images, backbone, nodes.parse(view.nodes), preparation, cache_directory() / "features", progress=progress
        )


def _cell(way: int, shot: int, answers: Sequence[tuple[Floats, Indices]]) -> Cell:
    """Fit a temperature on each data set, and judge all of them at the mean one."""
    logs = []
    for logits, labels in answers:
        # The start is the logits' scale, and so wide that the data alone decide.
        wide = replace(from_scale(logits), spread=1.0)
        logs.append(np.log(fit(log_losses(logits, labels, grid(wide)).sum(0), wide)))
    common = float(np.mean(logs))
    losses = [log_losses(logits, labels, np.exp([common])).mean() for logits, labels in answers]
    right = [(logits.argmax(1) == labels).mean() for logits, labels in answers]
    spread = max(FLOOR, float(np.std(logs, ddof=1)) if len(logs) > 1 else 0.0)
    values = (float(np.mean(losses)), float(np.mean(right)), common, spread)
    return Cell(way, shot, *(round(value, 5) for value in values))


def _described(images: ImageSet) -> str:
    """Say what a source is."""
    classes = len(np.unique(images.labels))
    return f"{images.dataset} ({images.split}): {classes} classes, {len(images)} images, sha256 {images.digest[:16]}"
