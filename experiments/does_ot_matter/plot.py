"""``does_ot_matter`` as a picture: a forest along the line from the LP to the product coupling, and beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from otfew.reporting import canvas, forest_plot
from otfew.reporting.accuracy_plot import as_mark, compared, subject
from otfew.reporting.canvas import CONTROL_ROLE, REFERENCE_ROLE, TRANSPORT_ROLE, Role, to_png
from otfew.reporting.forest_plot import Column, Heading, Mark, Row
from otfew.reporting.sentences import milliseconds

Record = Mapping[str, Any]
PARTNERS = Role("partners of a node in the plan", canvas.FAINT, "o", filled=False)


def picture(record: Record, times: Record, plans: Record, line: Mapping[float, str], lp: str, product: str) -> bytes:
    """Draw ``figure`` as a PNG file."""
    return to_png(figure(record, times, plans, line, lp, product))


def figure(record: Record, times: Record, plans: Record, line: Mapping[float, str], lp: str, product: str) -> Any:
    """Draw paired differences to the LP: first along the line of plans, then the others, the best first.

    Args:
        record: A panel as ``compare`` writes it, whose reference is the LP.
        times: Name -> "ms_per_episode".
        plans: Name -> "partners".
        line: reg -> name of the entry, ascending.
        lp: Name of the optimal plan's entry.
        product: Name of the product coupling's.

    Returns:
        A figure of matplotlib's.
    """
    along = [lp, *line.values(), product]
    beside = sorted((name for name in record["methods"] if name not in along), key=lambda name: -_mean(record, name))
    rows: list[Row | Heading] = [Heading("from optimal to no matching")]
    rows += [_row(name, record, times, plans, lp) for name in along]
    rows.append(Heading("other entries"))
    rows += [_row(name, record, times, plans, lp) for name in beside]
    columns = [
        Column("accuracy minus that of the LP, points", zero=0.0, head="± classes"),
        Column("partners of a node", role=PARTNERS, share=0.35),
        Column("", share=0.0, head="ms per episode"),
    ]
    roles = [row.role for row in rows if isinstance(row, Row)]
    roles = [role for role in (TRANSPORT_ROLE, CONTROL_ROLE, REFERENCE_ROLE) if role in roles]
    key = [*canvas.role_key([*roles, PARTNERS]), *canvas.bar_key()]
    return forest_plot.draw(finding(record, along[1:], beside), subject(record["protocol"]), rows, columns, key)


def finding(record: Record, along: Sequence[str], beside: Sequence[str]) -> str:
    """Say what blurring the plan changes, and what else does.

    Args:
        record: As for ``figure``.
        along: Names along the line, without the LP.
        beside: The other names.
    """
    sure = [name for name in along if _difference(record, name)["verdict"] in {"better", "worse"}]
    ends = sorted((_difference(record, name) for name in along), key=lambda one: float(one["mean"]))
    if sure:
        told = "; ".join(f"{name} {compared(_difference(record, name), 'the LP')}" for name in sure)
        said = f"Blurring the plan changes accuracy: {told}"
    else:
        first, last = (as_mark(one, sign=True).text for one in (ends[0], ends[-1]))
        said = f"Blurring the plan is not shown to change accuracy ({first} to {last} points)"
    other = [name for name in beside if _difference(record, name)["verdict"] in {"better", "worse"}]
    if other:
        told = ", ".join(f"{name} ({as_mark(_difference(record, name), sign=True).text})" for name in other)
        return f"{said}; what does: {told}"
    return f"{said}; no other entry is shown to differ"


def _difference(record: Record, name: str) -> Record:
    """Return the paired difference of an entry to the LP; zero for the LP itself."""
    zero = {"mean": 0.0, "episode_ci": None, "class_ci": None, "verdict": ""}
    found: Record = record["methods"][name].get("difference", zero)
    return found


def _mean(record: Record, name: str) -> float:
    return float(_difference(record, name)["mean"])


def _row(name: str, record: Record, times: Record, plans: Record, lp: str) -> Row:
    transport = record["protocol"]["methods"][name]["method"] == "deepemd"
    role = REFERENCE_ROLE if name == lp else TRANSPORT_ROLE if transport else CONTROL_ROLE
    mark = Mark(0.0, text="reference") if name == lp else as_mark(_difference(record, name), sign=True)
    partners = plans[name]["partners"] if name in plans else math.nan
    spread = Mark(partners, text=f"{partners:.1f}" if name in plans else "")
    time = Mark(math.nan, text=milliseconds(times[name]["ms_per_episode"]))
    return Row(f"LP ({lp})" if name == lp else name, role, (mark, spread, time))
