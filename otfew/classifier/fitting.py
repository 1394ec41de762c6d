"""From images and labels to labelled photos; more of them, fewer of them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.classifier.door import Door, Shown
from otfew.classifier.duplicates import groups, middle, probes, reaches
from otfew.classifier.embedder import Embedder
from otfew.classifier.feature_store import STORE, key_of
from otfew.classifier.labelled import Labelled, Photo, rounded
from otfew.classifier.pictures import count
from otfew.data.class_labels import as_labels, classes_of
from otfew.errors import UserError
from otfew.features.extract import embed

NOTHING = "there are no images: give at least one, with its label."


def extract(
    images: Any, labels: npt.NDArray[Any], embedder: Embedder, door: Door, size: int
) -> tuple[list[Photo], Tensor, npt.NDArray[Any]]:
    """Read and embed labelled images.

    Args:
        images: As in ``FewShotClassifier.fit``.
        labels: (images,), see ``as_labels``.
        embedder: From images to nodes.
        door: Through which they come.
        size: Images that are embedded at once.

    Returns:
        Those that could be used, their nodes (photos, nodes, channels), rounded as ``halved`` says, and their labels.

    Raises:
        UserError: Counts that differ, an image that cannot be used, or a class of which none can be.
    """

    def note(image: Shown) -> tuple[int, Photo]:
        return image.place, Photo.of(image, embedder.key(image))

    if not len(labels):
        raise UserError(NOTHING)
    # What is no container of images is told before their number is.
    shown, given = door.read(images), count(images)
    if given is not None:
        check_counts(given, labels)
    places: list[int] = []
    photos: list[Photo] = []
    found: list[Tensor] = []
    for noted, nodes in embedder(shown, size, door, note):
        places += [place for place, _ in noted]
        photos += [photo for _, photo in noted]
        found.append(rounded(nodes))
    check_counts(door.count, labels)
    refuse_missing(door, labels, places)
    return photos, torch.cat(found), labels[places]


def assemble(photos: Sequence[Photo], nodes: Tensor, labels: npt.NDArray[Any], embedder: Embedder) -> Labelled:
    """Sort labels into classes and photos into groups of near-duplicates.

    Args:
        photos: At least one of each class.
        nodes: (photos, nodes, channels), rounded.
        labels: (photos,).
        embedder: That the nodes came from.

    Raises:
        UserError: Fewer than two classes.
    """
    classes, indices = two_classes(labels)
    prints = [photo.print for photo in photos]
    measured = with_drifts(photos, embedder)
    vectors = nodes.mean(1).cpu().numpy()
    drifts = [photo.drift for photo in (measured[i] for i in probes(prints)) if photo.drift is not None]
    found = groups(vectors, prints, reaches(vectors, indices, drifts))
    return Labelled(nodes, indices, classes, tuple(measured), found)


def two_classes(labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Sort labels into classes, see ``classes_of``; raises ``UserError`` unless there are two."""
    classes, indices = classes_of(labels)
    if len(classes) < 2:
        raise UserError(f"the labels name {len(classes)} class(es): give images of at least two.")
    return classes, indices


def joined(
    known: Labelled, photos: Sequence[Photo], nodes: Tensor, labels: npt.NDArray[Any], embedder: Embedder
) -> Labelled:
    """Add photos to those that are known, as if all had been given at once."""
    return assemble(
        [*known.photos, *photos], torch.cat([known.nodes, nodes]), both(known.classes[known.labels], labels), embedder
    )


def both(known: npt.NDArray[Any], more: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Put labels behind others of their kind.

    Raises:
        UserError: Text beside numbers.
    """
    if not len(more):
        raise UserError(NOTHING)
    if (known.dtype.kind in "UO") != (more.dtype.kind in "UO"):
        one, other = more.tolist()[0], known.tolist()[0]
        raise UserError(f"the label {one!r} is of another kind than those known, such as {other!r}: give one kind.")
    if known.dtype.kind == "O" or more.dtype.kind == "O":
        return np.concatenate([known.astype(object), more.astype(object)])
    return as_labels(np.concatenate([known, more]))


def without(known: Labelled, label: Any, embedder: Embedder) -> Labelled:
    """Leave a class out, as if it had never been given.

    Raises:
        UserError: There is no such class, or fewer than two are left.
    """
    chosen = np.array([bool(name == label) for name in known.classes.tolist()])
    if not chosen.any():
        names = ", ".join(map(str, known.classes[:5].tolist()))
        raise UserError(f"there is no class {label!r}: there are {names}{', ...' if len(known.classes) > 5 else ''}.")
    left = known.keep(~chosen[known.labels])
    return assemble(left.photos, left.nodes, left.classes[left.labels], embedder)


def without_photos(known: Labelled, photos: Iterable[int], embedder: Embedder) -> Labelled:
    """Leave single photos out, as if they had never been given.

    Args:
        known: The labelled photos.
        photos: Places among them.
        embedder: That the nodes came from.

    Raises:
        UserError: There is no such photo, or fewer than two classes are left.
    """
    gone = set(photos)
    if missing := sorted(gone - set(range(len(known)))):
        raise UserError(f"there is no labelled photo {missing[0]}: there are {len(known)}, counted from 0.")
    kept = [place for place in range(len(known)) if place not in gone]
    if len({int(known.labels[place]) for place in kept}) < 2:
        raise UserError("fewer than two classes would be left: label photos of another one first.")
    left = known.keep(kept)
    return assemble(left.photos, left.nodes, left.classes[left.labels], embedder)


def with_drifts(photos: Sequence[Photo], embedder: Embedder, folder: Path | None = None) -> list[Photo]:
    """Measure how far some photos are from their own middles, where that is not known yet: see ``duplicates``.

    Args:
        photos: All of them, of which ``probes`` chooses.
        embedder: That their nodes came from.
        folder: Where what the network says of them is kept, beside the process's memory; None for nowhere.
    """
    measured = list(photos)
    for i in probes([photo.print for photo in photos]):
        if measured[i].drift is None:
            measured[i] = replace(measured[i], drift=_drift(measured[i], embedder, folder))
    return measured


def _drift(photo: Photo, embedder: Embedder, folder: Path | None) -> float | None:
    """1 - cosine of a photo's thumbnail and its middle; None where the nodes need larger ones."""
    key = key_of(hashlib.sha256(b"whole and middle" + photo.thumbnail).hexdigest(), embedder)
    pair = STORE.get(key, folder, warnings.warn)
    if pair is None:
        picture = photo.picture()
        try:
            views = [embedder.views(Shown(0, photo.name, None, pixels)) for pixels in (picture, middle(picture))]
        except UserError:
            return None
        pair = embed(torch.from_numpy(np.stack(views)) / 255, embedder.backbone, embedder.extractor).mean(1).cpu()
        STORE.put(key, pair, folder)
    whole, part = pair.double()
    drift = float(1 - torch.cosine_similarity(whole, part, dim=0))
    return drift if np.isfinite(drift) else None


def refuse_missing(door: Door, labels: npt.NDArray[Any], places: Sequence[int]) -> None:
    """Raise ``UserError`` where a class has lost all of its images."""
    for skipped in door.skipped:
        if labels[skipped.place] not in labels[list(places)]:
            raise UserError(f"no image of class {labels[skipped.place]} can be used; the first: {skipped}")


def check_counts(images: int, labels: npt.NDArray[Any]) -> None:
    """Raise ``UserError`` unless there is a label for each image."""
    if images != len(labels):
        raise UserError(f"there are {images} images but {len(labels)} labels: give a label for each.")
