"""Checks of what constructors are given: every refusal is one sentence that names the owner and the argument."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

from otfew.errors import UserError
from otfew.transport import Solver
from otfew.transport.registry import SOLVERS, PointSolver, installed, lookup, resolve

Given = TypeVar("Given")


def refuse(owner: str, argument: str, wanted: str, given: object) -> NoReturn:
    """Raise the ``UserError`` of an argument that is not what is wanted.

    Args:
        owner: Name of the method or class.
        argument: Name of the argument.
        wanted: What it must be, as in "a number above 0".
        given: What it is.

    Raises:
        UserError: Always: "OWNER: `ARGUMENT` must be WANTED, not GIVEN."
    """
    raise UserError(f"{owner}: `{argument}` must be {wanted}, not {given!r}.")


def number(
    owner: str,
    argument: str,
    value: Given,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    tensor: bool = False,
) -> Given:
    """Return a finite number of a range as it was given.

    Args:
        owner: Name of the method or class.
        argument: Name of the argument.
        value: What was given.
        above: It must be larger than this.
        least: It must be at least this.
        most: It must be at most this.
        tensor: A tensor of one number serves too; a learned option is one.

    Raises:
        UserError: Another type, True or False, NaN, infinite or out of range.
    """
    plain: Any = value.detach() if tensor and isinstance(value, Tensor) and value.numel() == 1 else value
    if isinstance(plain, Tensor) and tensor and plain.dtype != torch.bool and plain.numel() == 1:
        plain = float(plain)
    sound = isinstance(plain, numbers.Real) and not isinstance(plain, bool) and math.isfinite(plain)
    sound = sound and (above is None or plain > above) and (least is None or plain >= least)
    if not (sound and (most is None or plain <= most)):
        refuse(owner, argument, _range(above, least, most), value)
    return value


def whole(owner: str, argument: str, value: Any, least: int | None = 1, below: int | None = None) -> int:
    """Return a whole number as an int.

    Args:
        owner: Name of the method or class.
        argument: Name of the argument.
        value: What was given.
        least: The least allowed; None for any.
        below: It must be smaller.

    Raises:
        UserError: Another type (2.0 too), True or False, or out of range.
    """
    sound = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not sound or (least is not None and value < least) or (below is not None and value >= below):
        wanted = "a whole number" if least is None else f"a whole number of at least {least}"
        refuse(owner, argument, wanted if below is None else f"{wanted} below {below}", value)
    return int(value)


def seed(owner: str, argument: str, value: object) -> int:
    """Return a seed that torch's generators take, as an int.

    Args:
        owner: Name of the method or class.
        argument: Name of the argument.
        value: What was given.

    Raises:
        UserError: No whole number from -2^63 to 2^64 - 1.
    """
    return whole(owner, argument, value, -(2**63), 2**64)


def flag(owner: str, argument: str, value: object) -> bool:
    """Return True or False as it was given.

    Args:
        owner: Name of the method or class.
        argument: Name of the argument.
        value: What was given.

    Raises:
        UserError: Anything else, 0 and 1 too.
    """
    if not isinstance(value, bool):
        refuse(owner, argument, "True or False", value)
    return value


def choice(owner: str, argument: str, value: Given, choices: Iterable[str]) -> Given:
    """Return one of some words as it was given.

    Args:
        owner: Name of the method or class.
        argument: Name of the argument.
        value: What was given.
        choices: The words.

    Raises:
        UserError: Anything else; the message lists the words.
    """
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise UserError(f"{owner}: unknown `{argument}` {value!r}; there are: {', '.join(known)}.")
    return value


def base_mean(owner: str, value: object) -> Tensor:
    """Return the mean of the base classes' global vectors as it was given.

    Args:
        owner: Name of the method or class.
        value: A floating-point tensor (channels,), or what was given in its place.

    Returns:
        (channels,), of any floating dtype.

    Raises:
        UserError: No floating-point tensor of one axis, empty, or with NaN or infinity.
    """
    if not isinstance(value, Tensor) or value.ndim != 1 or not len(value) or not value.is_floating_point():
        got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"{owner}: `base_mean` must be a floating-point tensor (channels,), not {got}.")
    if not bool(value.isfinite().all()):
        raise UserError(f"{owner}: `base_mean` holds NaN or infinity.")
    return value


def dense_solver(owner: str, value: object) -> Solver:
    """Turn the argument ``solver`` into a solver of dense costs.

    Args:
        owner: Name of the method or class.
        value: A name, which means default options, or a solver.

    Returns:
        The solver.

    Raises:
        UserError: An unknown name, another type, a solver of point clouds, or one whose library is not installed.
    """
    if not isinstance(value, str | Solver):
        refuse(owner, "solver", "the name of a solver or a solver such as otfew.Exact()", value)
    if isinstance(value, str) and value not in SOLVERS:
        try:
            lookup(value)
        except ValueError as error:
            raise UserError(f"{owner}: `solver`: {error}.") from None
    kind = lookup(value) if isinstance(value, str) else type(value)
    if not installed(kind):
        raise UserError(f"{owner}: `solver` {kind.name!r} needs {kind.requires}: {kind.install}.")
    if issubclass(kind, PointSolver):
        raise UserError(f"{owner}: `solver` {kind.name!r} takes point clouds, but the costs here are a matrix.")
    try:
        return resolve(value)
    except ValueError as error:  # one of a user's own, without defaults
        raise UserError(f"{owner}: `solver`: {error}.") from None


def _range(above: float | None, least: float | None, most: float | None) -> str:
    """Describe a range of numbers."""
    if least is not None and most is not None:
        return f"a number between {least:g} and {most:g}"
    if above is not None:
        return f"a number above {above:g}" + ("" if most is None else f" and at most {most:g}")
    return "a finite number" if least is None else f"a number of at least {least:g}"
