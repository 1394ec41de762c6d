"""What a record says, as tables: for the terminal and for docs/gpu.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otfew.experiments.device_check.bench import CARD, Row
from otfew.experiments.device_check.parts import PARTS
from otfew.reporting.tables import Table

NONE = "-"

TITLES = {
    "methods": "episodes from features in the card's memory, 5-way, 75 queries",
    "metatrain": "a step of meta-training",
    "sinkhorn": "entropic transport of many small problems",
    "points": "entropic transport of two point clouds",
    "images": "images",
}
"""Part -> title of its table."""


def tables(record: Mapping[str, Any]) -> list[Table]:
    """Lay a record out."""
    parts = record["parts"]
    made = [states(parts), bars(record["bars"]), exact(parts.get("exact", {}).get("rows", ()))]
    made += [figures(title, parts.get(name, {}).get("rows", ())) for name, title in TITLES.items()]
    return [table for table in made if table.rows]


def states(parts: Mapping[str, Any]) -> Table:
    """How far each part came."""
    there = [part.name for part in PARTS if part.name in parts]
    rows = [[name, _number(parts[name]["seconds"]), parts[name]["state"].splitlines()[0]] for name in there]
    return Table("parts", ["part", "seconds", "state"], rows)


def bars(rows: Sequence[Row]) -> Table:
    """Bars that were set before anything had run on a card."""
    body = [
        [row["bar"], row["limit"], _number(row["figure"]), row["published"] or NONE, row["verdict"]] for row in rows
    ]
    return Table("bars, set for an H100", ["bar", "limit", "found", "published", "verdict"], body)


def exact(rows: Sequence[Row]) -> Table:
    """Times of the exact solver: a line a batch, a column a way to solve it."""
    batches = list(dict.fromkeys((row["size"], row["count"]) for row in rows))
    ways = list(dict.fromkeys(_way(row) for row in rows))
    found = {(row["size"], row["count"], _way(row)): _number(row.get("ms")) for row in rows}
    body = [[size, f"{count:,}", *(found.get((size, count, way), NONE) for way in ways)] for size, count in batches]
    return Table("exact transport, ms a batch (median)", ["nodes", "problems", *ways], body)


def figures(title: str, rows: Sequence[Row]) -> Table:
    """Any other part: a line a row."""
    head = ["", "size", "at once", "by", "ms", "a second", ""]
    body = [
        [
            row["what"],
            row["size"],
            f"{row['count']:,}",
            row["by"],
            _number(row.get("ms")),
            _number(row.get("per_second")),
            _rest(row),
        ]
        for row in rows
    ]
    return Table(title, head, body)


def failures(rows: Sequence[Row]) -> list[str]:
    """Say of the tests how many passed, and what failed, with its report."""
    lines = []
    for row in rows:
        lines.append(
            f"tests: {row['passed']} passed, {row['failed']} failed, {row['skipped']} skipped, "
            f"{row['not_reached']} not reached, of {row['count']}"
        )
        lines += [f"FAILED {name}\n{text}" for name, text in row["failures"].items()]
        lines += [f"NOT IMPORTED {text}" for text in row["errors"]]
        lines += [f"not begun: {name}" for name in row["not_begun"]]
        lines += [f"under way when the time was over: {name}" for name in row["under_way"]]
    return lines


def _way(row: Row) -> str:
    return str(row["what"] if row["by"] == CARD else row["by"])


def _rest(row: Row) -> str:
    """Say what only some rows have."""
    if "skipped" in row:
        return str(row["skipped"])
    parts = [f"{_number(row['ratio'])} times"] if "ratio" in row else []
    parts += [f"{row['episodes']:,} episodes in {_number(row['seconds'])} s"] if "seconds" in row else []
    named = {"value_error": "error of the value", "marginal_error": "marginal error", "right": "right"}
    parts += [f"{title} {row[key]:.2g}" for key, title in named.items() if row.get(key) is not None]
    return ", ".join(parts)


def _number(value: float | None) -> str:
    """Write a figure with three digits, or all before the point."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
