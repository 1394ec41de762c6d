"""Checks that the option dataclasses of solvers share."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


def is_positive(value: Any) -> bool:
    """Tell whether a value is a positive finite number; True and False are none."""
    return _is_number(value) and 0 < value < math.inf


def check_number(solver: str, name: str, value: Any, least: float | None = None, below: float = math.inf) -> None:
    """Refuse an option that is no number of a range.

    Args:
        solver: Name of the dataclass, for the message.
        name: Name of the option.
        value: What was given.
        least: The least allowed value; None for any positive one.
        below: All must be smaller.

    Raises:
        ValueError: Another type, NaN, infinite or out of range.
    """
    if _is_number(value) and (value > 0 if least is None else value >= least) and value < below:
        return
    if least is not None:
        wanted = f"a finite number of at least {least:g}"
    else:
        wanted = "positive and finite" if below == math.inf else f"between 0 and {below:g}"
    raise ValueError(f"{solver}: {name} must be {wanted}, got {value!r}")


def check_count(solver: str, name: str, value: Any, otherwise: str = "") -> None:
    """Refuse an option that is no integer of at least 1 that the machine can count to.

    Args:
        solver: Name of the dataclass, for the message.
        name: Name of the option.
        value: What was given.
        otherwise: What else is allowed, for the message, such as "or None".

    Raises:
        ValueError: Another type, True or False, less than 1, or 2^63 and more.
    """
    if isinstance(value, Integral) and int(value) >= 2**63:
        raise ValueError(f"{solver}: {name} must be less than 2^63, got {value!r}")
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        wanted = f"an integer of at least 1 {otherwise}".rstrip()
        raise ValueError(f"{solver}: {name} must be {wanted}, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
