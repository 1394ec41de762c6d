"""The figures of a comparison: intervals, paired differences, what transport adds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from otfew.evaluation.contrasts import contrasts
from otfew.evaluation.episodes import Indices
from otfew.evaluation.estimates import KEYS, Floats, rounded, to_record
from otfew.evaluation.lineup import Entry
from otfew.evaluation.run import Scores
from otfew.statistics import photos
from otfew.statistics.intervals import Estimate, estimate, holm, p_value, verdict

FORMAT = 2
"""Of results.json. In format 1 what transport adds was the difference to the one of five controls that was best on the
very episodes, and not to controls that are fixed beforehand."""

Name = TypeVar("Name", bound=Hashable)

REFERENCES = {False: "cosine-centroid", True: "pt-map"}
"""Transductive or not -> the method that the others of the group are compared with, unless another is named."""


def compare(
    entries: Sequence[Entry],
    scores: Mapping[str, Scores],
    classes: Indices,
    class_names: Sequence[str],
    reference: str,
    told: Mapping[str, str] | None = None,
    roles: photos.Roles | None = None,
    shot: int = 1,
) -> dict[str, Any]:
    """Compute every figure of a comparison.

    Inductive and transductive methods are two groups, each with a reference of its own. Differences to the reference of
    a group are one family for Holm's correction; what transport adds, the differences of all transport methods to the
    controls that their classes name (see ``otfew.evaluation.contrasts``), is another. Accuracies and differences are
    fractions of 1.

    Args:
        entries: In the order of the run.
        scores: By name.
        classes: (episodes, way), the classes of each episode, or the units that they belong to.
        class_names: Names of all classes of the split, or of the units.
        reference: Name of an entry: that of its group; the other has ``REFERENCES`` or its first.
        told: Name -> what a method that has use for it is told of the classes' shares in the queries.
        roles: Of photos in episodes that have every class each: intervals are then over photos, in place of classes.
        shot: Labelled images of each class.

    Returns:
        JSON-ready: "methods" by name; "transport_adds", name of transport method -> "contrasts" (name of a control ->
        the paired difference, with the entry that was "control") and, where some control is missing, "reason"; where
        there are both groups, "across_groups": the difference of their references, which is not one between like
        methods.
    """
    told = told or {}
    methods: dict[str, Any] = {
        entry.name: {
            "accuracy": accuracy(scores[entry.name], classes, class_names, roles),
            "nodes": entry.nodes,
            "transductive": entry.kind.transductive,
            **({"class_prior": told[entry.name]} if told.get(entry.name) else {}),
        }
        for entry in entries
    }
    references = _references(entries, reference)
    for group, to in references.items():
        others = [e.name for e in entries if e.kind.transductive is group and e.name != to]
        for name, difference in differences(others, to, scores, classes, class_names, roles).items():
            methods[name]["difference"] = difference
    record = {"methods": methods, "transport_adds": _transport_adds(entries, scores, classes, class_names, roles, shot)}
    if len(references) == 2:
        between = _estimate(scores[references[True]], scores[references[False]], classes, class_names, roles)
        record["across_groups"] = {"method": references[True], "to": references[False], **_record(between)}
    return record


def accuracy(
    scores: Scores, classes: Indices, class_names: Sequence[str], roles: photos.Roles | None = None
) -> dict[str, Any]:
    """Estimate a mean accuracy with its two intervals, JSON-ready; arguments as in ``compare``."""
    return _record(_estimate(scores, None, classes, class_names, roles))


def differences(
    names: Sequence[str],
    to: str,
    scores: Mapping[str, Scores],
    classes: Indices,
    class_names: Sequence[str],
    roles: photos.Roles | None = None,
) -> dict[str, dict[str, Any]]:
    """Pair each of some with one other, as one family for Holm's correction.

    Args:
        names: Whose differences are estimated.
        to: From whom.
        scores: By name.
        classes: (episodes, way), the classes of each episode.
        class_names: Names of all classes of the split.
        roles: As in ``compare``.

    Returns:
        Name -> "to", "mean", "episode_ci", "class_ci", "p", "p_holm", "verdict", JSON-ready.
    """
    found = paired(scores, [(name, to) for name in names], classes, class_names, roles)
    return {name: {"to": to, **difference} for name, difference in zip(names, found, strict=True)}


def paired(
    scores: Mapping[Name, Scores],
    pairs: Sequence[tuple[Name, Name]],
    classes: Indices,
    class_names: Sequence[str],
    roles: photos.Roles | None = None,
) -> list[dict[str, Any]]:
    """Estimate the differences of pairs (method, other), corrected as one family; arguments as in ``differences``."""
    found = [_estimate(scores[a], scores[b], classes, class_names, roles) for a, b in pairs]
    raw = [p_value(difference) for difference in found]
    return [
        {
            **_record(difference),
            "p": rounded(p),
            "p_holm": rounded(adjusted),
            "verdict": verdict(difference, adjusted),
        }
        for difference, p, adjusted in zip(found, raw, holm(raw), strict=True)
    ]


def _references(entries: Sequence[Entry], given: str) -> dict[bool, str]:
    """Settle the reference of each group that is there: transductive or not -> name."""
    found = {}
    for group in (False, True):
        names = [entry.name for entry in entries if entry.kind.transductive is group]
        if names:
            found[group] = next((name for name in (given, REFERENCES[group]) if name in names), names[0])
    return found


def _transport_adds(
    entries: Sequence[Entry],
    scores: Mapping[str, Scores],
    classes: Indices,
    class_names: Sequence[str],
    roles: photos.Roles | None,
    shot: int,
) -> dict[str, Any]:
    """Compare each transport method with its controls."""
    planned = contrasts(entries, shot)
    pairs = [(name, control) for name, own in planned.items() for control in own.found.values()]
    found = iter(paired(scores, pairs, classes, class_names, roles))
    return {
        name: {
            "contrasts": {named: {"control": control, **next(found)} for named, control in own.found.items()},
            **({"reason": own.missing} if own.missing else {}),
        }
        for name, own in planned.items()
    }


def _estimate(
    own: Scores, other: Scores | None, classes: Indices, class_names: Sequence[str], roles: photos.Roles | None
) -> Estimate:
    """Estimate a mean accuracy, or the difference of two, over classes or over photos."""
    if roles is None:
        return estimate(own.accuracy - (0 if other is None else other.accuracy), classes, class_names)
    values = _right(own) - (0.0 if other is None else _right(other))
    return photos.estimate(values, roles)


def _right(scores: Scores) -> Floats:
    """Tell which queries were right, (episodes, way * queries), where every class has as many of them."""
    assert scores.predicted is not None
    truth = np.repeat(np.arange(scores.correct.shape[1]), scores.queries)
    right: Floats = (scores.predicted[:, : len(truth)] == truth).astype(np.float64)
    return right


def _record(value: Estimate) -> dict[str, Any]:
    """Put an estimate into JSON, with the share of its interval over classes that is sampling noise."""
    record = to_record(value)
    if not value.jackknife.reason:
        record[f"{KEYS[value.over]}_noise_share"] = rounded(value.jackknife.noise_share)
    return record
