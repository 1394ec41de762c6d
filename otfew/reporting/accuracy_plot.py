"""A comparison as a picture: accuracies as a sorted forest, beside paired differences to the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from otfew.reporting import canvas, forest_plot
from otfew.reporting.canvas import CONTROL_ROLE, REFERENCE_ROLE, RIVAL_ROLE, TRANSPORT_ROLE, Role, to_png
from otfew.reporting.comparison import mark
from otfew.reporting.contrasts import Contrast, all_contrasts
from otfew.reporting.forest_plot import Column, Heading, Mark, Row, signed, with_half
from otfew.reporting.sentences import DOES, listed, milliseconds, percent, wide

Record = Mapping[str, Any]


def accuracies(results: Record, timings: Record | None = None) -> bytes:
    """Draw ``figure`` as a PNG file."""
    return to_png(figure(results, timings))


def figure(results: Record, timings: Record | None = None) -> Any:
    """Draw every method, the best first: accuracy in per cent, and the paired difference to the reference.

    Thick bars are 95 % intervals over episodes, thin ones those over classes, or photos where classes are fixed, as far
    as they are known. Transductive methods, which see all queries at once, stand apart: their differences are to a
    reference of their own. What has no number stands last.

    Args:
        results: With "methods", "protocol" and "transport_adds".
        timings: With "methods": name -> "ms_per_episode"; None prints no times.

    Returns:
        A figure of matplotlib's that no window knows of; notebooks show it.
    """
    methods = results["methods"]
    groups = [[name for name in methods if methods[name]["transductive"] is told] for told in (False, True)]
    rows: list[Row | Heading] = []
    for names, words in zip(groups, ("one query at a time", "all queries at once (transductive)"), strict=True):
        if names and all(groups):
            rows.append(Heading(words))
        rows += [_row(name, results, timings) for name in sorted(names, key=lambda name: _order(methods[name]))]
    p = results["protocol"]
    over = "photos" if p.get("fixed_classes") else "classes"
    known_wide = any(wide(method["accuracy"]) is not None for method in methods.values())
    halves = f"± {over}" if known_wide else "± episodes"
    columns = [Column("accuracy, %", head=halves)]
    references = dict.fromkeys(m["difference"]["to"] for m in methods.values() if "difference" in m)
    if references:
        axis = f"paired difference to {listed(list(references), ' or ')}, points"
        columns.append(Column(axis, zero=0.0, share=0.8, head=halves))
    if timings is not None:
        columns.append(Column("", share=0.0, head="ms per episode"))
    roles = [row.role for row in rows if isinstance(row, Row)]
    known = [role for role in (TRANSPORT_ROLE, CONTROL_ROLE, RIVAL_ROLE, REFERENCE_ROLE) if role in roles]
    key = [*canvas.role_key(known), *canvas.bar_key(thin=f"95 % over {over}" if known_wide else "")]
    return forest_plot.draw(finding(results), subject(p), rows, columns, key)


def _order(method: Record) -> tuple[bool, float]:
    """Sort the best first, and what has no number last."""
    mean = method["accuracy"]["mean"]
    return not math.isfinite(mean), -mean if math.isfinite(mean) else 0.0


def role_of(name: str, results: Record) -> Role:
    """Tell what a method is in a comparison: transport, its control, the reference, or another.

    Args:
        name: Of the method.
        results: With "methods", "protocol" and "transport_adds".
    """
    if name in results["transport_adds"]:
        return TRANSPORT_ROLE
    controls = {contrast.control for _, contrast in all_contrasts(results)} or set(DOES)
    if name in controls:
        return CONTROL_ROLE
    return REFERENCE_ROLE if "difference" not in results["methods"][name] else RIVAL_ROLE


def _row(name: str, results: Record, timings: Record | None) -> Row:
    method = results["methods"][name]
    marks = [as_mark(method["accuracy"])]
    marks.append(
        as_mark(method["difference"], sign=True) if "difference" in method else Mark(math.nan, text="reference")
    )
    if timings is not None:
        marks.append(Mark(math.nan, text=milliseconds(timings["methods"][name]["ms_per_episode"])))
    role = role_of(name, results)
    return Row(mark(name, method), role, tuple(marks), strong=role is TRANSPORT_ROLE)


def as_mark(record: Record, *, sign: bool = False) -> Mark:
    """Turn a figure into a mark in per cent or points: thick over episodes, thin over classes.

    Args:
        record: With "mean", "episode_ci" and "class_ci" or "photo_ci", fractions of 1.
        sign: Print one before positive figures.
    """
    mean = 100 * record["mean"]
    thick, thin = _points(record["episode_ci"]), _points(wide(record))
    if not math.isfinite(mean):
        return Mark(mean, text="–")
    half = thin if thin is not None else thick
    figure = signed(mean) if sign else f"{mean:.2f}"
    return Mark(mean, thick, thin, with_half(figure, half))


def _points(width: float | None) -> float | None:
    return None if width is None or not math.isfinite(width) else 100 * width


def subject(protocol: Record) -> str:
    """Say on what a comparison was made: data, network, episodes.

    Args:
        protocol: As in results.json.
    """
    backbone = protocol["backbone"]
    network = backbone["name"] if backbone else "own features"
    data = protocol["data"]
    return (
        f"{data['dataset']}, {data['split']} split, {data['classes']} classes; {network}; "
        f"{protocol['episodes']:,} episodes of {protocol['way']}-way {protocol['shot']}-shot"
    )


def finding(results: Record) -> str:
    """Say what was found in a sentence: what transport adds to its controls, or else which method has the highest mean.

    Args:
        results: With "methods", "protocol" and "transport_adds".
    """
    told: dict[str, list[Contrast]] = {}
    for name, contrast in all_contrasts(results):
        if math.isfinite(contrast.record["mean"]):
            told.setdefault(name, []).append(contrast)
    if told:
        name = max(told, key=lambda name: results["methods"][name]["accuracy"]["mean"])
        return f"{name} {_adds(told[name])}"
    methods = results["methods"]
    alike = [name for name in methods if not methods[name]["transductive"]] or list(methods)
    name = min(alike, key=lambda name: _order(methods[name]))
    best = methods[name]
    said = f"{mark(name, best)} has the highest mean: {percent(best['accuracy']['mean'])}{_half(best['accuracy'])} %"
    difference = best.get("difference")
    if difference is None or not math.isfinite(difference["mean"]):
        return said
    return f"{said}; {compared(difference, difference['to'])}"


def _adds(found: list[Contrast]) -> str:
    """Say what a transport method adds to each of its controls."""
    sure = [c for c in found if c.record["verdict"] in {"better", "worse"}]
    other = [c for c in found if c not in sure]
    parts: list[str] = []
    for verb, to, sign in (("adds", "to", 1), ("loses", "against", -1)):
        alike = [c for c in sure if sign * c.record["mean"] > 0]
        points = [f"{abs(100 * c.record['mean']):.2f}{_half(c.record)} points {to} {c.control}" for c in alike]
        parts += [f"{verb} {listed(points, ' and ')}"] if points else []
    said = [" and ".join(parts)] if parts else []
    # Without an interval over classes nothing was asked, which is no failure to find a difference.
    asked = [c for c in other if c.record["verdict"] != "not assessed"]
    for words, alike in (
        ("is not shown to differ from", asked),
        ("is not assessed against", [c for c in other if c not in asked]),
    ):
        versus = [f"{c.control} ({signed(100 * c.record['mean'])}{_half(c.record)} points)" for c in alike]
        said += [f"{words} {listed(versus, ' or ')}"] if versus else []
    return "; it ".join(said)


def compared(difference: Record, to: str) -> str:
    """Say how far from another method, and whether that is more than chance.

    Args:
        difference: With "mean", intervals and "verdict".
        to: The other's name.
    """
    return f"{signed(100 * difference['mean'])}{_half(difference)} points from {to} ({difference['verdict']})"


def _half(record: Record) -> str:
    """Write the interval over classes, or that over episodes where it is the only one."""
    half = _points(wide(record))
    half = _points(record["episode_ci"]) if half is None else half
    return with_half("", half)
