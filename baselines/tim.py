"""TIM: transductive information maximisation."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from otfew import checks
from otfew.baselines._information import Objective, maximise
from otfew.baselines._shots import shot_vectors, shot_weights
from otfew.baselines._transductive import Prior, TransductiveBaseline
from otfew.baselines.protonet import negative_squared_distances
from otfew.method import global_vectors
from otfew.scores.cosine import unit


class InformationMaximisation(TransductiveBaseline):
    """What TIM and alpha-TIM share; see them.

    Args:
        temperature: T.
        support_weight: Weight of the support's cross-entropy.
        marginal_weight: Weight of the entropy of the mean prediction.
        conditional_weight: Weight of the mean entropy of a prediction.
        lr: Adam's step size.
        n_steps: Adam's steps.
        class_prior: "uniform" or "estimated".

    Raises:
        UserError: An option out of range.
    """

    frozen = True

    def __init__(
        self,
        temperature: float,
        support_weight: float,
        marginal_weight: float,
        conditional_weight: float,
        lr: float,
        n_steps: int,
        class_prior: Prior,
    ) -> None:
        self.objective = Objective(
            checks.number(self.name, "temperature", temperature, above=0),
            checks.number(self.name, "support_weight", support_weight, least=0),
            checks.number(self.name, "marginal_weight", marginal_weight, least=0),
            checks.number(self.name, "conditional_weight", conditional_weight, least=0),
        )
        self.lr = checks.number(self.name, "lr", lr, above=0)
        self.n_steps = checks.whole(self.name, "n_steps", n_steps)
        self.class_prior = checks.choice(self.name, "class_prior", class_prior, get_args(Prior))

    def alphas(self, support: Tensor, support_mask: Tensor | None) -> Tensor:
        """Choose the order of each episode's entropies; 1 is Shannon's.

        Args:
            support: (episodes, way, shot, nodes, channels).
            support_mask: (episodes, way, shot) bool or None.

        Returns:
            (episodes,) in the support's dtype.
        """
        return support.new_ones(len(support))

    def transduce(
        self, support: Tensor, query: Tensor, support_mask: Tensor | None, class_prior: Tensor | None
    ) -> Tensor:
        """Fit the class weights, then score the query."""
        vectors = unit(global_vectors(query))
        weights = self.fit(support.detach(), vectors.detach(), support_mask, class_prior)
        return self.objective.temperature / 2 * negative_squared_distances(weights, vectors)

    @torch.no_grad()
    def fit(self, support: Tensor, query: Tensor, support_mask: Tensor | None, class_prior: Tensor | None) -> Tensor:
        """Fit the classes' weights.

        Args:
            support: (episodes, way, shot, nodes, channels).
            query: (episodes, n_query, channels) unit vectors.
            support_mask: (episodes, way, shot) bool or None.
            class_prior: (episodes, way) of sum 1, or None for that of the constructor.

        Returns:
            (episodes, way, channels).
        """
        shots = unit(shot_vectors(support, support_mask))
        share = shot_weights(support, support_mask)
        start = (shots * share[..., None]).sum(2)
        way = start.shape[1]
        labels = torch.eye(way, dtype=share.dtype, device=share.device)[:, None] * share[..., None] / way
        if class_prior is None:
            class_prior = start.new_full(start.shape[:2], 1 / way)
            if self.class_prior == "estimated":
                scores = self.objective.temperature / 2 * negative_squared_distances(start, query)
                class_prior = scores.softmax(-1).mean(1)
        alpha = self.alphas(support, support_mask)
        return maximise(
            start,
            shots.flatten(1, 2),
            labels.flatten(1, 2),
            query,
            class_prior,
            alpha,
            self.objective,
            self.lr,
            self.n_steps,
        )


class TIM(InformationMaximisation):
    """Transductive information maximisation by gradient descent: TIM-GD (Boudiaf et al. 2020).

    logit_c = -T / 2 |z(q) - w_c|^2, with z(q) the L2-normalised mean of the query's nodes. The w_c start at the means
    of the classes' normalised shots and take 1000 steps of Adam (step size 1e-4) on

        0.1 CE(support) - H(mean prediction) + 0.1 mean H(prediction)

    over the episode's queries: predictions confident one by one and balanced together. T = 15; all settings are the
    released code's. Vectors are normalised and not centred, its default ("L2N").

    The second term holds the class prior. H(mean prediction) is log way - KL(mean prediction | uniform); another prior
    takes the place of the uniform one, shares below 1e-3 counting as 1e-3. Balanced queries make the published form
    exact, others break it (Veilleux et al. 2021).

    Where the code adds 1e-12 within logarithms, predictions are kept as logarithms. Uneven shots: each class has the
    same weight in the cross-entropy, each shot its share (for even shots this is the published mean over images). No
    gradient flows into the support, nor through the fit: the features are frozen.

    Args:
        temperature: T.
        support_weight: Weight of the support's cross-entropy.
        marginal_weight: Weight of the entropy of the mean prediction.
        conditional_weight: Weight of the mean entropy of a prediction.
        lr: Adam's step size.
        n_steps: Adam's steps.
        class_prior: Where the call gives none: "uniform" as published, or "estimated", the mean prediction of the
            queries by the classes' means, before any step.

    Raises:
        UserError: An option out of range; called with a ``class_prior`` that is none.
    """

    name = "tim"

    def __init__(
        self,
        temperature: float = 15.0,
        support_weight: float = 0.1,
        marginal_weight: float = 1.0,
        conditional_weight: float = 0.1,
        lr: float = 1e-4,
        n_steps: int = 1000,
        class_prior: Prior = "uniform",
    ) -> None:
        super().__init__(temperature, support_weight, marginal_weight, conditional_weight, lr, n_steps, class_prior)
