"""Options and labels as JSON, and back: numbers, text, tensors, and otfew's own small objects of options."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from otfew.errors import UserError

_OBJECT, _TENSOR, _TUPLE = "!object", "!tensor", "!tuple"
_OURS = "otfew."
"""Where the classes of such objects lie: a file must not be able to call whatever it likes."""


def to_json(value: Any, where: str, arrays: dict[str, Tensor]) -> Any:
    """Turn a value into what JSON holds.

    Args:
        value: None, a flag, number or text; a tensor; a list, tuple or dictionary of such; or one of otfew's frozen
            dataclasses of options, such as ``otfew.Sinkhorn(reg=0.1)`` or ``StructuredFC(lr=10)``.
        where: What it is, for the error.
        arrays: Takes the tensors, by ``where``.

    Raises:
        UserError: Anything else.
    """
    if isinstance(value, np.generic):
        value = value.item()
    match value:
        case None | bool() | int() | float() | str():
            found: Any = value
        case Tensor():
            arrays[where] = value.detach().clone()
            found = {_TENSOR: where}
        case list() | tuple():
            items = [to_json(item, f"{where}.{i}", arrays) for i, item in enumerate(value)]
            found = items if isinstance(value, list) else {_TUPLE: items}
        case Mapping() if all(isinstance(key, str) and not key.startswith("!") for key in value):
            found = {key: to_json(item, f"{where}.{key}", arrays) for key, item in value.items()}
        case _:
            found = _object(value, where, arrays)
    return found


def _object(value: Any, where: str, arrays: dict[str, Tensor]) -> dict[str, Any]:
    """Describe an object of options by its class and fields."""
    kind = type(value)
    if not _is_ours(kind, kind.__module__):
        raise UserError(f"{where} is of type {kind.__name__}, which cannot be saved: give its name, numbers and text.")
    options = {field.name: getattr(value, field.name) for field in dataclasses.fields(kind) if field.init}
    return {_OBJECT: f"{kind.__module__}:{kind.__qualname__}", "options": to_json(options, where, arrays)}


def from_json(value: Any, arrays: Mapping[str, Tensor]) -> Any:
    """Undo ``to_json``.

    Raises:
        ValueError: It names a class that is none of otfew's, or is otherwise not what ``to_json`` makes.
    """
    if isinstance(value, list):
        return [from_json(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return arrays[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(from_json(value[_TUPLE], arrays))
    if _OBJECT not in value:
        return {key: from_json(item, arrays) for key, item in value.items()}
    module, _, name = value[_OBJECT].partition(":")
    kind = getattr(importlib.import_module(module), name, None) if module.startswith(_OURS) else None
    if not isinstance(kind, type) or not _is_ours(kind, module):
        raise ValueError(f"{value[_OBJECT]} is none of otfew's options")
    return kind(**from_json(value["options"], arrays))


def _is_ours(kind: type, module: str) -> bool:
    """Whether a class holds options and nothing else: a frozen dataclass of otfew's."""
    frozen = dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return bool(frozen) and module.startswith(_OURS) and kind.__module__ == module


def labels_to_json(classes: npt.NDArray[Any]) -> dict[str, Any]:
    """Keep class names with their dtype.

    Raises:
        UserError: They are neither text nor numbers.
    """
    names = classes.tolist()
    if not all(isinstance(name, str | int | float) for name in names):
        raise UserError(f"labels such as {names[0]!r} cannot be saved: name classes by text or whole numbers.")
    return {"dtype": classes.dtype.str, "names": names}


def labels_from_json(record: Any) -> npt.NDArray[Any]:
    """Undo ``labels_to_json``; raises ``ValueError`` where that is not what it made."""
    names, dtype = record["names"], np.dtype(record["dtype"])
    if dtype.kind not in "UOiubf" or not all(isinstance(name, str | int | float) for name in names):
        raise ValueError("labels are neither text nor numbers")
    classes = np.empty(len(names), dtype)
    classes[:] = names
    return classes
