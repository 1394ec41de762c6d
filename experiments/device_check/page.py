"""The figures of docs/gpu.md: written from the records, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from otfew.errors import UserError
from otfew.experiments.device_check import report
from otfew.experiments.device_check.record import load
from otfew.reporting.tables import markdown
from otfew.runs.files import write_atomically

BEGIN, END = "<!-- figures: written by experiments.device_check --page -->", "<!-- end of figures -->"
NOTHING = "No card has been measured yet: there is no record in `docs/results`, and so there is no figure here."


def write(docs: Path) -> None:
    """Write the figures into the page.

    Args:
        docs: Folder of the page, with the records in its folder results.

    Raises:
        UserError: There is no page with the two marks, or a record cannot be read.
    """
    page = docs / "gpu.md"
    if not page.is_file():
        raise UserError(f"{page} is not there: start in a checkout, or give its folder as `docs`.")
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{page} lacks its marks: put {BEGIN} and {END} back.")
    records = [load(path) for path in sorted((docs / "results").glob("device-*.json"))]
    write_atomically(page, f"{before}{BEGIN}\n\n{figures(records)}\n{END}{after}".encode())


def figures(records: Sequence[Mapping[str, Any]]) -> str:
    """Write all cards' figures as Markdown; trials at toy size do not count."""
    shown = [record for record in records if not record["toy"]]
    return "\n".join(section(record) for record in shown) if shown else f"{NOTHING}\n"


def section(record: Mapping[str, Any]) -> str:
    """Write one card's figures."""
    card, host, versions = record["card"], record["host"], record["versions"]
    about = [
        f"{card['name']}, compute capability {card['capability']}, {card['memory_gib']} GiB",
        f"{host['processor']}, {host['cores']} cores",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
    ]
    lines = [f"### {card['name']}", "", f"`{record['line']}`, {record['started'][:10]}. {'; '.join(about)}.", ""]
    for table in report.tables(record):
        lines += [f"{table.title[0].upper()}{table.title[1:]}:", "", markdown(table._replace(title="")).strip(), ""]
    tests = record["parts"].get("tests", {}).get("rows", ())
    lines += [f"{line.splitlines()[0]}." for line in report.failures(tests)[:1]]
    return "\n".join(lines).rstrip() + "\n"
