"""Intervals of a mean over two sources that are crossed: every class is met by every network.

A mean over C classes and N networks of d_cn = m + a_c + b_n + e_cn, with variances A, B and E of independent effects,
has the variance A / C + B / N + E / (C N). What is left when networks are averaged first, the jackknife over classes,
estimates V_1 = A / C + E / (C N); averaged over classes first, V_2 = B / N + E / (C N). Their sum

    V = V_1 + V_2,    f = V^2 / (V_1^2 / f_1 + V_2^2 / f_2),

counts E / (C N) twice, so that it errs wide where only the interaction matters, and needs no more than the two standard
errors: two-way clustering without its third term (Cameron, Gelbach and Miller 2011). No estimate is exact for crossed
effects (McCullagh 2000; Owen 2007). f are Satterthwaite's (1946) degrees of freedom of a sum. Three networks have two
of their own, and a quantile of 4.3: where they vary little by chance, the sum believes them, and far out, where
corrections for many questions look, too often. Hence an interval is never narrower, and a p never smaller, than that of
either source alone. Simulated with 20 classes and 3 networks, it holds the mean in 95 to 96 % of
cases where one source dominates or both matter, in 99 % where the interaction alone does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

_NORMAL = 1e10
"""Degrees of freedom from which Student's t is a normal."""


@dataclass(frozen=True)
class Spread:
    """What one source does to a mean.

    Attributes:
        standard_error: Of the mean; 0 or more.
        degrees: Of freedom, of Student's t; infinite for a normal.
    """

    standard_error: float
    degrees: float = math.inf

    @classmethod
    def of_interval(cls, half_width: float, degrees: float = math.inf) -> Spread:
        """Return the standard error behind half of a 95 % interval.

        Args:
            half_width: Half of the interval.
            degrees: Of freedom, of Student's t that made it.
        """
        return cls(half_width / _quantile(degrees), degrees)

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval."""
        return _quantile(self.degrees) * self.standard_error

    def p_value(self, mean: float) -> float:
        """Return the two-sided p of "the mean is 0".

        Args:
            mean: Whose standard error this is.
        """
        if self.standard_error == 0:
            return 1.0 if mean == 0 else 0.0
        return float(2 * special.stdtr(min(self.degrees, _NORMAL), -abs(mean) / self.standard_error))


def summed(sources: Sequence[Spread]) -> Spread:
    """Add the variances of sources, with Satterthwaite's (1946) degrees of freedom.

    Args:
        sources: Independent of one another; one at least.

    Returns:
        The standard error of all together, with its degrees of freedom.

    Raises:
        ValueError: There are none.
    """
    if not sources:
        raise ValueError("there is no source: give one at least")
    variances = [source.standard_error**2 for source in sources]
    total = sum(variances)
    lost = sum(v**2 / source.degrees for v, source in zip(variances, sources, strict=True))
    degrees = total**2 / lost if lost > 0 else max(source.degrees for source in sources)
    return Spread(math.sqrt(total), degrees)


def crossed(mean: float, sources: Sequence[Spread]) -> tuple[float, float]:
    """Judge a mean by all of its sources at once.

    Args:
        mean: Over all of them.
        sources: One, or several that are crossed.

    Returns:
        Half of the 95 % interval, and the p of "the mean is 0": the largest of each source's own and of their sum's.

    Raises:
        ValueError: There are none.
    """
    candidates = [summed(sources), *sources]
    return max(each.half_width for each in candidates), max(each.p_value(mean) for each in candidates)


def _quantile(degrees: float) -> float:
    return float(special.stdtrit(min(degrees, _NORMAL), 0.975))
