"""What every backward of ours obeys: one gradient at a time, in full precision, and once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from otfew.transport.precision import in_full_precision
from otfew.transport.transforms import refuse_batched_gradient

EXACT = (
    "the gradient of an exact optimum cannot be differentiated again: the value is piecewise linear in the cost and in "
    "the weights, so its second derivative is zero almost everywhere; "
    "detach the gradient, or take otfew.Sinkhorn(gradient='unrolled')"
)

IMPLICIT = (
    "the gradients of entropic transport cannot be differentiated again: detach them, "
    "or take otfew.Sinkhorn(gradient='unrolled')"
)

QUADRATIC = (
    "the gradients of solver 'qpth' cannot be differentiated again: detach them, "
    "or take otfew.Sinkhorn(gradient='unrolled')"
)

Backward = Callable[[Any, Tensor], tuple[Tensor | None, ...]]


def differentiable_once(reason: str | Callable[[Any], str]) -> Callable[[Backward], Backward]:
    """Make a backward of one gradient refuse to be differentiated itself.

    The forward saves its inputs with ``save_for_backward``. Under ``create_graph=True`` gradients then depend on them,
    and whoever differentiates the gradients meets the error. torch's own ``once_differentiable`` hands out constants
    unless the incoming gradient needs a gradient: a penalty on the gradient would train nothing, without a word.

    Args:
        reason: The sentence of the error, or what makes it from the context.
    """

    def decorate(backward: Backward) -> Backward:
        wide = in_full_precision(backward)

        @functools.wraps(backward)
        def run(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
            refuse_batched_gradient(grad)
            with torch.no_grad():
                grads = wide(ctx, grad)
            if not torch.is_grad_enabled():
                return grads
            said = reason if isinstance(reason, str) else reason(ctx)
            return tuple(None if x is None else only_once(x, said, grad, *ctx.saved_tensors) for x in grads)

        return run

    return decorate


def only_once(gradient: Tensor, reason: str, *sources: Tensor | None) -> Tensor:
    """Make a gradient depend on what it was computed from, with an error for a derivative."""
    out: Tensor = _OnlyOnce.apply(reason, gradient, *sources)  # type: ignore[no-untyped-call]
    return out


class _OnlyOnce(torch.autograd.Function):
    """The gradient as it is; whoever differentiates it is told why that cannot be."""

    @staticmethod
    def forward(ctx: Any, reason: str, gradient: Tensor, *sources: Tensor | None) -> Tensor:
        ctx.reason = reason
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(ctx.reason)


def once(value: Tensor, reason: str, *sources: Tensor) -> Tensor:
    """Let the gradient of a tensor be taken once, where the backward behind it is not ours.

    Args:
        value: Computed from ``sources``.
        reason: The sentence of the error.
        *sources: What the gradient depends on.
    """
    out: Tensor = _Once.apply(reason, value, *sources)  # type: ignore[no-untyped-call]
    return out


class _Once(torch.autograd.Function):
    """A tensor as it is, whose gradient may be taken once, where the backward behind it is not ours."""

    @staticmethod
    def forward(ctx: Any, reason: str, value: Tensor, *sources: Tensor | None) -> Tensor:
        ctx.reason = reason
        ctx.save_for_backward(*sources)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_batched_gradient(grad)
        if torch.is_grad_enabled():
            grad = only_once(grad, ctx.reason, grad, *ctx.saved_tensors)
        return (None, grad, *(None for _ in ctx.saved_tensors))
