"""How much of a gain comes from the nodes' weights and how much from matching them: a two by two design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from otfew.evaluation.episodes import Indices
from otfew.evaluation.estimates import Floats, ratio, shown, to_record
from otfew.statistics.intervals import estimate


@dataclass(frozen=True)
class Design:
    """Names of the entries of a two by two design.

    Attributes:
        equal: Equal weights, no matching.
        weighted: Cross-reference weights, no matching.
        matched: Equal weights, matching.
        both: Cross-reference weights, matching.
        start: Where the gain is counted from, if not from ``equal``.
    """

    equal: str
    weighted: str
    matched: str
    both: str
    start: str = ""

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """Return the five names, the start last."""
        return self.equal, self.weighted, self.matched, self.both, self.start or self.equal


def effects(cells: Sequence[Floats], classes: Indices, names: Sequence[str]) -> dict[str, Any]:
    """Divide the gain of both over the start into what is added before, what weights and what matching contribute.

    With accuracies a (neither), b (weights), c (matching), d (both) and e (the start): gain = d - e; before = a - e;
    weights = ((b - a) + (d - c)) / 2 and matching = ((c - a) + (d - b)) / 2, the averages over the two orders of
    adding them (Shapley values). The three parts add up to the gain; interaction = (d - c) - (b - a). The shares of
    weights and matching are relative to the gain; they may lie outside of 0 and 1 where a part hurts, and are undefined
    unless the gain is above zero by its wider interval.

    Args:
        cells: a, b, c, d, e, each (episodes,).
        classes: (episodes, way).
        names: Of all classes.

    Returns:
        JSON-ready: "gain", "before", "weights", "matching", "interaction", and "share_of_weights" and
        "share_of_matching", which are None where undefined, with "share_undefined" saying why.
    """
    a, b, c, d, e = cells
    gain = d - e
    weights, matching = ((b - a) + (d - c)) / 2, ((c - a) + (d - b)) / 2
    parts = {
        "gain": gain,
        "before": a - e,
        "weights": weights,
        "matching": matching,
        "interaction": (d - c) - (b - a),
    }
    found: dict[str, Any] = {name: to_record(estimate(values, classes, names)) for name, values in parts.items()}
    total = estimate(gain, classes, names)
    defined = shown(total) and total.mean > 0
    for name, part in (("share_of_weights", weights), ("share_of_matching", matching)):
        found[name] = to_record(ratio(part, gain, classes, names)) if defined else None
    return found if defined else {**found, "share_undefined": "no gain is shown, so there is nothing to share"}
