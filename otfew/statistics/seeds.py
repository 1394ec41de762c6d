"""Differences between runs paired by their seeds, which draw first weights and batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from otfew.statistics.intervals import holm


@dataclass(frozen=True)
class SeedEstimate:
    """A mean over seeds.

    Attributes:
        mean: Over seeds.
        half_width: Of the 95 % interval by Student's t with seeds - 1 degrees of freedom; None for one seed.
        seeds: How many.
    """

    mean: float
    half_width: float | None
    seeds: int


@dataclass(frozen=True)
class SeedDifference:
    """A paired difference over seeds.

    Attributes:
        estimate: Of the difference.
        p: Two-sided, of "no difference on other seeds"; None for one seed.
        adjusted_p: By Holm, over the comparisons made together.
        verdict: "better", "worse", "no difference shown" or "not assessed".
    """

    estimate: SeedEstimate
    p: float | None
    adjusted_p: float | None
    verdict: str


def estimate(values: Sequence[float]) -> SeedEstimate:
    """Average over seeds.

    Args:
        values: One for each seed.

    Returns:
        The mean with its half-width.

    Raises:
        ValueError: There is none.
    """
    if not values:
        raise ValueError("no seed to average over")
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return SeedEstimate(mean, None, count)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return SeedEstimate(mean, float(stats.t.ppf(0.975, count - 1)) * error, count)


def differences(
    runs: Mapping[str, Mapping[int, float]], reference: str, level: float = 0.05
) -> dict[str, SeedDifference | None]:
    """Compare runs with a reference over the seeds that they share.

    Args:
        runs: Name -> seed -> figure.
        reference: Name of the run that the others are compared with.
        level: Of significance, after Holm's correction over all the comparisons.

    Returns:
        Name, without the reference -> difference to it, or None where no seed is shared.

    Raises:
        KeyError: There is no run of the reference's name.
    """
    base = runs[reference]
    estimates: dict[str, SeedEstimate | None] = {}
    for name, figures in runs.items():
        if name != reference:
            shared = sorted(figures.keys() & base.keys())
            estimates[name] = estimate([figures[seed] - base[seed] for seed in shared]) if shared else None
    p_values = {name: _p_value(found) for name, found in estimates.items()}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return {
        name: None if found is None else SeedDifference(found, p_values[name], adjusted[name],
                                                        _verdict(found, adjusted[name], level))
        for name, found in estimates.items()
    }  # fmt: skip


def _p_value(found: SeedEstimate | None) -> float | None:
    if found is None or found.half_width is None:
        return None
    degrees = found.seeds - 1
    error = found.half_width / float(stats.t.ppf(0.975, degrees))
    if error == 0:
        return 1.0 if found.mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(found.mean) / error, degrees))


def _verdict(found: SeedEstimate, adjusted: float | None, level: float) -> str:
    if adjusted is None:
        return "not assessed"
    if adjusted >= level:
        return "no difference shown"
    return "better" if found.mean > 0 else "worse"
