"""Whether a state that was read is one that this very run could have written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from otfew.errors import UserError

_MOMENTA = {torch.optim.SGD: {"momentum_buffer"}, torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"}}
"""What an optimizer keeps of a parameter."""


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Turn whatever a state of the wrong content leads to into a sentence.

    Args:
        path: Of the state.

    Raises:
        UserError: The block could not make use of what it holds.
    """
    try:
        yield
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(
            f"the training state {path} is not one that this run wrote ({detail}): delete it to start again, or give "
            "another folder."
        ) from error


def require_alike(found: Any, like: Any, name: str = "it") -> None:
    """Check that a value has the form of another: keys, shapes and types, down to numbers and strings.

    Lists may have any length: histories grow.

    Args:
        found: To be checked.
        like: What this run would write now.
        name: Of the value, for the sentence.

    Raises:
        ValueError: It has not.
    """
    if isinstance(like, Mapping):
        if not isinstance(found, Mapping) or found.keys() != like.keys():
            raise ValueError(f"{name} has other entries")
        for key, value in like.items():
            require_alike(found[key], value, str(key))
    elif isinstance(like, Tensor):
        if not isinstance(found, Tensor) or (found.shape, found.dtype) != (like.shape, like.dtype):
            raise ValueError(f"{name} is not a {like.dtype} tensor of shape {tuple(like.shape)}")
    elif isinstance(like, float) and isinstance(found, int) and not isinstance(found, bool):
        return
    elif type(found) is not type(like):
        raise ValueError(f"{name} is a {type(found).__name__}, not a {type(like).__name__}")


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Any) -> None:
    """Load an optimizer's state, having checked that settings and momenta are those of its parameters.

    Raises:
        ValueError: They are not.
    """
    own = optimizer.state_dict()
    require_alike({**state, "state": {}}, {**own, "state": {}}, "optimizer")
    for group, like in zip(state["param_groups"], own["param_groups"], strict=True):
        require_alike(group, like, "optimizer's settings")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, entries in state["state"].items():
        if entries.keys() != _MOMENTA[type(optimizer)]:
            raise ValueError(f"parameter {index} has the momenta {', '.join(map(str, entries))}")
        for name, value in entries.items():
            shape = torch.Size() if name == "step" else parameters[index].shape
            # A parameter without a gradient so far has no momentum yet.
            if not (value is None or (isinstance(value, Tensor) and value.shape == shape)):
                raise ValueError(f"{name} of parameter {index} is not a tensor of shape {tuple(shape)}")
    optimizer.load_state_dict(state)


def require_steady(recorded: Sequence[int], first: int, epoch: int, step: int, steps: int) -> None:
    """Check that a history and a place in a run belong together.

    Args:
        recorded: Number of each epoch of the history.
        first: Number of the first that is recorded.
        epoch: Epochs that are done.
        step: Steps of the next one that are done.
        steps: Of an epoch.

    Raises:
        ValueError: They don't.
    """
    if list(recorded) != list(range(first, epoch + 1)) or not 0 <= step <= steps:
        raise ValueError(f"it stands in step {step} after {epoch} epochs, and has a history of {len(recorded)}")
