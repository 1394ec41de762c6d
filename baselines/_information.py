"""Class weights that maximise the information between queries and their predictions: TIM, with alpha-entropies.

Shapes: E episodes, W classes (way), S support images, Q queries, C channels. With z = T (<x, w_c> - |w_c|^2 / 2), which
differs from -T |x - w_c|^2 / 2 by what is alike for all classes, and p = softmax(z), the loss of an episode is

    support * sum_i s_i CE(p_i, y_i) - marginal * M(mean_j p_j) + conditional * mean_j H_a(p_j)

over support images i with weights s_i of total 1, and queries j. H_a(p) = (1 - sum_c p_c^a) / (a - 1) is the
alpha-entropy, Shannon's at a = 1. M(p) = H_a(p) + a / (a - 1) sum_c prior_c^(a - 1) p_c is, up to a constant, minus the
Bregman divergence from the prior that -H_a generates: H_a(p) where the prior is uniform, -KL(p | prior) at a = 1, and
always largest at p = prior.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from otfew.transport.compilation import announced
from otfew.transport.threads import share_out

BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8
"""Adam's, as ``torch.optim.Adam`` has them."""

PRIOR_FLOOR = 1e-3
"""Least share of a class in a prior, so that a class without any query has a finite divergence at a = 1."""


@dataclass(frozen=True)
class Objective:
    """The weights of the three terms and the temperature, see the module.

    Attributes:
        temperature: T.
        support: Weight of the cross-entropy.
        marginal: Weight of the marginal term.
        conditional: Weight of the conditional entropy.
    """

    temperature: float
    support: float
    marginal: float
    conditional: float


@torch.no_grad()
def maximise(
    start: Tensor,
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    prior: Tensor,
    alpha: Tensor,
    objective: Objective,
    lr: float,
    n_steps: int,
) -> Tensor:
    """Take steps of Adam on the loss of the module, each episode by itself, with its gradient in closed form.

    Args:
        start: (E, W, C) class weights to start from.
        support: (E, S, C).
        labels: (E, S, W) s_i at an image's class, 0 elsewhere; all 0 for images that do not count.
        query: (E, Q, C).
        prior: (E, W) of total 1; shares below ``PRIOR_FLOOR`` count as that much.
        alpha: (E,) a, above 0.
        objective: Weights of the terms.
        lr: Step size.
        n_steps: Steps.

    Returns:
        (E, W, C), without gradient.
    """
    alpha = alpha.to(start)
    pull = power_slope(prior.clamp_min(PRIOR_FLOOR).log(), alpha[:, None])
    arguments = (start, support, labels, query, pull, alpha)
    if start.device.type == "cpu":
        return _compiled(*arguments, objective, lr, n_steps)
    return steps_in_torch(*arguments, objective, lr, n_steps)


class LossGradient:
    """The gradient of the loss by class weights, which are changed in place between calls.

    On a GPU the time goes by how often torch is called. So buffers and views are made once, support and query are one
    set of items, and constants are folded into what follows.

    Args:
        weights: (E, W, C), looked at in every call.
        support: (E, S, C).
        labels: (E, S, W), see ``maximise``.
        query: (E, Q, C).
        pull: (E, W) ``power_slope`` of the prior's logarithm.
        alpha: (E,); all of them 1, or none.
        objective: Weights of the terms.
        shannon: Whether they are 1.
    """

    def __init__(
        self,
        weights: Tensor,
        support: Tensor,
        labels: Tensor,
        query: Tensor,
        pull: Tensor,
        alpha: Tensor,
        objective: Objective,
        shannon: bool,
    ) -> None:
        (episodes, way, channels), shots = weights.shape, support.shape[1]
        self.weights, self.temperature, self.shannon = weights, objective.temperature, shannon
        # A channel of ones adds up slopes in the product that weighs items with them; zeros keep rows aligned.
        items = torch.cat([support, query], 1)
        self.with_ones = torch.nn.functional.pad(items, (0, 4 - channels % 4))
        self.with_ones[..., channels] = 1
        self.items = self.with_ones[..., :channels]
        self.weights_t = weights.mT

        self.squares, self.lengths = torch.empty_like(weights), weights.new_empty(episodes, way)
        self.half = self.lengths[:, None]
        self.scores = weights.new_empty(episodes, items.shape[1], way)
        self.log_p, self.p, self.slopes = (torch.empty_like(self.scores) for _ in range(3))
        self.slopes_t = self.slopes.mT
        self.p_query, self.log_p_query = self.p[:, shots:], self.log_p[:, shots:]
        self.mean = weights.new_empty(episodes, 1, way)
        # Derivatives of temperature * loss by log p; those of the support do not change.
        unset = query.new_empty(episodes, query.shape[1], way)
        self.by_log_p = torch.cat([labels * -(objective.temperature * objective.support), unset], 1)
        self.of_query = self.by_log_p[:, shots:]
        self.total = weights.new_empty(episodes, items.shape[1], 1)
        self.out = weights.new_empty(*weights.shape[:2], self.with_ones.shape[2])
        self.drawn, self.both = self.out[..., :channels], self.out[..., channels, None]
        self.gradient = torch.empty_like(weights)

        scale = objective.temperature / query.shape[1]
        self.marginal, self.conditional = scale * objective.marginal, scale * objective.conditional
        self.minus_pull = -self.marginal * pull[:, None]
        if not shannon:
            self.alpha = alpha[:, None, None]
            self.power = self.alpha - 1
            factor = self.alpha / self.power
            self.mean_factor, self.each_factor = self.marginal * factor, self.conditional * factor

    def __call__(self) -> Tensor:
        """Compute the gradient (E, W, C) at what the weights are now; the next call writes over it."""
        torch.sum(torch.mul(self.weights, self.weights, out=self.squares), -1, out=self.lengths)
        scale = self.temperature
        torch.baddbmm(self.half, self.items, self.weights_t, beta=-scale / 2, alpha=scale, out=self.scores)
        torch.log_softmax(self.scores, -1, out=self.log_p)
        torch.exp(self.log_p, out=self.p)
        # Minus the derivatives by p, up to what is alike for all classes, of M and of the conditional entropy.
        mean = torch.mean(self.p_query, 1, keepdim=True, out=self.mean).clamp_min_(torch.finfo(self.p.dtype).tiny)
        if self.shannon:
            of_mean = torch.add(self.minus_pull, mean.log_(), alpha=self.marginal)
            torch.mul(self.p_query, torch.sub(of_mean, self.log_p_query, alpha=self.conditional), out=self.of_query)
        else:
            of_mean = torch.addcmul(self.minus_pull, mean.pow_(self.power), self.mean_factor)
            p_to_alpha = torch.mul(self.log_p_query, self.alpha).exp_()
            torch.mul(self.p_query, of_mean, out=self.of_query).addcmul_(p_to_alpha, self.each_factor, value=-1)
        # By the scores: what the softmax makes of derivatives by log p.
        torch.sum(self.by_log_p, -1, keepdim=True, out=self.total)
        torch.addcmul(self.by_log_p, self.p, self.total, value=-1, out=self.slopes)
        torch.bmm(self.slopes_t, self.with_ones, out=self.out)
        return torch.addcmul(self.drawn, self.both, self.weights, value=-1, out=self.gradient)


def power_slope(log_p: Tensor, alpha: Tensor) -> Tensor:
    """Compute a / (a - 1) p^(a - 1) from log p, minus the alpha-entropy's derivative; at a = 1, up to 1, log p."""
    shannon = alpha == 1
    a = alpha.masked_fill(shannon, 2.0)
    return torch.where(shannon, log_p, a / (a - 1) * ((a - 1) * log_p).exp())


def steps_in_torch(
    start: Tensor,
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    pull: Tensor,
    alpha: Tensor,
    objective: Objective,
    lr: float,
    n_steps: int,
) -> Tensor:
    """Take the steps on any device; see ``maximise``, with ``pull`` of ``LossGradient``. The host waits once."""
    shannon = alpha == 1
    kinds = shannon.tolist()
    if any(kinds) and not all(kinds):
        weights = torch.empty_like(start)
        for chosen in (shannon, ~shannon):
            first, shots, shares, queries, pulls, alphas = (
                x[chosen] for x in (start, support, labels, query, pull, alpha)
            )
            weights[chosen] = steps_in_torch(first, shots, shares, queries, pulls, alphas, objective, lr, n_steps)
        return weights
    weights = start.clone()
    gradient_of = LossGradient(weights, support, labels, query, pull, alpha, objective, all(kinds))
    first, second, length = torch.zeros_like(weights), torch.zeros_like(weights), torch.empty_like(weights)
    for step in range(1, n_steps + 1):
        gradient = gradient_of()
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        # Adam's step with both sides of its fraction times the correction of the root.
        root = math.sqrt(1 - BETAS[1] ** step)
        torch.sqrt(second, out=length).add_(ADAM_EPS * root)
        weights.addcdiv_(first, length, value=-lr * root / (1 - BETAS[0] ** step))
    return weights


def _compiled(
    start: Tensor,
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    pull: Tensor,
    alpha: Tensor,
    objective: Objective,
    lr: float,
    n_steps: int,
) -> Tensor:
    arrays = [np.ascontiguousarray(x.numpy()) for x in (support, labels, query, pull, alpha)]
    weights = np.array(start.numpy(), order="C")
    terms = np.array(
        [objective.temperature, objective.support, objective.marginal, objective.conditional], weights.dtype
    )
    kernel = _kernel(weights.dtype.str)

    def work(first: int, last: int) -> None:
        kernel(first, last, *arrays, terms, lr, n_steps, *BETAS, ADAM_EPS, weights)

    share_out(work, len(weights), torch.get_num_threads())
    return torch.from_numpy(weights)


@functools.cache
def _kernel(dtype: str) -> Callable[..., None]:
    """Load the compiled steps for a dtype, or compile them and say so."""
    from otfew.baselines._information_kernel import adam

    one, two, three = np.ones(1, dtype), np.ones((1, 1), dtype), np.ones((1, 1, 1), dtype)
    with announced("the fit of TIM"):
        adam(0, 0, three, three, three, two, one, np.ones(4, dtype), 1.0, 1, 0.9, 0.999, 1e-8, three)
    compiled: Callable[..., None] = adam
    return compiled
