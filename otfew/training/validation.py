"""How good a backbone is while it trains: the same few-shot episodes of the validation classes every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from otfew.backbones.base import Normalisation
from otfew.data.base import ImageSet
from otfew.devices import send
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.evaluation.run import Ready, evaluate
from otfew.features.extract import FeatureSet
from otfew.method import FewShotMethod
from otfew.nodes import Extractor
from otfew.runs import processes
from otfew.statistics.intervals import Z
from otfew.training.progress import Accuracy

MAX_QUERY = 15
BATCH = 256
"""Views that go through the backbone at once."""


@dataclass(frozen=True)
class Validation:
    """Fixed episodes over decoded images.

    Attributes:
        pixels: (images, views, 3, height, width) uint8.
        images: Where they come from.
        extractor: Kind of nodes.
        sampler: Of the episodes.
        episodes: How many.
        methods: From what is learned besides the backbone (option -> value) to methods by name, which are all scored on
            the same episodes.
        mean: Of each channel, subtracted.
        std: Of each channel, divided by.
    """

    pixels: Tensor
    images: ImageSet
    extractor: Extractor
    sampler: Sampler
    episodes: int
    methods: Callable[[Mapping[str, float]], Mapping[str, FewShotMethod]]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(
        self, backbone: nn.Module, device: torch.device, learned: Mapping[str, float] | None = None
    ) -> dict[str, Accuracy]:
        """Score a backbone in evaluation mode: mean accuracies by method; see ``accuracies``."""
        return {name: interval(each) for name, each in self.accuracies(backbone, device, learned).items()}

    def accuracies(
        self, backbone: nn.Module, device: torch.device, learned: Mapping[str, float] | None = None
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Score a backbone in evaluation mode, episode by episode.

        Args:
            backbone: From normalised images to maps (images, channels, h, w), on the device.
            device: Where it is.
            learned: What is learned besides, by option.

        Returns:
            By method: accuracies (episodes,) in percent, of the same episodes every time.
        """
        features = FeatureSet(self._nodes(backbone, device), self.images.labels, self.images.classes)
        ready = [
            Ready(name, method, features.pooled if method.pools else features)
            for name, method in self.methods(learned or {}).items()
        ]
        scores = evaluate(ready, self.sampler, self.episodes, device=device)
        return {name: 100 * score.accuracy for name, score in scores.items()}

    @torch.no_grad()
    def _nodes(self, backbone: nn.Module, device: torch.device) -> Tensor:
        """Extract the nodes of all images, shared out over processes: (images, nodes, channels).

        One process leaves them on the device, whose memory they need much less of than training does.
        """
        views = self.pixels.shape[1]
        here = processes.world()
        normalise = Normalisation(self.mean, self.std).to(device)
        batches = torch.split(self.pixels, max(1, BATCH // views))
        own = []
        for pixels in batches[here.rank :: here.size]:
            flat = normalise(send(pixels, device).flatten(0, 1))
            maps = backbone(flat.contiguous(memory_format=torch.channels_last)).float()
            nodes = self.extractor.nodes(maps.unflatten(0, (-1, views)))
            own.append(nodes if here.size == 1 else nodes.cpu())
        if here.size == 1:
            return torch.cat(own)
        everyones = processes.gather(own)
        return torch.cat([everyones[index % here.size][index // here.size] for index in range(len(batches))])


def interval(accuracies: npt.NDArray[np.float64]) -> Accuracy:
    """Average accuracies (episodes,) in percent, or differences of them, with a 95 % interval over episodes."""
    spread = float(accuracies.std(ddof=1)) if len(accuracies) > 1 else float("nan")
    return Accuracy(float(accuracies.mean()), Z * spread / float(np.sqrt(len(accuracies))))


def make_sampler(images: ImageSet, *, seed: int = 1, way: int = 5, shot: int = 1) -> Sampler:
    """Choose the episodes of a split: ``way``-way, ``shot``-shot, smaller where the split is small.

    Args:
        images: The split.
        seed: Of the episodes.
        way: Classes in an episode, if there are as many.
        shot: Labelled images of each class.

    Raises:
        UserError: The split has fewer than two classes, or a class with no image to spare for a query.
    """
    fewest = int(np.bincount(images.labels, minlength=len(images.classes)).min())
    protocol = Protocol(
        dataset=images.dataset,
        variant=images.variant,
        split=images.split,
        seed=seed,
        way=max(2, min(way, len(images.classes))),
        shot=shot,
        query=max(1, min(MAX_QUERY, fewest - shot)),
    )
    return Sampler(protocol, images.labels, images.classes)
