"""What the figures answer, in sentences: does transport help across domains, and when does it hurt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otfew.evaluation.shift_gain import CLEAN, shift_of
from otfew.experiments.transfer.rule import NETWORKS, Test
from otfew.reporting.sentences import listed, percent

Record = Mapping[str, Any]
NOTHING = "cosine-centroid"
"""The method that does nothing about a shift."""
ANSWERS = {
    "better": "transport helps across domains, beyond what it gains without a shift",
    "no difference shown": "no difference shown between what transport gains under a shift and without one",
    "worse": "transport hurts: under a shift it has less over its control than without one",
    "not assessed": "not assessed, as there is no interval over classes",
}
"""Verdict of the rule -> what it means."""


def verdict(test: Test) -> str:
    """Put the test of a network into a sentence."""
    points = f"{percent(test.found.mean, sign=True)} ± {percent(test.found.half_width)} points"
    return f"{test.network} ({listed(test.datasets, ' and ')}): {ANSWERS[test.verdict]} ({points})."


def not_tested(network: str, missing: Sequence[str]) -> str:
    """Say that a network is not tested, and what is missing."""
    return (
        f"{network} is not tested: no run on {listed(missing, ' and ')}. It counts as one of "
        f"{len(NETWORKS)} in Holm's correction all the same."
    )


def below_nothing(records: Sequence[Record]) -> str:
    """List where what was judged is below doing nothing: by more than its interval, and in the mean alone.

    Records hold accuracies by themselves, and no paired difference to the nearest mean: the interval is the wider one
    of the judged method's accuracy, which errs towards listing too few.

    Args:
        records: Of the primary contrast.
    """
    surely: list[str] = []
    lower: list[str] = []
    clean: list[str] = []
    count = 0
    for record in records:
        cell = f"{record['data']['dataset']} ({record['network']})"
        judged = {shift: left for shift, (left, _) in record["effects"]["pairs"].items()}
        for view, methods in record["methods"].items():
            nothing = methods[NOTHING]["mean"]
            for left in set(judged.values()) if view == CLEAN else {judged[shift_of(view)]}:
                own = methods[left]
                less = nothing - own["mean"]
                where = f"{cell} {view} by {percent(less)}"
                if view == CLEAN and less > 0:
                    clean.append(cell)
                elif less > max(own["episode_ci"], own["class_ci"] or 0.0):
                    surely.append(where)
                elif less > 0:
                    lower.append(where)
            count += view != CLEAN
    return (
        f"Under a shift, accuracy of `domain-transport` is below doing nothing (`{NOTHING}`) by more than its interval "
        f"in {_count(surely)} of {count} views, and by less than that, in the mean alone, in {_count(lower)}. Without "
        f"a shift its mean is lower on {_count(sorted(set(clean)))} of {len(records)} data sets and networks. "
        "Intervals are those of an accuracy by itself, as a rule wider than those of paired differences."
    )


def unchanged(records: Sequence[Record]) -> list[str]:
    """Name the views under which no method answers otherwise than without a shift: nothing or a line."""
    found = [
        f"{record['data']['dataset']} ({record['network']}) {view}"
        for record in records
        for view, methods in record["methods"].items()
        if view != CLEAN and methods == record["methods"][CLEAN]
    ]
    said = "Too mild to change any figure, so that the effect there is 0 and the mean is drawn towards it: "
    return [f"{said}{', '.join(found)}."] if found else []


def _count(found: Sequence[str]) -> str:
    return f"{len(found)} ({', '.join(found)})" if found else "0"
