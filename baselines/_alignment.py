"""What the controls without transport share: the labelled images moved onto the queries by moments alone."""

from __future__ import annotations

from abc import abstractmethod
from typing import get_args

from torch import Tensor

from otfew import checks
from otfew.baselines._transductive import Prior, TransductiveBaseline
from otfew.method import global_vectors
from otfew.scores.domains import checked_head, two_domains

HEADS = ("mean", "logistic")


class Alignment(TransductiveBaseline):
    """A control of ``domain-transport``: the same vectors, masses and heads, without a plan.

    Options and errors stand at ``MeanAlignment``, the simplest of them.
    """

    partial_gradient = True

    def __init__(
        self,
        head: str = "mean",
        normalise: bool = True,
        temperature: float = 12.5,
        C: float = 1.0,
        class_prior: Prior = "uniform",
    ) -> None:
        self.head = checked_head(self.name, head, temperature, C, HEADS)
        self.normalise = checks.flag(self.name, "normalise", normalise)
        self.class_prior = checks.choice(self.name, "class_prior", class_prior, get_args(Prior))

    def transduce(
        self, support: Tensor, query: Tensor, support_mask: Tensor | None, class_prior: Tensor | None
    ) -> Tensor:
        """Align, then score the queries."""
        vectors = global_vectors(support), global_vectors(query)
        domains = two_domains(self.name, *vectors, support_mask, self.normalise)
        if class_prior is None:
            estimates = self.class_prior == "estimated"
            class_prior = domains.estimated(self.head.temperature) if estimates else domains.uniform()
        shots, queries = self.align(domains.shots.flatten(1, 2), domains.masses(class_prior), domains.queries)
        return self.head.logits(domains, shots, queries)

    @abstractmethod
    def align(self, shots: Tensor, masses: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Bring both domains together.

        Args:
            shots: (episodes, n, channels).
            masses: (episodes, n) of sum 1.
            queries: (episodes, m, channels), of equal masses.

        Returns:
            Shots and queries, of the same shapes.
        """
