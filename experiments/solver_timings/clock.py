"""How solvers are timed: in turns, so that a machine that slows down slows all of them, and nothing that takes ages."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Work = Callable[[], object]

GROWTH = {"exact": 2.5, "entropic": 2.0, "quadratic": 6.0}
"""Time grows about as the number of nodes to this power, by the kind of solver; for predictions only."""
POINT_GROWTH = 1.5
"""The same for solvers of point clouds, whose small problems are mostly overhead."""


@dataclass(frozen=True)
class Pace:
    """How long to look.

    Attributes:
        rounds: Turns of each contender at most.
        turn: Seconds that a turn lasts at least: short calls repeat within it, as they do in use.
        budget: Seconds that the turns of one contender may take together; longer calls are timed once.
        limit: Calls predicted to take longer than these seconds are not made.
    """

    rounds: int = 7
    turn: float = 0.02
    budget: float = 0.3
    limit: float = 1.0


@dataclass(frozen=True)
class Timing:
    """What the turns of one contender gave.

    Attributes:
        seconds: Median over turns of the time of a call.
        rounds: How many turns.
    """

    seconds: float
    rounds: int


@dataclass
class History:
    """Times of one solver so far, to predict the next."""

    power: float
    seen: dict[tuple[int, int], float] = field(default_factory=dict)

    def predict(self, n: int, batch: int) -> float | None:
        """Predict the seconds of a call from what is nearest: the same size, the same batch, else anything smaller."""
        if (n, batch) in self.seen:
            return self.seen[n, batch]
        guesses = [t * batch / b for (m, b), t in self.seen.items() if m == n and b < batch]
        guesses += [t * (n / m) ** self.power for (m, b), t in self.seen.items() if b == batch and m < n]
        if not guesses:
            guesses = [
                t * (n / m) ** self.power * (batch / b) for (m, b), t in self.seen.items() if m <= n and b <= batch
            ]
        return min(guesses, default=None)


def take_turns(contenders: Mapping[str, Work], pace: Pace) -> dict[str, Timing]:
    """Time contenders in interleaved turns.

    Each has been called before, so that nothing is compiled or loaded here. A contender leaves when its budget is
    spent; the others go on.

    Args:
        contenders: Name -> what to call.
        pace: How long to look.
    """
    first = {name: _seconds(work, 1) for name, work in contenders.items()}
    repeats = {name: 1 + int(pace.turn / seconds) for name, seconds in first.items()}
    turns = {name: min(pace.rounds, int(pace.budget / (repeats[name] * first[name]))) for name in contenders}
    taken = {name: [] if turns[name] else [first[name]] for name in contenders}
    for k in range(pace.rounds):
        for name, work in contenders.items():
            if k < turns[name]:
                taken[name].append(_seconds(work, repeats[name]))
    return {name: Timing(statistics.median(seconds), len(seconds)) for name, seconds in taken.items()}


def _seconds(work: Work, repeats: int) -> float:
    """Time one call, as the average of several."""
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats
