"""Whether new photos resemble the labelled ones: without that, no figure from the latter holds for the former.

An energy test (Szekely and Rizzo 2013) on unit features, within the classes that photos are taken for: many new photos
of one class and few of another are no difference. Labelled photos go by the class that they were taken for when held
out, so that both sides are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otfew.random.keys import key128

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

PERMUTATIONS = 999
MOST = 400
"""New photos that are looked at: evenly spaced ones of more."""
LEVEL = 0.01
"""From which p down new photos are said not to resemble the labelled ones."""
DOUBTFUL = 0.05
"""From which p down the same is said to be open: so small a p is rare among photos that do, yet one in twenty."""
LEAST = 5
"""Photos on either side below which nothing can be told."""


@dataclass(frozen=True)
class Resemblance:
    """What the test found.

    Attributes:
        p: Of "both come from the same source, class by class"; None where there are too few photos to tell.
        photos: New ones that were looked at.
    """

    p: float | None
    photos: int

    @property
    def differs(self) -> bool:
        """True where the new photos do not resemble the labelled ones."""
        return self.p is not None and self.p <= LEVEL

    def __str__(self) -> str:
        """Say it."""
        if self.p is None:
            return "too few photos to tell whether NEW resembles LABELLED"
        if self.differs:
            return (
                f"NEW does not resemble LABELLED (p {self.p:.3f}): confidence, refusals and sets are not to be relied "
                "on for such photos; label some of them"
            )
        if self.p <= DOUBTFUL:
            return (
                f"NEW may differ from LABELLED (p {self.p:.3f}, and {LEVEL:g} would tell): look at some answers before "
                "relying on confidence and refusals"
            )
        return f"NEW resembles LABELLED (p {self.p:.2f})"


def resemble(
    labelled: Floats, labelled_as: Indices, new: Floats, new_as: Indices, *, permutations: int = PERMUTATIONS
) -> Resemblance:
    """Test whether new photos come from where the labelled ones come from, within the classes they are taken for.

    Args:
        labelled: (n, channels), one photo of each group of near-duplicates.
        labelled_as: (n,) the class that each was taken for when it was held out.
        new: (m, channels).
        new_as: (m,) the class that each is taken for.
        permutations: How many random divisions of each class's photos; they are the same in every run.
    """
    if len(new) > MOST:
        chosen = np.linspace(0, len(new) - 1, MOST).round().astype(np.int64)
        new, new_as = new[chosen], new_as[chosen]
    if min(len(labelled), len(new)) < LEAST:
        return Resemblance(None, len(new))
    points = _unit(np.concatenate([labelled, new]).astype(np.float64))
    taken = np.concatenate([labelled_as, new_as])
    is_new = np.arange(len(points)) >= len(labelled)
    bits = np.random.Philox(key=key128("otfew resemblance"))
    own, drawn = 0.0, np.zeros(permutations)
    compared = 0
    for c in np.unique(taken):
        rows = np.flatnonzero(taken == c)
        side = is_new[rows]
        if side.all() or not side.any() or len(rows) < 3:
            continue
        compared += len(rows)
        distances = np.sqrt(np.maximum(2 - 2 * points[rows] @ points[rows].T, 0))
        words = bits.random_raw(permutations * len(rows)).reshape(permutations, len(rows))
        shuffled = side[np.argsort(words, axis=1, kind="stable")]
        scores = energies(distances, np.concatenate([side[None], shuffled]))
        own += scores[0]
        drawn += scores[1:]
    if compared < 2 * LEAST:
        return Resemblance(None, len(new))
    return Resemblance(float((1 + (drawn >= own - 1e-12).sum()) / (permutations + 1)), len(new))


def energies(distances: Floats, sides: npt.NDArray[np.bool_]) -> Floats:
    """Compute n m / (n + m) times the energy distance between two parts of some points.

    Args:
        distances: (points, points).
        sides: (divisions, points), each with both sides there.

    Returns:
        (divisions,) of n m / (n + m) (2 E|X - Y| - E|X - X'| - E|Y - Y'|).
    """
    one = sides.astype(np.float64)
    other = 1 - one
    n, m = one.sum(1), other.sum(1)
    across = ((one @ distances) * other).sum(1) / (n * m)
    within = ((one @ distances) * one).sum(1) / n**2 + ((other @ distances) * other).sum(1) / m**2
    energy: Floats = n * m / (n + m) * (2 * across - within)
    return energy


def _unit(vectors: Floats) -> Floats:
    """Scale vectors to norm 1."""
    scaled: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled
