"""Accuracies of a joined run, as a picture: a column of a forest for each number of shots or file of features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from otfew.reporting import canvas, forest_plot
from otfew.reporting.accuracy_plot import as_mark, finding, role_of
from otfew.reporting.canvas import CONTROL_ROLE, REFERENCE_ROLE, RIVAL_ROLE, TRANSPORT_ROLE
from otfew.reporting.comparison import mark
from otfew.reporting.forest_plot import Column, Heading, Mark, Row
from otfew.reporting.sentences import wide

Record = Mapping[str, Any]


def figure(title: str, headings: Sequence[str], records: Sequence[Record], methods: Sequence[str]) -> Any:
    """Draw a row for each method, best on average first, and a column for each of the run's.

    Args:
        title: Below the finding of the first column.
        headings: Of the columns.
        records: Of the columns, with "methods", "protocol" and "transport_adds".
        methods: All of them.

    Returns:
        A figure of matplotlib's that no window knows of; notebooks show it.
    """
    rows: list[Row | Heading] = []
    for name in sorted(methods, key=lambda name: -_average(name, records)):
        first = next(record for record in records if name in record["methods"])
        marks = [_mark(record["methods"].get(name)) for record in records]
        rows.append(Row(mark(name, first["methods"][name]), role_of(name, first), tuple(marks)))
    over = "photos" if records[0]["protocol"].get("fixed_classes") else "classes"
    columns = [Column(f"{heading}, %".replace("\n", ", ")) for heading in headings]
    roles = [row.role for row in rows if isinstance(row, Row)]
    known = [role for role in (TRANSPORT_ROLE, CONTROL_ROLE, RIVAL_ROLE, REFERENCE_ROLE) if role in roles]
    shown = any(wide(m["accuracy"]) is not None for record in records for m in record["methods"].values())
    key = [*canvas.role_key(known), *canvas.bar_key(thin=f"95 % over {over}" if shown else "")]
    said = finding(records[0])
    told = f"{headings[0]}: {said}".replace("\n", ", ") if len(records) > 1 else said
    return forest_plot.draw(told, title, rows, columns, key)


def _average(name: str, records: Sequence[Record]) -> float:
    found = [record["methods"][name]["accuracy"]["mean"] for record in records if name in record["methods"]]
    known = [value for value in found if math.isfinite(value)]
    return sum(known) / len(known) if known else -math.inf


def _mark(method: Record | None) -> Mark | None:
    """Print the figure alone: its intervals are drawn."""
    if method is None:
        return None
    full = as_mark(method["accuracy"])
    return Mark(full.value, full.thick, full.thin, full.text.partition("\N{NO-BREAK SPACE}")[0])
