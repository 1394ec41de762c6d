"""Figures of an analysis beyond accuracies and their differences, with the evaluator's two intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.evaluation.episodes import Indices
from otfew.statistics.intervals import Estimate, estimate

Floats = npt.NDArray[np.float64]
KEYS = {"classes": "class_ci", "photos": "photo_ci"}
"""What a jackknife goes over -> where its interval stands."""


def to_record(value: Estimate) -> dict[str, Any]:
    """Put an estimate into JSON; an interval that cannot be had is null, with the reason."""
    over = KEYS[value.over]
    record: dict[str, Any] = {
        "mean": rounded(value.mean),
        "episode_ci": rounded(value.episode_half_width),
        over: rounded(value.jackknife.half_width),
    }
    return record | ({f"{over}_missing": value.jackknife.reason} if value.jackknife.reason else {})


def shown(value: Estimate) -> bool:
    """Tell whether the wider interval excludes zero; False where there is none."""
    return value.half_width is not None and abs(value.mean) > value.half_width


def ratio(part: Floats, whole: Floats, classes: Indices, names: Sequence[str]) -> Estimate:
    """Estimate mean(part) / mean(whole) over (episodes,) values, with intervals by the delta method.

    The intervals are those of the mean of (part - r whole) / mean(whole), which is how r moves with the episodes and
    the classes, to first order. It is good where the whole is several times its own interval.
    """
    total = float(whole.mean())
    r = float(part.mean()) / total
    moved = estimate((part - r * whole) / total, classes, names)
    return Estimate(r, moved.episode_half_width, moved.jackknife)


def rounded(value: float | None) -> float | None:
    """Keep eight digits after the point: more would record the order of additions."""
    return None if value is None or math.isnan(value) else round(value, 8)
