"""Training on long-tailed images with Lightning Fabric: the first stage, and second stages of all layers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from otfew.backbones.base import normalise
from otfew.errors import UserError
from otfew.training.augmentation import hashed
from otfew.training.checkpoint import load_state, save_state
from otfew.training.long_tail.images import Images, Network, extract, shifted
from otfew.training.long_tail.losses import Objective, pooled_with
from otfew.training.restoring import require_alike, require_steady, restore_optimizer, restoring

State = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults are the published first stage (Li et al. 2021, on which the released code builds).

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images a step; an epoch's incomplete last batch is left out.
        learning_rate: Of the first step.
        momentum: Nesterov's.
        weight_decay: Of all parameters.
        milestones: Shares of the epochs at which the rate is multiplied by ``decay``: 160 and 180 of 200.
        decay: See ``milestones``.
        seed: Of the initial weights, the order of images and the augmentation.
        precision: As Lightning Fabric names it.
        accelerator: "auto" takes a GPU where there is one.
    """

    epochs: int = 200
    batch_size: int = 100
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    milestones: tuple[float, ...] = (0.8, 0.9)
    decay: float = 0.01
    seed: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"--{name.replace('_', '-')} must be positive, not {value}.")
        if not 0 < self.momentum < 1:
            raise UserError(f"--momentum must lie between 0 and 1, not {self.momentum}.")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"--weight-decay must be at least 0, not {self.weight_decay}.")
        if not all(0 < share <= 1 for share in self.milestones):
            raise UserError(f"--milestones are shares of the epochs, in (0, 1], not {self.milestones}.")

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch (from 0)."""
        passed = sum(epoch >= round(share * self.epochs) for share in self.milestones)
        return self.learning_rate * self.decay**passed


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        epoch: From 1.
        loss: Mean over its batches.
        validation_error: In per cent.
        seconds: That it took, validation included.
    """

    epoch: int
    loss: float
    validation_error: float
    seconds: float


class Watcher:
    """Hears of a run's progress; does nothing by itself."""

    def on_resume(self, epochs: int, batches: int) -> None:
        """Go on after so many whole epochs and batches of the next."""

    def on_batch(self, epoch: int, batch: int, batches: int, loss: float) -> None:
        """Hear that one batch (from 1) of an epoch (from 1) is done."""

    def on_epoch(self, record: Epoch) -> None:
        """Hear that one more epoch is done."""


def train_images(
    build: Callable[[], Network],
    images: Images,
    objective: Objective,
    recipe: Recipe,
    state_path: Path,
    identity: dict[str, Any],
    *,
    second_stage: bool = False,
    watcher: Watcher | None = None,
    save_every: float = 60.0,
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """Train a network, or go on from ``state_path``.

    The order of images and the augmentation are functions of seed, epoch and batch, so a run that was killed and
    started again gives the same weights as one that was not, bit for bit on the same machine and thread count.

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

    Returns:
        The network's state dictionary, on the CPU, and all epochs.

    Raises:
        UserError: Too few images for a batch, a state of another run, or a loss that is not finite.
    """
    run = _Run(build, images, objective, recipe, state_path, identity, second_stage, watcher or Watcher(), save_every)
    return run()


@dataclass
class _Progress:
    """Where a run stands: all that the state holds besides weights and momenta."""

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    seconds: float = 0.0


class _Run:
    """One call of ``train_images``."""

    def __init__(
        self,
        build: Callable[[], Network],
        images: Images,
        objective: Objective,
        recipe: Recipe,
        state_path: Path,
        identity: dict[str, Any],
        second_stage: bool,
        watcher: Watcher,
        save_every: float,
    ) -> None:
        from lightning_fabric import Fabric

        self.images, self.objective, self.recipe = images, objective, recipe
        self.state_path, self.second_stage = state_path, second_stage
        self.watcher, self.save_every = watcher, save_every
        sets = (images.train, images.train_labels, images.meta, images.meta_labels)
        self.pixels, self.labels = pooled_with(objective, sets)
        self.batches = len(self.pixels) // recipe.batch_size
        if self.batches == 0:
            raise UserError(f"--batch-size {recipe.batch_size} is more than the {len(self.pixels)} training images.")
        self.fingerprint = json.dumps([asdict(recipe), identity, second_stage], sort_keys=True)
        state = load_state(state_path)
        if state is not None and state.get("fingerprint") != self.fingerprint:
            raise UserError(
                f"{state_path.parent} holds a training with other settings or data: give another folder, or the same "
                "settings to resume it."
            )
        try:
            self.fabric: Any = Fabric(accelerator=recipe.accelerator, devices=1, precision=recipe.precision)
            self.fabric.launch()
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise UserError(f"--accelerator {recipe.accelerator} can't be used here: {reason}.") from None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hashed(recipe.seed))
            network = build()
        self.network: Network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=True,
            weight_decay=recipe.weight_decay,
        )
        self.wrapped, self.wrapped_optimizer = self.fabric.setup(self.network, self.optimizer)
        self.progress = _Progress()
        self.history: list[Epoch] = []
        self.kept: dict[str, Tensor] = {}
        if state is not None:
            self._restore(state)
            watcher.on_resume(self.progress.epoch, self.progress.batch)

    def __call__(self) -> tuple[dict[str, Tensor], list[Epoch]]:
        """Run the remaining epochs."""
        for epoch in range(self.progress.epoch, self.recipe.epochs):
            self._epoch(epoch)
        return self.kept, self.history

    def _epoch(self, epoch: int) -> None:
        """Train the rest of one epoch, validate, keep, save."""
        progress = self.progress
        began = saved = time.monotonic()
        earlier = progress.seconds
        generator = torch.Generator().manual_seed(hashed(self.recipe.seed, epoch))
        order = self.objective.order(self.labels, generator)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(epoch)
        self.wrapped.train()
        if self.second_stage:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        for batch in range(progress.batch, self.batches):
            start = batch * self.recipe.batch_size
            loss = self._step(epoch, batch, order[start : start + self.recipe.batch_size])
            self.watcher.on_batch(epoch + 1, batch + 1, self.batches, loss)
            now = time.monotonic()
            progress.seconds = earlier + now - began
            if now - saved > self.save_every:
                self._save()
                saved = time.monotonic()
        error = self._validation_error()
        if not self.second_stage or all(error < record.validation_error for record in self.history):
            self.kept = {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}
        seconds = earlier + time.monotonic() - began
        self.history.append(Epoch(epoch + 1, progress.loss / self.batches, error, seconds))
        self.progress = _Progress(epoch=epoch + 1)
        self._save()
        self.watcher.on_epoch(self.history[-1])

    def _step(self, epoch: int, batch: int, index: Tensor) -> float:
        """Do one step of the optimizer; returns the loss."""
        objective, key = self.objective, hashed(self.recipe.seed, epoch, batch)
        loss: Tensor = torch.zeros((), device=self.fabric.device)
        if objective.train:
            logits = self._logits(self.pixels[index], key)
            labels = self.labels[index].to(self.fabric.device)
            done = epoch / self.recipe.epochs
            counts = self.images.counts.to(self.fabric.device)
            loss = objective.train_loss(logits, labels, counts, index, done)
        if objective.meta:
            count = min(self.recipe.batch_size, len(self.images.meta))
            chosen = torch.randperm(len(self.images.meta), generator=torch.Generator().manual_seed(key))[:count]
            logits = self._logits(self.images.meta[chosen], key + 1)
            labels = self.images.meta_labels[chosen].to(self.fabric.device)
            loss = loss + objective.meta * functional.cross_entropy(logits, labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(f"the loss became {value} in epoch {epoch + 1}: lower --learning-rate.")
        self.wrapped_optimizer.zero_grad()
        self.fabric.backward(loss)
        self.wrapped_optimizer.step()
        self.progress.batch = batch + 1
        self.progress.loss += value
        return value

    def _logits(self, pixels: Tensor, key: int) -> Tensor:
        """Augment and classify."""
        images = shifted(pixels.float() / 255, self.images.flip, key).to(self.fabric.device)
        images = normalise(images, self.images.mean, self.images.std)
        logits: Tensor = self.wrapped(images.contiguous(memory_format=torch.channels_last))
        return logits

    def _validation_error(self) -> float:
        """Classify the validation images, in evaluation mode."""
        images = self.images
        self.network.eval()
        with self.fabric.autocast():
            vectors = extract(self.network.backbone, images.validation, images.mean, images.std, self.fabric.device)
            with torch.inference_mode():
                logits = self.network.head(vectors.to(self.fabric.device)).cpu()
        return 100 * float((logits.argmax(-1) != images.validation_labels).double().mean())

    def _save(self) -> None:
        """Write the state."""
        save_state(self.state_path, self._state())

    def _state(self) -> State:
        """Return all that a training goes on from."""
        return {
            "fingerprint": self.fingerprint,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "history": [asdict(record) for record in self.history],
            "kept": self.kept,
        }

    def _restore(self, state: State) -> None:
        """Go back to where the state was written."""
        with restoring(self.state_path):
            like = self._state()
            weights = {name: tensor.detach().cpu() for name, tensor in self.network.state_dict().items()}
            like["kept"] = weights if state["history"] else {}
            for name in like.keys() - {"optimizer"}:
                require_alike(state[name], like[name], name)
            self.network.load_state_dict(state["network"])
            restore_optimizer(self.optimizer, state["optimizer"])
            self.progress = _Progress(**state["progress"])
            self.history = [Epoch(**record) for record in state["history"]]
            self.kept = state["kept"]
            recorded = [record.epoch for record in self.history]
            require_steady(recorded, 1, self.progress.epoch, self.progress.batch, self.batches)
            if not all(isinstance(record.validation_error, float) for record in self.history):
                raise ValueError("a validation error is no number")
