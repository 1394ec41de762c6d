"""What an object's proportions are drawn from."""

from __future__ import annotations

from otfew.random.draws import uniforms


class Chances:
    """Random choices of one object, a pure function of its identity.

    Args:
        *identity: The class, the split, the object's number and whatever else tells it apart.
    """

    def __init__(self, *identity: str | int) -> None:
        self._uniforms = uniforms("otfew.data.shapes", *identity)

    def between(self, low: float, high: float) -> float:
        """Draw a number."""
        return low + (high - low) * next(self._uniforms)

    def count(self, low: int, high: int) -> int:
        """Draw a whole number from ``low`` to ``high``, both included."""
        return low + int(next(self._uniforms) * (high - low + 1))

    def happens(self, probability: float) -> bool:
        """Toss."""
        return next(self._uniforms) < probability
