"""What metric learning is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from otfew.errors import UserError
from otfew.training.augmentation import Augmentation


@dataclass(frozen=True)
class Images:
    """The images of one modality in one split, decoded.

    Attributes:
        pixels: (items, 3, height, width) uint8, or (items, views, 3, height, width).
        labels: (items,) int64, from 0.
        mean: Of each channel, over the training images.
        std: Of each channel.
    """

    pixels: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Task:
    """What to learn.

    Attributes:
        train: One modality, or two: the gallery's, then the queries'.
        test: The same modalities, evaluated.
        classes: How many there are in train.
        resolution: Side of the images.
        same_things: With two modalities: item i of both shows one thing, and such pairs are neither trained on nor
            retrieved.
        shared_classes: Test has the classes of train, so that classifiers can be fitted on train and tested on test.
        augmentation: Of training images, or None.
        probe_images: Training items that classifiers are fitted on; None takes all.
        identity: What else identifies the run (data, architecture, loss); a state of another identity is not resumed.
        curve: The same modalities again, of items that are neither trained on nor tested and that choose nothing; empty
            for no curve.
        svc: Fit a support vector machine too, wherever classifiers are fitted.
    """

    train: tuple[Images, ...]
    test: tuple[Images, ...]
    classes: int
    resolution: int
    same_things: bool
    shared_classes: bool
    augmentation: Augmentation | None
    probe_images: int | None
    identity: dict[str, Any]
    curve: tuple[Images, ...] = ()
    svc: bool = False

    @property
    def exclude_self(self) -> bool:
        """Query i does not find item i of the gallery: it is that, or a picture of the same thing."""
        return len(self.test) == 1 or self.same_things


def check_training(images: Images, batch_size: int) -> None:
    """Refuse training images that make no batch, or no pair of two classes.

    Args:
        images: The (first) modality's training images.
        batch_size: Of each of the two batches.

    Raises:
        UserError: Too few of them, or one class only.
    """
    if len(images.labels) < 2 * batch_size:
        raise UserError(
            f"`batch_size` {batch_size} needs {2 * batch_size} training images for its two batches, and there are "
            f"{len(images.labels)}: lower it."
        )
    if len(torch.unique(images.labels)) < 2:
        raise UserError("the training images hold one class only: a metric needs two or more.")


def check_test(test: tuple[Images, ...], exclude_self: bool) -> None:
    """Refuse test images none of which has another to find.

    Args:
        test: One modality, or the gallery's and the queries'.
        exclude_self: Query i does not find item i of the gallery.

    Raises:
        UserError: Nothing can be retrieved.
    """
    if not findable(test, exclude_self):
        raise UserError("no test item has another of its class, so there is nothing to retrieve: give more of them.")


def findable(test: tuple[Images, ...], exclude_self: bool) -> bool:
    """Tell whether any item has another of its class to find; arguments as of ``check_test``."""
    queries, gallery = test[-1].labels, test[0].labels
    alike = gallery.bincount(minlength=int(queries.max()) + 1)[queries]
    return int(alike.max()) > exclude_self
