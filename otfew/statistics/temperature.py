"""The temperature that turns logits into probabilities: by held-out log-loss, held near what other data say.

p = softmax(logits / T). With s = log T the fit minimises

    sum_u loss_u(T) + (s - s_0)^2 / (2 sigma^2),    |s - s_0| <= REACH sigma,

where loss_u is the mean log-loss of the photos of unit u (near-duplicates count once) and (s_0, sigma) are mean and
spread of fitted log temperatures on validation classes of other data. Without an error the first sum falls for ever as
T does; the second does not let it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

REACH = 4.0
"""How far from its expectation a temperature may go, in spreads."""
POINTS = 401
"""Of the grid over log T: steps of a fiftieth of a spread, refined by a parabola."""
VAGUE = 1.5
"""Spread of log T where nothing is known of a method's scale: a factor of 4.5."""


@dataclass(frozen=True)
class Expected:
    """What is known of a temperature before any photo.

    Attributes:
        log_mean: s_0.
        spread: sigma, above 0.
        source: Where it comes from, for the report.
    """

    log_mean: float
    spread: float
    source: str = ""


def from_scale(logits: Floats) -> Expected:
    """Expect a temperature from the logits' own scale, where no table has the method: labels are not looked at.

    Args:
        logits: (images, way) float64.

    Returns:
        Half of the logits' standard deviation within an image, with a wide spread.
    """
    scale = float(np.sqrt(logits.var(1).mean())) if logits.size else 1.0
    return Expected(math.log(scale / 2) if scale > 0 else 0.0, VAGUE, "the scale of its logits")


def log_losses(logits: Floats, labels: Indices, temperatures: Floats) -> Floats:
    """Compute -log p of the true class.

    Args:
        logits: (images, way) float64.
        labels: (images,) int64.
        temperatures: (points,) or (images, points) float64.

    Returns:
        (images, points) float64.
    """
    # Differences to the largest, so that no exponential overflows; a class at a time, so that all of it stays in the
    # processor's cache: the points are many and the classes few.
    below = logits - logits.max(1, keepdims=True)
    inverse = np.broadcast_to(1 / temperatures, (len(logits), temperatures.shape[-1]))
    total, share = np.zeros(inverse.shape), np.empty(inverse.shape)
    for column in below.T:
        np.multiply(column[:, None], inverse, out=share)
        total += np.exp(share, out=share)
    losses: Floats = np.log(total) - np.take_along_axis(below, labels[:, None], 1) * inverse
    return losses


def fit(losses: Floats, expected: Expected) -> float:
    """Find T from the sum of the units' losses at the points of ``grid``.

    Args:
        losses: (points,) float64.
        expected: Towards which it is held.

    Returns:
        T, above 0.
    """
    return float(fit_each(losses[None], expected)[0])


def fit_each(losses: Floats, expected: Expected) -> Floats:
    """Find T for several sums of losses: (sums,) of (sums, points)."""
    s = np.log(grid(expected))
    objective = losses + (s - expected.log_mean) ** 2 / (2 * expected.spread**2)
    lowest = objective.argmin(1)
    # A parabola through the lowest point and its neighbours; a point at the edge stays where it is.
    inner = np.clip(lowest, 1, len(s) - 2)
    rows = np.arange(len(losses))
    below, here, above = (objective[rows, inner + step] for step in (-1, 0, 1))
    bend = below - 2 * here + above
    apart = np.where((lowest == inner) & (bend > 0), 0.5 * (below - above) / np.where(bend > 0, bend, 1), 0)
    found: Floats = np.exp(s[lowest] + apart * (s[1] - s[0]))
    return found


def grid(expected: Expected) -> Floats:
    """Return the temperatures that are tried.

    Args:
        expected: About which they lie.

    Returns:
        (points,) float64, ascending.
    """
    reach = REACH * expected.spread
    points: Floats = np.exp(np.linspace(expected.log_mean - reach, expected.log_mean + reach, POINTS))
    return points


@dataclass(frozen=True)
class CrossFitted:
    """A temperature for new photos, and for each held-out photo one that was fitted without it.

    Attributes:
        temperature: Fitted on all units.
        each: (rows,) for each row of logits that of all units but its own.
        rows: (rows,) of the units.
        expected: Towards which they were held.
    """

    temperature: float
    each: Floats
    rows: Indices
    expected: Expected


def cross_fit(logits: Floats, labels: Indices, units: Indices, expected: Expected | None) -> CrossFitted:
    """Fit a temperature on held-out photos, and again without each unit.

    Args:
        logits: (rows, way), of photos that the method had not seen; a photo may have several rows.
        labels: (rows,).
        units: (rows,) ids of near-duplicate groups.
        expected: Towards which it is held; None takes the scale of these logits.
    """
    expected = from_scale(logits) if expected is None else expected
    if not len(logits):
        return CrossFitted(math.exp(expected.log_mean), np.zeros(0), units, expected)
    losses = log_losses(logits, labels, grid(expected))
    names, place = np.unique(units, return_inverse=True)
    sums = np.zeros((len(names), losses.shape[1]))
    np.add.at(sums, place, losses)
    per_unit = sums / np.bincount(place)[:, None]
    total = per_unit.sum(0)
    without = fit_each(total - per_unit, expected)
    return CrossFitted(fit(total, expected), without[place], units, expected)


def softmax(logits: Floats, temperatures: float | Floats) -> Floats:
    """Turn logits into probabilities.

    Args:
        logits: (rows, way) float64.
        temperatures: One number, or (rows,) float64.

    Returns:
        (rows, way) float64, rows of total 1.
    """
    scaled = logits / np.reshape(temperatures, (-1, 1))
    shares: Floats = np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True))
    return shares


def unit_means(values: Floats, units: Indices) -> tuple[Floats, Indices]:
    """Average rows within units.

    Args:
        values: (rows,).
        units: (rows,).

    Returns:
        (units,) means, and (units,) their ids, ascending.
    """
    names, place = np.unique(units, return_inverse=True)
    return np.bincount(place, weights=values) / np.bincount(place), names


def brier(probabilities: Floats, labels: Indices) -> Floats:
    """Compute the Brier score of each row, sum_c (p_c - [c is true])^2.

    Args:
        probabilities: (rows, way) float64.
        labels: (rows,) int64.

    Returns:
        (rows,) float64, from 0 to 2.
    """
    hit = np.take_along_axis(probabilities, labels[:, None], 1)[:, 0]
    scores: Floats = (probabilities**2).sum(1) - 2 * hit + 1
    return scores


def stack(parts: Sequence[Floats], way: int) -> Floats:
    """Put logits of several rounds below one another: (rows, way), also where there are none."""
    return np.concatenate(parts) if parts else np.zeros((0, way))
