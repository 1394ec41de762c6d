"""Records of runs on shapes, and the figures of docs/metric-learning.md that are made of them and of nothing else."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from otfew.errors import UserError
from otfew.experiments.metric_learning import report
from otfew.reporting.tables import Table, bullets, markdown
from otfew.runs.files import parse_json, write_atomically

Record = Mapping[str, Any]

FORMAT = 1
DIGITS = 6
"""Of figures in a record: more would make it longer and say nothing."""
WIDTH = 140
"""Characters of a line of the command."""
BEGIN, END = "<!-- figures: written by experiments.metric_learning --page -->", "<!-- end of figures -->"
PAGE = "metric-learning.md"
RECORDS = {"shapes-within": "Shapes ask for shapes", "shapes-across": "Sketches ask for shapes"}
"""Name of a file below docs/results -> its heading."""
SAME_AS = "all-pairs is batchwise-ot:reg_inverse=0: with lambda = 0 the plan is uniform, all pairs alike"


def make(results: Record, timings: Record, command: str, lines: Sequence[str]) -> dict[str, Any]:
    """Make the record of a run.

    Args:
        results: Its results.json.
        timings: Its timings.json.
        command: What was typed, without paths.
        lines: The report's sentences.
    """
    return {
        "command": command,
        "format": FORMAT,
        "protocol": results["protocol"],
        "versions": results["versions"],
        "reference": results["reference"],
        "lines": list(lines),
        "order": list(results["losses"]),
        "losses": {
            loss: {name: _rounded(found[name]) for name in ("learning_rate", "tuning", "diverged", "seeds")}
            for loss, found in results["losses"].items()
        },
        "timings": _rounded(timings),
    }


def write_page(docs: Path) -> None:
    """Write the figures into the page.

    Args:
        docs: Folder of the page, with the records in its folder results.

    Raises:
        UserError: There is no page with the two marks, or a record is missing or can't be read.
    """
    page = docs / PAGE
    if not page.is_file():
        raise UserError(f"{page} is not there: start in a checkout, or give its folder as `docs`.")
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{page} lacks its marks: put {BEGIN} and {END} back.")
    records = {name: load(docs / "results" / f"{name}.json") for name in RECORDS}
    write_atomically(page, f"{before}{BEGIN}\n\n{figures(records)}\n{END}{after}".encode())


def load(path: Path) -> Record:
    """Read a record.

    Raises:
        UserError: It is none.
    """
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore it from the repository.") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT or "losses" not in found:
        raise UserError(f"{path} is no record of experiments.metric_learning: take record.json of a run's folder.")
    return found


def figures(records: Mapping[str, Record]) -> str:
    """Write all figures as Markdown: by record its command, its tables and its sentences."""
    parts = []
    for name, record in records.items():
        tables = "\n".join(f"{_title(table)}:\n\n{markdown(table)}" for table in tables_of(record))
        lines = bullets([*record["lines"], SAME_AS])
        parts.append(f"### {RECORDS[name]}\n\n    {_command(record)}\n\n{tables}\n{lines}")
    return "\n".join(parts)


def tables_of(record: Record) -> list[Table]:
    """Lay a record out as the run's own report does, its figures computed again from those of each seed."""
    losses = {loss: record["losses"][loss] for loss in record["order"]}
    histories = {
        loss: {int(seed): run for seed, run in found["seeds"].items()}
        for loss, found in losses.items()
        if found["seeds"]
    }
    reference = record["reference"]
    rates = {loss: found["learning_rate"] for loss, found in losses.items()}
    timings = {**record["timings"], "losses": {loss: record["timings"]["losses"][loss] for loss in histories}}
    return report.tables(histories, report.summarise(histories, reference), timings, reference, rates)


def _command(record: Record) -> str:
    """Break the command, so that its lines are no longer than the page's others."""
    lines = textwrap.wrap(record["command"], WIDTH, break_long_words=False, break_on_hyphens=False)
    return " \\\n        ".join(lines)


def _title(table: Table) -> str:
    """Begin a table's title with a capital, names as they are."""
    return table.title if table.title.startswith("mAP") else table.title[:1].upper() + table.title[1:]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return value
