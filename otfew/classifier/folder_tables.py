"""The tables and sentences of ``folder_run``'s record, and the part of a page that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from otfew.classifier.folder_study import ALPHAS, CENTROID, DEEPEMD, RATES
from otfew.classifier.folder_summary import FAILS, HERE, MARGIN, PASSES
from otfew.errors import UserError
from otfew.reporting.tables import Table, bullets, markdown
from otfew.runs.files import parse_json, write_atomically

BEGIN, END = "<!-- figures: written by experiments.folders --page -->", "<!-- end of figures of folders -->"
NAMES = {"cub": "birds", "cifar-fs": "CIFAR-100", "omniglot": "Omniglot", "fashion-mnist": "Fashion-MNIST"}
"""What a source is called in a table."""
_VERDICTS = {
    PASSES: "so it is non-inferior: both lower bounds are above {margin} points",
    HERE: "so it is non-inferior on these sources, and not shown to be on others: of few sources the interval is wide",
    FAILS: "so the rule fails: the lower bound is not above {margin} points",
}


def tables(record: Mapping[str, Any]) -> list[Table]:
    """Lay the record out: by source, beside each fixed method, and what was promised beside what came.

    Args:
        record: Of ``folder_run.run``.
    """
    found = record["summary"]
    return [_by_source(found), _against(found), _promises(found)]


def lines(record: Mapping[str, Any]) -> list[str]:
    """Say what the rule comes to, and what auto chose.

    Args:
        record: Of ``folder_run.run``.
    """
    found = record["summary"]
    said = []
    for name in (CENTROID, DEEPEMD):
        against = found["against"][f"{name} on fcn"]
        told = _VERDICTS[found["verdicts"][name]].format(margin=f"{-MARGIN:g}")
        apart = against["difference"]
        across = "" if apart["across"] is None else f", {_interval(apart['across'])} over sources as well"
        said.append(
            f"auto - {name}: {apart['mean']:+.1f} points {_interval(apart['within'])} over folders and classes of "
            f"these sources{across}; {told}. In the folder that is worst for it, {against['worst']:+.1f}"
        )
    chosen = ", ".join(f"{kind} ({count})" for kind, count in sorted(found["chosen"].items(), key=lambda x: -x[1]))
    said.append(f"chosen: {chosen}; moved from the prior's first in {found['moved']} of {found['folders']} folders")
    for name, which in (("equal", "as many photos of each class"), ("unequal", "more photos of some classes")):
        held = found["held_out"][name]
        if held["folders"]:
            said.append(
                f"accuracy that auto reports from held-out photos, with {which}: {held['told']:.1f} % on average, "
                f"{held['found']:.1f} % of new photos; its interval held the latter in {held['inside']} of "
                f"{held['folders']} folders"
            )
    return said


def write_page(page: Path, record: Path) -> None:
    """Write the tables into a page, between its marks.

    Args:
        page: With the two marks.
        record: Of ``folder_run.run``.

    Raises:
        UserError: Either is not there, or the page lacks its marks.
    """
    for path in (page, record):
        if not path.is_file():
            raise UserError(f"{path} is not there: start in a checkout, or give `docs` and `record`.")
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{page} lacks its marks: put {BEGIN} and {END} back.")
    found = parse_json(record.read_bytes())
    parts = [f"{table.title}:\n\n{markdown(table)}" for table in tables(found)]
    body = "\n".join([*parts, bullets(lines(found))])
    write_atomically(page, f"{before}{BEGIN}\n\n{body}\n{END}{after}".encode())


def _by_source(found: Mapping[str, Any]) -> Table:
    head = ("", "folders", "auto", f"always {CENTROID}", f"always {DEEPEMD}")
    rows: list[list[str | None]] = [
        [NAMES.get(source, source), str(row["folders"]), *(_points(row[name]) for name in ("auto", CENTROID, DEEPEMD))]
        for source, row in found["by_source"].items()
    ]
    fixed = [found["against"][f"{name} on fcn"]["accuracy"] for name in (CENTROID, DEEPEMD)]
    rows.append(["all", str(found["folders"]), _points(found["accuracy"]["mean"]), *map(_points, fixed)])
    return Table(f"Accuracy on {found['photos']:,} new photos, %, the mean over folders", head, rows)


def _against(found: Mapping[str, Any]) -> Table:
    head = ("fixed beforehand", "folders", "accuracy", "auto - it", "these sources", "other sources", "worst folder")
    rows: list[list[str | None]] = []
    for kind, row in found["against"].items():
        apart = row["difference"]
        mean, within, across = None, None, None
        if apart is not None:
            mean, within = f"{apart['mean']:+.1f}", _interval(apart["within"])
            across = None if apart["across"] is None else _interval(apart["across"])
        rows.append([kind, str(row["folders"]), _points(row["accuracy"]), mean, within, across, f"{row['worst']:+.1f}"])
    return Table("auto beside each method fixed beforehand, in points, with both 95 % intervals", head, rows)


def _promises(found: Mapping[str, Any]) -> Table:
    head = ("promised", "folders", "found", "these sources")
    rows: list[list[str | None]] = []
    for name, told in (("before", "by the method's own softmax"), ("after", "calibrated")):
        row = found["confidence"][name]
        rows.append([f"calibration error, points, {told}", str(found["folders"]), f"{row['error']:.1f}", None])
        rows.append(
            [
                f"confidence less accuracy, points, {told}",
                str(found["folders"]),
                f"{row['too_sure']['mean']:+.1f}",
                _interval(row["too_sure"]["within"]),
            ]
        )
        loss = row["log_loss"]
        rows.append([f"log-loss, {told}", str(found["folders"]), f"{loss['mean']:.3f}", _interval(loss["within"], 3)])
    for rate in RATES:
        row = found["refusal"][f"{rate:g}"]
        rows.append([f"{100 * rate:g} % of known photos refused", str(row["folders"]), *_share(row["known"])])
        rows.append(["and of unknown kinds", str(row["folders"]), _points(row["unknown"]), None])
    rows.append(
        ["AUROC of known against unknown", None, None if found["auroc"] is None else f"{found['auroc']:.2f}", None]
    )
    for who in ("auto", CENTROID):
        for alpha in ALPHAS:
            row = found["sets"][who][f"{alpha:g}"]
            size = "" if row["size"] is None else f", {row['size']:.1f} labels each"
            rows.append(
                [f"{100 * (1 - alpha):g} % of sets right, {who}{size}", str(row["folders"]), *_share(row["covered"])]
            )
    return Table("What is promised and what came of it", head, rows)


def _points(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def _share(found: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    return (None, None) if found is None else (_points(found["mean"]), _interval(found["within"]))


def _interval(bounds: Any, digits: int = 1) -> str:
    low, high = bounds
    return f"[{low:.{digits}f}, {high:.{digits}f}]"
