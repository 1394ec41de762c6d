"""alpha-TIM: information maximisation that tolerates unbalanced queries."""

from __future__ import annotations

import torch
from torch import Tensor

from otfew import checks
from otfew.baselines._shots import mean_shots
from otfew.baselines._transductive import Prior
from otfew.baselines.tim import InformationMaximisation


class AlphaTIM(InformationMaximisation):
    """TIM with alpha-entropies in place of Shannon's (Veilleux et al. 2021).

    logit_c = -T / 2 |z(q) - w_c|^2 as for ``tim``, whose start, normalisation and optimiser these are. The w_c minimise

        CE(support) - H_a(mean prediction) + mean H_a(prediction),     H_a(p) = (1 - sum_c p_c^a) / (a - 1).

    For a > 1, H_a punishes an unbalanced mean prediction less than Shannon's entropy does. The weights of the three
    terms are 1, the cross-entropy stays Shannon's, and a = 2 for one shot and 7 from five shots on, the tuned values of
    the authors' code; between them a = 5, its default. At a = 1 this is ``tim`` with these weights.

    The published form has no other prior than the uniform one. With a class prior, H_a(mean prediction) gives way to
    minus the Bregman divergence from it that -H_a generates, which for a uniform prior is H_a up to a constant: sum_c
    a / (a - 1) prior_c^(a - 1) p_c is added for the mean prediction p. (The alpha-divergence would serve too, but its
    powers of 1 / prior_c drown the other terms where a class is rare.)

    Uneven shots: as for ``tim``; a goes by the mean number of shots.

    Args:
        alpha: a, above 0; None chooses it by the number of shots, as said above.
        temperature: T.
        support_weight: Weight of the support's cross-entropy.
        marginal_weight: Weight of the entropy of the mean prediction.
        conditional_weight: Weight of the mean entropy of a prediction.
        lr: Adam's step size.
        n_steps: Adam's steps.
        class_prior: As for ``tim``.

    Raises:
        UserError: An option out of range; called with a ``class_prior`` that is none.
    """

    name = "alpha-tim"

    def __init__(
        self,
        alpha: float | None = None,
        temperature: float = 15.0,
        support_weight: float = 1.0,
        marginal_weight: float = 1.0,
        conditional_weight: float = 1.0,
        lr: float = 1e-4,
        n_steps: int = 1000,
        class_prior: Prior = "uniform",
    ) -> None:
        super().__init__(temperature, support_weight, marginal_weight, conditional_weight, lr, n_steps, class_prior)
        self.alpha = None if alpha is None else checks.number(self.name, "alpha", alpha, above=0)

    def alphas(self, support: Tensor, support_mask: Tensor | None) -> Tensor:
        """Choose the order of each episode's entropies by its shots, unless ``alpha`` says."""
        if self.alpha is not None:
            return support.new_full((len(support),), self.alpha)
        shots = mean_shots(support, support_mask)
        return torch.where(shots <= 1, 2.0, torch.where(shots < 5, 5.0, 7.0))
