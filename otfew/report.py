"""The record of a comparison: intervals, paired differences, what transport adds; and the same as Markdown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otfew.episodes import Indices
from otfew.evaluation import Scores
from otfew.nodes import parse
from otfew.nodes.patches import PatchExtractor
from otfew.statistics import Estimate, estimate, holm, p_value, verdict

FORMAT = 1
CONTROLS = ("cr-pooled", "chamfer", "product-coupling", "cosine-nodes", "cosine-centroid")
"""Methods without transport whose best, on the same nodes, a transport method must beat to be credited."""


@dataclass(frozen=True)
class Competitor:
    """What a report says of a method beside its scores.

    Attributes:
        name: Name in reports.
        nodes: Nodes it ran on.
        transport: True where it is built on optimal transport.
        transductive: True where a query's answer depends on the other queries.
    """

    name: str
    nodes: str
    transport: bool
    transductive: bool


def compare(
    competitors: Sequence[Competitor],
    scores: Mapping[str, Scores],
    classes: Indices,
    class_names: Sequence[str],
    reference: str,
) -> dict[str, Any]:
    """Compute every figure of a comparison.

    Differences to the reference are one family for Holm's correction, those of transport methods to their best control
    another. Accuracies and differences are fractions of 1.

    Args:
        competitors: In the order of the run.
        scores: By name.
        classes: (episodes, way), the classes of each episode.
        class_names: Names of all classes of the split.
        reference: Name of a competitor.

    Returns:
        JSON-ready: "methods" by name, and "transport_adds" by name of transport method.
    """
    methods: dict[str, Any] = {}
    for c in competitors:
        mean = estimate(scores[c.name].accuracy, classes, class_names)
        methods[c.name] = {
            "accuracy": _record(mean),
            "nodes": c.nodes,
            "transductive": c.transductive,
        }
    others = [c.name for c in competitors if c.name != reference]
    pairs = _differences(scores, [(name, reference) for name in others], classes, class_names)
    for name, difference in zip(others, pairs, strict=True):
        methods[name]["difference"] = {"to": reference, **difference}
    return {"methods": methods, "transport_adds": _transport_adds(competitors, scores, classes, class_names)}


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
        controls = [o.name for o in competitors if o.name in CONTROLS and o.nodes == c.nodes]
        if controls:
            pairs.append((c.name, max(controls, key=lambda name: float(scores[name].accuracy.mean()))))
        else:
            adds[c.name] = {"control": None, "reason": f"no control ran on nodes {c.nodes}"}
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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "episode", "accuracy"])
    for name in names:
        writer.writerows((name, i, round(a, 8)) for i, a in enumerate(scores[name].accuracy.tolist()))
    return text.getvalue().encode()


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
    """Lay the comparison out as text, best method first.

    Args:
        results: With "methods" as ``compare`` gives them.
        timings: "methods": name -> "ms_per_episode" and, where known, "ms_per_episode_with_extraction".

    Returns:
        Head and rows.
    """
    nodes_differ = len({record["nodes"] for record in results["methods"].values()}) > 1
    ranked = sorted(results["methods"].items(), key=lambda item: -item[1]["accuracy"]["mean"])
    return list(COLUMNS), [_row(name, record, timings["methods"][name], nodes_differ) for name, record in ranked]


def _row(name: str, record: Mapping[str, Any], timing: Mapping[str, Any], show_nodes: bool) -> list[str]:
    """One method as text."""
    label = (
        name + (f" [{record['nodes']}]" if show_nodes else "") + (" (transductive)" if record["transductive"] else "")
    )
    accuracy, difference = record["accuracy"], record.get("difference")
    row = [
        label,
        f"{_percent(accuracy['mean'])} ± {_percent(accuracy['episode_ci'])} ± {_percent(accuracy['class_ci'])}",
    ]
    if difference is None:
        row += ["reference", ""]
    else:
        row += [f"{_percent(difference['mean'], sign=True)} ± {_percent(difference['class_ci'])}", words(difference)]
    return [*row, _time(timing["ms_per_episode"]), _time(timing.get("ms_per_episode_with_extraction"))]


def words(difference: Mapping[str, Any]) -> str:
    """Put the verdict and Holm's p into words."""
    p = difference["p_holm"]
    if p is None:
        return str(difference["verdict"])
    return f"{difference['verdict']} ({'<0.001' if p < 0.001 else f'{p:.3f}'})"


def transport_lines(results: Mapping[str, Any]) -> list[str]:
    """One sentence for each transport method: what it adds to its best control."""
    lines = []
    for name, adds in sorted(results["transport_adds"].items()):
        if adds["control"] is None:
            lines.append(f"what transport adds in {name}: unknown, {adds['reason']}")
        else:
            width = _percent(adds["class_ci"])
            lines.append(
                f"what transport adds in {name}: {_percent(adds['mean'], sign=True)} ± {width} points over "
                f"{adds['control']}, its best control on the same nodes: {words(adds)}"
            )
    return lines


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[str]) -> str:
    """Write the table and the sentences below it."""
    text = ["| " + " | ".join(head).replace("\n", " ") + " |", "|" + "---|" + "---:|" * (len(head) - 1)]
    text += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*text, "", *(f"- {line}" for line in lines), ""])


def _percent(value: float | None, *, sign: bool = False) -> str:
    """Format a fraction as per cent with two digits; a dash where there is none."""
    if value is None:
        return "–"
    return f"{100 * value:+.2f}" if sign else f"{100 * value:.2f}"


def _time(milliseconds: float | None) -> str:
    """Format milliseconds with three digits."""
    return "–" if milliseconds is None else f"{milliseconds:.3g}" if milliseconds < 100 else f"{milliseconds:.0f}"


def protocol_lines(results: Mapping[str, Any]) -> list[str]:
    """Say on what the figures rest: data, images, backbone, episodes, intervals, and what did not run."""
    p = results["protocol"]
    data = p["data"]
    variant = f" ({data['variant']})" if data["variant"] else ""
    present = f"{data['classes']} of {data['published_classes']} classes, {data['images']:,} images"
    lines = [f"data: {data['dataset']}{variant}, split {data['split']}: {present}", *data["notes"]]
    lines += _backbone_lines(p)
    lines.append(
        f"{p['episodes']:,} episodes of {p['way']}-way {p['shot']}-shot with {p['query']} queries a class, "
        f"seed {p['seed']}, the same for all methods"
    )
    lines.append(
        "± are halves of 95 % intervals, over episodes and over classes (jackknife); claims rest on the wider one, "
        "with Holm's correction across methods, and are conditional on these classes and this checkpoint"
    )
    missing = {m["accuracy"].get("class_ci_missing") for m in results["methods"].values()} - {None}
    lines += [f"no interval over classes: {reason}" for reason in sorted(missing)]
    lines += _noise_lines(results)
    lines.append(
        "ms per episode: from cached features to logits; methods of global vectors start from nodes averaged once"
    )
    if any(m["transductive"] for m in results["methods"].values()):
        lines.append("transductive methods see all queries of an episode at once: compare them among themselves")
    lines += [f"not run: {name}: {reason}" for name, reason in sorted(results["not_run"].items())]
    return lines


def _patch_lines(protocol: Mapping[str, Any]) -> list[str]:
    """Say what patches are cut from, where methods ran on some."""
    kinds = sorted({method["nodes"] for method in protocol["methods"].values()})
    patches = [kind for kind in kinds if isinstance(parse(kind), PatchExtractor)]
    if not patches:
        return []
    side = protocol["resolution"]
    return [f"{' and '.join(patches)}: patches of whole images at their original resolution, resized to {side} px each"]


def _noise_lines(results: Mapping[str, Any]) -> list[str]:
    """Say where intervals over classes are wide because episodes are few."""
    differences = [m["difference"] for m in results["methods"].values() if "difference" in m]
    shares = [d.get("class_ci_noise_share") for d in differences]
    noisy = sum(share is not None and share > 0.5 for share in shares)
    if not noisy:
        return []
    return [
        f"more than half the variance over classes is sampling noise in {noisy} of {len(differences)} differences: "
        "their intervals err wide, and more --episodes narrow them"
    ]


def _backbone_lines(protocol: Mapping[str, Any]) -> list[str]:
    """Say what the images went through, and what of them it has seen."""
    backbone = protocol["backbone"]
    if backbone is None:
        return ["features: the user's own file; what their backbone was trained on is unknown to this report"]
    crop = "centre crop" if protocol["crop"] == "center" else "no crop"
    lines = [f"images: {protocol['resolution']} px, {crop}", *_patch_lines(protocol)]
    return [*lines, *backbone_lines(backbone, protocol["data"]["classes"])]


def backbone_lines(backbone: Mapping[str, Any], classes: int) -> list[str]:
    """Say what a backbone was trained on, and how many of the evaluated classes it has seen."""
    lines = [f"backbone: {backbone['name']}, trained on {backbone['training_data'] or 'unknown data'}"]
    seen = backbone["test_classes_seen"]
    if backbone["external"]:
        count = "unknown" if seen is None else f"{seen} of {classes}"
        lines.append(f"external data; test classes seen in pretraining: {count}")
    elif seen is None:
        lines.append("whether the backbone has seen the test classes is unknown: its card names no training classes")
    elif seen:
        lines.append(f"LEAK, allowed by --allow-overlap: {seen} of {classes} test classes were seen in training")
    return lines
