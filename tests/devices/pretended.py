"""A pretended accelerator: tensors that say they live elsewhere, compute on the CPU, and refuse what a GPU refuses.

Values are real, so control flow that looks at data runs; what a GPU would make the host wait for is counted, with the
line of ours that asked for it. What is counted:

* operations: everything that torch dispatches, views and work on the CPU included; a kernel of ours is one;
* waits: the host needs a value, or a size that depends on values: ``item``, ``bool``, ``tolist``, ``cpu``, ``nonzero``,
  boolean masks;
* uploads: copies from the host that are not ``non_blocking``: a GPU finishes first what it was told before, so these
  wait too;
* draws: random numbers from the device's own generator, which differ from the CPU's.

Three things are the pretence's own, since torch has no autocast, no ``new_tensor`` and no ``torch.tensor`` for the kind
"meta" that a mode could see: they are replaced while a machine runs.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map_only

import otfew
from otfew.transport.cuda import machines

KIND = "meta"
"""A kind that every build of torch has, with autograd."""

ROOT = Path(otfew.__file__).resolve().parents[1]

WAITS = frozenset({
    "_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "_local_scalar_dense", "_unique2", "allclose",
    "bincount", "equal", "is_nonzero", "linalg_eig", "linalg_lstsq", "masked_select", "multinomial", "nonzero",
    "repeat_interleave", "unique_consecutive", "unique_dim",
})  # fmt: skip
"""Operations whose answer the host needs at once."""

INDEXING = frozenset(["index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"])
"""Operations that take indices from the CPU, and count what a boolean mask leaves."""

COPIES = frozenset(["_to_copy", "copy_"])

ELEMENTWISE = frozenset({
    "add", "sub", "rsub", "mul", "div", "true_divide", "pow", "fmod", "remainder", "atan2", "copysign", "xlogy",
    "maximum", "minimum", "fmax", "fmin", "where", "clamp", "clamp_min", "clamp_max", "eq", "ne", "lt", "le",
    "gt", "ge", "logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor",
    "floor_divide", "masked_fill", "index_put", "_index_put_impl_", "fill",
})  # fmt: skip
"""Operations that take a number, a tensor without dimensions on the CPU, beside tensors on a device."""

RESHAPING = frozenset({
    "as_strided_", "resize_", "set_", "squeeze_", "swapaxes_", "swapdims_", "t_", "transpose_", "unsqueeze_",
})  # fmt: skip
"""What the wrapper cannot follow."""


class Elsewhere(Tensor):
    """A tensor on the pretended device."""

    inside: Tensor
    """On the CPU, with the values."""
    machine: Machine

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inside: Tensor, machine: Machine) -> Elsewhere:
        with torch.inference_mode(False):  # whose tensors could not be views of others
            made = Tensor._make_wrapper_subclass(
                cls,
                inside.size(),
                strides=inside.stride(),
                storage_offset=inside.storage_offset(),
                dtype=inside.dtype,
                device=machine.device,
            )
        made.inside, made.machine = inside, machine
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_flatten((args, kwargs))[0]
        machine = next(leaf.machine for leaf in leaves if isinstance(leaf, Elsewhere))
        return machine.run(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Elsewhere({self.inside})"

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError("can't convert a pretended device's tensor to numpy: copy it to host memory with .cpu() first")

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else super().__format__(spec)

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def data_ptr(self) -> int:
        raise RuntimeError("addresses are asked of the machine: machine.address(tensor)")

    def tolist(self) -> Any:
        self.machine.waited("tolist")
        return self.inside.tolist()

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_lists_moved(index, self.device))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_lists_moved(index, self.device), value)

    def new_tensor(self, data: Any, **options: Any) -> Tensor:
        options = {"dtype": self.dtype, "device": self.device} | options
        return torch.tensor(data, **options)


class Machine(TorchDispatchMode):
    """The pretended device, running while it is entered; see ``pretended``.

    Attributes:
        device: Of its tensors.
        operations: Counts, see the module.
        waits: Likewise.
        uploads: Likewise.
        draws: Likewise.
        launches: Kernels of ours among the operations, by name.
        emulates: Whether there are any.
        where: For each count, the lines of ours that caused it, and how often.
    """

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device(KIND)
        self.emulates = False
        self.clear()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled here, and dynamo takes seconds to import.
        return False

    def clear(self) -> None:
        """Begin to count anew."""
        self.operations = self.waits = self.uploads = self.draws = 0
        self.launches: Counter[str] = Counter()
        self.where: dict[str, Counter[str]] = {name: Counter() for name in ("operations", "waits", "uploads", "draws")}

    def away(self, x: Any) -> Any:
        """Copy tensors and modules, alone or in lists, tuples and dictionaries, to the device; nothing is counted.

        Leaves are new leaves, which want a gradient where the old ones did.
        """

        def move(given: Any) -> Any:
            if isinstance(given, nn.Module):
                return copy.deepcopy(given)._apply(move)
            return Elsewhere(given.detach().clone(), self).requires_grad_(given.requires_grad)

        with _disable_current_modes():
            return tree_map_only((Tensor, nn.Module), move, x)

    def home(self, x: Any) -> Any:
        """Copy tensors, alone or in lists, tuples and dictionaries, to the CPU, without graph; nothing is counted."""
        with _disable_current_modes():
            return tree_map_only(Elsewhere, lambda tensor: tensor.inside.detach().clone(), x)

    def report(self, most: int = 12) -> str:
        """List what was counted, and the lines with most of it."""
        lines = [f"{self.operations} operations, {self.waits} waits, {self.uploads} uploads, {self.draws} draws"]
        if self.launches:
            lines.append("  kernels: " + ", ".join(f"{name} {count}" for name, count in self.launches.items()))
        for name, places in self.where.items():
            lines += [f"  {count:6d} {name:10s} {place}" for place, count in places.most_common(most)]
        return "\n".join(lines)

    def waited(self, what: str) -> None:
        """Count a wait."""
        self.waits += 1
        self.where["waits"][f"{_line()} {what}"] += 1

    def uploaded(self, what: str) -> None:
        """Count a copy from the host that waits."""
        self.uploads += 1
        self.where["uploads"][f"{_line()} {what}"] += 1

    def operated(self) -> None:
        """Count an operation."""
        self.operations += 1
        self.where["operations"][_line()] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Do an operation with the values, having counted it and refused what a GPU refuses."""
        if torch.is_inference_mode_enabled() and _is_composite(func):
            # Elsewhere autograd has taken such operations apart before they come here.
            with self:
                return func.decompose(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        self.operated()
        same_sizes = name == "as_strided_" and tuple(args[1]) == tuple(args[0].shape)
        if name in RESHAPING and not same_sizes:
            raise NotImplementedError(f"the pretended device has no {name}")
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        away = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
        here = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere)]
        if any(tensor.device.type == KIND for tensor in here):
            raise RuntimeError(f"a tensor of kind {KIND!r} was made where the pretence could not see it ({name})")
        asked = kwargs.get("device")
        asked = None if asked is None else torch.device(asked)
        if asked is not None and asked.type == KIND:
            kwargs = kwargs | {"device": torch.device("cpu")}
        if name in COPIES:
            goes_away = isinstance(args[0], Elsewhere) if asked is None or name == "copy_" else asked.type == KIND
            self._look_at_copy(name, args, kwargs, goes_away)
        else:
            goes_away = bool(away) if asked is None else asked.type == KIND
            self._look_at(func, name, args, kwargs, away, here)
        generator = kwargs.get("generator")
        if goes_away and torch.Tag.nondeterministic_seeded in func.tags:
            if generator is not None:
                raise RuntimeError(f"Expected a {KIND!r} device type for generator but found 'cpu' ({name})")
            self.draws += 1
            self.where["draws"][f"{_line()} {name}"] += 1
        out = func(*_inside(args), **_inside(kwargs))
        if not goes_away:
            return out
        known = {id(tensor.inside): tensor for tensor in away}

        def wrap(tensor: Tensor) -> Tensor:
            return known[id(tensor)] if id(tensor) in known else Elsewhere(tensor, self)

        return tree_map_only(Tensor, wrap, out)

    def _look_at_copy(self, name: str, args: Any, kwargs: dict[str, Any], goes_away: bool) -> None:
        source = args[1] if name == "copy_" else args[0]
        if isinstance(source, Elsewhere) and not goes_away:
            # Copies to pageable memory wait whatever they are told.
            self.waited("copy to the host")
        never_waits = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        if goes_away and not isinstance(source, Elsewhere) and not never_waits:
            self.uploaded("copy")

    def _look_at(
        self, func: Any, name: str, args: Any, kwargs: dict[str, Any], away: list[Tensor], here: list[Tensor]
    ) -> None:
        if not away:
            return
        indexing = name in INDEXING
        plain = name.rstrip("_") if name != "_index_put_impl_" else name
        if indexing and isinstance(args[0], Elsewhere):
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self.waited(f"{name} with a mask")
            foreign = [index for index in indices if not isinstance(index, Elsewhere)]
            for _ in foreign:
                self.uploaded("index on the CPU")
            here = [tensor for tensor in here if not any(tensor is index for index in foreign)]
        wrong = [tensor for tensor in here if tensor.dim() or plain not in ELEMENTWISE]
        if wrong or (isinstance(args[0], Tensor) and name.endswith("_") and not isinstance(args[0], Elsewhere)):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{self.device} and cpu! ({func})"
            )
        if name in WAITS and not (name == "repeat_interleave" and kwargs.get("output_size") is not None):
            self.waited(name)


class PretendedKernels:
    """Runs kernels of ours on a pretended device's values: an ``otfew.transport.cuda.machines.Machine``.

    Args:
        machine: Counts.
        emulator: Runs a kernel on the CPU.
    """

    def __init__(self, machine: Machine, emulator: machines.Machine) -> None:
        self.machine = machine
        self.emulator = emulator

    def address(self, tensor: Tensor) -> int:
        if not isinstance(tensor, Elsewhere):
            raise TypeError("a kernel was given a tensor of another device")
        return self.emulator.address(tensor.inside)

    def launch(self, kernel: Any, problems: int, arguments: Any) -> None:
        self.machine.operated()
        self.machine.launches[kernel.name] += 1
        self.emulator.launch(kernel, problems, arguments)


@contextlib.contextmanager
def pretended(emulator: machines.Machine | None = None) -> Iterator[Machine]:
    """Run with a pretended device; whatever was replaced for it is put back.

    Args:
        emulator: Of kernels; without it there are none on this device.
    """
    machine = Machine()
    made = None if emulator is None else PretendedKernels(machine, emulator)
    machine.emulates = made is not None
    tensor, as_tensor, is_autocast_enabled, autocast = (
        torch.tensor, torch.as_tensor, torch.is_autocast_enabled, torch.autocast
    )  # fmt: skip

    def pretend(make: Any) -> Any:
        def make_anywhere(data: Any, *args: Any, device: Any = None, **options: Any) -> Tensor:
            if isinstance(data, Elsewhere) or device is None or torch.device(device).type != KIND:
                return make(data, *args, device=device, **options)
            wanted = options.pop("requires_grad", False)
            return make(data, *args, **options).to(machine.device).requires_grad_(wanted)

        return make_anywhere

    class Autocast(autocast):
        def __init__(self, device_type: str, *args: Any, **options: Any) -> None:
            super().__init__("cpu" if device_type == KIND else device_type, *args, **options)

    def asks_autocast(device_type: str | None = None) -> bool:
        return (
            is_autocast_enabled()
            if device_type is None
            else is_autocast_enabled("cpu" if device_type == KIND else device_type)
        )

    machines.register(KIND, lambda device: made)
    try:
        with (
            mock.patch.object(torch, "tensor", pretend(tensor)),
            mock.patch.object(torch, "as_tensor", pretend(as_tensor)),
            mock.patch.object(torch, "is_autocast_enabled", asks_autocast),
            mock.patch.object(torch, "autocast", Autocast),
            mock.patch.object(torch.amp, "autocast", Autocast),
            machine,
        ):
            yield machine
    finally:
        machines.register(KIND, None)


def _lists_moved(index: Any, device: torch.device) -> Any:
    """Make tensors of an index's lists and arrays; torch would make them where no mode sees it."""
    if isinstance(index, tuple):
        return tuple(_lists_moved(part, device) for part in index)
    return torch.tensor(index, device=device) if isinstance(index, list | np.ndarray) else index


def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), torch._C.DispatchKey.CompositeImplicitAutograd)


def _inside(x: Any) -> Any:
    return tree_map_only(Elsewhere, lambda tensor: tensor.inside, x)


def _line() -> str:
    """Name the line of ours that is at work, of the library if there is one, else of a test."""
    frame = sys._getframe(2)
    test = None
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("otfew."):
            return _place(frame)
        if test is None and name.rpartition(".")[2].startswith("test_"):
            test = frame
        frame = frame.f_back
    return "?" if test is None else _place(test)


def _place(frame: Any) -> str:
    path = Path(frame.f_code.co_filename)
    return f"{path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name}:{frame.f_lineno}"
