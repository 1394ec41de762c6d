"""Metric learning: the same batches and first weights for every loss, measured after each epoch, resumable."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from otfew.backbones.base import normalise
from otfew.errors import UserError
from otfew.pair_loss import Diagnostics, PairLoss
from otfew.training.augmentation import Augment, hashed
from otfew.training.checkpoint import load_state, save_state
from otfew.training.metric.batches import batches, partners
from otfew.training.metric.embedding import Space
from otfew.training.metric.evaluation import Embedded, evaluate, subset
from otfew.training.metric.task import Epoch, Part, Settings, Task, check_training
from otfew.training.restoring import require_alike, require_steady, restore_optimizer, restoring

State = dict[str, Any]
EMBED_AT_ONCE = 256


@dataclass
class _Progress:
    """Where a run stands: all that the state holds besides weights, momenta and history."""

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    diagnostics: Diagnostics = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class DivergedError(UserError):
    """Training has left the finite numbers."""


OnBatch = Callable[[int, int, int, float], None]
"""(epoch from 1, batch from 1, batches, loss)."""


def train(
    build_space: Callable[[], Space],
    build_loss: Callable[[], PairLoss],
    task: Task,
    settings: Settings,
    state_path: Path,
    on_batch: OnBatch | None = None,
    save_every: float = 60.0,
) -> tuple[Space, list[Epoch]]:
    """Train with one loss, or go on from ``state_path``.

    First weights are a function of the seed alone, batches of seed and epoch: runs with different losses see the same.
    A run that was killed and started again gives the same figures as one that was not, bit for bit on the same machine
    and thread count.

    With two modalities each step takes two batches of each and sums four losses: within either modality and across
    (first of the one with second of the other, and the other way round).

    Args:
        build_space: Makes the networks; must draw its weights from torch's generator only.
        build_loss: Makes the loss, likewise; its parameters are trained with the networks'.
        task: What to learn.
        settings: How.
        state_path: Where the state is kept; written every epoch and every ``save_every`` seconds.
        on_batch: Hears of each step.
        save_every: Seconds of work that a crash may cost at most, short of one batch.

    Returns:
        The networks, and all epochs.

    Raises:
        DivergedError: The loss or the embeddings are not finite any more.
        UserError: Too few images for a batch, one class only, a state of another run, or a batch that the loss refuses.
    """
    return _Run(build_space, build_loss, task, settings, state_path, on_batch, save_every)()


class _Run:
    """One call of ``train``."""

    def __init__(
        self,
        build_space: Callable[[], Space],
        build_loss: Callable[[], PairLoss],
        task: Task,
        settings: Settings,
        state_path: Path,
        on_batch: OnBatch | None,
        save_every: float,
    ) -> None:
        from lightning_fabric import Fabric

        self.task, self.settings, self.state_path = task, settings, state_path
        self.on_batch, self.save_every = on_batch, save_every
        check_training(task.train[0], settings.batch_size)
        self.batches = len(task.train[0].labels) // (2 * settings.batch_size)
        augmentation = None if task.augmentation is None else asdict(task.augmentation)
        self.fingerprint = json.dumps([asdict(settings), augmentation, task.identity], sort_keys=True)
        state = self._read_state()
        try:
            self.fabric: Any = Fabric(accelerator=settings.accelerator, devices=1, precision=settings.precision)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise UserError(f"--accelerator {settings.accelerator} can't be used here: {reason}.") from None
        self.device = self.fabric.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hashed(settings.seed))
            # Pooling is several times as fast with channels last.
            self.space = build_space().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            # Drawn apart, so that a loss with parameters leaves the networks' first weights alone.
            torch.manual_seed(hashed(settings.seed, 1))
            self.loss = build_loss().to(self.device)
        self.optimizer = torch.optim.SGD(
            [*self.space.parameters(), *self.loss.parameters()],
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.augment = None if task.augmentation is None else Augment(task.augmentation, task.resolution)
        self.progress = _Progress()
        self.history: list[Epoch] = []
        if state is not None:
            self._restore(state)

    def __call__(self) -> tuple[Space, list[Epoch]]:
        """Run the remaining epochs."""
        if not self.history:
            self._evaluate(epoch=0, loss=None, diagnostics={})
            self._save()
        self._warm_up()
        for epoch in range(self.progress.epoch, self.settings.epochs):
            self._epoch(epoch)
        return self.space, self.history

    def _warm_up(self) -> None:
        """Load and compile what the loss needs, so that it is not counted as time of training."""
        size = self.settings.batch_size
        labels = torch.arange(size, device=self.device) % 2
        with torch.random.fork_rng(devices=[]):
            first, second = torch.randn(2, size, self.space.channels, device=self.device)
            self.loss(first, labels, second, labels)

    def _epoch(self, epoch: int) -> None:
        """Train the rest of one epoch, evaluate, save."""
        progress, settings = self.progress, self.settings
        began = saved = time.monotonic()
        cpu_began = time.process_time()
        earlier, cpu_earlier = progress.seconds, progress.cpu_seconds
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * settings.decay**epoch
        stream = batches(self.task.train[0].labels, 2 * settings.batch_size, settings.seed, epoch, settings.per_class)
        self.space.train()
        for batch in range(progress.batch, self.batches):
            value = self._step(epoch, batch, stream[batch])
            now = time.monotonic()
            progress.seconds = earlier + now - began
            progress.cpu_seconds = cpu_earlier + time.process_time() - cpu_began
            if self.on_batch is not None:
                self.on_batch(epoch + 1, batch + 1, self.batches, value)
            if now - saved > self.save_every:
                self._save()
                saved = time.monotonic()
        diagnostics = {name: total / self.batches for name, total in progress.diagnostics.items()}
        self._evaluate(epoch + 1, progress.loss / self.batches, diagnostics)
        self.progress = _Progress(epoch=epoch + 1)
        self._save()

    def _step(self, epoch: int, batch: int, chosen: Tensor) -> float:
        """Do one step of the optimizer; returns the loss."""
        with torch.random.fork_rng(devices=[]):
            # Whatever a loss or a network draws is a function of the step as well.
            torch.manual_seed(hashed(self.settings.seed, epoch, batch, 2))
            try:
                loss, diagnostics = self._loss(epoch, batch, chosen)
            except UserError:
                raise
            except ValueError as error:
                raise UserError(
                    f"the loss refuses batch {batch + 1} of epoch {epoch + 1} ({error}): raise --batch-size, or give "
                    "--per-class."
                ) from error
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(f"the loss became {value} in epoch {epoch + 1}: lower the learning rate.")
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        progress = self.progress
        progress.batch = batch + 1
        progress.loss += value
        for name, figure in diagnostics.items():
            progress.diagnostics[name] = progress.diagnostics.get(name, 0.0) + figure
        return value

    def _loss(self, epoch: int, batch: int, chosen: Tensor) -> tuple[Tensor, Diagnostics]:
        """Compare the two halves of the batch, within and across modalities where there are two."""
        sides = [self._embedded(0, chosen, epoch, batch)]
        if len(self.task.train) == 2:
            first, second = self.task.train
            others = partners(
                chosen, first.labels, second.labels, self.settings.seed, epoch, batch, not self.task.same_things
            )
            sides.append(self._embedded(1, others, epoch, batch))
        size = self.settings.batch_size
        halves = [[(x[:size], y[:size]), (x[size:], y[size:])] for x, y in sides]
        # Within each modality, then first half of the one with second half of the other, both ways.
        pairs = [(i, j) for i in range(len(sides)) for j in range(len(sides))]
        results = [self.loss(*halves[i][0], *halves[j][1]) for i, j in pairs]
        diagnostics = {name: sum(found[name] for _, found in results) / len(results) for name in results[0][1]}
        return torch.stack([loss for loss, _ in results]).sum(), diagnostics

    def _embedded(self, modality: int, chosen: Tensor, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        part = self.task.train[modality]
        images = part.pixels[chosen].to(self.device).float() / 255
        if self.augment is not None:
            key = (self.settings.seed, epoch, batch, modality)
            images = self.augment(images.flatten(0, -4), *key).view(*images.shape[:-2], *[self.task.resolution] * 2)
        images = normalise(images.flatten(0, -4), part.mean, part.std).view(images.shape)
        with self.fabric.autocast():
            embeddings = self.space(images, modality).float()
        if not bool(embeddings.detach().isfinite().all()):
            raise DivergedError(f"embeddings left the finite numbers in epoch {epoch + 1}: lower the learning rate.")
        return embeddings, part.labels[chosen].to(self.device)

    @torch.inference_mode()
    def _embed(self, modality: int, part: Part, chosen: Tensor) -> Embedded:
        """Embed items in evaluation mode."""
        vectors = []
        # Objects of many views fill a batch sooner.
        step = max(1, EMBED_AT_ONCE // max(1, math.prod(part.pixels.shape[1:-3])))
        for some in torch.split(chosen, step):
            pixels = part.pixels[some].to(self.device)
            images = normalise(pixels.flatten(0, -4), part.mean, part.std).view(pixels.shape)
            vectors.append(self.space(images, modality).float().cpu())
        embeddings = torch.cat(vectors)
        if self.loss.normalised:
            embeddings = functional.normalize(embeddings, dim=1)
        return Embedded(embeddings, part.labels[chosen])

    def _evaluate(self, epoch: int, loss: float | None, diagnostics: Diagnostics) -> None:
        """Measure the embeddings and add to the history."""
        began = time.monotonic()
        self.space.eval()
        task, last = self.task, len(self.task.test) - 1
        tests = [self._embed(i, part, torch.arange(len(part.labels))) for i, part in enumerate(task.test)]
        probe = None
        if task.shared_classes:
            probe = self._embed(0, task.train[0], subset(len(task.train[0].labels), task.probe_images))
        if not all(bool(side.vectors.isfinite().all()) for side in tests):
            raise DivergedError(f"embeddings left the finite numbers in epoch {epoch}: lower the learning rate.")
        try:
            figures = evaluate(tests[last], tests[0], probe, exclude_self=last == 0 or task.same_things)
        except ValueError as error:
            raise UserError(f"the test images cannot be evaluated: {error}; give more of them.") from error
        spent = self.progress
        self.history.append(
            Epoch(epoch, loss, figures, diagnostics, spent.seconds, spent.cpu_seconds, time.monotonic() - began)
        )

    def _save(self) -> None:
        """Write the state."""
        save_state(self.state_path, self._state())

    def _state(self) -> State:
        """Return all that a run goes on from."""
        return {
            "fingerprint": self.fingerprint,
            "space": self.space.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "history": [asdict(record) for record in self.history],
        }

    def _read_state(self) -> State | None:
        """Read the state, if there is one of this very run."""
        state = load_state(self.state_path)
        if state is not None and state.get("fingerprint") != self.fingerprint:
            raise UserError(
                f"{self.state_path} belongs to a run with other settings or data: give another --output, or the same "
                "settings to resume it."
            )
        return state

    def _restore(self, state: State) -> None:
        """Go back to where the state was written."""
        with restoring(self.state_path):
            like = self._state()
            # A loss names its diagnostics with the first batch.
            like["progress"]["diagnostics"] = dict.fromkeys(state["progress"]["diagnostics"], 0.0)
            for name in like.keys() - {"optimizer"}:
                require_alike(state[name], like[name], name)
            self.space.load_state_dict(state["space"])
            self.loss.load_state_dict(state["loss"])
            restore_optimizer(self.optimizer, state["optimizer"])
            self.progress = _Progress(**state["progress"])
            self.history = [Epoch(**record) for record in state["history"]]
            recorded = [record.epoch for record in self.history]
            require_steady(recorded, 0, self.progress.epoch, self.progress.batch, self.batches)
