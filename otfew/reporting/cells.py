"""Figures as text: cells of the analyses' tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otfew.reporting.contrasts import OLD, all_contrasts
from otfew.reporting.sentences import mark, milliseconds, percent, words

CONTRASTS = ("transport", "control", "points\n± episodes ± classes", "verdict\n(Holm's p)")
"""Head of ``contrast_rows``."""

__all__ = [
    "CONTRASTS", "contrast_rows", "difference", "difference_rows", "milliseconds", "percent", "short_difference",
    "short_interval", "with_intervals",
]  # fmt: skip


def with_intervals(record: Mapping[str, Any], *, sign: bool = False) -> str:
    """Format a mean with its intervals over episodes and over classes."""
    return f"{percent(record['mean'], sign=sign)} ± {percent(record['episode_ci'])} ± {percent(record['class_ci'])}"


def difference(method: Mapping[str, Any]) -> list[str]:
    """Format the paired difference to the reference and its verdict; two cells."""
    if "difference" not in method:
        return ["reference", ""]
    found = method["difference"]
    return [with_intervals(found, sign=True), words(found)]


def short_interval(found: Mapping[str, Any]) -> str:
    """Format a difference with its interval over classes in one cell."""
    return f"{percent(found['mean'], sign=True)} ± {percent(found['class_ci'])}"


def short_difference(found: Mapping[str, Any]) -> str:
    """Format a difference with its interval over classes in one cell, with a star for "better" or "worse"."""
    star = "*" if found["verdict"] in {"better", "worse"} else ""
    return f"{short_interval(found)}{star}"


def difference_rows(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Lay out differences, a column for every panel of the same methods and a row for each that is not a reference.

    A method that is compared with another one than the panel's reference, because it is transductive, says with which.
    """
    first = records[0]
    rows = []
    for name in first["protocol"]["order"]:
        method = first["methods"][name]
        if "difference" in method:
            to = method["difference"]["to"]
            other = "" if to == first["protocol"]["reference"] else f", to {to}"
            cells = [short_difference(record["methods"][name]["difference"]) for record in records]
            rows.append([mark(name, method) + other, *cells])
    return rows


def contrast_rows(results: Mapping[str, Any], where: str) -> list[list[str]]:
    """Lay out what transport adds, a row for every method and control.

    Args:
        results: With "transport_adds" and "methods".
        where: What the rows are of, beside the method.
    """
    return [
        [
            f"{name}, {where}",
            f"{contrast.control}, {OLD}" if contrast.old else contrast.control,
            with_intervals(contrast.record, sign=True),
            words(contrast.record),
        ]
        for name, contrast in all_contrasts(results)
    ]
