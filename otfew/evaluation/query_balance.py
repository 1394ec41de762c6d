"""How many queries each class of an episode has: the same for all, or proportions from a Dirichlet distribution.

Realistic query sets are not balanced (Veilleux et al. 2021, "Realistic evaluation of transductive few-shot learning"):
proportions ~ Dirichlet(alpha, ..., alpha), times the number of queries, rounded to whole numbers with that sum. There
alpha is 2; smaller is more unbalanced, infinity is balanced. A class may have no query.

Counts must be the same on every machine, which the logarithms of floating point arithmetic are not. Here they are
Python's decimal numbers, whose operations, square root, logarithm and exponential included, are specified to be rounded
correctly.
"""

from __future__ import annotations

import decimal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from otfew.errors import UserError

BALANCED = "balanced"
LEAST, MOST = Decimal("0.01"), Decimal(10_000)
_ARITHMETIC = decimal.Context(prec=24, rounding=decimal.ROUND_HALF_EVEN, Emin=-999_999, Emax=999_999)


@dataclass(frozen=True)
class Dirichlet:
    """Proportions from a symmetric Dirichlet distribution.

    Attributes:
        alpha: Its parameter, the same for all classes.
    """

    alpha: Decimal

    def counts(self, words: Iterator[int], way: int, total: int) -> list[int]:
        """Draw the queries of each class.

        Args:
            words: Independent uniform 64-bit integers; as many are taken as it needs.
            way: How many classes.
            total: How many queries.
        """
        with decimal.localcontext(_ARITHMETIC):
            parts = [gamma(self.alpha, words) for _ in range(way)]
            return apportion(parts, total)


def parse(text: str) -> Dirichlet | None:
    """Read "balanced" (None) or "dirichlet:ALPHA".

    Raises:
        UserError: Anything else, or ALPHA out of range.
    """
    if text == BALANCED:
        return None
    kind, _, number = text.partition(":")
    try:
        alpha = Decimal(number)
    except decimal.InvalidOperation:
        alpha = Decimal("nan")
    if kind != "dirichlet" or not alpha.is_finite():
        raise UserError(f"`query_balance` {text!r} is neither balanced nor dirichlet:ALPHA, such as dirichlet:2.")
    if not LEAST <= alpha <= MOST:
        raise UserError(f"`query_balance` {text!r}: ALPHA must be between {LEAST} and {MOST}.")
    return Dirichlet(alpha)


def canonical(text: str) -> str:
    """Spell what ``parse`` reads in one way: "dirichlet:2.0" is "dirichlet:2"."""
    balance = parse(text)
    return BALANCED if balance is None else f"dirichlet:{balance.alpha.normalize():f}"


def gamma(shape: Decimal, words: Iterator[int]) -> Decimal:
    """Draw from the gamma distribution of a shape, in the context's arithmetic.

    Marsaglia and Tsang (2000): d (1 + c x)^3 for normal x, accepted or drawn again; below shape 1 that of shape + 1,
    times u^(1/shape).
    """
    if shape < 1:
        boost = (uniform(words).ln() / shape).exp()
        return gamma(shape + 1, words) * boost
    d = shape - Decimal(1) / 3
    c = 1 / (9 * d).sqrt()
    while True:
        x = normal(words)
        root = 1 + c * x
        # Products: powers alone are not specified to be rounded correctly.
        v = root * root * root
        if v > 0 and uniform(words).ln() < x * x / 2 + d - d * v + d * v.ln():
            return d * v


def normal(words: Iterator[int]) -> Decimal:
    """Draw from the standard normal distribution by Marsaglia's polar method, one of each pair."""
    while True:
        a, b = 2 * uniform(words) - 1, 2 * uniform(words) - 1
        s = a * a + b * b
        if s < 1:
            return a * (-2 * s.ln() / s).sqrt()


def uniform(words: Iterator[int]) -> Decimal:
    """Turn a word into a number between 0 and 1, both excluded: the middle of its 2^-64."""
    return Decimal(2 * next(words) + 1) / (1 << 65)


def apportion(parts: Sequence[Decimal], total: int) -> list[int]:
    """Divide a whole number in proportion to ``parts``, into whole numbers.

    All are rounded down, and the largest remainders are then rounded up until the sum is right; of equal ones the
    first. The released code of Veilleux et al. rounds to the nearest and then moves those that were nearest to a half,
    which comes to the same.
    """
    whole = sum(parts)
    exact = [part * total / whole for part in parts]
    counts = [int(value) for value in exact]
    remainders = [value - count for value, count in zip(exact, counts, strict=True)]
    order = sorted(range(len(parts)), key=lambda i: (-remainders[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts
