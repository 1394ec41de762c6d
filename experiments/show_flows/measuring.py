"""Where the flow lands on ``glyphs``: the run, its tables and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from otfew.errors import UserError
from otfew.evaluation.episodes import Protocol
from otfew.experiments.common import setup
from otfew.experiments.show_flows import measure as flow_measure
from otfew.experiments.show_flows.config import Config
from otfew.experiments.show_flows.drawing import prepare
from otfew.features.material import ImageMaterial
from otfew.reporting import cells
from otfew.reporting import comparison as report
from otfew.reporting.tables import Table, sections, terminal, to_csv
from otfew.runs.directory import RunDirectory, to_json
from otfew.runs.identity import short_hash, versions


def measure(config: Config, console: Console) -> Path:
    """Measure on ``glyphs`` where the flow lands.

    Args:
        config: The command line.
        console: Where tables and progress go.

    Returns:
        Folder of the run.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.
    """
    device = prepare(config)
    if config.images or config.labelled:
        raise UserError("--measure draws its own pairs: give no images with it.")
    if config.pairs < 1:
        raise UserError(f"--pairs must be at least 1, not {config.pairs}.")
    Protocol("", "", config.split, config.seed, way=2, shot=1, query=1)
    dataset = config.dataset or "glyphs"
    if dataset != "glyphs":
        raise UserError(f"--measure needs the true box of the object, which {dataset!r} does not have: use glyphs.")
    material = setup.open_material(config, dataset, None, config.nodes, console)
    assert isinstance(material, ImageMaterial)
    spec = material.nodes_spec("fcn")
    settings = {"nodes": spec, "solver": config.solver, "pairs": config.pairs, "seed": config.seed}
    described = material.describe()
    identity = {
        "command": "show-flows --measure",
        "settings": settings,
        "protocol": described,
        "versions": versions(),
    }
    output = config.output or Path("runs") / f"show-flows-measure-{short_hash(identity)}"
    RunDirectory.check(output, identity)
    found = flow_measure.measure(material, spec, config.solver, config.pairs, config.seed, device)
    directory = RunDirectory(output, identity)
    directory.write("results.json", to_json({**identity, **found}))
    directory.write("shares.csv", _shares_csv(found))
    tables = _measure_tables(found, dataset, spec)
    lines = [
        f"{config.pairs:,} pairs of either kind, seed {config.seed}: a node is on the letter by the share of its area "
        "in the letter's true box; product: the same weights without matching, which is chance for these weights",
        "± are halves of 95 % intervals, over pairs and over classes (jackknife); differences are paired, p is Holm's "
        "over all rows",
        f"data: {dataset} ({described['data']['variant']}), split {config.split}: {len(material.classes)} classes",
        f"backbone: {described['backbone']['name']}, trained on {described['backbone']['training_data']}",
        *described["data"]["notes"],
    ]
    for table in tables:
        console.print(terminal(table))
    for line in lines:
        console.print(f"- {line}", markup=False, highlight=False)
    directory.write("report.md", sections(tables, lines).encode())
    console.print(f"report: {directory.path}", markup=False, highlight=False, soft_wrap=True)
    return directory.path


def _measure_tables(found: dict[str, Any], dataset: str, spec: str) -> list[Table]:
    """Lay out shares and differences."""
    shares = [
        [*key.split(", "), cells.with_intervals(found["mass"][key]), cells.with_intervals(record)]
        for key, record in found["shares"].items()
    ]
    head = ("pair", "weights", "coupling", "query's mass on its letter, %", "of it, on the support's letter, %")
    differences = [
        [name, cells.with_intervals(record, sign=True), report.words(record)]
        for name, record in found["differences"].items()
    ]
    return [
        Table(f"where the flow from the letter lands, {dataset}, {spec} nodes", head, shares),
        Table(
            "paired differences of that share, points",
            ("difference", "± pairs ± classes", "verdict (Holm's p)"),
            differences,
        ),
    ]


def _shares_csv(found: dict[str, Any]) -> bytes:
    """A row for every kind of pair, weights and coupling."""
    head = ["pair", "weights", "coupling", "mass_on_letter", "share_landing", "episode_ci", "class_ci"]
    rows = (
        (*key.split(", "), found["mass"][key]["mean"], record["mean"], record["episode_ci"], record["class_ci"])
        for key, record in found["shares"].items()
    )
    return to_csv(head, rows)
