"""Accuracy against the number of shots as a picture: a column of a forest for each number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otfew.reporting import canvas, forest_plot
from otfew.reporting.accuracy_plot import as_mark, subject
from otfew.reporting.canvas import CONTROL_ROLE, REFERENCE_ROLE, RIVAL_ROLE, TRANSPORT_ROLE, Role, to_png
from otfew.reporting.comparison import mark
from otfew.reporting.forest_plot import Column, Heading, Mark, Row
from otfew.reporting.sentences import listed

Record = Mapping[str, Any]
CONTROLS = frozenset({"chamfer", "product-coupling", "cr-pooled"})
"""On the same nodes and with the same weights as DeepEMD, without transport."""


def picture(records: Mapping[int, Record], heads: Mapping[str, Record] | None = None) -> bytes:
    """Draw ``figure`` as a PNG file."""
    return to_png(figure(records, heads))


def figure(records: Mapping[int, Record], heads: Mapping[str, Record] | None = None) -> Any:
    """Draw accuracies with their intervals over episodes, a column for each number of shots, best methods first.

    Intervals over classes, which all methods share, would hide everything: they are in the tables, and of paired
    differences. A line marks the accuracy of the reference.

    Args:
        records: k -> a panel as ``compare`` writes it.
        heads: "shot-K" -> name of a head -> its paired difference to the mean of the shots, with "verdict" where the
            title is to say it.

    Returns:
        A figure of matplotlib's.
    """
    first = next(iter(records.values()))
    p = first["protocol"]
    reference = p["reference"]
    names = sorted(p["order"], key=lambda name: -sum(r["methods"][name]["accuracy"]["mean"] for r in records.values()))
    rows: list[Row | Heading] = []
    for name in names:
        marks = tuple(_mark(record["methods"][name]["accuracy"]) for record in records.values())
        rows.append(Row(mark(name, first["methods"][name]), _role(name, p), marks))
    columns = []
    for k, record in records.items():
        level = 100 * record["methods"][reference]["accuracy"]["mean"] if reference in record["methods"] else None
        columns.append(Column(f"{k} shot{'' if k == 1 else 's'}, %", zero=level))
    roles = [row.role for row in rows if isinstance(row, Row)]
    known = [role for role in (TRANSPORT_ROLE, CONTROL_ROLE, RIVAL_ROLE, REFERENCE_ROLE) if role in roles]
    key = [*canvas.role_key(known), *canvas.bar_key(thin="")]
    told = f"{subject(p).rpartition(' ')[0]}; accuracy in %, best on average first; line: {reference}"
    return forest_plot.draw(finding(records, heads or {}), told, rows, columns, key)


def finding(records: Mapping[int, Record], heads: Mapping[str, Record]) -> str:
    """Say which heads are shown to differ from the mean of the shots at the most shots, and whose mean is highest.

    Args:
        records: As for ``figure``.
        heads: As for ``figure``.
    """
    k = max(records)
    methods = records[k]["methods"]
    best = max(methods, key=lambda name: methods[name]["accuracy"]["mean"])
    said = (
        f"With {k} shot{'' if k == 1 else 's'} {best} has the highest mean: {as_mark(methods[best]['accuracy']).text} %"
    )
    found = heads.get(f"shot-{k}", {})
    if not found or any("verdict" not in head for head in found.values()):
        return said
    sure = {name: head for name, head in found.items() if head["verdict"] in {"better", "worse"}}
    if not sure:
        return f"{said}; no head is shown to differ from the mean of the shots"
    parts = [f"{name} ({as_mark(head, sign=True).text})" for name, head in sure.items()]
    return f"{said}; from the mean of the shots differ {listed(parts, ' and ')} points"


def _mark(accuracy: Record) -> Mark:
    """Leave out the interval over classes."""
    full = as_mark(accuracy)
    return Mark(full.value, full.thick, None, full.text.partition("\N{NO-BREAK SPACE}")[0])


def _role(name: str, protocol: Record) -> Role:
    if protocol["methods"][name]["method"] == "deepemd":
        return TRANSPORT_ROLE
    if name == protocol["reference"]:
        return REFERENCE_ROLE
    return CONTROL_ROLE if protocol["methods"][name]["method"] in CONTROLS else RIVAL_ROLE
