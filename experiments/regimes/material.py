"""What a cell runs on: its images, changed or not, through its network, whose map may be averaged to fewer nodes."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from otfew import data
from otfew.backbones import Backbone, classes_seen
from otfew.backbones import load as load_backbone
from otfew.data.base import DataOptions, ImageSet
from otfew.data.halves import ALL, load_half
from otfew.data.parts import subset
from otfew.data.preparation import Preparation, default_crop
from otfew.errors import UserError
from otfew.evaluation.across_domains import QueriesBehind
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.evaluation.study import FirstShots
from otfew.experiments.regimes.cells import IMAGES, Cell
from otfew.experiments.regimes.mosaics import mosaics
from otfew.experiments.regimes.sampling import Grouped
from otfew.features.extract import FeatureSet
from otfew.features.material import ImageMaterial
from otfew.random.keys import digest
from otfew.runs.watch import Watch

PHOTOS = "photos"
NODES = "fcn"
KEPT = 4
"""Materials that are held in memory: those of neighbouring cells."""


@dataclass(frozen=True)
class Places:
    """Where images are found.

    Attributes:
        root: Folder of data sets; None takes the default.
        photos: Folder of class folders of photos, or None.
    """

    root: Path | None
    photos: Path | None


@dataclass
class CellMaterial:
    """Nodes of one or two views of the same images; follows ``otfew.features.material.Material``.

    Attributes:
        first: Support, and queries where there is no second.
        second: Queries, as a second half of the material, or None.
        pool: Nodes to a side, to which the map is averaged; 0 leaves it.
    """

    first: ImageMaterial
    second: ImageMaterial | None = None
    pool: int = 0
    _found: dict[str, FeatureSet] = field(default_factory=dict)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Return the label of every image, the second half like the first."""
        own = self.first.labels
        return own if self.second is None else np.concatenate([own, own])

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names."""
        return self.first.classes

    @property
    def overlap(self) -> str:
        """Say which classes the backbone has seen in training."""
        return self.first.overlap

    def describe(self) -> dict[str, Any]:
        """Return the protocol's part about data, backbone and images, with what was done to queries and nodes."""
        found = self.first.describe()
        found["pool"] = self.pool
        found["fingerprints"] = [m.images.fingerprint for m in (self.first, self.second) if m is not None]
        return found

    def nodes_spec(self, preferred: str) -> str:
        """Return the kind of nodes, whatever a method prefers."""
        del preferred
        return f"{NODES}:{self.pool},nomap" if self.pool else NODES

    def base_mean_missing(self) -> str:
        """Say that nothing here asks for it."""
        return "cells have no base classes"

    def features(self, spec: str, device: str) -> FeatureSet:
        """Extract the map, average it, and put both halves one behind the other."""
        if spec not in self._found:
            parts = [m.features(NODES, device) for m in (self.first, self.second) if m is not None]
            nodes = [averaged(part.nodes, self.pool) if self.pool else part.nodes for part in parts]
            told = "\n".join([spec, *(part.source["features_sha256"] for part in parts)])
            self._found[spec] = replace(
                parts[0],
                nodes=nodes[0] if len(nodes) == 1 else torch.cat(nodes),
                labels=self.labels,
                nodes_spec=spec,
                source={"features_sha256": hashlib.sha256(told.encode()).hexdigest()},
            )
        return self._found[spec]

    def base_mean(self, spec: str, device: str) -> Tensor:
        """Refuse: nothing here asks for it."""
        del spec, device
        raise UserError(f"{self.base_mean_missing()}.")

    def learned(self, method: str) -> dict[str, float]:
        """Return nothing: what is learned with a backbone scales logits, which changes no answer."""
        del method
        return {}


def averaged(nodes: Tensor, side: int) -> Tensor:
    """Average square maps to fewer nodes, as the nodes ``fcn:SIDE,nomap`` do.

    Args:
        nodes: (images, s * s, channels), row by row.
        side: Nodes to a side, at most s.

    Returns:
        (images, side * side, channels).

    Raises:
        UserError: The map is not square, or smaller.
    """
    _, count, channels = nodes.shape
    own = math.isqrt(count)
    if own * own != count or own < side:
        raise UserError(f"a map of {count} nodes is not averaged to {side} x {side}.")
    parts = [
        adaptive_avg_pool2d(part.mT.reshape(len(part), channels, own, own), side).flatten(2).mT
        for part in torch.split(nodes, max(1, (1 << 24) // (count * channels)))
    ]
    return torch.cat(parts).contiguous()


def first_images(images: ImageSet, per_class: int) -> ImageSet:
    """Keep the first images of each class, in an order by the hash of their names; 0 keeps all."""
    if not per_class:
        return images
    kept: list[int] = []
    for c in range(len(images.classes)):
        members = np.flatnonzero(images.labels == c).tolist()
        kept += sorted(sorted(members, key=lambda i: digest(images.names[i]))[:per_class])
    return subset(images, kept)


@lru_cache
def superclasses() -> dict[str, str]:
    """Return the superclass of each class of CIFAR-100 (Krizhevsky 2009)."""
    path = Path(data.__file__).parent / "splits" / "cifar100-superclasses.json"
    groups = json.loads(path.read_text(encoding="utf-8"))["superclasses"]
    return {name: group for group, names in groups.items() for name in names}


def _shifted(images: ImageSet, view: str) -> ImageSet:
    """Change the images; most cells need nothing of it."""
    from otfew.data.shifts import shifted

    return shifted(images, view)


class Opener:
    """Opens what cells run on, and shares it among neighbours.

    Args:
        places: Where images are found.
        watch: Where progress is shown.
    """

    def __init__(self, places: Places, watch: Watch) -> None:
        self._places, self._watch = places, watch
        self._images: dict[str, ImageSet] = {}
        self._networks: dict[str, Backbone] = {}
        self._materials: dict[tuple[str, str, str, int], ImageMaterial] = {}

    def open(self, cell: Cell, network: str, seed: int) -> tuple[CellMaterial, Sampler]:
        """Open a cell's material and the sampler of its episodes.

        Args:
            cell: Which.
            network: As ``compare`` takes a backbone.
            seed: Of the episodes.

        Raises:
            UserError: Images or weights are missing.
        """
        first = self._material(cell, cell.view, network)
        second = self._material(cell, cell.query_view, network) if cell.query_view else None
        return CellMaterial(first, second, cell.pool), self.sampler(cell, seed)

    def sampler(self, cell: Cell, seed: int) -> Sampler:
        """Make the sampler of a cell: classes and images are those of every cell with these images and this way."""
        images, wanted = self.images(cell.images), IMAGES[cell.images]
        most = max(wanted.most, cell.shot)
        protocol = Protocol(images.dataset, images.variant, images.split, seed, cell.way, most, wanted.query)
        if cell.ways == "any":
            sampler = Sampler(protocol, images.labels, images.classes)
        else:
            sampler = Grouped(protocol, images.labels, images.classes, superclasses(), cell.ways)
        if cell.shot < most:
            sampler = FirstShots(sampler, cell.shot)
        return QueriesBehind(sampler, len(images)) if cell.query_view else sampler

    def images(self, name: str) -> ImageSet:
        """Load images as the table names them.

        Raises:
            UserError: They are missing.
        """
        if name not in self._images:
            wanted = IMAGES[name]
            root, dataset, options = self._places.root, wanted.dataset, DataOptions()
            if dataset == PHOTOS:
                if self._places.photos is None:
                    raise UserError("no photos were given: give their folder as --photos.")
                root, dataset = self._places.photos, "image-folder"
            load = load_half if wanted.split == ALL else data.load
            found = load(dataset, wanted.split, root, options)
            found = mosaics(found) if name == "mosaics" else first_images(found, wanted.per_class)
            self._images[name] = found
        return self._images[name]

    def _material(self, cell: Cell, view: str, network: str) -> ImageMaterial:
        key = (cell.images, view, network, cell.resolution)
        if key not in self._materials:
            images = self.images(cell.images)
            backbone = self._network(network)
            crop = default_crop(data.find(images.dataset).resolution)
            seen, _ = classes_seen(backbone.card, images.classes, dataset=images.dataset)
            while len(self._materials) >= KEPT:
                self._materials.pop(next(iter(self._materials)))
            self._materials[key] = ImageMaterial(
                images=_shifted(images, view) if view else images,
                backbone=backbone,
                preparation=Preparation(cell.resolution, "none" if cell.images == "mosaics" else crop),
                base=lambda: images,
                seen=seen,
                given_nodes=NODES,
                watch=self._watch,
            )
        return self._materials[key]

    def _network(self, spec: str) -> Backbone:
        if spec not in self._networks:
            self._networks[spec] = load_backbone(spec)
        return self._networks[spec]
