"""Metric learning: the same batches and first weights for every loss, measured after each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from otfew.backbones.base import Normalisation
from otfew.devices import send
from otfew.errors import UserError
from otfew.pair_loss import Diagnostics, PairLoss
from otfew.random.generators import begin
from otfew.random.keys import hashed
from otfew.training import loop
from otfew.training.augmentation import Augment
from otfew.training.ledger import Outcome
from otfew.training.loop import DivergedError, Duties, Forward, Part
from otfew.training.metric.batches import batches, partners
from otfew.training.metric.embedding import Space
from otfew.training.metric.evaluation import Embedded, evaluate, subset
from otfew.training.metric.settings import Settings
from otfew.training.metric.task import Images, Task, check_test, check_training
from otfew.training.progress import Epoch, Watcher, read_number

EMBED_AT_ONCE = 256
EMBEDDINGS = "embeddings"
"""Name of what must stay finite."""
MAP = "map"
"""Name of the figure of curves."""
Figure = float | None
"""A figure of ``otfew.training.metric.evaluation``."""


class Learner(nn.Module):
    """The networks beside the loss, whose parameters are trained with theirs.

    Args:
        space: The networks.
        loss: The loss.
    """

    def __init__(self, space: Space, loss: PairLoss) -> None:
        super().__init__()
        self.space = space
        self.loss = loss

    def forward(self, images: Tensor, modality: int = 0) -> Tensor:
        """Embed images of one modality; see ``Space``."""
        embeddings: Tensor = self.space(images, modality)
        return embeddings


def train(
    build_space: Callable[[], Space],
    build_loss: Callable[[], PairLoss],
    task: Task,
    settings: Settings,
    state_path: Path,
    watcher: Watcher[Figure] | None = None,
    save_every: float = 60.0,
    code: str = "",
) -> tuple[dict[str, Tensor], list[Epoch[Figure]]]:
    """Train with one loss, or go on from ``state_path``.

    First weights are a function of the seed alone, batches of seed and epoch: runs with different losses see the same.

    Args:
        build_space: Makes the networks; must draw its weights from torch's generator only.
        build_loss: Makes the loss, likewise; its parameters are trained with the networks'.
        task: What to learn.
        settings: How.
        state_path: Where the state is kept; written every epoch and every ``save_every`` seconds.
        watcher: Hears of progress.
        save_every: Seconds of work that a crash may cost at most, short of one batch.
        code: Digest of the code; see ``loop.Duties``.

    Returns:
        The state dictionary of the ``Learner`` after the last epoch, and all epochs, from 0; their validation is
        ``otfew.training.metric.evaluation.FIGURES``, their curve ``MAP`` in per cent.

    Raises:
        DivergedError: The loss or the embeddings are not finite any more.
        UserError: Too few images for a batch, one class only, a state of another run, or several processes.
        SystemExit: After SIGTERM, once the state is saved.
    """
    check_training(task.train[0], settings.batch_size)
    check_test(task.test, task.exclude_self)
    augmentation = None if task.augmentation is None else asdict(task.augmentation)
    duties: Duties[Figure] = Duties(
        validate=partial(_measure, task),
        read=lambda value: None if value is None else read_number(value),
        score=None,
        state_path=state_path,
        identity={"augmentation": augmentation, "task": task.identity},
        initial=True,
        save_every=save_every,
        code=code,
        curve=partial(_curve, task) if task.curve else None,
    )
    return loop.run(
        lambda parts: PairTraining(build_space, build_loss, task, settings, parts), settings, duties, watcher
    )


class PairTraining:
    """A loss of two batches of embeddings: an objective of ``otfew.training.loop``.

    With two modalities each step takes two batches of each and sums four losses: within either modality and across
    (first of the one with second of the other, and the other way round).

    Args:
        build_space: Makes the networks.
        build_loss: Makes the loss.
        task: What to learn.
        settings: How.
        parts: Of a step: one, since a loss of pairs is no mean over parts of a batch.

    Raises:
        UserError: More than one part.
    """

    def __init__(
        self,
        build_space: Callable[[], Space],
        build_loss: Callable[[], PairLoss],
        task: Task,
        settings: Settings,
        parts: int = 1,
    ) -> None:
        if parts != 1:
            raise UserError(f"a loss of pairs compares whole batches, which {parts} processes can't share: start one.")
        self.task, self.settings = task, settings
        self.steps = len(task.train[0].labels) // (2 * settings.batch_size)
        space = build_space()
        # Drawn apart, so that a loss with parameters leaves the networks' first weights alone.
        begin(hashed(settings.seed, 1))
        self.module = self.network = Learner(space, build_loss())
        self._augment = None if task.augmentation is None else Augment(task.augmentation, task.resolution)
        self._normalise = [Normalisation(modality.mean, modality.std) for modality in task.train]
        self._stream: tuple[int, Tensor] = (-1, torch.empty(0))
        self._warm = False

    def learned(self) -> dict[str, float]:
        """Return nothing: the loss is left behind."""
        return {}

    def train(self) -> None:
        """Let batch normalisation use batches.

        The first time, load and compile what the loss needs, so that it is not counted as time of training.
        """
        self.module.train()
        if not self._warm:
            self._warm, size = True, self.settings.batch_size
            device = next(self.module.parameters()).device
            labels = torch.arange(size, device=device) % 2
            first, second = send(torch.randn(2, size, self.module.space.channels), device)
            self.module.loss(first, labels, second, labels)

    def outcome(self, forward: Forward, part: Part, device: torch.device) -> Outcome:
        """Compute a step's loss, see ``otfew.training.loop.Objective``."""
        task, seed, epoch, step = self.task, self.settings.seed, part.epoch, part.step
        # Whatever a loss or a network draws is a function of the step.
        begin(hashed(seed, epoch, step, 2), device)
        chosen = self._batches(epoch)[step]
        sides = [self._embedded(forward, 0, chosen, part, device)]
        if len(task.train) == 2:
            first, second = task.train
            others = partners(chosen, first.labels, second.labels, seed, epoch, step, not task.same_things)
            sides.append(self._embedded(forward, 1, others, part, device))
        finite = torch.stack([x.detach().isfinite().all() for x, _ in sides]).all()
        size = self.settings.batch_size
        halves = [[(x[:size], y[:size]), (x[size:], y[size:])] for x, y in sides]
        # Within each modality, then first half of the one with second half of the other, both ways.
        pairs = [(i, j) for i in range(len(sides)) for j in range(len(sides))]
        results: list[tuple[Tensor, Diagnostics]] = []
        try:
            for i, j in pairs:
                results.append(self.module.loss(*halves[i][0], *halves[j][1]))
        except Exception:
            # Not asked before: the answer would have to be waited for.
            if not bool(finite):
                place = f"epoch {epoch + 1}, step {step + 1} of {self.steps}"
                raise DivergedError(f"{EMBEDDINGS} left the finite numbers in {place}") from None
            raise
        diagnostics: Diagnostics = {
            name: sum(found[name] for _, found in results) / len(results) for name in results[0][1]
        }
        loss = torch.stack([loss for loss, _ in results]).sum()
        return Outcome(loss, diagnostics=diagnostics, finite={EMBEDDINGS: finite})

    def _batches(self, epoch: int) -> Tensor:
        """Draw the batches of an epoch, once."""
        if self._stream[0] != epoch:
            labels, s = self.task.train[0].labels, self.settings
            self._stream = (epoch, batches(labels, 2 * s.batch_size, s.seed, epoch, s.per_class))
        return self._stream[1]

    def _embedded(
        self, forward: Forward, modality: int, chosen: Tensor, part: Part, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Augment and embed items; with their labels."""
        source = self.task.train[modality]
        images = send(source.pixels[chosen], device).float() / 255
        if self._augment is not None:
            key = (self.settings.seed, part.epoch, part.step, modality)
            images = self._augment(images.flatten(0, -4), *key).view(*images.shape[:-2], *[self.task.resolution] * 2)
        images = self._normalise[modality].to(device)(images.flatten(0, -4)).view(images.shape)
        embeddings: Tensor = forward(images, modality).float()
        return embeddings, send(source.labels[chosen], device)


def _measure(task: Task, learner: Learner, device: torch.device, _: Mapping[str, float]) -> dict[str, Figure]:
    """Measure the embeddings of the test images."""
    queries, gallery = _retrieved(task.test, learner, device)
    probe = None
    if task.shared_classes:
        first = task.train[0]
        probe = embed(learner, 0, first, subset(len(first.labels), task.probe_images), device)
    return evaluate(queries, gallery, probe, exclude_self=task.exclude_self, svc=task.svc)


def _curve(task: Task, learner: Learner, device: torch.device, _: Mapping[str, float]) -> dict[str, float]:
    """Measure mAP among the curve's items, in per cent."""
    queries, gallery = _retrieved(task.curve, learner, device)
    found = evaluate(queries, gallery, None, exclude_self=task.exclude_self)[MAP]
    assert found is not None
    return {MAP: 100 * found}


def _retrieved(modalities: tuple[Images, ...], learner: Learner, device: torch.device) -> tuple[Embedded, Embedded]:
    """Embed queries and gallery: the last and the first modality."""
    sides = [embed(learner, i, part, torch.arange(len(part.labels)), device) for i, part in enumerate(modalities)]
    if not all(bool(side.vectors.isfinite().all()) for side in sides):
        raise DivergedError("embeddings of the test images left the finite numbers")
    return sides[-1], sides[0]


@torch.inference_mode()
def embed(learner: Learner, modality: int, images: Images, chosen: Tensor, device: torch.device) -> Embedded:
    """Embed items in evaluation mode.

    Args:
        learner: Networks and loss; embeddings are divided by their norms where the loss compares them so.
        modality: Whose network.
        images: Decoded.
        chosen: Indices of the items.
        device: Where the networks are.
    """
    vectors = []
    normalise = Normalisation(images.mean, images.std).to(device)
    # Objects of many views fill a batch sooner.
    step = max(1, EMBED_AT_ONCE // max(1, math.prod(images.pixels.shape[1:-3])))
    for some in torch.split(chosen, step):
        pixels = send(images.pixels[some], device)
        inputs = normalise(pixels.flatten(0, -4)).view(pixels.shape)
        vectors.append(learner.space(inputs, modality).float())
    embeddings = torch.cat(vectors).cpu()
    if learner.loss.normalised:
        embeddings = functional.normalize(embeddings, dim=1)
    return Embedded(embeddings, images.labels[chosen])
