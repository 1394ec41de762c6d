"""What a method gains over another under a shift, beyond what it gains without one.

A transductive method may gain by balancing clusters, on any images. What it gains by moving a domain is the difference
of its gain on shifted queries and its gain on the same queries as they are, in the same episodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from otfew.statistics.intervals import Estimate, Jackknife

Floats = npt.NDArray[np.float64]
CLEAN = "clean"
"""What images are called that are seen as they are: severity 0 of every shift."""

Accuracies = Mapping[str, Mapping[str, Floats]]
"""View ("clean", "blur:2") -> name of method -> (episodes,) accuracies, paired between views and methods."""


def shift_of(view: str) -> str:
    """Return the name of a view's shift."""
    return view.rpartition(":")[0]


def choose(candidates: Sequence[str], accuracies: Accuracies, target: str) -> str:
    """Choose a candidate for a shift by what it reaches under the others.

    Args:
        candidates: Names; of equal ones the first is taken.
        accuracies: On other classes or images than those that are evaluated.
        target: Name of the shift that has no part in the choice.

    Raises:
        ValueError: No candidate, or no view of another shift.
    """
    others = [view for view in accuracies if view != CLEAN and shift_of(view) != target]
    if not candidates or not others:
        raise ValueError(f"nothing to choose from for {target!r}: {len(candidates)} candidates, {len(others)} views")
    reached = [float(np.mean([accuracies[view][name].mean() for view in others])) for name in candidates]
    return candidates[int(np.argmax(reached))]


def effect(accuracies: Accuracies, pairs: Mapping[str, tuple[str, str]], views: Sequence[str]) -> Floats:
    """Compute the gain under shift minus the gain without, episode by episode.

    The mean over shifts s, of which each weighs alike, of

        mean over the views v of s of (left_s(v) - right_s(v)) - (left_s(clean) - right_s(clean)).

    Args:
        accuracies: With ``CLEAN`` and all views.
        pairs: Shift -> the method and the other that it is compared with under it.
        views: Shifted ones, of any of the shifts.

    Returns:
        (episodes,) differences of differences of accuracies.

    Raises:
        ValueError: No view.
    """
    if not views:
        raise ValueError("no view: give one at least")
    by_shift: dict[str, list[str]] = {}
    for view in views:
        by_shift.setdefault(shift_of(view), []).append(view)
    total = [
        np.mean([gain(accuracies[view], pairs[shift]) for view in own], 0) - gain(accuracies[CLEAN], pairs[shift])
        for shift, own in by_shift.items()
    ]
    found: Floats = np.mean(total, 0)
    return found


def gain(accuracies: Mapping[str, Floats], pair: tuple[str, str]) -> Floats:
    """Return what the one of two methods has over the other: (episodes,)."""
    left, right = pair
    return accuracies[left] - accuracies[right]


@dataclass(frozen=True)
class Part:
    """An effect on one data set.

    Attributes:
        mean: Of the effect.
        episode_half_width: Half of its 95 % interval over episodes.
        class_error: Standard error over classes; None where it cannot be had.
        degrees: Degrees of freedom of that.
    """

    mean: float
    episode_half_width: float
    class_error: float | None
    degrees: int


def pooled(parts: Sequence[Part]) -> Estimate:
    """Average effects on data sets that have no class in common, each weighing alike.

    Errors add in quadrature; Student's t takes the fewest degrees of freedom among the parts, which errs wide.

    Args:
        parts: At least one.
    """
    count = len(parts)
    errors = [part.class_error for part in parts]
    degrees = min(part.degrees for part in parts)
    known = [error for error in errors if error is not None]
    if len(known) < count:
        jackknife = Jackknife(None, None, degrees, "unknown on one of the data sets")
    else:
        error = math.sqrt(sum(e**2 for e in known)) / count
        jackknife = Jackknife(error, float(stats.t.ppf(0.975, degrees)) * error, degrees)
    half = math.sqrt(sum(part.episode_half_width**2 for part in parts)) / count
    return Estimate(sum(part.mean for part in parts) / count, half, jackknife)
