"""The optimal value as torch differentiates it: the plan for the cost, the potentials for the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from otfew.transport.backward import EXACT, IMPLICIT, differentiable_once
from otfew.transport.problem import Solution, Status
from otfew.transport.result import dense_plan
from otfew.transport.sending import send


class Optimum(Protocol):
    """What the gradient of a flat batch of optimal values is made of.

    Attributes:
        balanced: Whether the problem solved is that of (a, b * sum(a) / sum(b)); if not, the potentials are the
            derivatives of the value in a and b as they were given.
        regularised: Whether the value holds more than <plan, cost>.
    """

    balanced: bool
    regularised: bool

    def plan_times(self, grad: Tensor, dtype: torch.dtype) -> Tensor:
        """Plans (problems, n, m), each times its number of ``grad`` (problems,) float64, on the device of ``grad``."""

    def duals(self) -> tuple[Tensor, Tensor]:
        """Potentials f (problems, n) and g (problems, m) in float64."""

    def optimal(self) -> Tensor:
        """Optimal values (problems,) in float64, whatever became of those that were handed out."""

    def unserved(self) -> Tensor | None:
        """Tell which problems (problems,) may be infeasible: their values are infinite and gradients zero."""


class SolvedInNumpy:
    """The optimum that a solver in numpy found, on the CPU."""

    def __init__(self, solution: Solution, shape: tuple[int, int]) -> None:
        self._solution, self._shape = solution, shape
        self.balanced = solution.balanced
        self.regularised = solution.linear is not None

    def plan_times(self, grad: Tensor, dtype: torch.dtype) -> Tensor:
        """Lay the plans out."""
        shape = (len(self._solution.value), *self._shape)
        if grad.is_cpu:
            return dense_plan(self._solution, shape, dtype, grad.device, grad.numpy())
        # There it is multiplied, so that nobody waits for the gradient.
        return dense_plan(self._solution, shape, dtype, grad.device) * grad.to(dtype)[:, None, None]

    def duals(self) -> tuple[Tensor, Tensor]:
        """Share the solution's memory."""
        return torch.from_numpy(self._solution.f), torch.from_numpy(self._solution.g)

    def optimal(self) -> Tensor:
        """Share the solution's memory."""
        return torch.from_numpy(self._solution.value)

    def unserved(self) -> Tensor | None:
        """Look at the status, where any problem is infeasible."""
        return None if self._solution.cut is None else torch.from_numpy(self._solution.status == Status.INFEASIBLE)


def wants_gradient(*tensors: Tensor | None) -> bool:
    """Tell whether autograd is on and any of the tensors takes part."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def differentiable(
    make: Callable[[], Tensor], optimum: Optimum, cost: Tensor, a: Tensor | None, b: Tensor | None, batch: torch.Size
) -> Tensor:
    """Return optimal values with their gradient, which cannot be differentiated again.

    Args:
        make: Makes them, (*batch,) float64 on the device of the cost, as a tensor that nobody else holds.
        optimum: What was found.
        cost: (*batch, n, m), or what broadcasts to it.
        a: (*batch, n), or what broadcasts to it, or None.
        b: (*batch, m), likewise.
        batch: Its shape.
    """
    out: Tensor = _Value.apply(make, optimum, cost, a, b, batch)  # type: ignore[no-untyped-call]
    return out


class _Value(torch.autograd.Function):
    """The optimal value with its envelope gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        make: Callable[[], Tensor],
        optimum: Optimum,
        cost: Tensor,
        a: Tensor | None,
        b: Tensor | None,
        batch: torch.Size,
    ) -> Tensor:
        ctx.optimum, ctx.batch = optimum, batch
        ctx.save_for_backward(cost, a, b)
        return make()

    @staticmethod
    @differentiable_once(lambda ctx: IMPLICIT if ctx.optimum.regularised else EXACT)
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        cost, a, b = ctx.saved_tensors
        optimum, batch = ctx.optimum, ctx.batch
        _, _, for_cost, for_a, for_b, _ = ctx.needs_input_grad
        grads: list[Tensor | None] = [None, None, None]
        unserved = optimum.unserved()
        if unserved is not None:
            unserved = send(unserved, grad.device).reshape(grad.shape)
            # What comes from an infinite value, infinite itself or NaN, goes nowhere.
            grad = grad.masked_fill(unserved, 0.0)
        if for_cost:
            plan = optimum.plan_times(grad.reshape(-1), cost.dtype)
            grads[0] = plan.reshape(*batch, *cost.shape[-2:]).sum_to_size(cost.shape)
        if for_a or for_b:
            f, g = (send(x, grad.device) for x in optimum.duals())
            f, g = f.reshape(*batch, f.shape[-1]), g.reshape(*batch, g.shape[-1])
        if for_a:
            if not optimum.balanced and b is None:
                # b is uniform with the total of a: each unit of a adds to all of b.
                f = f + g.mean(-1, keepdim=True)
            grads[1] = _as_given(grad[..., None] * f, a)
        if for_b:
            if not optimum.balanced:
                g = g if a is not None else g + f.mean(-1, keepdim=True)
            elif a is None:
                # V(b) = sum(b) * V(b / sum(b)): the gauge's constant is the value of a unit of mass.
                value = send(optimum.optimal(), grad.device).reshape(*batch, 1)
                value = value if unserved is None else value.masked_fill(unserved[..., None], 0.0)
                g = g + value / _total(b, grad)
            else:
                # The problem solved is (a, b * sum(a) / sum(b)).
                g = g * (_total(a, grad) / _total(b, grad))
            grads[2] = _as_given(grad[..., None] * g, b)
        return (None, None, *grads, None)


def _total(weights: Tensor, grad: Tensor) -> Tensor:
    return weights.double().sum(-1, keepdim=True).to(grad.device)


def _as_given(gradient: Tensor, weights: Tensor) -> Tensor:
    return gradient.sum_to_size(weights.shape).to(weights.device, weights.dtype)
