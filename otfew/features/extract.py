"""Node sets of a whole split, extracted once and kept on disk."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.backbones.base import Backbone
from otfew.data.base import Image, ImageSet
from otfew.data.class_labels import as_indices
from otfew.data.parts import subset
from otfew.data.preparation import Preparation
from otfew.devices import full_float32
from otfew.errors import UserError
from otfew.features.cache import Entry
from otfew.nodes import Extractor
from otfew.random.keys import digest
from otfew.runs.files import Note, locked

FORMAT = 1
BASE_IMAGES = 20
"""Images of each base class that enter the base mean."""

PRECISION = "float32"
"""Of the products on a device that could do less, see ``otfew.devices.full_float32``."""

PIXELS = 1 << 20
"""About how many pixels go through the backbone at once."""

Progress = Callable[[int, int], None]
"""Called with images done and images in all."""


@dataclass(frozen=True)
class FeatureSet:
    """Node sets with labels.

    Attributes:
        nodes: (images, nodes, channels) float32; may be mapped from disk.
        labels: (images,) int64, indices into ``classes``; given in any container, they go by position.
        classes: Class names.
        nodes_spec: Kind of nodes.
        milliseconds: Extraction time of one image, decoding included; None where unknown.
        base_mean: (channels,) mean global vector of the base classes, where the features came with one.
        source: What they are, JSON-ready and without paths.
        overlap: Which of the classes the backbone has seen in training, as a sentence without its end; "" where it has
            seen none, is external, or nobody knows.
        queries: Node sets of the domain that queries come from, where that is another one: its images are numbered
            behind these.

    Raises:
        UserError: Labels that are no indices into ``classes``, or of another number than the nodes'.
    """

    nodes: Tensor
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    nodes_spec: str = "fcn"
    milliseconds: float | None = None
    base_mean: Tensor | None = None
    source: dict[str, Any] = field(default_factory=dict)
    overlap: str = ""
    queries: FeatureSet | None = None

    def __post_init__(self) -> None:
        labels = as_indices(self.labels, len(self.classes))
        if len(labels) != len(self.nodes):
            raise UserError(f"there are nodes of {len(self.nodes)} images but {len(labels)} labels: give one for each.")
        object.__setattr__(self, "labels", labels)

    @cached_property
    def pooled(self) -> FeatureSet:
        """The same images, each with one node: the average of its nodes; themselves where they have one node."""
        images, nodes, channels = self.nodes.shape
        if nodes == 1:
            return self
        means = self.nodes.new_empty(images, 1, channels)
        for start in range(0, images, 256):
            means[start : start + 256] = self.nodes[start : start + 256].mean(1, keepdim=True)
        return replace(self, nodes=means, queries=None if self.queries is None else self.queries.pooled)

    def rows(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Return the nodes of images by number.

        Args:
            indices: (...,) int64, numbers of images, all of one domain.

        Returns:
            (..., nodes, channels) float32.
        """
        own, numbers = self, indices.reshape(-1)
        if self.queries is not None and len(numbers) and int(numbers.min()) >= len(self.nodes):
            own, numbers = self.queries, numbers - len(self.nodes)
        return own.nodes[torch.from_numpy(numbers)].view(*indices.shape, *own.nodes.shape[1:])


def _ignore_note(_: str) -> None:
    """Say nothing."""


def _ignore_progress(_: int, __: int) -> None:
    """Show nothing."""


def extract(
    images: ImageSet,
    backbone: Backbone,
    extractor: Extractor,
    preparation: Preparation,
    cache: Path,
    *,
    progress: Progress = _ignore_progress,
    note: Note = _ignore_note,
) -> FeatureSet:
    """Extract the nodes of every image, or take them from the cache.

    The cache's key is the content: the images' fingerprint and digest, the backbone's digest, nodes, resolution and
    crop; and the kind of device where it is no CPU, since the last bits of features are a device's own. Batches are a
    function of shapes, so that an interrupted extraction goes on to the very same features. Two processes that want
    the same features wait for each other.

    Args:
        images: One split.
        backbone: On the device it shall run on.
        extractor: Kind of nodes.
        preparation: Resolution and crop.
        cache: Directory of feature files.
        progress: Called after each batch.
        note: Called with a sentence where a damaged cache is rebuilt.

    Raises:
        UserError: No images, or features that are not finite, naming the image.
    """
    if not len(images):
        raise UserError(f"split {images.split!r} of {images.dataset!r} has no images: give another split or data root.")
    request = {
        "format": FORMAT,
        "fingerprint": images.fingerprint,
        "images": images.digest,
        "backbone": backbone.digest,
        "nodes": extractor.spec,
        "resolution": preparation.resolution,
        "crop": preparation.crop,
        "versions": [torch.__version__, cv2.__version__],
    }
    if code := getattr(extractor, "code", ""):  # of a user's own nodes, which change where their source does
        request["nodes_code"] = code
    if (kind := backbone.device.type) != "cpu":
        request["device"] = [kind, PRECISION]
    key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:32]
    entry = Entry(cache, key, len(images))
    found = entry.read()  # without the lock, which a folder that is only read cannot have
    if found is None:
        with locked(entry.lock, lambda: note("another process extracts these features; waiting for it")):
            found = entry.load(note)
            if found is None:
                record = _fill(entry, images, backbone, extractor, preparation, progress)
                entry.finish({**record, "request": request})
                found = entry.load(note)
    if found is None:
        raise UserError(f"features cannot be read back from {cache}: check the disk and its free space.")
    nodes, record = found
    source = {"features_sha256": record["sha256"]}
    return FeatureSet(nodes, images.labels, images.classes, extractor.spec, record.get("milliseconds"), source=source)


def base_mean(
    train: ImageSet,
    backbone: Backbone,
    extractor: Extractor,
    preparation: Preparation,
    cache: Path,
    *,
    progress: Progress = _ignore_progress,
    note: Note = _ignore_note,
) -> Tensor:
    """Mean global vector (channels,) of the base classes, float32.

    The first 20 images of each class, in an order by the hash of their names, so that it is quick and the same
    everywhere. A global vector is the mean of an image's nodes. Arguments as in ``extract``.
    """
    chosen: list[int] = []
    for c in range(len(train.classes)):
        members = np.flatnonzero(train.labels == c).tolist()
        chosen += sorted(members, key=lambda i: digest(train.names[i]))[:BASE_IMAGES]
    part = subset(train, chosen)
    features = extract(part, backbone, _Pooled(extractor), preparation, cache, progress=progress, note=note)
    return features.nodes.double().mean((0, 1)).float()


def embed(views: Tensor, backbone: Backbone, extractor: Extractor) -> Tensor:
    """Send the views of a batch of images through the backbone, some at a time, and make nodes of their maps.

    GPUs multiply in full float32 meanwhile, whatever torch is set to.

    Args:
        views: (images, n_views, resolution, resolution, 3) uint8, or float in [0, 1].
        backbone: On any device.
        extractor: Which cut the views.

    Returns:
        (images, nodes, channels) on the backbone's device.
    """
    # NHWC pixels seen as NCHW are channels_last already: nothing is copied.
    pixels = views.flatten(0, 1).permute(0, 3, 1, 2)
    with full_float32():
        maps = torch.cat([backbone.maps(part) for part in torch.split(pixels, _at_once(views.shape[2]))])
    return extractor.nodes(maps.view(*views.shape[:2], *maps.shape[1:]))


def batch_size(extractor: Extractor, preparation: Preparation) -> int:
    """Images that are decoded and embedded together: about a million pixels, a function of shapes alone."""
    return max(1, _at_once(preparation.resolution) // extractor.n_views)


def _at_once(resolution: int) -> int:
    """Views that go through the backbone at once."""
    return max(1, min(256, PIXELS // resolution**2))


def _fill(
    entry: Entry,
    images: ImageSet,
    backbone: Backbone,
    extractor: Extractor,
    preparation: Preparation,
    progress: Progress,
) -> dict[str, float | None]:
    """Compute the rows that the entry lacks."""
    size = batch_size(extractor, preparation)
    done = first = entry.rows(size)
    started = time.perf_counter()
    for views in _decoded(images, extractor, preparation, done, size):
        nodes = embed(torch.from_numpy(views), backbone, extractor).float().cpu()
        bad = (~torch.isfinite(nodes).flatten(1).all(1)).nonzero()
        if len(bad):
            name = images.names[done + int(bad[0])]
            raise UserError(
                f"features of image {name!r} of {images.dataset!r} are not finite: check the image and the backbone."
            )
        entry.append(nodes.numpy())
        done += len(views)
        progress(done, len(images))
    elapsed = time.perf_counter() - started
    computed = len(images) - first
    return {"milliseconds": 1000 * elapsed / computed if computed else None}


def _decoded(
    images: ImageSet, extractor: Extractor, preparation: Preparation, start: int, size: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield batches (images, views, resolution, resolution, 3); threads decode the next while the last is used."""

    def decode(i: int) -> Image:
        image, name = images.read(i), images.names[i]
        try:
            return extractor.views(image, preparation, name)
        except UserError as error:
            raise UserError(f"image {name!r} of {images.dataset!r}: {error}") from error

    batches = [range(i, min(i + size, len(images))) for i in range(start, len(images), size)]
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        ahead = None
        for batch in itertools.chain(batches, [range(0)]):
            following = [pool.submit(decode, i) for i in batch]
            if ahead is not None:
                yield np.stack([future.result() for future in ahead])
            ahead = following
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Pooled:
    """The mean of another extractor's nodes, as a single node."""

    inner: Extractor

    @property
    def spec(self) -> str:
        """Tell the inner kind and that it is pooled."""
        return f"{self.inner.spec} mean"

    @property
    def code(self) -> str:
        """Digest of the inner kind's source, where it is a user's own."""
        return getattr(self.inner, "code", "")

    @property
    def n_views(self) -> int:
        """Count the views of an image."""
        return self.inner.n_views

    def views(self, image: Image, preparation: Preparation, name: str) -> npt.NDArray[np.uint8]:
        """Cut as the inner extractor does."""
        return self.inner.views(image, preparation, name)

    def nodes(self, maps: Tensor) -> Tensor:
        """Turn (images, views, channels, h, w) into (images, 1, channels)."""
        return self.inner.nodes(maps).mean(1, keepdim=True)
