"""What torch's transforms meet around ``solve``: torch.compile steps aside, torch.func and torch.vmap are refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_forward_ad: Any = torch.autograd.forward_ad

NO_GRAPH = "otfew solves outside of compiled graphs: compile the functions around it, or leave out fullgraph=True"


def outside_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """Make ``torch.compile`` break its graph once, before ``function``, and run it as it is.

    Dynamo would otherwise trace numpy code into torch and compile a dozen fragments for every new shape. It is named
    only where it is already at work: importing it takes longer than importing torch.
    """
    disabled: list[Callable[P, R]] = []

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_dynamo_compiling():
            if not disabled:
                disabled.append(torch.compiler.disable(function))  # type: ignore[no-untyped-call]
            return disabled[0](*args, **kwargs)
        return function(*args, **kwargs)

    # Read by dynamo where it would inline the function: fullgraph=True then fails with this reason.
    run._torchdynamo_disable = True  # type: ignore[attr-defined]
    run._torchdynamo_disable_msg = NO_GRAPH  # type: ignore[attr-defined]
    return run


def refuse_transforms(*tensors: Tensor | None) -> None:
    """Say in one sentence that ``solve`` cannot run under vmap, torch.func or forward-mode differentiation.

    Raises:
        RuntimeError: A transform is at work, or one of the tensors carries a tangent.
    """
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise RuntimeError(
            "otfew.solve does not work under torch.vmap or the transforms of torch.func: give it the whole batch "
            "(*batch, n, m), and differentiate with backward() or torch.autograd.grad"
        )
    if _forward_ad._current_level >= 0 and any(_has_tangent(tensor) for tensor in tensors if tensor is not None):
        raise RuntimeError(
            "otfew.solve has no forward-mode derivative: differentiate with backward() or torch.autograd.grad"
        )


def refuse_batched_gradient(grad: Tensor) -> None:
    """Say in one sentence that backward takes one gradient at a time.

    Raises:
        RuntimeError: The gradient is a batch of gradients: is_grads_batched=True, vectorize=True or a vmap around it.
    """
    functorch = torch._C._functorch
    if functorch.is_legacy_batchedtensor(grad) or functorch.is_functorch_wrapped_tensor(grad):
        raise RuntimeError(
            "otfew.solve takes one gradient at a time: leave out is_grads_batched=True or vectorize=True; "
            "the gradient of value.sum() holds those of all problems"
        )


def _has_tangent(tensor: Tensor) -> bool:
    return _forward_ad.unpack_dual(tensor).tangent is not None
