"""Labelled images under several views: read and decoded once, extracted once for each."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.classifier.candidates import View
from otfew.classifier.door import Door, Shown
from otfew.classifier.embedder import Embedder
from otfew.classifier.feature_store import STORE, content, key_of
from otfew.classifier.fitting import check_counts, refuse_missing, with_drifts
from otfew.classifier.labelled import Photo, rounded
from otfew.classifier.pictures import count


def extract_several(
    images: Any,
    labels: npt.NDArray[Any],
    embedders: Mapping[View, Embedder],
    door: Door,
    size: int,
    folder: Path | None,
) -> tuple[list[Photo], dict[View, Tensor], npt.NDArray[Any]]:
    """Read and embed labelled images.

    Args:
        images: As in ``FewShotClassifier.fit``.
        labels: (images,).
        embedders: One for each view.
        door: Through which images come.
        size: Images that are embedded at once.
        folder: Where nodes are kept, beside the process's memory; None for nowhere.

    Returns:
        Those that every view could take, their nodes under each (photos, nodes, channels), and their labels.

    Raises:
        UserError: As ``fitting.extract``.
    """
    given = count(images)
    if given is not None:
        check_counts(given, labels)
    shown = door.read(images)
    places: list[int] = []
    photos: list[Photo] = []
    found: dict[View, list[Tensor]] = {view: [] for view in embedders}
    while batch := list(itertools.islice(shown, size)):
        contents = {image.place: content(image) for image in batch}
        nodes: dict[View, dict[int, Tensor]] = {}
        for view, embedder in embedders.items():
            nodes[view] = _embed(batch, embedder, contents, door, size, folder)
            # What one view cannot take is asked of no other: it would be refused twice.
            batch = [image for image in batch if image.place in nodes[view]]
        for image in batch:
            places.append(image.place)
            photos.append(Photo.of(image, next(iter(embedders.values())).key(image)))
            for view, own in nodes.items():
                found[view].append(own[image.place])
    check_counts(door.count, labels)
    refuse_missing(door, labels, places)
    photos = with_drifts(photos, next(iter(embedders.values())), folder)
    return photos, {view: rounded(torch.stack(own)) for view, own in found.items()}, labels[np.array(places, dtype=int)]


def _embed(
    batch: Sequence[Shown],
    embedder: Embedder,
    contents: Mapping[int, str],
    door: Door,
    size: int,
    folder: Path | None,
) -> dict[int, Tensor]:
    """Find the nodes of images, or extract them: by place."""
    device = next(embedder.backbone.module.parameters(), torch.empty(0)).device
    found: dict[int, Tensor] = {}
    missing = []
    for image in batch:
        kept = STORE.get(key_of(contents[image.place], embedder), folder, _warn)
        if kept is None:
            missing.append(image)
        else:
            found[image.place] = kept.to(device) if device.type == "cuda" else kept
    for places, nodes in embedder(missing, size, door, lambda image: image.place):
        for place, own in zip(places, nodes, strict=True):
            STORE.put(key_of(contents[place], embedder), own, folder)
            found[place] = own
    return found


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=6)
