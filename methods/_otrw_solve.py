"""Weights of a training set that minimise its transport cost to a meta set: closed form, alternation, or gradient.

The transport problem has rows for the meta points (weights a, fixed) and columns for the training samples (weights w,
sought). Two regularisers are known under one name:

* "plan": min_P <P, C> + reg sum P log P, the negative entropy of the plan. Over a free w every row is a softmax, so w
  has a closed form.
* "product": min_P <P, C> + reg KL(P | a w'), what ``otfew.Sinkhorn`` computes. Since sum P log P = KL(P | a w') + sum a
  log a + sum w log w, it lacks the reward for spread-out weights, and its optimum sits on few samples. Over a free w it
  is the rate-distortion problem, which Blahut (1972) and Arimoto (1972) solve by alternation.

Where w is a function of parameters (a weight net) there is neither: the gradient is that of the OT core, whose envelope
gradient in w is the dual potential.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from otfew.random.generators import drawn
from otfew.transport import ConvergenceWarning, Sinkhorn, solve
from otfew.transport.complaints import warn

Entropy = Literal["plan", "product"]


TURNS = 8
"""Turns of an iteration that a device is told to do before the host looks at its answer."""


@dataclass(frozen=True)
class Found:
    """What a minimisation gave.

    Attributes:
        weights: (samples,) float64, on the simplex.
        value: The regularised transport cost at the weights.
        n_iter: Steps of the optimiser; 0 for the closed form.
        gap: Bound on how far ``value`` is above the least over all weights; 0 for the closed form.
    """

    weights: Tensor
    value: float
    n_iter: int
    gap: float


def closed_form(cost: Tensor, reg: float, rows_at_once: int = 256) -> Found:
    """Minimise the "plan" form: w_i = 1/M sum_j softmax_i(-C_ji / reg).

    Args:
        cost: (meta, samples) float64.
        reg: Regularisation, in units of the cost.
        rows_at_once: Bounds the temporaries.
    """
    weights = cost.new_zeros(cost.shape[1])
    total = cost.new_zeros(())
    for rows in torch.split(cost, rows_at_once):
        scores = -rows / reg
        weights += torch.softmax(scores, -1).sum(0)
        total += torch.logsumexp(scores, -1).sum()
    meta = len(cost)
    # sum P log P holds log a = -log M for every unit of mass.
    value = -reg * (float(total) / meta + torch.log(torch.tensor(float(meta))).item())
    return Found(weights / meta, value, 0, 0.0)


def alternation(cost: Tensor, reg: float, tol: float, max_iter: int) -> Found:
    """Minimise the "product" form: rows P_j = softmax_i(log w_i - C_ji / reg), then w = their mean, in turns.

    The value falls in every turn, and reg log max_i (new w_i / old w_i) bounds what it can still fall.

    Args:
        cost: (meta, samples) float64.
        reg: Regularisation.
        tol: Stop when the bound is below this, in units of the cost.
        max_iter: Most turns; running into it warns.
    """
    meta, samples = cost.shape
    kernel = torch.exp((cost.amin(1, keepdim=True) - cost) / reg)
    weights = cost.new_full((samples,), 1 / samples)
    n_iter, gap = 0, math.inf
    while n_iter < max_iter and gap > tol:
        found, gains = [], []
        for _ in range(min(turns_at_once(cost), max_iter - n_iter)):
            ratio = kernel.T @ (1 / (meta * (kernel @ weights)))
            weights = weights * ratio
            found.append(weights)
            gains.append(ratio.max())
        gaps = (reg * torch.stack(gains).log()).tolist()
        last = next((k for k, bound in enumerate(gaps) if bound <= tol), len(gaps) - 1)
        weights, gap = found[last], gaps[last]
        n_iter += last + 1
    if gap > tol:
        _warn(f"the weights can still gain {gap:.1e} after {n_iter} turns")
    weights /= weights.sum()
    value = float((cost.amin(1) - reg * torch.log(kernel @ weights)).mean())
    return Found(weights, value, n_iter, gap)


def turns_at_once(like: Tensor) -> int:
    """Turns between two looks at what a device has computed, for which the host would wait; what is kept is the same.

    Args:
        like: A tensor on the device.
    """
    return 1 if like.is_cpu else TURNS


def transport_cost(cost: Tensor, weights: Tensor, reg: float, entropy: Entropy) -> Tensor:
    """Compute the regularised cost at given weights; its gradient in them comes from the core's potentials.

    Args:
        cost: (meta, samples) float64.
        weights: (samples,) float64 with total 1; differentiable.
        reg: Regularisation.
        entropy: Which regulariser.

    Returns:
        A float64 scalar.
    """
    meta = len(cost)
    a = cost.new_full((meta,), 1 / meta)
    value: Tensor = solve(cost, a, weights, solver=Sinkhorn(reg=reg, tol=1e-8, max_iter=10_000)).value
    if entropy == "plan":
        value = value + reg * (torch.special.xlogy(weights, weights).sum() - torch.log(cost.new_tensor(float(meta))))
    return value


def by_gradient(
    cost: Tensor,
    reg: float,
    entropy: Entropy,
    logits: Callable[[], Tensor],
    parameters: list[nn.Parameter],
    tol: float,
    max_iter: int,
) -> Found:
    """Minimise over the parameters of w = softmax(logits) by L-BFGS.

    Args:
        cost: (meta, samples) float64.
        reg: Regularisation.
        entropy: Which regulariser.
        logits: Computes (samples,) float64 from the parameters.
        parameters: What is changed, in place.
        tol: Stop at gradients below this, or gains below a hundredth of it.
        max_iter: Most steps; running into it warns.
    """
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=max_iter,
        max_eval=2 * max_iter,
        tolerance_grad=tol,
        tolerance_change=tol / 100,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = transport_cost(cost, torch.softmax(logits(), 0), reg, entropy)
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    n_iter = int(optimizer.state[parameters[0]]["n_iter"])
    if n_iter >= max_iter:
        _warn(f"the weights did not converge in {max_iter} steps")
    weights = torch.softmax(logits().detach(), 0).requires_grad_()
    # The cost is convex in the weights: it lies above its tangent, which is least at a corner of the simplex.
    value = transport_cost(cost, weights, reg, entropy)
    (grad,) = torch.autograd.grad(value, weights)
    gap = float((weights.detach() * grad).sum() - grad.min())
    return Found(weights.detach(), float(value.detach()), n_iter, gap)


def _warn(text: str) -> None:
    warn(f"{text}: raise max_iter or tol", ConvergenceWarning)


class WeightNet(nn.Module):
    """Scores samples by their features: linear, tanh, linear without bias, as left in the published code.

    Args:
        features: (samples, channels); their mean and deviation standardise the input.
        hidden: Units.
        seed: Of the initial weights.
    """

    def __init__(self, features: Tensor, hidden: int, seed: int) -> None:
        super().__init__()
        deviation, mean = torch.std_mean(features.double(), 0, correction=0)
        self.register_buffer("inputs", (features.double() - mean) / deviation.clamp_min(1e-6))
        with drawn(seed):
            self.layers = nn.Sequential(
                nn.Linear(features.shape[1], hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False)
            ).to(device=features.device, dtype=torch.float64)

    def forward(self) -> Tensor:
        """Compute the logits (samples,) of the weights."""
        logits: Tensor = self.layers(self.inputs)[:, 0]
        return logits
