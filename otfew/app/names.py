"""Names that come from elsewhere: of files, and of classes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.errors import UserError
from otfew.reporting.plain import plain

_LONGEST = 120
_SEPARATORS = re.compile(r"[/\\]")


def text(name: object) -> str:
    """Return what may be shown: no breaks, no control characters, nothing that turns the direction of writing."""
    return plain(str(name))


def shown(name: str) -> str:
    """Return what a file is called on the page: the last part of whatever was sent, cut in the middle if it is long.

    Args:
        name: From a browser, or from anything that says it is one.
    """
    last = text(_SEPARATORS.split(name)[-1]).strip() or "photo"
    half = _LONGEST // 2
    return last if len(last) <= _LONGEST else f"{last[: half - 1]}…{last[-half:]}"


def label(given: object, classes: npt.NDArray[Any], longest: int) -> Any:
    """Read a label that was typed or chosen.

    Args:
        given: From the page.
        classes: Labels that are known: a new one is of their kind.
        longest: Characters.

    Returns:
        The label: one of those known where it is shown like that, else a new one.

    Raises:
        UserError: It is empty, too long, no text, or no number where labels are numbers.
    """
    if not isinstance(given, str) or not given.strip():
        raise UserError("the label is empty: give the name of a class.")
    for known in classes.tolist():
        if text(known) == given:
            return known
    name = text(given.strip())
    if len(name) > longest:
        raise UserError(f"the label has {len(name)} characters: give at most {longest}.")
    if np.asarray(classes).dtype.kind not in "iu":
        return name
    try:
        return int(name)
    except ValueError:
        raise UserError(f"the label {name!r} is no whole number, as the known ones are: give one.") from None
