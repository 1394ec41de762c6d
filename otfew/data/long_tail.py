"""Long-tailed subsets of balanced data, with a balanced meta set and a balanced validation split beside them.

The construction of Cui et al. (2019) in the variant of Guo et al. (2022, code), which is that of MetaSAug (Li et al.
2021): the meta images are taken first, then class k of K keeps floor(n_max * (1 / factor)^(k / (K - 1))) of the rest.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from otfew.data.base import ImageSet
from otfew.errors import UserError

Indices = npt.NDArray[np.int64]

META_SEED = 6
"""Draws the meta images in the published code."""
SUBSET_SEED = 42
"""Draws the long-tailed subset in the published code."""
FACTORS = (200, 100, 50, 20)
"""Published imbalance factors."""


@dataclass(frozen=True)
class Draw:
    """Disjoint parts of a labelled set, as sorted row numbers.

    Attributes:
        train: The long-tailed subset.
        meta: Balanced: equally many of each class.
        validation: Balanced.
        curve: What the others leave unused, at most so many of each class; of the largest classes often none.
        counts: (classes,) training images of each class.
    """

    train: Indices
    meta: Indices
    validation: Indices
    curve: Indices
    counts: Indices


def class_sizes(available: Sequence[int], factor: float) -> list[int]:
    """Compute how many images each class keeps.

    The largest classes come first (equal ones in the order of labels) and keep most: the class of rank k keeps
    floor(n_max * (1 / factor)^(k / (K - 1))), where n_max is the largest number for which every class has enough.

    Args:
        available: Images of each class.
        factor: Largest class over smallest, before rounding down.

    Raises:
        UserError: The factor is below 1 or not finite, or leaves a class without an image.
    """
    if not (math.isfinite(factor) and factor >= 1):
        raise UserError(f"the imbalance factor must be a finite number of at least 1, not {factor}.")
    ranked = sorted(range(len(available)), key=lambda label: -available[label])
    shares = [(1 / factor) ** (rank / max(1, len(ranked) - 1)) for rank in range(len(ranked))]
    # A class keeps at most what it has: floor(n_max * share) <= n for n_max < (n + 1) / share.
    most = min(math.ceil((available[label] + 1) / share) - 1 for label, share in zip(ranked, shares, strict=True))
    sizes = [0] * len(available)
    for label, share in zip(ranked, shares, strict=True):
        # The minimum guards against what rounding does to (n + 1) / share.
        sizes[label] = min(int(most * share), available[label])
    if min(sizes) < 1:
        raise UserError(
            f"an imbalance factor of {factor:g} leaves a class without a training image (the largest keeps {most}): "
            "lower it, or take fewer meta images."
        )
    return sizes


def draw(
    labels: Indices,
    classes: Sequence[str],
    factor: float,
    *,
    meta: int = 10,
    validation: int = 10,
    curve: int = 0,
    meta_seed: int = META_SEED,
    subset_seed: int = SUBSET_SEED,
) -> Draw:
    """Draw the meta set, then the long-tailed subset, with the published generators; then the validation split.

    Validation images come from what the subset leaves unused. Where a class has too little left (the largest one) it
    gives up training images; all else is the published subset. Without validation images it is exactly that.

    Args:
        labels: (images,) class of each, an index into ``classes``.
        classes: Names, for messages.
        factor: Imbalance, at least 1.
        meta: Meta images a class.
        validation: Validation images a class.
        curve: Most images a class of those that are left then; they change none of the other parts.
        meta_seed: Of the meta set.
        subset_seed: Of the subset.

    Raises:
        UserError: A factor below 1, a class without images, or more images asked of a class than it has.
    """
    members = [np.flatnonzero(labels == label).tolist() for label in range(len(classes))]
    _check(members, classes, meta, validation, curve)
    # The published draws are shuffles by these very generators.
    first, second = np.random.RandomState(meta_seed), random.Random(subset_seed)
    for rows in members:
        first.shuffle(rows)
    sizes = class_sizes([len(rows) - meta for rows in members], factor)
    parts: dict[str, list[int]] = {"train": [], "meta": [], "validation": [], "curve": []}
    counts = []
    for rows, wanted, name in zip(members, sizes, classes, strict=True):
        rest = sorted(rows[meta:])
        second.shuffle(rest)
        held = len(rest) - validation
        size = min(wanted, held)
        if size < 1:
            raise UserError(
                f"class {name!r} has {len(rows)} images, too few for {meta} meta, {validation} validation and at least "
                "1 training image: take fewer."
            )
        parts["meta"] += rows[:meta]
        parts["train"] += rest[:size]
        parts["validation"] += rest[held:]
        parts["curve"] += rest[size:held][:curve]
        counts.append(size)
    drawn = {name: np.array(sorted(part), dtype=np.int64) for name, part in parts.items()}
    return Draw(**drawn, counts=np.array(counts, dtype=np.int64))


def subset(images: ImageSet, rows: Indices, variant: str) -> ImageSet:
    """Restrict a set to some of its rows, all classes kept.

    Args:
        images: The whole.
        rows: (kept,) row numbers, in the order of the result.
        variant: Says which part this is.
    """
    chosen = rows.tolist()
    names = tuple(images.names[row] for row in chosen)
    digest = hashlib.sha256(f"{images.fingerprint}\n".encode() + rows.tobytes())
    return replace(
        images,
        variant=variant,
        labels=images.labels[rows],
        names=names,
        read=_Chosen(images.read, tuple(chosen)),
        fingerprint=digest.hexdigest(),
    )


@dataclass(frozen=True)
class _Chosen:
    """Decodes image i of a part; pickles, as readers must."""

    read: Callable[[int], npt.NDArray[np.uint8]]
    rows: tuple[int, ...]

    def __call__(self, index: int) -> npt.NDArray[np.uint8]:
        """Image ``index`` of the part."""
        return self.read(self.rows[index])


def _check(members: list[list[int]], classes: Sequence[str], meta: int, validation: int, curve: int) -> None:
    """Refuse what cannot be drawn."""
    if meta < 1:
        raise UserError(f"at least 1 meta image a class is needed, not {meta}.")
    for what, count in (("validation", validation), ("curve", curve)):
        if count < 0:
            raise UserError(f"the number of {what} images a class must be at least 0, not {count}.")
    if len(classes) < 2:
        raise UserError(f"a long-tailed set needs at least 2 classes, not {len(classes)}.")
    for rows, name in zip(members, classes, strict=True):
        if not rows:
            raise UserError(f"class {name!r} has no images, so neither training nor meta images: leave it out.")
        if len(rows) <= meta:
            raise UserError(
                f"{meta} meta images a class are asked, but class {name!r} has {len(rows)} images and must keep 1 for "
                "training: ask fewer."
            )
