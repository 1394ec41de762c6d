"""From images to nodes, the same in ``fit`` and in ``predict``."""

from __future__ import annotations

import copy
import hashlib
import itertools
import numbers
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from otfew import devices
from otfew.backbones import Backbone, of_module
from otfew.backbones import load as load_backbone
from otfew.classifier.door import Door, Shown
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.features.extract import embed
from otfew.nodes import Extractor, parse

T = TypeVar("T")

WITHOUT_DOUBLES = frozenset({"mps"})
"""Kinds of devices on which methods cannot run, since they have no float64; the network can."""


@dataclass(frozen=True)
class Embedder:
    """A backbone and what an image becomes before and after it.

    Attributes:
        backbone: On its device.
        extractor: Kind of nodes.
        preparation: Resolution and crop.
    """

    backbone: Backbone
    extractor: Extractor
    preparation: Preparation

    def __call__(
        self, images: Iterable[Shown], size: int, door: Door, note: Callable[[Shown], T]
    ) -> Iterator[tuple[list[T], Tensor]]:
        """Embed some images at a time.

        Args:
            images: Decoded; each is let go as soon as it is cut into views.
            size: Images that are embedded at once.
            door: Told of images that the extractor or the backbone cannot take.
            note: What is to be remembered of an image.

        Yields:
            What was noted of up to ``size`` images, and their nodes (images, nodes, channels).
        """
        cut = ((image.place, image.name, note(image), views) for image, views in self._cut(images, door))
        while batch := list(itertools.islice(cut, size)):
            views = np.stack([item[3] for item in batch])
            found = embed(torch.from_numpy(views) / 255, self.backbone, self.extractor)
            finite = torch.isfinite(found).flatten(1).all(1).tolist()
            for (place, name, _, _), fine in zip(batch, finite, strict=True):
                if not fine:
                    said = f"features of image {place} are not finite: check image and backbone."
                    door.refuse(place, name, UserError(said))
            if not all(finite):
                batch, found = [item for item, fine in zip(batch, finite, strict=True) if fine], found[finite]
            # Inference tensors cannot enter a method that differentiates.
            yield [item[2] for item in batch], found.cpu() if found.device.type in WITHOUT_DOUBLES else found.clone()

    def views(self, image: Shown, key: str | None = None) -> npt.NDArray[np.float32]:
        """Cut an image into views (n_views, resolution, resolution, 3) with values in [0, 255].

        Floating throughout: decoded files and the user's tensors may stand in one list.

        Args:
            image: Decoded.
            key: What random crops draw from; None makes one of the pixels, see ``key``.

        Raises:
            UserError: The image is too small for this kind of nodes.
        """
        name = self.key(image) if key is None else key
        try:
            return self.extractor.views(image.pixels, self.preparation, name).astype(np.float32)
        except UserError as error:
            raise UserError(f"image {image.place}: {error}") from error

    def key(self, image: Shown) -> str:
        """Name what random crops draw from: the pixels, so that nodes do not depend on a place among others.

        "" for nodes that draw nothing: hashing a large photo takes longer than the network.
        """
        if not getattr(self.extractor, "draws", True):
            return ""
        pixels = image.pixels if image.pixels.dtype == np.uint8 else np.rint(image.pixels).astype(np.uint8)
        return hashlib.sha256(pixels.tobytes()).hexdigest()

    def on(self, device: torch.device) -> Embedder:
        """Return the same on a device."""
        return replace(self, backbone=placed(self.backbone, device))

    def _cut(self, images: Iterable[Shown], door: Door) -> Iterator[tuple[Shown, npt.NDArray[np.float32]]]:
        """Cut images into views, without those that are too small for it."""
        for image in images:
            try:
                views = self.views(image)
            except UserError as error:
                door.refuse(image.place, image.name, error)
                continue
            yield image, views


def make_embedder(backbone: Any, kind: Any, resolution: Any, crop: Any, device: str | torch.device) -> Embedder:
    """Load a backbone, and settle what an image becomes before and after it.

    Args:
        backbone: As in ``FewShotClassifier``; a module is copied.
        kind: Of nodes, such as "grid:2,3".
        resolution: Side in pixels; None takes that of the backbone's training.
        crop: "none" or "center".
        device: As in ``FewShotClassifier``.

    Raises:
        UserError: Any of them is unknown or out of range.
    """
    if not isinstance(kind, str):
        raise UserError(f"nodes are {kind!r}: give their kind as a string such as fcn or grid:2,3, or None.")
    if resolution is not None and not isinstance(resolution, numbers.Integral):
        raise UserError(f"resolution is {resolution!r}: give whole pixels, or None.")
    extractor = parse(kind)
    found = as_backbone(backbone)
    side = found.card.resolution if resolution is None else int(resolution)
    return Embedder(placed(found, devices.pick(device)), extractor, Preparation(side, crop))


def as_backbone(given: Any) -> Backbone:
    """Load what names a backbone, or wrap a module, which is copied.

    Raises:
        UserError: It is neither, or does not load.
    """
    if isinstance(given, nn.Module):
        return of_module(copy.deepcopy(given))
    if isinstance(given, str | Path) or given is None:
        return load_backbone(None if given is None else str(given))
    if not isinstance(given, Backbone):
        raise UserError(
            f"backbone is {given!r}: give a name, a path, package.module:factory, a torch module or a Backbone."
        )
    return given


def together(batches: Iterable[tuple[list[T], Tensor]]) -> Iterator[tuple[list[T], Tensor]]:
    """Make one batch of all that an embedder yields; none of none."""
    every = list(batches)
    if every:
        yield [noted for batch, _ in every for noted in batch], torch.cat([nodes for _, nodes in every])


def placed(backbone: Backbone, device: torch.device) -> Backbone:
    """Return a backbone on a device; that of the caller stays where it is."""
    here = torch.empty(0, device=device).device
    tensors = itertools.chain(backbone.module.parameters(), backbone.module.buffers())
    return backbone if all(t.device == here for t in tensors) else copy.deepcopy(backbone).to(device)
