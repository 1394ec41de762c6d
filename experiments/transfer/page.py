"""The figures of docs/transfer.md: written from committed records, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from otfew.errors import UserError
from otfew.evaluation.shift_gain import Part
from otfew.experiments.transfer import answers, report, rule
from otfew.reporting import cells
from otfew.reporting.forest_plot import signed, with_half
from otfew.reporting.sentences import percent
from otfew.reporting.severity_plot import picture
from otfew.reporting.tables import Table, markdown
from otfew.runs.files import parse_json, write_atomically

Record = Mapping[str, Any]
BEGIN, END = "<!-- figures: written by experiments.transfer --page -->", "<!-- end of figures -->"
NOTHING = "Nothing has been measured yet: there is no record in `docs/results`, and so there is no figure here."
PICTURE = "transfer.png"


def write(docs: Path) -> None:
    """Write the figures into the page, and the picture beside it.

    Args:
        docs: Folder of the page, with the records in its folder results.

    Raises:
        UserError: There is no page with the two marks, or a record cannot be read.
    """
    page = docs / "transfer.md"
    if not page.is_file():
        raise UserError(f"{page} is not there: start in a checkout, or give its folder as `docs`.")
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{page} lacks its marks: put {BEGIN} and {END} back.")
    records = [load(path) for path in sorted((docs / "results").glob("transfer-*.json"))]
    write_atomically(page, f"{before}{BEGIN}\n\n{figures(records)}\n{END}{after}".encode())
    if primary := _primary(records):
        write_atomically(docs / PICTURE, picture(primary, [drawn(record) for record in primary], found(primary)))


def load(path: Path) -> Record:
    """Read a record.

    Raises:
        UserError: It is none.
    """
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore it from the repository.") from error
    if not isinstance(found, dict) or found.get("command") != "transfer" or found.get("format") != 1:
        raise UserError(f"{path} is no record of experiments.transfer: take record.json of a run's folder.")
    return found


def drawn(record: Record) -> list[str]:
    """Choose what the picture shows of a cell: what was judged, its controls, and the nearest mean by cosine."""
    pairs = record["effects"]["pairs"].values()
    wanted = {"cosine-centroid", *(name for pair in pairs for name in pair)}
    return [name for name in record["order"] if name in wanted]


def found(records: Sequence[Record]) -> str:
    """Say in the picture's title what the test of each network found.

    Args:
        records: Of the primary contrast.
    """
    told = []
    for test in _tested(records):
        effect = rule.record(test)
        half = effect["class_ci"] if effect["class_ci"] is not None else effect["episode_ci"]
        points = with_half(signed(100 * effect["mean"]), None if half is None else 100 * half)
        told.append(f"{points} ({test.network}, {test.verdict})")
    if not told:
        return ""
    return f"What transport gains under a shift less what it gains without: {', '.join(told)} points"


def figures(records: Sequence[Record]) -> str:
    """Write all figures as Markdown: the tests, their cells, and then everything that is exploratory."""
    if not records:
        return f"{NOTHING}\n"
    primary = _primary(records)
    lines: list[str] = []
    if primary:
        lines += [*_tests(primary), f"![Accuracy against the severity of the shift]({PICTURE})", ""]
        lines += ["### Cells of the primary contrast", "", *_own(primary)]
    if others := [record for record in records if record not in primary]:
        lines += ["### Exploratory", "", *_own(others)]
    return "\n".join(lines).rstrip() + "\n"


def _primary(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record["effects"] and not report.off_rule(record)]


def _own(records: Sequence[Record]) -> list[str]:
    """Lay out each record by itself: its tables, and what they are."""
    lines: list[str] = []
    for record in records:
        lines += [f"#### {report.title(record)}, {record['settings']['shot']}-shot", ""]
        for table in report.tables(record):
            lines += [f"{table.title[0].upper()}{table.title[1:]}:", "", markdown(table._replace(title="")).strip(), ""]
        lines += [f"- {line}" for line in report.lines(record)] + [""]
    return lines


def _tests(records: Sequence[Record]) -> list[str]:
    """Lay out the test of each network, and the cells that it averages."""
    parts = {(r["network"], r["data"]["dataset"]): _part(r["effects"]["all"]) for r in records}
    found = _tested(records)
    rows = [
        [
            test.network,
            ", ".join(test.datasets),
            cells.with_intervals(rule.record(test), sign=True),
            "–" if test.p_holm is None else f"{test.p_holm:.3f}",
            test.verdict,
        ]
        for test in found
    ]
    tested = {test.network for test in found}
    absent = {
        network: [dataset for dataset in datasets if (network, dataset) not in parts]
        for network, datasets in rule.NETWORKS.items()
        if network not in tested
    }
    rows += [[network, ", ".join(rule.NETWORKS[network]), "–", "–", "not tested"] for network in absent]
    head = [
        "network",
        "data sets",
        "gain under shift less gain without, points ± episodes ± classes",
        "Holm's p",
        "verdict",
    ]
    lines = ["### Does transport help across domains, and when does it hurt?", ""]
    lines += [f"- {answers.verdict(test)}" for test in found]
    lines += [f"- {answers.not_tested(network, missing)}" for network, missing in absent.items()]
    lines += [f"- {line}" for line in (answers.below_nothing(records), *answers.unchanged(records))]
    lines += ["", "The primary contrast:", ""]
    lines += [markdown(Table("", head, rows)).strip(), ""]
    cells_ = [
        [
            r["network"],
            r["data"]["dataset"],
            *(" - ".join(r["effects"]["pairs"][shift]) for shift in rule.TERMS["shifts"]),
            cells.with_intervals(r["effects"]["all"], sign=True),
            *(percent(r["effects"]["shifts"][shift]["mean"], sign=True) for shift in rule.TERMS["shifts"]),
        ]
        for r in records
    ]
    shifts = rule.TERMS["shifts"]
    head = ["network", "data set", *(f"{s}: what, less which control" for s in shifts), "all, points", *shifts]
    return [*lines, "Its cells:", "", markdown(Table("", head, cells_)).strip(), ""]


def _tested(records: Sequence[Record]) -> list[rule.Test]:
    return rule.tests({(r["network"], r["data"]["dataset"]): _part(r["effects"]["all"]) for r in records})


def _part(effect: Record) -> Part:
    return Part(effect["mean"], effect["episode_ci"], effect["class_error"], effect["degrees"])
