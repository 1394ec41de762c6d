"""Images for ``experiments.metric_learning``: decoded, limited, and in one modality or two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from otfew import data
from otfew.data.base import DataOptions, ImageSet
from otfew.data.edges import edge_maps
from otfew.data.modalities import need_same_classes
from otfew.data.preparation import Preparation, default_crop
from otfew.data.roots import default_root
from otfew.data.shapes.sets import SHAPES, load_shapes, load_sketches
from otfew.data.views import ViewSet
from otfew.errors import UserError
from otfew.training import images as decoding
from otfew.training.metric.evaluation import subset
from otfew.training.metric.task import Images, findable

EDGES = "edges"
"""The second modality that is made of the first: edge maps."""

VIEW_RESOLUTION = 64

CURVE = "curve"
"""Beside the splits: items that are neither trained on nor tested and that choose nothing."""
CURVE_ITEMS = 1000

Source = ImageSet | ViewSet


@dataclass(frozen=True)
class Options:
    """What to load.

    Attributes:
        dataset: A name of ``otfew.data.DATASETS``, or of ``otfew.data.shapes.sets.SHAPES``.
        root: Folder of the data.
        across: "" for one modality; else the second: "edges", or a folder of class folders of images.
        sketches: The second modality is that of a set of shapes: its sketches.
        resolution: Side in pixels; None takes the data set's usual one.
        views: Images of each shape; None takes all.
        train_images: Most training items; None takes all.
        test_images: Most test items.
        note: A sentence that every report repeats.
        download: Fetch what is missing where the publisher allows it; None asks about what is large.
        on_mesh: Called with the number of meshes of a split that are rendered, and then with 0 after each.
    """

    dataset: str
    root: Path | None
    across: str
    sketches: bool
    resolution: int | None
    views: int | None
    train_images: int | None
    test_images: int | None
    note: str
    download: bool | None = None
    on_mesh: Callable[[int], None] = lambda count: None


@dataclass(frozen=True)
class Material:
    """Decoded images.

    Attributes:
        splits: Split -> one modality or two: the gallery's, then the queries'.
        classes: Of the training images.
        shared_classes: Test has the same ones.
        dataset: Name that cards have for the images.
        test_classes: Of the test images.
        same_things: Item i of both modalities shows one thing.
        resolution: Side in pixels.
        notes: Sentences for the report.
        digests: Split -> sha256 of each modality's names and labels.
        curve: Items that are neither trained on nor tested and that choose nothing, of the same modalities; at most
            1,000. Empty where there are none.
        curve_from: Where they are from, in words.
        curve_digests: Sha256 of each modality's names and labels.
    """

    splits: dict[str, tuple[Images, ...]]
    classes: tuple[str, ...]
    dataset: str
    test_classes: tuple[str, ...]
    shared_classes: bool
    same_things: bool
    resolution: int
    notes: tuple[str, ...]
    digests: dict[str, list[str]]
    curve: tuple[Images, ...] = ()
    curve_from: str = ""
    curve_digests: tuple[str, ...] = ()


def load(options: Options, splits: Sequence[str], on_image: Callable[[int], None]) -> Material:
    """Find, choose and decode the images.

    Args:
        options: What to load.
        splits: "train" first.
        on_image: Called with the total, and then with 0 after each item, for progress.

    Raises:
        UserError: Missing data, a limit that leaves too little, or modalities whose classes differ.
    """
    usual = VIEW_RESOLUTION if options.dataset in SHAPES else data.DATASETS[options.dataset].resolution
    preparation = Preparation(options.resolution or usual, default_crop(usual))
    sources: dict[str, list[Source]] = {}
    notes: list[str] = [options.note] if options.note else []
    for split in splits:
        whole = _open_all(options, split)
        limit = options.train_images if split == "train" else options.test_images
        sources[split] = [_limited(source, limit) for source in whole]
        notes += [note for source in whole for note in source.notes]
        notes += [
            f"{split} limited to {len(kept):,} of {len(source):,} items"
            for source, kept in zip(whole, sources[split], strict=True)
            if len(kept) < len(source)
        ]
    classes = sources["train"][0].classes
    shared = set(sources[splits[-1]][0].classes) <= set(classes)
    curve, curve_from = _curve_sources(options, splits)
    if curve:
        sources[CURVE] = curve
    on_image(sum(len(source) for found in sources.values() for source in found))
    parts = {
        split: _parts(found, _classes_of(split, found, classes, shared), preparation, on_image, split)
        for split, found in sources.items()
    }
    if options.across == EDGES:
        parts = {
            split: (*found, replace(found[0], pixels=edge_maps(found[0].pixels))) for split, found in parts.items()
        }
        notes.append("queries are edge maps (Canny) of images; an image and its own edge map are never paired")
    normalised = _normalised(parts)
    tested = normalised.pop(CURVE, ())
    digests = {split: [source.digest for source in found] for split, found in sources.items()}
    of_curve = tuple(digests.pop(CURVE, ()))
    if tested and not findable(tested, len(tested) == 1 or options.across == EDGES):
        tested, curve_from, of_curve = (), "", ()
    return Material(
        splits=normalised,
        classes=classes,
        dataset=options.dataset,
        test_classes=sources[splits[-1]][0].classes,
        shared_classes=shared,
        same_things=options.across == EDGES,
        resolution=preparation.resolution,
        notes=tuple(dict.fromkeys(notes)),
        digests=digests,
        curve=tested,
        curve_from=curve_from,
        curve_digests=of_curve,
    )


def _classes_of(split: str, found: Sequence[Source], classes: Sequence[str], shared: bool) -> Sequence[str]:
    """Say by which classes the items of a split are numbered; those of the curve by their own."""
    return classes if split == "train" or (shared and split != CURVE) else found[0].classes


def _curve_sources(options: Options, splits: Sequence[str]) -> tuple[list[Source], str]:
    """Find items for the curve: of the val split where that chooses nothing, else what is left out of training."""
    if options.dataset in SHAPES and not SHAPES[options.dataset].divided:
        # Every split of the gallery is the same shapes.
        return [], ""
    if "val" not in splits:
        try:
            return [_limited(source, CURVE_ITEMS) for source in _open_all(options, "val")], "the val split"
        except UserError:
            # A data set need not have one, unless it is to choose.
            return [], ""
    left = [_left_out(source, options.train_images) for source in _open_all(options, "train")]
    found = [_limited(source, CURVE_ITEMS) for source in left if source is not None]
    return (found, "what is left out of training") if len(found) == len(left) else ([], "")


def _open_all(options: Options, split: str) -> list[Source]:
    """Find the images of a split, of each modality that has files of its own."""
    if options.sketches:
        drawn = load_sketches(options.dataset, options.root or default_root(), split)
        return [_open(options, split, drawn.classes), drawn]
    found = [_open(options, split)]
    if options.across not in {"", EDGES}:
        found.append(data.load("image-folder", split, Path(options.across)))
    return found


def _open(options: Options, split: str, sketched: Sequence[str] | None = None) -> Source:
    if options.dataset in SHAPES:
        root = options.root or default_root()
        return load_shapes(options.dataset, root, split, options.views, options.on_mesh, sketched)
    return data.load(options.dataset, split, options.root, DataOptions(download=options.download))


def _limited(source: Source, limit: int | None) -> Source:
    """Keep at most so many items, by a fixed draw, and the classes that are left."""
    if limit is None or limit >= len(source):
        return source
    return _chosen(source, subset(len(source), limit).tolist())


def _left_out(source: Source, limit: int | None) -> Source | None:
    """Keep the items that ``_limited`` does not; None where there is no such."""
    if limit is None or limit >= len(source):
        return None
    kept = set(subset(len(source), limit).tolist())
    return _chosen(source, [i for i in range(len(source)) if i not in kept])


def _chosen(source: Source, kept: list[int]) -> Source:
    """Keep some items, and the classes that they have."""
    present = np.unique(source.labels[kept])
    classes = tuple(source.classes[label] for label in present)
    labels = np.searchsorted(present, source.labels[kept]).astype(np.int64)
    names = tuple(source.names[i] for i in kept)
    if isinstance(source, ViewSet):
        return replace(source, classes=classes, labels=labels, names=names, paths=tuple(source.paths[i] for i in kept))
    read = source.read
    units = tuple(source.units[label] for label in present) if source.units else ()
    return replace(source, classes=classes, labels=labels, names=names, read=lambda i: read(kept[i]), units=units)


def _parts(
    found: Sequence[Source],
    classes: Sequence[str],
    preparation: Preparation,
    on_image: Callable[[int], None],
    split: str,
) -> tuple[Images, ...]:
    """Decode each modality, its labels along ``classes``."""
    place = {name: label for label, name in enumerate(classes)}
    parts = []
    for source in found:
        need_same_classes(found[0].classes, source.classes, split)
        labels = torch.tensor([place[name] for name in source.classes])[torch.from_numpy(source.labels)]
        parts.append(Images(_pixels(source, preparation, on_image), labels, (), ()))
    return tuple(parts)


def _pixels(source: Source, preparation: Preparation, on_image: Callable[[int], None]) -> Tensor:
    if isinstance(source, ImageSet):
        return decoding.decode(source, preparation, lambda: on_image(0))[:, 0]
    side = preparation.resolution
    pixels = torch.empty(len(source), source.views, 3, side, side, dtype=torch.uint8)
    for i in range(len(source)):
        for v, view in enumerate(source.read(i)):
            pixels[i, v] = torch.from_numpy(preparation(view).transpose(2, 0, 1).copy())
        on_image(0)
    return pixels


def _normalised(parts: dict[str, tuple[Images, ...]]) -> dict[str, tuple[Images, ...]]:
    """Give every part the training images' mean and deviation, modality by modality."""
    figures = [decoding.statistics(part.pixels.flatten(0, -4)) for part in parts["train"]]
    return {
        split: tuple(replace(part, mean=mean, std=std) for part, (mean, std) in zip(found, figures, strict=True))
        for split, found in parts.items()
    }
