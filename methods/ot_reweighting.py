"""OT re-weighting for long-tailed training: weights that bring the training set near to a balanced meta set.

Guo, Li, Zheng, Zhao, Zhou and Zha, "Learning to Re-weight Examples with Optimal Transport for Imbalanced
Classification", NeurIPS 2022. Here the weights are solved for on all cached features at once.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from otfew import checks
from otfew.errors import UserError
from otfew.methods._otrw_costs import (
    DIFFERENT,
    Cost,
    LabelDistance,
    check,
    feature_costs,
    label_costs,
    prototypes,
)
from otfew.methods._otrw_published import BATCH, EPOCHS, HEAD_LEARNING_RATE, META_COEFFICIENT, REG, PublishedSchedule
from otfew.methods._otrw_solve import Entropy, WeightNet, alternation, by_gradient, closed_form
from otfew.transport import Sinkhorn, solve

__all__ = [
    "BATCH",
    "EPOCHS",
    "HEAD_LEARNING_RATE",
    "META_COEFFICIENT",
    "Cost",
    "OTReweighting",
    "PublishedSchedule",
    "Reweighting",
    "prototypes",
]

Meta = Literal["prototypes", "whole"]
Parameters = Literal["vector", "net"]
Preset = Literal["converged", "published"]


@dataclass(frozen=True)
class Reweighting:
    """Weights of a training set (Guo et al. 2022), as ``OTReweighting.fit`` finds them.

    Attributes:
        weights: (samples,) float64, with total 1.
        cost: (meta points, samples) float64; None with the published preset, which has one a batch.
        reg: Regularisation.
        value: Regularised transport cost; NaN with the published preset.
        n_iter: Steps; 0 for the closed form.
        gap: How far ``value`` can be above the least over all weights; NaN with the published preset. A weight net
            cannot reach all weights, so its gap stays positive.
    """

    weights: Tensor
    cost: Tensor | None
    reg: float
    value: float
    n_iter: int
    gap: float

    def mean_one(self) -> Tensor:
        """Return the weights times their number: factors (samples,) float32 of the samples' losses."""
        return (self.weights * len(self.weights)).float()

    def plan(self, weights: Tensor | None = None) -> Tensor:
        """Solve for the plan at the learned weights, or at others.

        Args:
            weights: (samples,) of total 1; None takes the learned ones.

        Returns:
            (meta points, samples) float64.

        Raises:
            UserError: The weights are of the published preset, which has a plan for each batch only.
        """
        if self.cost is None:
            raise UserError("the published preset has a plan for each batch only.")
        meta = len(self.cost)
        solver = Sinkhorn(reg=self.reg, tol=1e-9, max_iter=10_000)
        given = self.weights if weights is None else weights.double()
        plan: Tensor = solve(self.cost, self.cost.new_full((meta,), 1 / meta), given, solver=solver).plan
        return plan


class OTReweighting:
    """Minimises over w the regularised transport cost between sum_i w_i delta(x_i, y_i) and a balanced meta set.

    The weights of Guo et al. (2022, "Learning to re-weight examples with optimal transport for imbalanced
    classification"), which act on the samples' losses; here they are solved for on all cached features at once.

    Args:
        cost: "label" (labels agree or not), "feature" (1 - cosine) or "combined" (the sum of both).
        label_distance: Between different labels: "zero-one" (1) or "euclidean" (that of one-hot vectors, sqrt 2).
        label_coefficient: Multiplies the label cost. Where it is not large beside ``reg``, classes are not balanced.
        feature_coefficient: Multiplies the feature cost.
        meta: "prototypes" (the mean feature of each class; give the features of mean images for pixel means) or
            "whole".
        reg: Regularisation, in units of the cost.
        entropy: "plan" or "product"; see ``otfew.methods._otrw_solve``.
        parameters: "vector" (a weight for each sample) or "net" (a small network of the features).
        hidden: Units of the net.
        tol: Where there is no closed form: what may be gained still (alternation, in units of the cost), or the
            gradient (net).
        max_iter: Most turns or steps.
        seed: Of the net's initial weights and, with the published preset, of the order of batches.
        preset: "converged", or "published": the released mini-batch schedule, which fixes all of the above but the
            seed (combined cost, one small step a batch).

    Raises:
        UserError: An option out of range, or without effect beside the published preset.

    Examples:
        >>> import torch
        >>> features, labels = torch.eye(3)[[0, 0, 0, 1]], torch.tensor([0, 0, 0, 1])
        >>> meta, meta_labels = torch.eye(3)[:2], torch.tensor([0, 1])
        >>> OTReweighting().fit(features, labels, meta, meta_labels).weights.round(decimals=2)
        tensor([0.1700, 0.1700, 0.1700, 0.5000], dtype=torch.float64)
    """

    name = "ot-reweighting"

    def __init__(
        self,
        cost: Cost = "combined",
        *,
        label_distance: LabelDistance = "zero-one",
        label_coefficient: float = 1.0,
        feature_coefficient: float = 1.0,
        meta: Meta = "prototypes",
        reg: float = 0.1,
        entropy: Entropy = "plan",
        parameters: Parameters = "vector",
        hidden: int = 100,
        tol: float = 1e-4,
        max_iter: int = 5000,
        seed: int = 0,
        preset: Preset = "converged",
    ) -> None:
        owner = type(self).__name__
        self.cost = checks.choice(owner, "cost", cost, get_args(Cost))
        self.label_distance = checks.choice(owner, "label_distance", label_distance, tuple(DIFFERENT))
        self.label_coefficient = checks.number(owner, "label_coefficient", label_coefficient, least=0)
        self.feature_coefficient = checks.number(owner, "feature_coefficient", feature_coefficient, least=0)
        self.meta = checks.choice(owner, "meta", meta, get_args(Meta))
        self.reg = checks.number(owner, "reg", reg, above=0)
        self.entropy = checks.choice(owner, "entropy", entropy, get_args(Entropy))
        self.parameters = checks.choice(owner, "parameters", parameters, get_args(Parameters))
        self.hidden = checks.whole(owner, "hidden", hidden)
        self.tol = checks.number(owner, "tol", tol, above=0)
        self.max_iter = checks.whole(owner, "max_iter", max_iter)
        self.seed = checks.seed(owner, "seed", seed)
        self.preset = checks.choice(owner, "preset", preset, get_args(Preset))
        if preset == "published":
            for name, parameter in inspect.signature(OTReweighting).parameters.items():
                if name not in {"preset", "seed"} and getattr(self, name) != parameter.default:
                    raise UserError(f"{owner}: `{name}` has no effect with `preset` 'published', which fixes it.")

    @classmethod
    def published(cls, *, seed: int = 0) -> OTReweighting:
        """Make what the released code computes: the preset "published".

        Args:
            seed: Of the order of batches.

        Returns:
            The re-weighting.

        Raises:
            UserError: A seed that is none.
        """
        return cls(preset="published", seed=seed)

    def costs(self, features: Tensor, labels: Tensor, meta_features: Tensor, meta_labels: Tensor) -> Tensor:
        """Compute the cost between meta points, as they are given, and samples.

        Args:
            features: (samples, channels) float.
            labels: (samples,) int64.
            meta_features: (meta points, channels) float.
            meta_labels: (meta points,) int64.

        Returns:
            (meta points, samples) float64.
        """
        parts = []
        if self.cost != "feature":
            parts.append(self.label_coefficient * label_costs(meta_labels, labels, self.label_distance))
        if self.cost != "label":
            parts.append(self.feature_coefficient * feature_costs(meta_features, features))
        return sum(parts[1:], parts[0])

    def fit(self, features: Tensor, labels: Tensor, meta_features: Tensor, meta_labels: Tensor) -> Reweighting:
        """Find the weights.

        Args:
            features: (samples, channels) float, of the training set.
            labels: (samples,) int64.
            meta_features: (meta, channels) float, balanced.
            meta_labels: (meta,) int64, of the same classes as ``labels``.

        Returns:
            Weights of total 1, and the costs that they rest on.

        Raises:
            UserError: Shapes or dtypes that do not fit, NaN or infinity, a class that one of the two sets lacks.
        """
        check(features, labels, meta_features, meta_labels)
        if self.preset == "published":
            return self._published(features, labels, meta_features, meta_labels)
        if self.meta == "prototypes":
            meta_features, meta_labels = prototypes(meta_features, meta_labels)
        cost = self.costs(features, labels, meta_features, meta_labels)
        if self.parameters == "vector" and self.entropy == "plan":
            found = closed_form(cost, self.reg)
        elif self.parameters == "vector":
            found = alternation(cost, self.reg, self.tol, self.max_iter)
        else:
            net = WeightNet(features, self.hidden, self.seed)
            found = by_gradient(cost, self.reg, self.entropy, net, [*net.parameters()], self.tol, self.max_iter)
        return Reweighting(found.weights, cost, self.reg, found.value, found.n_iter, found.gap)

    def schedule(
        self, features: Tensor, labels: Tensor, meta_features: Tensor, meta_labels: Tensor
    ) -> PublishedSchedule:
        """Return the published update, to be called with the samples of each batch as training visits them.

        Args:
            features: (samples, channels).
            labels: (samples,) int64.
            meta_features: (meta, channels): averaged by class first.
            meta_labels: (meta,) int64.

        Raises:
            UserError: As ``fit`` does.
        """
        check(features, labels, meta_features, meta_labels)
        protos, proto_labels = prototypes(meta_features, meta_labels)
        return PublishedSchedule(features, labels, protos.to(features.dtype), proto_labels)

    def _published(self, features: Tensor, labels: Tensor, meta_features: Tensor, meta_labels: Tensor) -> Reweighting:
        """Run the published schedule through all its epochs; the weights do not depend on the classifier."""
        schedule = self.schedule(features, labels, meta_features, meta_labels)
        generator = torch.Generator().manual_seed(self.seed)
        steps = 0
        for _ in range(EPOCHS):
            for index in torch.split(torch.randperm(len(features), generator=generator), BATCH):
                schedule(index.to(features.device))
                steps += 1
        weights = schedule.weights.double()
        return Reweighting(weights / weights.sum(), None, REG, math.nan, steps, math.nan)
