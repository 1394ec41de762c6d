"""Pre-training: softmax over the base classes on globally averaged maps, on Lightning Fabric."""

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
from otfew.training.augmentation import Augment, Augmentation, hashed
from otfew.training.checkpoint import load_state, save_state
from otfew.training.schedule import Schedule, learning_rate
from otfew.training.validation import Validation

State = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How to train; the defaults are DeepEMD's (learning-rate schedule apart).

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images a step; an epoch's incomplete last batch is left out.
        learning_rate: Of the first step.
        momentum: Nesterov's.
        weight_decay: Of all parameters.
        schedule: "cosine" to zero, or "step".
        step_epochs: With "step": epochs between steps.
        step_factor: With "step": what the rate is multiplied by.
        seed: Of the initial weights, the order of images and the augmentation.
        precision: As Lightning Fabric names it.
        accelerator: "auto" takes a GPU where there is one.
    """

    epochs: int = 120
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    step_epochs: int = 30
    step_factor: float = 0.2
    seed: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "step_epochs", "step_factor"):
            value = getattr(self, name)
            if not value > 0 or not math.isfinite(value):
                raise UserError(f"--{name.replace('_', '-')} must be positive, not {value}.")
        if not 0 < self.momentum < 1:
            raise UserError(f"--momentum must lie between 0 and 1, not {self.momentum}.")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"--weight-decay must be at least 0, not {self.weight_decay}.")


@dataclass(frozen=True)
class Task:
    """What to train on.

    Attributes:
        pixels: (images, 3, height, width) uint8.
        labels: (images,) int64.
        classes: How many there are.
        resolution: Side of the augmented images.
        mean: Of each channel.
        std: Of each channel.
        augmentation: Of training images.
        identity: What else identifies the run (data, architecture); a state of another identity is not resumed.
    """

    pixels: Tensor
    labels: Tensor
    classes: int
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    identity: dict[str, Any]


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes:
        epoch: From 1.
        loss: Mean cross-entropy over its batches.
        train_accuracy: On the augmented images, in percent.
        val_accuracy: On the validation episodes, in percent.
        val_interval: Half-width of its 95 % interval.
        seconds: That it took, validation included.
    """

    epoch: int
    loss: float
    train_accuracy: float
    val_accuracy: float
    val_interval: float
    seconds: float


class Watcher:
    """Hears of a run's progress; does nothing by itself."""

    def on_resume(self, epochs: int, batches: int) -> None:
        """Go on after so many whole epochs and batches of the next."""

    def on_batch(self, epoch: int, batch: int, batches: int, loss: float) -> None:
        """Hear that one batch (from 1) of an epoch (from 1) is done."""

    def on_epoch(self, history: list[Epoch], best: dict[str, Tensor] | None) -> None:
        """Hear that one more epoch is done; ``best`` is the backbone's state where it is the best so far."""


class Classifier(nn.Module):
    """A backbone with a linear head on its globally averaged map.

    Args:
        backbone: From images to maps.
        channels: Of the maps.
        classes: Of the head.
    """

    def __init__(self, backbone: nn.Module, channels: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (images, 3, height, width) to logits (images, classes)."""
        logits: Tensor = self.head(self.backbone(images).mean((2, 3)))
        return logits


@dataclass
class _Progress:
    """Where a run stands: all that the state holds besides weights and momenta."""

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0


def pretrain(
    build: Callable[[], nn.Module],
    task: Task,
    validation: Validation,
    settings: Settings,
    state_path: Path,
    watcher: Watcher | None = None,
    save_every: float = 60.0,
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """Train, or go on from ``state_path``.

    The order of images and the augmentation are functions of seed, epoch and batch, so a run that was killed and
    started again gives the same weights as one that was not, bit for bit on the same machine and thread count.

    Args:
        build: Makes the backbone; must draw its weights from torch's generator only.
        task: What to train on.
        validation: Episodes that choose the epoch whose weights are kept: the best, the first of equals.
        settings: How to train.
        state_path: Where the state is kept; written every epoch and every ``save_every`` seconds.
        watcher: Hears of progress.
        save_every: Seconds of work that a crash may cost at most, short of one batch.

    Returns:
        The best backbone's state dictionary, on the CPU, and all epochs.

    Raises:
        UserError: Too few images for a batch, a state of another run, or a loss that is not finite.
    """
    return _Run(build, task, validation, settings, state_path, watcher or Watcher(), save_every)()


class _Run:
    """One call of ``pretrain``."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        task: Task,
        validation: Validation,
        settings: Settings,
        state_path: Path,
        watcher: Watcher,
        save_every: float,
    ) -> None:
        from lightning_fabric import Fabric

        self.task, self.validation, self.settings = task, validation, settings
        self.state_path, self.watcher, self.save_every = state_path, watcher, save_every
        self.batches = len(task.pixels) // settings.batch_size
        if self.batches == 0:
            raise UserError(
                f"--batch-size {settings.batch_size} is more than the {len(task.pixels)} training images: lower it."
            )
        self.fingerprint = json.dumps([asdict(settings), asdict(task.augmentation), task.identity], sort_keys=True)
        state = self._read_state()
        try:
            self.fabric: Any = Fabric(accelerator=settings.accelerator, devices=1, precision=settings.precision)
            self.fabric.launch()
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise UserError(f"--accelerator {settings.accelerator} can't be used here: {reason}.") from None
        self.classifier = self._build(build)
        self.optimizer = torch.optim.SGD(
            self.classifier.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=True,
            weight_decay=settings.weight_decay,
        )
        self.wrapped, self.wrapped_optimizer = self.fabric.setup(self.classifier, self.optimizer)
        self.augment = Augment(task.augmentation, task.resolution)
        self.progress = _Progress()
        self.history: list[Epoch] = []
        self.best: dict[str, Tensor] = {}
        if state is not None:
            self._restore(state)
            watcher.on_resume(self.progress.epoch, self.progress.batch)

    def __call__(self) -> tuple[dict[str, Tensor], list[Epoch]]:
        """Run the remaining epochs."""
        for epoch in range(self.progress.epoch, self.settings.epochs):
            self._epoch(epoch)
        return self.best, self.history

    def _build(self, build: Callable[[], nn.Module]) -> Classifier:
        """Draw the initial weights from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hashed(self.settings.seed))
            backbone = build()
            with torch.inference_mode():
                side = self.task.resolution
                channels = backbone.eval()(torch.zeros(1, 3, side, side)).shape[1]
            classifier = Classifier(backbone, channels, self.task.classes)
        return classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def _epoch(self, epoch: int) -> None:
        """Train the rest of one epoch, validate, keep the best, save."""
        progress = self.progress
        began = saved = time.monotonic()
        earlier = progress.seconds
        generator = torch.Generator().manual_seed(hashed(self.settings.seed, epoch))
        order = torch.randperm(len(self.task.pixels), generator=generator)
        self.wrapped.train()
        for batch in range(progress.batch, self.batches):
            start = batch * self.settings.batch_size
            loss = self._step(epoch, batch, order[start : start + self.settings.batch_size])
            self.watcher.on_batch(epoch + 1, batch + 1, self.batches, loss)
            now = time.monotonic()
            progress.seconds = earlier + now - began
            if now - saved > self.save_every:
                self._save()
                saved = time.monotonic()
        accuracy, interval = self.validation.accuracy(self._maps)
        record = Epoch(
            epoch=epoch + 1,
            loss=progress.loss / self.batches,
            train_accuracy=100 * progress.correct / (self.batches * self.settings.batch_size),
            val_accuracy=accuracy,
            val_interval=interval,
            seconds=earlier + time.monotonic() - began,
        )
        improved = all(accuracy > other.val_accuracy for other in self.history)
        if improved:
            self.best = {k: v.detach().cpu().clone() for k, v in self.classifier.backbone.state_dict().items()}
        self.history.append(record)
        self.progress = _Progress(epoch=epoch + 1)
        self._save()
        self.watcher.on_epoch(self.history, self.best if improved else None)

    def _step(self, epoch: int, batch: int, chosen: Tensor) -> float:
        """Do one step of the optimizer; returns the loss."""
        settings, task = self.settings, self.task
        rate = learning_rate(
            settings.schedule,
            settings.learning_rate,
            epoch,
            batch / self.batches,
            settings.epochs,
            settings.step_epochs,
            settings.step_factor,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images = task.pixels[chosen].to(self.fabric.device).float() / 255
        labels = task.labels[chosen].to(self.fabric.device)
        images = normalise(self.augment(images, settings.seed, epoch, batch), task.mean, task.std)
        logits = self.wrapped(images.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits, labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(f"the loss became {value} in epoch {epoch + 1}: lower --learning-rate.")
        self.wrapped_optimizer.zero_grad()
        self.fabric.backward(loss)
        self.wrapped_optimizer.step()
        self.progress.batch = batch + 1
        self.progress.loss += value
        self.progress.correct += int((logits.detach().argmax(1) == labels).sum())
        return value

    def _maps(self, pixels: Tensor) -> Tensor:
        """Compute maps of uint8 images, in evaluation mode."""
        backbone = self.classifier.backbone.eval()
        images = normalise(pixels.to(self.fabric.device), self.task.mean, self.task.std)
        with torch.inference_mode(), self.fabric.autocast():
            maps: Tensor = backbone(images.contiguous(memory_format=torch.channels_last))
        return maps

    def _save(self) -> None:
        """Write the state."""
        state = {
            "fingerprint": self.fingerprint,
            "classifier": self.classifier.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "history": [asdict(record) for record in self.history],
            "best": self.best,
        }
        save_state(self.state_path, state)

    def _read_state(self) -> State | None:
        """Read the state, if there is one of this very run."""
        state = load_state(self.state_path)
        if state is not None and state.get("fingerprint") != self.fingerprint:
            raise UserError(
                f"{self.state_path.parent} holds a run with other settings or data: give another --output, or the same "
                "settings to resume it."
            )
        return state

    def _restore(self, state: State) -> None:
        """Go back to where the state was written."""
        self.classifier.load_state_dict(state["classifier"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = _Progress(**state["progress"])
        self.history = [Epoch(**record) for record in state["history"]]
        self.best = state["best"]
