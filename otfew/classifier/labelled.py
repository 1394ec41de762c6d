"""What a classifier knows of its labelled photos: their nodes, labels and groups, and what shows them to people."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.classifier.door import Shown
from otfew.classifier.duplicates import print_of
from otfew.data.base import Image
from otfew.data.decoding.image import decode_image

THUMBNAIL = 256
"""Longest side of the pictures that are kept, pixels; 15 to 25 kB each."""
_QUALITY = 80
_PATH_PARTS = 2
_TOP = 15
"""Nodes are scaled to below 2 to this power before they are rounded to half precision."""
_EXPONENTS = 100
"""Largest power of two that a photo's nodes are scaled by; what is smaller or larger still is no feature."""


@dataclass(frozen=True)
class Photo:
    """What is remembered of a labelled image beside its nodes.

    Attributes:
        name: Its path, or "image K".
        path: Absolute, of the file it came from; "" where it came in memory or from a saved classifier.
        size: (height, width) in pixels.
        thumbnail: JPEG of at most ``THUMBNAIL`` pixels to a side.
        print: Perceptual hash and colour, see ``otfew.classifier.duplicates.print_of``.
        key: What random crops draw from, see ``Embedder.key``.
        drift: 1 - cosine of the backbone's vectors of it and of its middle, where that was measured.
    """

    name: str
    path: str
    size: tuple[int, int]
    thumbnail: bytes
    print: bytes
    key: str
    drift: float | None = None

    @classmethod
    def of(cls, image: Shown, key: str) -> Photo:
        """Remember an image."""
        pixels = image.pixels if image.pixels.dtype == np.uint8 else np.rint(image.pixels).astype(np.uint8)
        height, width = pixels.shape[:2]
        scale = min(1.0, THUMBNAIL / max(height, width))
        side = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(pixels, side, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
        _, encoded = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        path = "" if image.path is None else str(image.path)
        return cls(image.name, path, (height, width), encoded.tobytes(), print_of(pixels), key)

    @property
    def title(self) -> str:
        """What it is called before others: see ``short``."""
        return short(self.name, self.path)

    def picture(self) -> Image:
        """Decode the thumbnail: (height, width, 3) uint8 RGB."""
        return decode_image(self.thumbnail, self.name)


@dataclass(frozen=True)
class Labelled:
    """Labelled photos, in the order in which they were given.

    Attributes:
        nodes: (photos, nodes, channels) float32, values that half precision keeps: see ``halved``.
        labels: (photos,) indices into ``classes``.
        classes: (classes,) sorted; each has a photo at least.
        photos: What is remembered of each.
        groups: (photos,) int64: those of one number are near-duplicates of one another, directly or by way of others;
            no estimate may learn from one and test on another.
    """

    nodes: Tensor
    labels: npt.NDArray[np.intp]
    classes: npt.NDArray[Any]
    photos: tuple[Photo, ...]
    groups: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.photos)

    def episode(self) -> tuple[Tensor, Tensor]:
        """Lay the nodes out as methods take them.

        Returns:
            Support (1, way, shot, nodes, channels), short classes padded with zeros, and mask (1, way, shot) bool.
        """
        shots = np.bincount(self.labels, minlength=len(self.classes))
        support = self.nodes.new_zeros(1, len(self.classes), int(shots.max()), *self.nodes.shape[1:])
        mask = torch.zeros(support.shape[:3], dtype=torch.bool)
        for c, count in enumerate(shots):
            support[0, c, :count] = self.nodes[torch.from_numpy(np.flatnonzero(self.labels == c))]
            mask[0, c, :count] = True
        return support, mask.to(support.device)

    def keep(self, which: npt.ArrayLike) -> Labelled:
        """Keep some photos, and the classes and group numbers that these have.

        Args:
            which: Indices, or a bool for each photo.
        """
        chosen = np.arange(len(self))[np.asarray(which)]
        present, labels = np.unique(self.labels[chosen], return_inverse=True)
        return replace(
            self,
            nodes=self.nodes[torch.from_numpy(chosen)],
            labels=labels,
            classes=self.classes[present],
            photos=tuple(self.photos[i] for i in chosen),
            groups=self.groups[chosen],
        )

    def to(self, device: torch.device) -> Labelled:
        """Move the nodes to a device."""
        return replace(self, nodes=self.nodes.to(device))


def short(name: str, path: object) -> str:
    """Call a photo by its class folder and file: where these lie on somebody's disk is nobody else's affair.

    Args:
        name: Its path, or "image K".
        path: Absolute; "" or None where it came in memory or from a saved classifier.
    """
    return "/".join(PurePath(str(path)).parts[-_PATH_PARTS:]) if path else name


def halved(nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Round each photo's nodes to half precision, scaled by a power of two of its own so that none leaves its range.

    Rounding once, when photos are fitted, is what makes a classifier that was saved and loaded answer as it did
    before, bit for bit.

    Args:
        nodes: (photos, nodes, channels) floating.

    Returns:
        (photos, nodes, channels) float16, and (photos,) int16 exponents: nodes = halves * 2 ** exponent.
    """
    _, exponents = torch.frexp(nodes.abs().flatten(1).amax(1))
    shifts = (exponents - _TOP).clamp(-_EXPONENTS, _EXPONENTS).to(torch.int16)
    return torch.ldexp(nodes, -shifts.view(-1, 1, 1)).half(), shifts


def unhalved(halves: Tensor, exponents: Tensor) -> Tensor:
    """Undo ``halved`` exactly: (photos, nodes, channels) float32."""
    return torch.ldexp(halves.float(), exponents.view(-1, 1, 1))


def rounded(nodes: Tensor) -> Tensor:
    """Round nodes (photos, nodes, channels) as ``halved`` does: float32."""
    return unhalved(*halved(nodes))
