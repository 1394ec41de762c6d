"""At least single precision inside, whatever comes in: half precision is widened, autocast left, masks refused."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.transport.problem import TOTALS_RTOL

P = ParamSpec("P")
R = TypeVar("R")

_HALF = (torch.float16, torch.bfloat16)

WITHOUT_DOUBLES = frozenset({"mps"})
"""Kinds of devices that have no float64."""

Dtype = torch.dtype | npt.DTypeLike
"""How a dtype may be given."""

_FLOATS = (torch.float32, torch.float64)

_EPS: dict[Any, float] = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7, np.dtype(np.float16): 2.0**-10}
"""Units of rounding."""


def in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Make ``function`` compute in float32 or better, as torch's own losses do under autocast.

    float16 and bfloat16 arguments, torch or numpy, arrive as float32, so that results that take the dtype of the
    arguments are float32; gradients come back in the dtype that was given. Autocast is switched off inside.

    Args:
        function: Its tensors and arrays are arguments of their own, not within lists.

    Returns:
        The function, which then also raises ValueError for a masked array, whose mask it would not see.
    """
    names = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if not kwargs and not torch._C._is_any_autocast_enabled() and all(map(_wide, args)):
            return function(*args, **kwargs)
        wide_args: Any = [_widened(names[min(i, len(names) - 1)], value) for i, value in enumerate(args)]
        wide_kwargs: Any = {name: _widened(name, value) for name, value in kwargs.items()}
        device = device_of((*wide_args, *wide_kwargs.values()))
        if not (torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled(device)):
            return function(*wide_args, **wide_kwargs)
        # Many solvers work on the CPU wherever their tensors are.
        with torch.autocast("cpu", enabled=False), torch.autocast(device, enabled=False):
            return function(*wide_args, **wide_kwargs)

    return run


def float_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """Read the dtype that a result is wanted in.

    Args:
        dtype: float32 or float64, of torch or of numpy.
        device: Where the result will be.

    Raises:
        ValueError: Neither of them, or float64 on a device without it.
    """
    found: torch.dtype | None = None
    if isinstance(dtype, torch.dtype):
        found = dtype
    else:
        with contextlib.suppress(TypeError):
            found = {"float32": torch.float32, "float64": torch.float64}.get(np.dtype(dtype).name)
    if found is None or found not in _FLOATS:
        raise ValueError(f"dtype must be float32 or float64, of torch or numpy, or None, got {dtype!r}")
    if found == torch.float64 and device.type in WITHOUT_DOUBLES:
        raise ValueError(f"dtype float64 does not exist on {device}: leave it out, or give torch.float32")
    return found


def totals_rtol(*weights: Any) -> float:
    """How far totals of these weights may differ, relative to the larger: half precision rounds more than float32."""
    # Each side may have been divided by a rounded total and then rounded itself.
    rtol = TOTALS_RTOL
    for side in weights:
        eps = None if side is None else _EPS.get(getattr(side, "dtype", None))
        rtol = rtol if eps is None else max(rtol, 2 * eps)
    return rtol


def device_of(values: Iterable[Any]) -> str:
    """Name the type of device of the first tensor that is not on the CPU, "cpu" if there is none."""
    for value in values:
        if isinstance(value, Tensor) and value.device.type != "cpu":
            return value.device.type
    return "cpu"


def _wide(value: Any) -> bool:
    """Tell, at less cost than a small problem, what ``_widened`` would hand back as it is."""
    if value is None:
        return True
    if isinstance(value, Tensor):
        dtype = value.dtype
        return dtype is torch.float64 or dtype is torch.float32 or dtype is torch.bool
    return not isinstance(value, np.ndarray) or (type(value) is np.ndarray and value.dtype.char in "fd?")


def _widened(name: str, value: Any) -> Any:
    """Take half precision as float32.

    Raises:
        ValueError: A masked array.
    """
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _HALF else value
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise ValueError(
                f"{name} is a masked array, and its mask would be lost: fill it in with .filled(), "
                "or leave out what is masked"
            )
        return value.astype(np.float32) if value.dtype == np.float16 else value
    return value
