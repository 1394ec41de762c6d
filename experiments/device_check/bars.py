"""What a card was to reach before anything had run on one: bars, and whether a record meets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from otfew.experiments.device_check.bench import CARD, Row


@dataclass(frozen=True)
class Bar:
    """A bar, set for an H100.

    Attributes:
        name: What is to be reached.
        part: In which part it is measured.
        row: What the row that holds it says of itself.
        figure: Key of the figure in the row.
        limit: Of the figure.
        unit: Of it.
        at_least: Whether the limit is from below.
        published: What another code was said to do; "" for nothing.
    """

    name: str
    part: str
    row: Mapping[str, object]
    figure: str
    limit: float
    unit: str
    at_least: bool = False
    published: str = ""


BARS = (
    Bar(
        "exact, 100,000 problems of 25x25, kernel",
        "exact",
        {"what": "kernel", "size": "25x25", "count": 100_000},
        "ms",
        8.0,
        "ms",
    ),
    Bar(
        "exact, 375 problems of 25x25, whole call",
        "exact",
        {"what": "whole call", "size": "25x25", "count": 375},
        "ms",
        0.25,
        "ms",
    ),
    Bar(
        "deepemd, 1-shot episodes from 25x640 features",
        "methods",
        {"what": "deepemd, 1-shot", "size": "25x640"},
        "per_second",
        3000.0,
        "episodes a second",
        at_least=True,
        published="2.2 episodes a second",
    ),
    Bar(
        "lst, 10,000 episodes",
        "methods",
        {"what": "lst, 1-shot", "size": "1x640"},
        "seconds",
        3.0,
        "s",
        published="26 s",
    ),
    Bar(
        "meta-training step of resnet12 on 84 px, deepemd / protonet",
        "metatrain",
        {"what": "training step, deepemd / protonet", "size": "resnet12, 84 px"},
        "ratio",
        1.25,
        "times",
    ),
)


def judged(parts: Mapping[str, Any]) -> list[Row]:
    """Hold the bars against what is known.

    Args:
        parts: Of a record.

    Returns:
        A row a bar; its verdict is "met", "missed" or "not measured".
    """
    return [_judge(bar, parts.get(bar.part, {}).get("rows", ())) for bar in BARS]


def _judge(bar: Bar, rows: Any) -> Row:
    wanted = {**bar.row, "by": CARD}
    found = [row.get(bar.figure) for row in rows if all(row.get(key) == value for key, value in wanted.items())]
    figure = next((value for value in found if value is not None), None)
    if figure is None:
        verdict = "not measured"
    else:
        verdict = "met" if (figure >= bar.limit if bar.at_least else figure <= bar.limit) else "missed"
    return {
        "bar": bar.name,
        "limit": f"{'at least' if bar.at_least else 'at most'} {bar.limit:,g} {bar.unit}",
        "figure": figure,
        "published": bar.published,
        "verdict": verdict,
    }
