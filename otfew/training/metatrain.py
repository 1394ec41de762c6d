"""Meta-training: a backbone trained end to end on episodes, through a few-shot method's own logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from otfew.backbones.base import Normalisation
from otfew.devices import send
from otfew.evaluation.episodes import Sampler
from otfew.method import FewShotMethod
from otfew.nodes import Extractor
from otfew.training.ledger import Outcome
from otfew.training.loop import Forward, Part, divided, keep_statistics
from otfew.training.settings import MetatrainSettings
from otfew.training.views import Views

BuildMethod = Callable[[Mapping[str, float | Tensor]], FewShotMethod]
"""From the current values of what a method learns, by option, to the method."""


@dataclass(frozen=True)
class Task:
    """What to train on.

    Attributes:
        views: Of the training images.
        sampler: Of the training episodes.
        extractor: From maps to nodes.
        method: Makes the method from what it learns.
        learned: What the method learns besides the backbone: option -> first value.
        mean: Of each channel.
        std: Of each channel.
    """

    views: Views
    sampler: Sampler
    extractor: Extractor
    method: BuildMethod
    learned: Mapping[str, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Episodic(nn.Module):
    """A backbone beside what the method learns.

    Args:
        backbone: From images to maps.
        learned: Option -> first value.
    """

    def __init__(self, backbone: nn.Module, learned: Mapping[str, float]) -> None:
        super().__init__()
        self.backbone = backbone
        self.learned = nn.ParameterDict({name: torch.tensor(value) for name, value in learned.items()})

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Map images to maps, and hand out the learned values, so that a wrapper sees all that is used."""
        return self.backbone(images), dict(self.learned.items())


class EpisodeTraining:
    """Cross-entropy of the queries' logits over an episode's classes: an objective of ``otfew.training.loop``.

    A part is one episode. Training episode i is a function of the sampler's protocol, its augmentation of seed, epoch,
    step and part.

    Args:
        backbone: To go on with; it is changed.
        task: What to train on.
        settings: How.
        parts: Of a step, each one episode.

    Raises:
        UserError: An epoch's episodes can't be divided.
    """

    def __init__(self, backbone: nn.Module, task: Task, settings: MetatrainSettings, parts: int = 1) -> None:
        self.task, self.settings, self.network = task, settings, backbone
        self.steps = divided("episodes_per_epoch", settings.episodes_per_epoch, parts)
        self.module = Episodic(backbone, task.learned)
        self._normalise = Normalisation(task.mean, task.std)

    def learned(self) -> dict[str, float]:
        """Return the current values of what the method learns."""
        return {name: float(value.detach()) for name, value in self.module.learned.items()}

    def train(self) -> None:
        """Let batch normalisation use each episode's statistics, or not."""
        self.module.train()
        if self.settings.batchnorm == "frozen":
            keep_statistics(self.module)

    def outcome(self, forward: Forward, part: Part, device: torch.device) -> Outcome:
        """Compute an episode's loss, see ``otfew.training.loop.Objective``."""
        task = self.task
        number = (part.epoch * self.steps + part.step) * part.count + part.index
        episode = task.sampler(number, number + 1)
        support, query = torch.from_numpy(episode.support[0]), torch.from_numpy(episode.query[0])
        indices = torch.cat([support.flatten(), query.flatten()])
        views = task.views(indices, device, self.settings.seed, part.epoch, part.step, part.index)
        images = self._normalise.to(device)(views.flatten(0, 1)).contiguous(memory_format=torch.channels_last)
        maps, learned = forward(images)
        # Half precision is for the network: costs and plans want more.
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        nodes = task.extractor.nodes(maps.view(*views.shape[:2], *maps.shape[1:]))
        shots = nodes[: support.numel()].view(1, *support.shape, *nodes.shape[1:])
        logits = task.method(learned)(shots, nodes[None, support.numel() :])[0]
        labels = send(torch.arange(len(query)).repeat_interleave(query.shape[1]), device)
        loss = functional.cross_entropy(logits, labels)
        return Outcome(loss, (logits.detach().argmax(1) == labels).sum(), len(labels))
