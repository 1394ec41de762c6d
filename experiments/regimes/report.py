"""Tables, sentences and the page of the map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otfew.experiments.regimes.cells import AXES, SETTINGS, Cell
from otfew.experiments.regimes.effects import CONTROLS, Counted, points
from otfew.experiments.regimes.rule import FAILED, HELD, LEAST_EPISODES, MARGIN, PAYS, UNDECIDED
from otfew.reporting.tables import Table

Record = Mapping[str, Any]
HEAD = ("cell", "network", "transport %", "minus chamfer", "minus product-coupling", "log-odds, the same two")


def brief(counted: Counted) -> str:
    """Say a cell's two differences in a line."""
    found = {control: points(counted=[counted], control=control) for control in CONTROLS}
    return ", ".join(f"minus {c} {e.mean:+.2f}{_half(e.half)}" for c, e in found.items())


def _half(half: float | None) -> str:
    return "" if half is None else f" ± {half:.2f}"


def listed(cells: Sequence[Cell]) -> Table:
    """List cells as the command's --list prints them."""
    rows = [
        [c.id, c.axis, c.part, c.setting, " ".join(f"{k}={v}" for k, v in c.settings.items() if v not in {"", 0})]
        for c in cells
    ]
    return Table("cells", ("cell", "axis", "part", "setting", "what is computed"), rows)


def interval(adds: Record, digits: int = 2) -> str:
    """Write a difference with its interval."""
    if adds["low"] is None:
        return f"{adds['mean']:+.{digits}f}"
    return f"{adds['mean']:+.{digits}f} [{adds['low']:+.{digits}f}, {adds['high']:+.{digits}f}]"


def cell_tables(record: Record) -> list[Table]:
    """Lay out the cells of each axis."""
    found = []
    for axis in AXES:
        rows = [
            [
                f"{cell['id']}{' (held back)' if cell['part'] == 'held back' else ''}",
                _networks(cell),
                f"{cell['accuracy']['deepemd']:.1f}",
                *(interval(cell["adds"][control]) for control in CONTROLS),
                ", ".join(_odds(cell["adds"][control]["log_odds"]) for control in CONTROLS),
            ]
            for cell in record["cells"]
            if cell["axis"] == axis
        ]
        if rows:
            found.append(Table(axis, HEAD, rows))
    return found


def _networks(cell: Record) -> str:
    first, *more = cell["networks"]
    return f"{first} and {len(more)} more" if more else str(first)


def _odds(odds: Record | None) -> str:
    return "undefined" if odds is None else f"{odds['mean']:+.3f}"


def settings_table(record: Record) -> Table:
    """Lay out the settings that the rule judges."""
    rows = [
        [
            SETTINGS[one["setting"]],
            f"{len(one['cells'])} of {len(one['cells']) + len(one['missing'])}",
            *(f"{interval(one['adds'][c])}, p {_p(one['adds'][c]['p_holm'])}" for c in CONTROLS),
            one["verdict"],
        ]
        for one in record["settings"]
    ]
    return Table("settings", ("setting", "cells", *(f"minus {c}" for c in CONTROLS), "transport"), rows)


def _p(p: float | None) -> str:
    return "unknown" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def tables(record: Record) -> list[Table]:
    """Lay out everything, for the terminal."""
    return [*cell_tables(record), *([settings_table(record)] if record["settings"] else [])]


def lines(record: Record) -> list[str]:
    """Say what the map says, how the held-back data judge it, and what is missing."""
    advice, held = record["advice"], record["held_back"]
    said = [f"advice: {advice['text']}", designed(advice["designed"]), prediction(held, advice["control"])]
    missing = [f"{name}: {why}" for name, why in record["not_run"].items()]
    if missing:
        said.append(f"not run: {len(missing)}, such as {missing[0]}")
    if record["episodes"] < LEAST_EPISODES:
        said.append(f"{record['episodes']} episodes a cell decide nothing: the rule asks for {LEAST_EPISODES}")
    return said


def designed(verdict: str) -> str:
    """Say whether transport wins where it must."""
    if not verdict:
        return "designed control: not run, so that nothing is shown yet"
    if verdict == PAYS:
        return "designed control: transport wins over both, as it must"
    return "designed control: transport does not win over both, so that the map counts for nothing"


def prediction(held: Record, control: str) -> str:
    """Say whether the sentence held on the data that the map has not seen."""
    if not held["verdict"]:
        return "held-back Fashion-MNIST: nothing to be tested yet"
    said = [f"minus {c} {interval(e)} where transport shall pay" for c, e in held["paying"].items()]
    if held["others"] is not None:
        said.append(f"minus {control} {interval(held['others'])} elsewhere, where less than {MARGIN:g} was foretold")
    words = {HELD: "the advice held", FAILED: "the advice failed", UNDECIDED: "these data leave the advice open"}
    return f"held-back Fashion-MNIST ({len(held['cells'])} cells): {words[held['verdict']]}; {'; '.join(said)}"
