"""Training on long-tailed images: the first stage, and second stages of all layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from otfew.backbones.base import Normalisation
from otfew.devices import send
from otfew.random.keys import hashed
from otfew.training import loop
from otfew.training.ledger import Outcome
from otfew.training.long_tail.images import Images, Network, extract, shifted
from otfew.training.long_tail.losses import Objective, accuracy_of_classes, pooled_with
from otfew.training.long_tail.settings import Recipe
from otfew.training.loop import Duties, Forward, Part
from otfew.training.progress import Epoch, Watcher, read_number

ERROR = "error"
"""Name of the one figure of validation: wrong answers, in per cent."""
ACCURACY = "accuracy"
"""Name of the one figure of curves: right answers, in per cent, the mean over classes."""


def train_images(
    build: Callable[[], Network],
    images: Images,
    objective: Objective,
    recipe: Recipe,
    state_path: Path,
    identity: dict[str, Any],
    *,
    second_stage: bool = False,
    watcher: Watcher[float] | None = None,
    save_every: float = 60.0,
    folder: str = "output",
    code: str = "",
) -> tuple[dict[str, Tensor], list[Epoch[float]]]:
    """Train a network, or go on from ``state_path``.

    Args:
        build: Makes the network; must draw weights from torch's generator only.
        images: What to train on.
        objective: What is minimised. Of the meta set, each step takes as many images as a batch has.
        recipe: How.
        state_path: Where the state is kept; written every epoch and every ``save_every`` seconds.
        identity: What else identifies the run; a state of another identity is not resumed.
        second_stage: Keep the statistics of batch normalisation, and return the epoch of least validation error (the
            first of equals) instead of the last epoch.
        watcher: Hears of progress.
        save_every: Seconds of work that a crash may cost at most, short of one batch.
        folder: Argument of the caller that names the folder of the state; see ``loop.Duties``.
        code: Digest of the code; see ``loop.Duties``.

    Returns:
        The network's state dictionary, on the CPU, and all epochs; their validation is ``ERROR``, their curve
        ``ACCURACY``.

    Raises:
        DivergedError: A loss or gradient that is not finite.
        UserError: Too few images for a batch, or a state of another run.
        SystemExit: After SIGTERM, once the state is saved.
    """
    duties: Duties[float] = Duties(
        validate=partial(_validate, images, recipe.precision),
        read=read_number,
        score=least_error if second_stage else None,
        state_path=state_path,
        identity={**identity, "second_stage": second_stage},
        save_every=save_every,
        folder=folder,
        code=code,
        curve=None if images.curve is None else partial(_curve, images, recipe.precision),
    )
    return loop.run(
        lambda parts: LongTailTraining(build, images, objective, recipe, second_stage, parts), recipe, duties, watcher
    )


def least_error(record: Epoch[float]) -> float:
    """Score an epoch by its validation error."""
    return -record.validation[ERROR]


class LongTailTraining:
    """A weighted loss of training images beside one of meta images: an objective of ``otfew.training.loop``.

    The order of images and the augmentation are functions of seed, epoch and step; parts share a step's images.

    Args:
        build: Makes the network.
        images: What to train on.
        objective: What is minimised.
        recipe: How.
        second_stage: Keep the statistics of batch normalisation.
        parts: Of a step.

    Raises:
        UserError: Too few images for a batch, or batches that can't be divided.
    """

    def __init__(
        self,
        build: Callable[[], Network],
        images: Images,
        objective: Objective,
        recipe: Recipe,
        second_stage: bool,
        parts: int = 1,
    ) -> None:
        self.images, self.objective, self.recipe, self.second_stage = images, objective, recipe, second_stage
        sets = (images.train, images.train_labels, images.meta, images.meta_labels)
        self.pixels, self.labels = pooled_with(objective, sets)
        loop.divided("batch_size", recipe.batch_size, parts)
        self.steps = loop.batches_of(recipe.batch_size, len(self.pixels))
        self.metas = min(recipe.batch_size, len(images.meta))
        if objective.meta:
            loop.divided("meta", self.metas, parts)
        self.module = self.network = build()
        self._normalise = Normalisation(images.mean, images.std)
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))
        self._there: tuple[Objective, Tensor] | None = None

    def learned(self) -> dict[str, float]:
        """Return nothing: all that is learned is the network."""
        return {}

    def train(self) -> None:
        """Let batch normalisation use batches, or in a second stage the statistics that it has."""
        self.module.train()
        if self.second_stage:
            loop.keep_statistics(self.module)

    def outcome(self, forward: Forward, part: Part, device: torch.device) -> Outcome:
        """Compute a part's loss, see ``otfew.training.loop.Objective``."""
        objective, counts = self._moved(device)
        images, size = self.images, self.recipe.batch_size
        key = hashed(self.recipe.seed, part.epoch, part.step)
        loss = torch.zeros((), device=device)
        correct: int | Tensor = 0
        answers = 0
        if objective.train:
            batch = self._permutation(part.epoch)[part.step * size : (part.step + 1) * size]
            logits = self._logits(forward, self.pixels[batch], key, part, device)
            index = batch[part.of(size)]
            labels, done = send(self.labels[index], device), part.epoch / self.recipe.epochs
            # What updates weights as training goes keeps them where the training set is.
            place = index if objective.update is not None else send(index, device)
            loss = objective.train_loss(logits, labels, counts, place, done)
            if objective.summed:
                # Parts are averaged.
                loss = loss * part.count
            correct, answers = (logits.detach().argmax(1) == labels).sum(), len(labels)
        if objective.meta:
            chosen = torch.randperm(len(images.meta), generator=torch.Generator().manual_seed(key))[: self.metas]
            logits = self._logits(forward, images.meta[chosen], key + 1, part, device)
            labels = send(images.meta_labels[chosen[part.of(self.metas)]], device)
            loss = loss + objective.meta * functional.cross_entropy(logits, labels)
        return Outcome(loss, correct, answers)

    def _logits(self, forward: Forward, pixels: Tensor, key: int, part: Part, device: torch.device) -> Tensor:
        """Augment a whole batch, so that shifts are the same however it is shared out, and classify a part of it."""
        shares = shifted(send(pixels, device).float() / 255, self.images.flip, key)[part.of(len(pixels))]
        inputs = self._normalise.to(device)(shares)
        logits: Tensor = forward(inputs.contiguous(memory_format=torch.channels_last))
        return logits

    def _moved(self, device: torch.device) -> tuple[Objective, Tensor]:
        """Send what is known of all samples and classes to the device, once: the objective, and the classes' counts."""
        if self._there is None or self._there[1].device.type != device.type:
            weights = None if self.objective.weights is None else send(self.objective.weights, device)
            self._there = (replace(self.objective, weights=weights), send(self.images.counts, device))
        return self._there

    def _permutation(self, epoch: int) -> Tensor:
        """Draw the order of an epoch's images, once."""
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(hashed(self.recipe.seed, epoch))
            self._order = (epoch, self.objective.order(self.labels, generator))
        return self._order[1]


def _validate(
    images: Images, precision: str, network: Network, device: torch.device, _: Mapping[str, float]
) -> dict[str, float]:
    """Classify the validation images."""
    logits = _classified(images.validation, images, precision, network, device)
    return {ERROR: 100 * float((logits.argmax(-1) != images.validation_labels).double().mean())}


def _curve(
    images: Images, precision: str, network: Network, device: torch.device, _: Mapping[str, float]
) -> dict[str, float]:
    """Classify the images of the curve."""
    assert images.curve is not None
    assert images.curve_labels is not None
    logits = _classified(images.curve, images, precision, network, device)
    return {ACCURACY: accuracy_of_classes(logits, images.curve_labels)}


def _classified(pixels: Tensor, images: Images, precision: str, network: Network, device: torch.device) -> Tensor:
    """Compute logits on the CPU, in the precision of training."""
    dtype = torch.float16 if precision == "16-mixed" else torch.bfloat16
    with torch.autocast(device.type, dtype, enabled=precision != "32-true"):
        vectors = extract(network.backbone, pixels, images.mean, images.std, device)
        with torch.inference_mode():
            logits: Tensor = network.head(send(vectors, device)).cpu()
    return logits
