"""The same call on the CPU and on the pretended device: places, values, gradients, and what it costs there."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

from .budgets import BUDGETS
from .pretended import Elsewhere, Machine

Pretended = Callable[..., AbstractContextManager[Machine]]

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
"""Of values, and of gradients in units of their largest, where nothing else is said."""


def on_both(
    pretended: Pretended,
    name: str,
    work: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    at_home: bool = False,
    tolerance: float | None = None,
    kernels: bool = True,
) -> Machine:
    """Call on both, and hold the device's call to its budget.

    Args:
        pretended: The fixture.
        name: Of the budget.
        work: Makes tensors, numbers, or lists, tuples and dictionaries of them.
        inputs: Its arguments; tensors and modules among them, also in lists, tuples and dictionaries, are moved.
        at_home: Whether tensors are to be on the CPU afterwards, instead of where the inputs are.
        tolerance: Of values, and of gradients in units of the largest; by default of the dtype.
        kernels: Whether there are kernels.
    """
    here = tree_map_only((Tensor, nn.Module), _copied, list(inputs))
    expected, slopes = _called(work, here)
    with pretended(kernels=kernels) as machine:
        there = machine.away(here)
        machine.clear()
        found, found_slopes = _called(work, there)
        used = (machine.operations, machine.waits, machine.uploads)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, Tensor):
            assert isinstance(one, Elsewhere) != at_home, f"{name}: a result is not where it belongs"
            _close(name, machine.home(one).detach(), other.detach(), tolerance, 1.0)
        else:
            assert one == other or abs(one - other) <= (tolerance or 1e-9) * max(1, abs(other)), (name, one, other)
    assert [slope is None for slope in found_slopes] == [slope is None for slope in slopes]
    for slope, other in zip(found_slopes, slopes, strict=True):
        if other is not None:
            assert isinstance(slope, Elsewhere)
            _close(f"{name}, gradient", machine.home(slope), other, tolerance, float(other.abs().max()))
    if path := os.environ.get("OTFEW_COUNTS"):
        _write_down(Path(path), name, used)
        return machine
    if kernels and not machine.emulates:
        # Without a C++ compiler there is another way to count.
        return machine
    budget = BUDGETS[name]
    assert all(cost <= most for cost, most in zip(used, budget, strict=True)), (
        f"{name}: {used} operations, waits and uploads are more than {tuple(budget)}\n{machine.report()}"
    )
    assert machine.draws == 0, machine.report()
    return machine


def _called(work: Callable[..., Any], inputs: list[Any]) -> tuple[list[Any], list[Tensor | None]]:
    """Call, go backward from the sum of what has a graph, and list results and the leaves' gradients."""
    results = tree_flatten(work(*inputs))[0]
    tensors = [x for x in results if isinstance(x, Tensor) and x.requires_grad]
    if tensors:
        torch.autograd.backward([x.double().square().sum() for x in tensors])
    leaves = [x for given in tree_flatten(inputs)[0] for x in _parts(given)]
    return results, [x.grad for x in leaves if x.requires_grad]


def _copied(x: Tensor | nn.Module) -> Any:
    return copy.deepcopy(x) if isinstance(x, nn.Module) else x.detach().clone().requires_grad_(x.requires_grad)


def _parts(x: Any) -> list[Tensor]:
    """List the tensors in which a call is differentiated."""
    return [x] if isinstance(x, Tensor) else list(x.parameters()) if isinstance(x, nn.Module) else []


def _close(what: str, found: Tensor, expected: Tensor, tolerance: float | None, size: float) -> None:
    assert found.dtype == expected.dtype, what
    allowed = tolerance or TOLERANCE.get(expected.dtype, 0.0)
    torch.testing.assert_close(
        found, expected, rtol=allowed, atol=allowed * size, equal_nan=True, msg=lambda text: f"{what}: {text}"
    )


def _write_down(path: Path, name: str, used: tuple[int, int, int]) -> None:
    """Keep what was counted as a line of the table."""
    operations, waits, uploads = used
    most = operations + max(2, operations // 10)
    parts = [most, waits, uploads] if uploads else [most, waits] if waits else [most]
    with path.open("a", encoding="utf-8") as file:
        file.write(f'    "{name}": Budget({", ".join(map(str, parts))}),\n')
