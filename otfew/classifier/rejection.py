"""Answers that are none: how sure a classifier must be, by the share of known photos that may be refused."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.errors import UserError

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[Any]

LEAST_CLASSES = 4
"""Fewer classes cannot stand for what is unknown to the others."""


class Unknown(str):
    """The answer to a photo that is of none of the classes, as far as can be told; equal to the text "unknown"."""

    __slots__ = ()

    def __new__(cls) -> Unknown:
        """Make it."""
        return super().__new__(cls, "unknown")

    def __repr__(self) -> str:
        """Print it as it is read."""
        return "otfew.UNKNOWN"

    def __reduce__(self) -> str:
        """Stay the same object in pickles and copies."""
        return "UNKNOWN"


UNKNOWN = Unknown()
"""What ``predict`` answers where it refuses."""


def check_rate(rate: object) -> float | None:
    """Return the share of known photos that may be refused, or None for no refusals.

    Raises:
        UserError: Not None, and no number above 0 and below 1.
    """
    if rate is None:
        return None
    if isinstance(rate, bool) or not isinstance(rate, numbers.Real) or not 0 < float(rate) < 1:
        raise UserError(f"`reject` is {rate!r}: give the share of known photos that may be refused, such as 0.05.")
    return float(rate)


def needed(rate: float) -> int:
    """Count the held-out photos that a rate needs: the least n with 1 / (n + 1) at most the rate."""
    return max(1, math.ceil(1 / rate - 1 - 1e-9))


def check_count(count: int, rate: float) -> None:
    """Raise ``UserError`` where fewer held-out photos than ``needed`` stand behind a rate."""
    if count < needed(rate):
        raise UserError(
            f"`reject` {rate:g} needs {needed(rate)} labelled photos that can be held out, and there are {count}: give "
            f"more, or a rate of at least {math.ceil(1000 / (count + 1)) / 1000:g}."
        )


def threshold(sure: Floats, rate: float) -> float:
    """Settle the sureness below which a photo is refused, see ``otfew.statistics.detection.sureness``.

    Of n held-out photos of known classes and a new one, whichever is the k-th least sure is any of them with equal
    chance where they are exchangeable. So the new one is below the k-th of the n with a chance of at most
    k / (n + 1), with k = floor(rate (n + 1)).

    Args:
        sure: (n,) of held-out photos, one for each unit.
        rate: Share of known photos that may be refused.

    Raises:
        UserError: Fewer than 1 / rate - 1 photos stand behind it.
    """
    count = len(sure)
    check_count(count, rate)
    k = math.floor(rate * (count + 1) + 1e-9)
    return float(np.sort(sure)[k - 1])


def label_of_unknown(given: object, classes: Labels) -> Any:
    """Settle what refused photos are labelled with.

    Args:
        given: The user's own value, or None for ``UNKNOWN``.
        classes: Labels of the classes.

    Raises:
        UserError: A class has that very label.
    """
    label = UNKNOWN if given is None else given
    if label in classes.tolist():
        raise UserError(f"a class is labelled {label!r}, as refused photos would be: give another `unknown_label`.")
    return label


def with_unknown(labels: Labels, refused: npt.NDArray[np.bool_], label: Any) -> Labels:
    """Replace the labels of refused photos; an array of objects where the label is of another kind than theirs."""
    same = np.asarray(label).dtype.kind == labels.dtype.kind and labels.dtype.kind in "iuU"
    result = labels.astype(np.result_type(labels, np.asarray(label)) if same else object)
    # One by one: numpy would write a text of its own kind for a subclass of str.
    result[refused] = label
    return result


@dataclass(frozen=True)
class Detection:
    """How well photos of unknown classes are told from known ones, estimated by leaving each class out in turn.

    Attributes:
        auroc: Chance that a photo of a class that was left out is less sure than a held-out photo of a known one.
        found: Share of the former that the threshold refuses; None without a threshold.
        classes: How many were left out in turn.
    """

    auroc: float
    found: float | None
    classes: int

    def __str__(self) -> str:
        """Say it, and for what it holds."""
        refused = "" if self.found is None else f"{100 * self.found:.0f} % of them would be refused, they are "
        return (
            f"photos of unknown kinds: {refused}told from known ones with AUROC {self.auroc:.2f}, an estimate by "
            f"leaving each of the {self.classes} classes out in turn; it holds for unknown kinds that resemble "
            "these as they resemble one another"
        )
