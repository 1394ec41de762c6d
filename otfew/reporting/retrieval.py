"""The record of a retrieval run: intervals, paired differences, what transport adds; and the same as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.nodes import cuts_patches
from otfew.reporting.sentences import backbone_lines, listed, milliseconds, one_node_lines, percent, words
from otfew.reporting.tables import Table
from otfew.retrieval.reranking import CONTRASTS
from otfew.retrieval.run import GLOBAL, METRICS, Ranked
from otfew.statistics.intervals import LEAST_EPISODES, Estimate, estimate, holm, p_value, verdict
from otfew.statistics.units import as_units

FORMAT = 2
"""Of results.json. In format 1 what transport adds was the difference to the control that had the largest MAP@R on the
very queries, and not to controls that are fixed beforehand."""
TITLES = {"p_at_1": "P@1", "r_precision": "R-precision", "map_at_r": "MAP@R"}
MAIN = "map_at_r"
"""Metric by which queries are shown, and on which verdicts are printed."""

Record = dict[str, Any]
Labels = npt.NDArray[np.int64]


class _Queries:
    """The queries that have something to find, with their classes, and statistics over both.

    An interval over classes leaves out the queries of one class after the other (delete-one jackknife); the images of
    that class stay in the gallery. Classes that belong together are left out at once.
    """

    def __init__(
        self, ranked: Mapping[str, Ranked], labels: Labels, classes: Sequence[str], units: Sequence[str]
    ) -> None:
        self.ranked = ranked
        self.kept = ~np.isnan(ranked[GLOBAL].metrics[MAIN])
        self.classes = len(np.unique(labels[self.kept]))
        drawn, names = as_units(labels[self.kept], classes, units)
        present, own = np.unique(drawn, return_inverse=True)
        self.names = [names[unit] for unit in present.tolist()]
        self.own = own.astype(np.int64)[:, None]

    def mean(self, name: str, metric: str) -> Estimate:
        """Estimate a metric of a ranking."""
        return estimate(self.ranked[name].metrics[metric][self.kept], self.own, self.names)

    def difference(self, name: str, other: str, metric: str) -> Estimate:
        """Estimate a paired difference between two rankings."""
        one, two = (self.ranked[n].metrics[metric][self.kept] for n in (name, other))
        return estimate(one - two, self.own, self.names)


def compare(
    ranked: Mapping[str, Ranked],
    kinds: Mapping[str, Sequence[str]],
    labels: Labels,
    classes: Sequence[str],
    units: Sequence[str] = (),
) -> Record:
    """Compute every figure of a run.

    Differences to the global ranking are, for each metric, one family for Holm's correction; what transport adds, the
    differences to the controls of ``otfew.retrieval.reranking.CONTRASTS`` on the same nodes, another. All figures are
    fractions of 1.

    Args:
        ranked: By name, as ``otfew.retrieval.run.retrieve`` gives them.
        kinds: Nodes -> names of the scores that ran on them.
        labels: (images,) indices into ``classes``.
        classes: Class names.
        units: (classes,) which of them belong together, see ``otfew.statistics.units``.

    Returns:
        JSON-ready: "queries", "query_classes", "methods" by name; "transport_adds", name of transport's ranking ->
        "contrasts" (score of a control -> the paired differences, with the ranking that was "control") and, where some
        control is missing, "reason".
    """
    queries = _Queries(ranked, labels, classes, units)
    others = [name for name in ranked if name != GLOBAL]
    methods: dict[str, Record] = {
        name: {"metrics": {metric: _record(queries.mean(name, metric)) for metric in METRICS}} for name in ranked
    }
    for nodes, scores in kinds.items():
        for score in scores:
            methods[f"{score} [{nodes}]"] |= {"nodes": nodes, "score": score}
    for name, record in zip(others, _differences(queries, [(name, GLOBAL) for name in others]), strict=True):
        methods[name]["difference"] = {"to": GLOBAL, **record}
    return {
        "queries": int(queries.kept.sum()),
        "query_classes": queries.classes,
        "methods": methods,
        "transport_adds": _transport_adds(queries, kinds),
    }


def _transport_adds(queries: _Queries, kinds: Mapping[str, Sequence[str]]) -> dict[str, Record]:
    """Compare rankings by transport with their controls on the same nodes."""
    planned = [
        (score, nodes, [c for c in CONTRASTS[score] if c in scores], [c for c in CONTRASTS[score] if c not in scores])
        for nodes, scores in kinds.items()
        for score in scores
        if score in CONTRASTS
    ]
    pairs = [(f"{score} [{nodes}]", f"{control} [{nodes}]") for score, nodes, there, _ in planned for control in there]
    found = iter(_differences(queries, pairs))
    return {
        f"{score} [{nodes}]": {
            "contrasts": {control: {"control": f"{control} [{nodes}]", **next(found)} for control in there},
            **({"reason": f"{' and '.join(missing)} did not run on nodes {nodes}"} if missing else {}),
        }
        for score, nodes, there, missing in planned
    }


def _differences(queries: _Queries, pairs: Sequence[tuple[str, str]]) -> list[Record]:
    """Paired differences of (name, other) by metric; for each metric all pairs are one family."""
    records: list[Record] = [{} for _ in pairs]
    for metric in METRICS:
        found = [queries.difference(name, other, metric) for name, other in pairs]
        raw = [p_value(difference) for difference in found]
        for record, difference, p, adjusted in zip(records, found, raw, holm(raw), strict=True):
            record[metric] = {
                **_record(difference),
                "p": _rounded(p),
                "p_holm": _rounded(adjusted),
                "verdict": verdict(difference, adjusted),
            }
    return records


def _record(value: Estimate) -> Record:
    """Put an estimate into JSON; an interval that cannot be had is null, with the reason."""
    record: Record = {
        "mean": _rounded(value.mean),
        "query_ci": _rounded(value.episode_half_width),
        "class_ci": _rounded(value.jackknife.half_width),
    }
    if value.jackknife.half_width is None:
        record["class_ci_missing"] = f"fewer than {LEAST_EPISODES} queries are left without some class"
    return record


def _rounded(value: float | None) -> float | None:
    """Keep eight digits after the point: more would record the order of additions."""
    return None if value is None or math.isnan(value) else round(value, 8)


def tables(results: Record, times: Record) -> list[Table]:
    """Lay the run out as text: a table for each kind of nodes, then what transport adds."""
    p = results["protocol"]
    head = ["ranking", *(f"{title} %\n± classes" for title in TITLES.values())]
    head += ["MAP@R - global\n± queries ± classes", "verdict\n(Holm's p)", "ms per\nquery"]
    found = [
        Table(
            f"{p['data']['dataset']}, ranked again on {nodes} nodes",
            head,
            [_row(name, results, times) for name in [GLOBAL, *(f"{score} [{nodes}]" for score in p["scores"])]],
        )
        for nodes in p["nodes"]
    ]
    rows = [
        [name, control, *(_with_class(record[metric], sign=True) for metric in METRICS), words(record[MAIN])]
        for name, adds in results["transport_adds"].items()
        if name not in results.get("one_node", [])
        for control, record in adds["contrasts"].items()
    ]
    if rows:
        head = ["transport", "control", *(f"{title}\n± classes" for title in TITLES.values())]
        head.append("verdict on MAP@R\n(Holm's p)")
        found.append(
            Table("what transport adds to controls on the same nodes with the same weights, points", head, rows)
        )
    return found


def _row(name: str, results: Record, times: Record) -> list[str]:
    """One ranking as text."""
    record = results["methods"][name]
    row = [record.get("score", name), *(_with_class(record["metrics"][metric]) for metric in METRICS)]
    if "difference" in record:
        difference = record["difference"][MAIN]
        row += [_with_both(difference), words(difference)]
    else:
        row += ["reference", ""]
    return [*row, milliseconds(times["methods"][name]["ms_per_query"])]


def lines(results: Record) -> list[str]:
    """Say on what the figures rest."""
    p = results["protocol"]
    data, backbone = p["data"], p["backbone"]
    variant = f" ({data['variant']})" if data["variant"] else ""
    text = [
        f"data: {data['dataset']}{variant}, {data['split']}: {data['classes']} of {data['published_classes']} classes, "
        f"{data['images']:,} images",
        *data["notes"],
        *_image_lines(p, backbone),
    ]
    scored = "all pairs are scored" if p["rerank"] == data["images"] - 1 else f"the first {p['rerank']} are re-ranked"
    text.append(
        f"every image is a query against all others: {results['queries']:,} queries of {results['query_classes']} "
        f"classes; {scored}; 'global' ranks by the cosine of {p['global']}"
    )
    if results["queries"] < data["images"]:
        text.append(f"{data['images'] - results['queries']} images, alone in their class, are in the gallery only")
    if p["rerank"] < p["most_relevant"]:
        text.append(
            f"up to {p['most_relevant']} images are to be found: R-precision and MAP@R are of rankings that are only "
            f"partly re-ranked at --rerank {p['rerank']}"
        )
    text.append(
        "± are halves of 95 % intervals, over queries and over classes (jackknife over the queries' classes; the "
        "gallery stays); claims rest on the wider one, with Holm's correction across rankings for each metric, and are "
        "conditional on these classes and this checkpoint"
    )
    text += one_node_lines(results.get("one_node", []))
    text += _contrast_lines(results)
    missing = {r["metrics"][MAIN].get("class_ci_missing") for r in results["methods"].values()} - {None}
    text += [f"no interval over classes: {reason}" for reason in sorted(missing)]
    text.append(
        "ms per query: from cached features to the ranking; costs and weights, which all scores on the same nodes "
        "share, count in each; the global ranking that gives the candidates counts in 'global' alone"
    )
    return text


def _contrast_lines(results: Record) -> list[str]:
    """Say what transport is compared with, and what is unknown for want of a control."""
    adds = {name: own for name, own in results["transport_adds"].items() if name not in results.get("one_node", [])}
    controls = dict.fromkeys(control for own in adds.values() for control in own["contrasts"])
    text = []
    if controls:
        text.append(
            f"what transport adds is the difference to {listed(list(controls), ' and ')}: controls that are fixed "
            "beforehand, whatever came out; all these differences are one family for Holm's correction for each metric"
        )
    for name, own in adds.items():
        if "reason" in own:
            more = "" if own["contrasts"] else "unknown, "
            text.append(f"what transport adds in {name}: {more}{own['reason']}")
    return text


def _image_lines(p: Record, backbone: Record | None) -> list[str]:
    """Say what the images went through."""
    if backbone is None:
        return ["features: the user's own file; what their backbone was trained on is unknown to this report"]
    text = [f"images: {p['resolution']} px, {'centre crop' if p['crop'] == 'center' else 'no crop'}"]
    patches = [nodes for nodes in p["nodes"] if cuts_patches(nodes)]
    if patches:
        text.append(
            f"{' and '.join(patches)}: patches of whole images at their original resolution, resized to "
            f"{p['patch_resolution']} px each"
        )
    return [*text, *backbone_lines(backbone, p["data"]["classes"])]


def _with_class(record: Record, *, sign: bool = False) -> str:
    """Format a mean with its interval over classes."""
    return f"{percent(record['mean'], sign=sign)} ± {percent(record['class_ci'])}"


def _with_both(record: Record) -> str:
    """Format a difference with both intervals."""
    return f"{percent(record['mean'], sign=True)} ± {percent(record['query_ci'])} ± {percent(record['class_ci'])}"
