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


def loss_gradient(
    weights: Tensor, support: Tensor, labels: Tensor, query: Tensor, pull: Tensor, alpha: Tensor, objective: Objective
) -> Tensor:
    """Differentiate the loss by the class weights.

    Args:
        weights: (E, W, C).
        support: (E, S, C).
        labels: (E, S, W), see ``maximise``.
        query: (E, Q, C).
        pull: (E, W) ``power_slope`` of the prior's logarithm.
        alpha: (E,).
        objective: Weights of the terms.

    Returns:
        (E, W, C).
    """
    half = weights.square().sum(-1)[:, None] / 2
    log_p_support = (objective.temperature * (support @ weights.mT - half)).log_softmax(-1)
    slopes_support = objective.support * (log_p_support.exp() * labels.sum(-1, keepdim=True) - labels)
    log_p = (objective.temperature * (query @ weights.mT - half)).log_softmax(-1)
    p = log_p.exp()
    a = alpha[:, None]
    # Minus the derivatives by p, up to what is alike for all classes, of M and of the conditional entropy.
    of_mean = (power_slope(p.mean(1).clamp_min(torch.finfo(p.dtype).tiny).log(), a) - pull)[:, None]
    of_each = power_slope(log_p, a[..., None])
    slopes_p = (objective.marginal * of_mean - objective.conditional * of_each) / query.shape[1]
    slopes = p * (slopes_p - (p * slopes_p).sum(-1, keepdim=True))
    both = slopes_support.sum(1) + slopes.sum(1)
    gradient: Tensor = slopes_support.mT @ support + slopes.mT @ query - both[..., None] * weights
    return objective.temperature * gradient


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
    """Take the steps on any device; see ``maximise``, with ``pull`` of ``loss_gradient``."""
    weights = start.clone()
    first, second = torch.zeros_like(weights), torch.zeros_like(weights)
    for step in range(1, n_steps + 1):
        gradient = loss_gradient(weights, support, labels, query, pull, alpha, objective)
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        length = (second / (1 - BETAS[1] ** step)).sqrt_().add_(ADAM_EPS)
        weights.addcdiv_(first, length, value=-lr / (1 - BETAS[0] ** step))
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
