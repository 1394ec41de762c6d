"""How much of a gain comes from the nodes' weights and how much from matching them: a two by two design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from otfew.episodes import Indices
from otfew.experiments._estimates import Floats, ratio, shown, to_record
from otfew.statistics import estimate


@dataclass(frozen=True)
class Design:
    """Names of the four variants of a two by two design.

    Attributes:
        equal: Equal weights, no matching.
        weighted: Cross-reference weights, no matching.
        matched: Equal weights, matching.
        both: Cross-reference weights, matching.
    """

    equal: str
    weighted: str
    matched: str
    both: str


def effects(cells: Sequence[Floats], classes: Indices, names: Sequence[str]) -> dict[str, Any]:
    """Divide the gain of both over neither into what weights and what matching contribute.

    With accuracies a (neither), b (weights), c (matching) and d (both): gain = d - a; weights = ((b - a) + (d - c)) / 2
    and matching = ((c - a) + (d - b)) / 2, the averages over the two orders of adding them (Shapley values), which add
    up to the gain; interaction = (d - c) - (b - a). The share of weights is weights / gain; it may lie outside of 0 and
    1 where one of the two hurts, and is undefined unless the gain is above zero by its wider interval.

    Args:
        cells: a, b, c, d, each (episodes,).
        classes: (episodes, way).
        names: Of all classes.

    Returns:
        JSON-ready: "gain", "weights", "matching", "interaction" and "share_of_weights", the last None with
        "share_undefined" saying why where it has no value.
    """
    a, b, c, d = cells
    gain = d - a
    weights = ((b - a) + (d - c)) / 2
    parts = {"gain": gain, "weights": weights, "matching": gain - weights, "interaction": (d - c) - (b - a)}
    found: dict[str, Any] = {name: to_record(estimate(values, classes, names)) for name, values in parts.items()}
    total = estimate(gain, classes, names)
    if shown(total) and total.mean > 0:
        found["share_of_weights"] = to_record(ratio(weights, gain, classes, names))
    else:
        found["share_of_weights"] = None
        found["share_undefined"] = "no gain is shown, so there is nothing to share"
    return found
