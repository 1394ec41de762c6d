"""What the baselines share: the call of the contract, checked options, work in batches that fit the cache."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from otfew import checks
from otfew.method import MethodBase, check_episode, shot_mean
from otfew.scores.node_weights import NodeWeights, resolve_weights
from otfew.transport.precision import in_full_precision

# Elements of a batch's largest temporary. On a CPU, larger ones cost page faults that take as long as the arithmetic.
_CPU_ELEMENTS = 1 << 22
_DEVICE_ELEMENTS = 1 << 28


class Baseline(MethodBase, ABC):
    """A method of contract 2 that checks its input and then computes logits."""

    @in_full_precision
    def __call__(
        self,
        support: Tensor,
        query: Tensor,
        *,
        support_mask: Tensor | None = None,
        class_prior: Tensor | None = None,
    ) -> Tensor:
        """Score queries against classes; see ``otfew.method.FewShotMethod``. ``class_prior`` has no effect."""
        check_episode(support, query, support_mask)
        return self.logits(support, query, support_mask)

    def settled(self, support: Tensor, support_mask: Tensor | None) -> Callable[[Tensor], Tensor]:
        """Do once, for many queries, what depends on the labelled images alone; those that are fitted override.

        Args:
            support: (episodes, way, shot, nodes, channels), checked.
            support_mask: (episodes, way, shot) bool or None.

        Returns:
            From queries (episodes, n_query, nodes, channels) to the logits of ``logits``, bit for bit.
        """
        return lambda query: self.logits(support, query, support_mask)

    @abstractmethod
    def logits(self, support: Tensor, query: Tensor, support_mask: Tensor | None) -> Tensor:
        """Compute the logits of a checked batch of episodes.

        Args:
            support: (episodes, way, shot, nodes, channels), checked.
            query: (episodes, n_query, nodes, channels), checked.
            support_mask: (episodes, way, shot) bool or None.

        Returns:
            (episodes, n_query, way); larger is more similar.
        """


class MeanMapControl(Baseline):
    """A control without OT: each class is one node set, the location-wise mean over its shots, as for 0-step DeepEMD.

    Args:
        temperature: Scale of the logits; 12.5 as DeepEMD's.
    """

    def __init__(self, temperature: float = 12.5) -> None:
        self.temperature = checks.number(self.name, "temperature", temperature, above=0)

    def logits(self, support: Tensor, query: Tensor, support_mask: Tensor | None) -> Tensor:
        """Compute ``temperature * score``."""
        return self.temperature * self.score(shot_mean(support, support_mask), query)

    @abstractmethod
    def score(self, support_map: Tensor, query: Tensor) -> Tensor:
        """Compare queries with the classes' mean maps.

        Args:
            support_map: (episodes, way, nodes, channels).
            query: (episodes, n_query, nodes, channels).

        Returns:
            (episodes, n_query, way) similarities.
        """


class WeightedControl(MeanMapControl):
    """A control whose nodes count by the same weights as DeepEMD's.

    Args:
        temperature: Scale of the logits; 12.5 as DeepEMD's.
        weights: As of ``otfew.methods.DeepEMD``.
    """

    def __init__(self, temperature: float = 12.5, weights: str | NodeWeights = "cross_reference") -> None:
        super().__init__(temperature)
        self.weights = resolve_weights(weights, self.name)


def in_chunks(function: Callable[..., Tensor], elements: int, *tensors: Tensor) -> Tensor:
    """Apply a function of a batch of episodes to a few episodes at a time.

    Args:
        function: Maps tensors whose first axis is the episode to one tensor whose first axis is the episode.
        elements: Elements of its largest temporary for one episode.
        *tensors: (episodes, ...), its arguments.

    Returns:
        The concatenated results.
    """
    budget = _CPU_ELEMENTS if tensors[0].device.type == "cpu" else _DEVICE_ELEMENTS
    step = max(1, budget // max(1, elements))
    if step >= len(tensors[0]):
        return function(*tensors)
    return torch.cat([function(*parts) for parts in zip(*(torch.split(t, step) for t in tensors), strict=True)])
