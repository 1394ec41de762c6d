"""Figures as text: cells of the analyses' tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otfew.report import words


def percent(value: float | None, *, sign: bool = False) -> str:
    """Format a fraction as per cent with two digits; a dash where there is none."""
    if value is None:
        return "–"
    return f"{100 * value:+.2f}" if sign else f"{100 * value:.2f}"


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


def milliseconds(value: float | None) -> str:
    """Format a time with three digits."""
    return "–" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"
