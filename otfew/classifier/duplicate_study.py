"""What counts as a near-duplicate: copies that each threshold finds, and different photos that it takes for copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from otfew.backbones import load as load_backbone
from otfew.classifier import duplicates
from otfew.classifier.door import Door, Shown
from otfew.classifier.duplicates import alike, print_of, probes, reaches
from otfew.classifier.embedder import make_embedder, together
from otfew.classifier.fitting import with_drifts
from otfew.classifier.labelled import Photo, rounded
from otfew.classifier.prior_study import part
from otfew.data import DataOptions, Image
from otfew.data import load as load_images
from otfew.data.decoding.image import decode_image
from otfew.random.draws import uniforms
from otfew.runs.identity import versions
from otfew.runs.watch import SILENT, Watch

BIRDS = ("cub", "train", 40, 5)
"""Data set, part, classes and photos of each that copies are made of."""
OTHERS = (("omniglot", "train", 100, 20), ("cifar-fs", "train", 64, 30))
"""Likewise, of pictures among which no two are copies."""
COPIED = 40
"""Birds of which there are copies."""
BITS = (6, 8, 10, 12, 16, 20)
TOLERANCES, MARGINS = (1.0, 2.0, 3.0), (0.4, 0.6, 0.8)


def _jpeg(pixels: Image, quality: int) -> Image:
    data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return decode_image(data.tobytes(), "a copy")


def _scaled(pixels: Image, factor: float) -> Image:
    found: Image = np.clip(pixels * factor, 0, 255).astype(np.uint8)
    return found


def _third(pixels: Image) -> Image:
    return np.asarray(cv2.resize(pixels, None, fx=1 / 3, fy=1 / 3, interpolation=cv2.INTER_AREA), np.uint8)


def _cropped(share: float) -> Callable[[Image, str], Image]:
    """Make what cuts a share of each side out of a picture, at a place drawn from its name."""

    def cut(pixels: Image, name: str) -> Image:
        draws = uniforms("otfew copies", name, str(share))
        sides = [round(side * share) for side in pixels.shape[:2]]
        tops = [int(next(draws) * (side - own + 1)) for side, own in zip(pixels.shape[:2], sides, strict=True)]
        return np.ascontiguousarray(pixels[tops[0] : tops[0] + sides[0], tops[1] : tops[1] + sides[1]])

    return cut


SEEN_BY_HASH: Mapping[str, Callable[[Image], Image]] = {
    "JPEG of quality 20": lambda pixels: _jpeg(pixels, 20),
    "a third as large": _third,
    "a fifth brighter": lambda pixels: _scaled(pixels, 1.2),
    "a fifth darker": lambda pixels: _scaled(pixels, 0.8),
}
"""Copies that the hash is for."""
SEEN_BY_FEATURES: Mapping[str, Callable[[Image, str], Image]] = {
    "19/20 of each side": _cropped(0.95),
    "9/10 of each side": _cropped(0.9),
    "4/5 of each side": _cropped(0.8),
    "mirrored": lambda pixels, _: np.ascontiguousarray(pixels[:, ::-1]),
}
"""Copies that the features are for."""


def study(backbone: str, *, data_root: Path | None = None, command: str = "", watch: Watch = SILENT) -> dict[str, Any]:
    """Measure both kinds of thresholds.

    Args:
        backbone: Name of a network.
        data_root: Folder of data sets.
        command: For the record.
        watch: Where progress is shown.

    Returns:
        JSON-ready: for each threshold the shares of copies that are found, and the pairs of different pictures that
        count as copies.
    """
    network = load_backbone(backbone)
    dataset, split, classes, each = BIRDS
    birds = part(load_images(dataset, split, data_root, DataOptions()), classes, each)
    pictures = [birds.read(i) for i in range(len(birds))]
    chosen = np.linspace(0, len(birds) - 1, COPIED).astype(int).tolist()
    prints = [print_of(pixels) for pixels in pictures]
    changed = {name: [print_of(change(pictures[i])) for i in chosen] for name, change in SEEN_BY_HASH.items()}
    others = {f"{dataset} ({split})": prints}
    for name, where, count, photos in OTHERS:
        watch.note(f"hashes of {name}")
        images = part(load_images(name, where, data_root, DataOptions()), count, photos)
        others[f"{name} ({where})"] = [print_of(images.read(i)) for i in range(len(images))]
    return {
        "what": "shares of copies that are found, and pairs of different pictures that are taken for copies",
        "line": command,
        "backbone": {"name": network.name, "digest": network.digest},
        "birds": {"photos": len(birds), "copied": COPIED, "sha256": birds.digest},
        "used": {"bits": duplicates.BITS, "tolerance": duplicates.TOLERANCE, "margin": duplicates.MARGIN},
        "versions": versions(),
        "pictures": {name: len(own) for name, own in others.items()},
        "hash": [_by_bits(bits, prints, chosen, changed, others) for bits in BITS],
        "features": _by_features(network, birds.names, birds.labels, pictures, chosen, watch),
    }


def _by_bits(
    bits: int,
    prints: Sequence[bytes],
    chosen: Sequence[int],
    changed: Mapping[str, Sequence[bytes]],
    others: Mapping[str, Sequence[bytes]],
) -> dict[str, Any]:
    """Count what a threshold of the hash finds, and what it takes for copies."""
    found = {}
    for name, copies in changed.items():
        hits = alike([*copies, *(prints[i] for i in chosen)], slice(0, len(copies)), bits)[:, len(copies) :]
        found[name] = round(float(np.diagonal(hits).mean()), 4)
    return {"bits": bits, "found": found, "wrong": {name: _pairs(own, bits) for name, own in others.items()}}


def _pairs(prints: Sequence[bytes], bits: int) -> int:
    """Count pairs that the hash takes for copies."""
    ones = range(0, len(prints), 512)
    hits = sum(int(alike(prints, slice(start, start + 512), bits).sum()) for start in ones)
    # A picture without a pattern is no copy even of itself.
    alone = sum(bool(alike([each, each], most=bits).all()) for each in prints)
    return (hits - alone) // 2


def _by_features(
    network: Any,
    names: Sequence[str],
    labels: npt.NDArray[np.int64],
    pictures: Sequence[Image],
    chosen: Sequence[int],
    watch: Watch,
) -> list[dict[str, Any]]:
    """Count the same of the backbone's thresholds, each copy beside all birds, under the label of its original."""
    embedder = make_embedder(network, "fcn", None, "none", "cpu")

    def vectors(shown: Sequence[Image]) -> npt.NDArray[np.float32]:
        images = [Shown(i, f"image {i}", None, pixels) for i, pixels in enumerate(shown)]
        (found,) = together(embedder(images, 16, Door("raise"), lambda image: image.place))
        own: npt.NDArray[np.float32] = rounded(found[1]).mean(1).numpy()
        return own

    watch.note("features of birds")
    whole = vectors(pictures)
    kept = [Photo.of(Shown(i, names[i], None, pixels), "") for i, pixels in enumerate(pictures)]
    measured = with_drifts(kept, embedder)
    drifts = [d for i in probes([photo.print for photo in kept]) if (d := measured[i].drift) is not None]
    copies = {}
    for name, change in SEEN_BY_FEATURES.items():
        watch.note(f"features of birds, {name}")
        copies[name] = vectors([change(pictures[i], names[i]) for i in chosen])
    rows = []
    for tolerance in TOLERANCES:
        for margin in MARGINS:
            apart = ~np.eye(len(whole), dtype=bool)
            wrong = int((_near(whole, labels, drifts, tolerance, margin) & apart).sum()) // 2
            found = {}
            for name, own in copies.items():
                both, marks = np.concatenate([whole, own]), np.concatenate([labels, labels[list(chosen)]])
                hits = _near(both, marks, drifts, tolerance, margin)
                found[name] = round(float(np.mean([hits[i, len(whole) + k] for k, i in enumerate(chosen)])), 4)
            rows.append({"tolerance": tolerance, "margin": margin, "found": found, "wrong": wrong})
    return rows


def _near(
    vectors: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    drifts: Sequence[float],
    tolerance: float,
    margin: float,
) -> npt.NDArray[np.bool_]:
    """Tell which pictures count as of one scene: (pictures, pictures)."""
    reach = reaches(vectors, labels, drifts, tolerance, margin)
    units = torch.nn.functional.normalize(torch.from_numpy(vectors), dim=1).numpy()
    found: npt.NDArray[np.bool_] = 1 - units @ units.T < np.minimum(reach[:, None], reach[None])
    return found
