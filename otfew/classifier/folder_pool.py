"""The photos of a source that its folders are drawn from, extracted once under every view that is tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.backbones import Backbone
from otfew.classifier.candidates import Candidate, View, candidates
from otfew.classifier.door import Shown
from otfew.classifier.embedder import Embedder, make_embedder
from otfew.classifier.fitting import assemble
from otfew.classifier.folder_plan import Source
from otfew.classifier.labelled import Labelled, Photo, rounded
from otfew.classifier.prior_study import part
from otfew.data import DataOptions, ImageSet, load
from otfew.errors import UserError
from otfew.features.extract import FeatureSet, extract
from otfew.runs.files import cache_directory
from otfew.runs.watch import SILENT, Watch

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """Photos of a source.

    Attributes:
        source: Which.
        images: Decoded on demand.
        labels: (photos,) 0, 1, ...
        classes: Their names.
        tried: Candidates.
        embedders: View -> from images to its nodes.
        features: View -> those of all photos.
    """

    source: Source
    images: ImageSet
    labels: Indices
    classes: tuple[str, ...]
    tried: tuple[Candidate, ...]
    embedders: Mapping[View, Embedder]
    features: Mapping[View, FeatureSet]
    _photos: dict[int, Photo] = field(default_factory=dict)

    def nodes(self, view: View, places: tuple[int, ...]) -> Tensor:
        """Return nodes of some photos as they are asked about: (photos, nodes, channels)."""
        return self.features[view].nodes[torch.tensor(places, dtype=torch.int64)]

    def kept(self, view: View, places: tuple[int, ...]) -> Tensor:
        """Return nodes of some photos as a classifier keeps them, rounded: (photos, nodes, channels)."""
        return rounded(self.nodes(view, places))

    def labelled(self, view: View, places: tuple[int, ...]) -> Labelled:
        """Put some photos together as ``fit`` does, with the groups of near-duplicates that it finds among them."""
        embedder = self.embedders[view]
        photos = [self._photo(i, embedder) for i in places]
        names = np.array([self.classes[c] for c in self.labels[list(places)]])
        found = assemble(photos, self.kept(view, places), names, embedder)
        # How far a photo is from its own middle takes two images through the network: once is enough.
        self._photos.update(zip(places, found.photos, strict=True))
        return found

    def _photo(self, place: int, embedder: Embedder) -> Photo:
        if place not in self._photos:
            shown = Shown(place, self.images.names[place], None, self.images.read(place))
            self._photos[place] = Photo.of(shown, embedder.key(shown))
        return self._photos[place]


def read_pool(source: Source, data_root: Path | None, *, download: bool = True) -> ImageSet:
    """Choose a source's photos; nothing is extracted yet.

    Args:
        source: Which.
        data_root: Folder of data sets.
        download: Fetch what is missing where the publisher allows it.

    Raises:
        UserError: Data are missing, or fewer classes or photos are there than the folders need.
    """
    whole = load(source.dataset, source.split, data_root, DataOptions(download=download))
    images = part(whole, source.classes, source.each)
    used, labels = np.unique(images.labels, return_inverse=True)
    if len(images) < source.classes * source.each:
        raise UserError(
            f"{source.dataset} has {len(images)} photos for folders of {source.classes} classes of {source.each}: "
            "give the whole of it."
        )
    classes, units = (tuple(of[c] for c in used) if of else () for of in (images.classes, images.units))
    return replace(images, classes=classes, labels=labels.astype(np.int64), units=units)


def open_pool(source: Source, images: ImageSet, backbone: Backbone, *, watch: Watch = SILENT) -> Pool:
    """Extract what is missing of a source.

    Args:
        source: Which.
        images: Of ``read_pool``.
        backbone: Network of all views.
        watch: Where progress is shown.

    Raises:
        UserError: An image cannot be used.
    """
    tried = tuple(candidates([(backbone.name, backbone.card.resolution)], resolution=source.resolution))
    embedders, features = {}, {}
    for view in dict.fromkeys(candidate.view for candidate in tried):
        embedder = make_embedder(backbone, view.nodes, view.resolution, "none", "cpu")
        with watch.task(f"extracting {view} of {source.dataset}") as progress:
            features[view] = extract(
                images,
                backbone,
                embedder.extractor,
                embedder.preparation,
                cache_directory() / "features",
                progress=progress,
                note=watch.note,
            )
        embedders[view] = embedder
    return Pool(source, images, images.labels, images.classes, tried, embedders, features)
