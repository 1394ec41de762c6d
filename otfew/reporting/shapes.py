"""The record of a retrieval of shapes: figures with intervals, and the same as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from otfew.reporting.sentences import percent, words
from otfew.reporting.tables import Table
from otfew.retrieval.views import Measured
from otfew.statistics.intervals import Estimate, estimate, holm, p_value, verdict

FORMAT = 3
"""Of results.json; formats 1 and 2 are of images."""
SHOWN = {"nn": "NN", "ft": "FT", "st": "ST", "e": "E", "dcg": "DCG", "map": "mAP"}
"""Metrics of the table: those of shape retrieval (Shilane et al. 2004), and mAP."""
MAIN = "map"

Record = dict[str, Any]


def compare(
    measured: Mapping[str, Measured], reference: str, labels: npt.NDArray[np.int64], classes: Sequence[str]
) -> Record:
    """Compute every figure of a run.

    Args:
        measured: By ranking.
        reference: The ranking that others are compared with, in mAP: one family for Holm's correction.
        labels: (queries,) indices into ``classes``.
        classes: Class names.

    Returns:
        JSON-ready: "queries" that have anything to find, and "rankings" by name: "metrics", fractions of 1, and
        "difference" to the reference.
    """
    kept = ~np.isnan(measured[reference][MAIN])
    present, own = np.unique(labels[kept], return_inverse=True)
    groups, names = own.astype(np.int64)[:, None], [classes[label] for label in present.tolist()]
    rankings: dict[str, Record] = {
        name: {"metrics": {metric: _record(estimate(found[metric][kept], groups, names)) for metric in SHOWN}}
        for name, found in measured.items()
    }
    others = [name for name in measured if name != reference]
    differences = [
        estimate(measured[name][MAIN][kept] - measured[reference][MAIN][kept], groups, names) for name in others
    ]
    raw = [p_value(difference) for difference in differences]
    for name, difference, p, adjusted in zip(others, differences, raw, holm(raw), strict=True):
        rankings[name]["difference"] = {
            "to": reference,
            **_record(difference),
            "p": _rounded(p),
            "p_holm": _rounded(adjusted),
            "verdict": verdict(difference, adjusted),
        }
    return {"queries": int(kept.sum()), "query_classes": len(names), "rankings": rankings}


def _record(value: Estimate) -> Record:
    return {
        "mean": _rounded(value.mean),
        "query_ci": _rounded(value.episode_half_width),
        "class_ci": _rounded(value.jackknife.half_width),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else round(value, 8)


def table(results: Record) -> Table:
    """Lay the run out."""
    p = results["protocol"]
    head = ["ranking", *(f"{title} %" for title in SHOWN.values())]
    head[-1] += "\n± classes"
    head += ["mAP - maximum\n± queries ± classes", "verdict\n(Holm's p)"]
    rows = []
    for name, record in results["rankings"].items():
        metrics = record["metrics"]
        row = [name, *(percent(metrics[metric]["mean"]) for metric in SHOWN)]
        row[-1] += f" ± {percent(metrics[MAIN]['class_ci'])}"
        if "difference" in record:
            found = record["difference"]
            half = f"± {percent(found['query_ci'])} ± {percent(found['class_ci'])}"
            row += [f"{percent(found['mean'], sign=True)} {half}", words(found)]
        else:
            row += ["reference", ""]
        rows.append(row)
    asked = {"shape": "shapes", "sketch": "sketches"}[p["queries"]["modality"]]
    return Table(f"{p['dataset']}: {asked} ask for shapes", head, rows)


def lines(results: Record) -> list[str]:
    """Say on what the figures rest."""
    p = results["protocol"]
    by_sketch = p["queries"]["modality"] == "sketch"
    who = "each asks for all others"
    if by_sketch:
        who = f"{p['queries']['items']:,} sketches of {p['query_resolution']} px ask for them"
    found = [
        f"{p['dataset']}, {p['split']}: {p['shapes']:,} shapes of {p['classes']} classes in {p['views']} views of "
        f"{p['resolution']} px; {who}",
        *p["notes"],
        *_network_lines("shapes" if by_sketch else "", p["backbone"], p["classes"]),
    ]
    if by_sketch:
        if p["query_backbone"]["sha256"] == p["backbone"]["sha256"]:
            found.append("sketches go through the same network: it was not trained to bring the two together")
        else:
            found += _network_lines("sketches", p["query_backbone"], p["classes"])
    found.append(
        "by cosine; a view's vector is the mean of the network's map, a shape's the maximum or mean of its views', "
        "channel by channel"
    )
    if not by_sketch and p["scores"]:
        whole = p["rerank"] == p["shapes"] - 1
        scored = "all pairs are scored" if whole else f"the first {p['rerank']} of the maximum rank again"
        found.append(f"[views]: two shapes are compared view by view, every view a node; {scored}")
    found.append(
        f"{results['queries']:,} queries of {results['query_classes']} classes; ± are halves of 95 % intervals, over "
        "queries and over classes (jackknife); verdicts rest on the wider one, with Holm's correction over the table, "
        "and are conditional on these shapes and this network"
    )
    return found


def _network_lines(of: str, network: Record, classes: int) -> list[str]:
    """Say what a network has learned."""
    name = f"backbone{f' of {of}' if of else ''}: {network['name']}, trained on {network['training_data'] or 'nothing'}"
    text = [f"{name} (external)" if network["external"] else name]
    if network["classes_seen"]:
        text.append(
            f"it was trained on {network['classes_seen']} of the {classes} classes, as these benchmarks have it: other "
            "objects of the same classes"
        )
    if network["head"]:
        text.append(
            "its head of "
            + "-".join(map(str, network["head"]))
            + " is left behind: metric_learning --pooled trains what is compared here"
        )
    return text
