"""The record of a comparison: intervals, paired differences, what transport adds; and its tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otfew.evaluation.episodes import Indices
from otfew.evaluation.run import Scores
from otfew.reporting import tables
from otfew.reporting.sentences import mark, milliseconds, percent, protocol_lines, timing_lines, transport_lines, words
from otfew.statistics.intervals import Estimate, estimate, holm, p_value, verdict

__all__ = [
    "CONTROLS", "FORMAT", "REFERENCES", "Competitor", "compare", "episodes_csv", "mark", "markdown", "protocol_lines",
    "table", "timing_lines", "transport_lines", "words",
]  # fmt: skip

FORMAT = 1
CONTROLS = ("cr-pooled", "chamfer", "product-coupling", "cosine-nodes", "cosine-centroid")
"""Methods without transport whose best, on the same nodes, a transport method must beat to be credited."""

REFERENCES = {False: "cosine-centroid", True: "pt-map"}
"""Transductive or not -> the method that the others of the group are compared with, unless another is named."""


@dataclass(frozen=True)
class Competitor:
    """What a report says of a method beside its scores.

    Attributes:
        name: Name in reports.
        nodes: Nodes it ran on.
        transport: True where it is built on optimal transport.
        transductive: True where a query's answer depends on the other queries.
        class_prior: What it is told of the classes' shares in the queries: "uniform", "true" or "estimated"; "" where
            it has no use for that.
    """

    name: str
    nodes: str
    transport: bool
    transductive: bool
    class_prior: str = ""


def compare(
    competitors: Sequence[Competitor],
    scores: Mapping[str, Scores],
    classes: Indices,
    class_names: Sequence[str],
    reference: str,
) -> dict[str, Any]:
    """Compute every figure of a comparison.

    Inductive and transductive methods are two groups, each with a reference of its own. Differences to the reference of
    a group are one family for Holm's correction, those of transport methods to their best control in their group are
    another. Accuracies and differences are fractions of 1.

    Args:
        competitors: In the order of the run.
        scores: By name.
        classes: (episodes, way), the classes of each episode.
        class_names: Names of all classes of the split.
        reference: Name of a competitor: that of its group; the other has ``REFERENCES`` or its first.

    Returns:
        JSON-ready: "methods" by name, "transport_adds" by name of transport method, and, where there are both groups,
        "across_groups": the difference of their references, which is not one between like methods.
    """
    methods: dict[str, Any] = {}
    for c in competitors:
        mean = estimate(scores[c.name].accuracy, classes, class_names)
        methods[c.name] = {
            "accuracy": _record(mean),
            "nodes": c.nodes,
            "transductive": c.transductive,
            **({"class_prior": c.class_prior} if c.class_prior else {}),
        }
    references = _references(competitors, reference)
    for group, to in references.items():
        others = [c.name for c in competitors if c.transductive is group and c.name != to]
        pairs = _differences(scores, [(name, to) for name in others], classes, class_names)
        for name, difference in zip(others, pairs, strict=True):
            methods[name]["difference"] = {"to": to, **difference}
    record = {"methods": methods, "transport_adds": _transport_adds(competitors, scores, classes, class_names)}
    if len(references) == 2:
        between = estimate(scores[references[True]].accuracy - scores[references[False]].accuracy, classes, class_names)
        record["across_groups"] = {"method": references[True], "to": references[False], **_record(between)}
    return record


def _references(competitors: Sequence[Competitor], given: str) -> dict[bool, str]:
    """Settle the reference of each group that is there: transductive or not -> name."""
    found = {}
    for group in (False, True):
        names = [c.name for c in competitors if c.transductive is group]
        if names:
            found[group] = next((name for name in (given, REFERENCES[group]) if name in names), names[0])
    return found


def _transport_adds(
    competitors: Sequence[Competitor],
    scores: Mapping[str, Scores],
    classes: Indices,
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Compare each transport method with its best control on the same nodes."""
    pairs, adds = [], {}
    for c in competitors:
        if not c.transport:
            continue
        alike = [o for o in competitors if o.nodes == c.nodes and o.transductive == c.transductive]
        controls = [o.name for o in alike if o.name in CONTROLS]
        if controls:
            pairs.append((c.name, max(controls, key=lambda name: float(scores[name].accuracy.mean()))))
        else:
            kind = "transductive control" if c.transductive else "control"
            adds[c.name] = {"control": None, "reason": f"no {kind} ran on nodes {c.nodes}"}
    for (name, control), difference in zip(pairs, _differences(scores, pairs, classes, class_names), strict=True):
        adds[name] = {"control": control, **difference}
    return adds


def _differences(
    scores: Mapping[str, Scores],
    pairs: Sequence[tuple[str, str]],
    classes: Indices,
    class_names: Sequence[str],
) -> list[dict[str, Any]]:
    """Paired differences of (method, other), corrected as one family."""
    found = [estimate(scores[a].accuracy - scores[b].accuracy, classes, class_names) for a, b in pairs]
    raw = [p_value(difference) for difference in found]
    return [
        {
            **_record(difference),
            "p": _rounded(p),
            "p_holm": _rounded(adjusted),
            "verdict": verdict(difference, adjusted),
        }
        for difference, p, adjusted in zip(found, raw, holm(raw), strict=True)
    ]


def _record(value: Estimate) -> dict[str, Any]:
    """Put an estimate into JSON; an interval that cannot be had is null, with the reason."""
    record: dict[str, Any] = {
        "mean": _rounded(value.mean),
        "episode_ci": _rounded(value.episode_half_width),
        "class_ci": _rounded(value.jackknife.half_width),
    }
    if value.jackknife.reason:
        record["class_ci_missing"] = value.jackknife.reason
    else:
        record["class_ci_noise_share"] = _rounded(value.jackknife.noise_share)
    return record


def _rounded(value: float | None) -> float | None:
    """Keep eight digits after the point: more would record the order of additions."""
    return None if value is None or math.isnan(value) else round(value, 8)


def episodes_csv(names: Sequence[str], scores: Mapping[str, Scores]) -> bytes:
    """A row for every method and episode: method, episode, accuracy."""
    rows = ((name, i, round(a, 8)) for name in names for i, a in enumerate(scores[name].accuracy.tolist()))
    return tables.to_csv(["method", "episode", "accuracy"], rows)


def classes_csv(classes: Indices, class_names: Sequence[str]) -> bytes:
    """A row for every episode, its classes by name: with these, differences between runs can be paired later."""
    head = ["episode", *(f"class {i + 1}" for i in range(classes.shape[1]))]
    return tables.to_csv(head, ((i, *(class_names[c] for c in row)) for i, row in enumerate(classes.tolist())))


COLUMNS = (
    "method",
    "accuracy %\n± episodes ± classes",
    "difference\n± classes",
    "verdict\n(Holm's p)",
    "ms per\nepisode",
    "with\nextraction",
)
"""Head of the table; a line break may be a space."""


def table(results: Mapping[str, Any], timings: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Lay the comparison out as text, best method first, inductive ones before transductive ones.

    Args:
        results: With "methods" as ``compare`` gives them.
        timings: "methods": name -> "ms_per_episode" and, where known, "ms_per_episode_with_extraction".

    Returns:
        Head and rows.
    """
    nodes_differ = len({record["nodes"] for record in results["methods"].values()}) > 1
    ranked = sorted(
        results["methods"].items(), key=lambda item: (item[1]["transductive"], -item[1]["accuracy"]["mean"])
    )
    return list(COLUMNS), [_row(name, record, timings["methods"][name], nodes_differ) for name, record in ranked]


def _row(name: str, record: Mapping[str, Any], timing: Mapping[str, Any], show_nodes: bool) -> list[str]:
    """One method as text."""
    label = mark(name + (f" [{record['nodes']}]" if show_nodes else ""), record)
    accuracy, difference = record["accuracy"], record.get("difference")
    row = [
        label,
        f"{percent(accuracy['mean'])} ± {percent(accuracy['episode_ci'])} ± {percent(accuracy['class_ci'])}",
    ]
    if difference is None:
        row += ["reference", ""]
    else:
        row += [f"{percent(difference['mean'], sign=True)} ± {percent(difference['class_ci'])}", words(difference)]
    return [*row, milliseconds(timing["ms_per_episode"]), milliseconds(timing.get("ms_per_episode_with_extraction"))]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[str]) -> str:
    """Write the table and the sentences below it."""
    return f"{tables.markdown(tables.Table('', head, rows))}\n{tables.bullets(lines)}"
