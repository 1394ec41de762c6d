"""From cells to the map: ``python -m experiments.regimes``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console

from otfew import catalogue
from otfew.backbones.zoo import find, known
from otfew.errors import UserError
from otfew.evaluation.blocks import code_of
from otfew.evaluation.lineup import Entry
from otfew.evaluation.study import Panel, Study, Terms
from otfew.experiments.common import setup
from otfew.experiments.common.watch import ConsoleWatch
from otfew.experiments.regimes import cells as table
from otfew.experiments.regimes import page, report
from otfew.experiments.regimes import record as records
from otfew.experiments.regimes.cells import IMAGES, Cell
from otfew.experiments.regimes.config import QUICK, QUICK_EPISODES, Config
from otfew.experiments.regimes.effects import METHODS, TRANSPORT, Counted
from otfew.experiments.regimes.material import NODES, CellMaterial, Opener, Places
from otfew.experiments.regimes.record import Ran, Record
from otfew.reporting.tables import terminal
from otfew.runs.directory import RunDirectory, to_json
from otfew.runs.files import DamagedError, parse_json, write_atomically
from otfew.runs.identity import code_digest, short_hash, versions

RIGHT = "right.npz"
"""What a finished cell keeps."""
CODE = ("otfew.experiments.regimes.material", "otfew.experiments.regimes.sampling")
"""What a cell's right answers depend on beside methods and evaluation."""
VIEWS = ("otfew.data.shifts",)
"""And those of a cell with changed images."""
DESIGNED = ("otfew.experiments.regimes.mosaics",)
"""And those of the designed control."""


def execute(config: Config, console: Console) -> Path | None:
    """Do what the command line says.

    Args:
        config: The command line.
        console: Where tables and progress go.

    Returns:
        Folder of the run; None where nothing was run.

    Raises:
        UserError: Whatever the user can set right.
    """
    if config.list:
        console.print(terminal(report.listed(table.chosen(config.cells))))
        return None
    if config.render:
        if config.docs is None:
            raise UserError("--render writes a page anew: give the folder that holds its records as --docs.")
        _again(config.docs)
        return None
    if config.quick and config.docs is not None:
        raise UserError("--quick gives no figures for --docs: leave one of them out.")
    setup.need_one_process("regimes")
    chosen = table.chosen(config.cells or (QUICK if config.quick else ()))
    episodes = QUICK_EPISODES if config.quick else config.episodes
    terms = Terms(episodes, device=setup.pick_device(config.device))
    setup.set_threads(config.threads)
    folder = config.output or Path("runs") / "regimes"
    kinds = table.networks(config.networks)
    ran = Mapper(folder, Places(config.data_root, config.photos), terms, config.seed, console).run(chosen, kinds)
    if not ran.table:
        raise UserError(f"no cell could be run: {next(iter(ran.not_run.values()))}")
    written = records.record(ran)
    _write(folder, written, records.to_bytes(ran.table))
    page.render(folder, folder)
    for each in report.tables(written):
        console.print(terminal(each))
    for line in report.lines(written):
        console.print(f"- {line}", markup=False, highlight=False, soft_wrap=True)
    if config.docs is not None:
        _write(config.docs / "results", written, records.to_bytes(ran.table))
        page.render(config.docs)
    console.print(f"report: {folder}", markup=False, highlight=False, soft_wrap=True)
    return folder


def _again(docs: Path) -> None:
    """Compute record, page and picture anew from the right answers."""
    written, answers = (docs / "results" / name for name in ("regimes.json", "regimes.npz"))
    for path in (written, answers):
        if not path.is_file():
            raise UserError(f"{path} is not there: run the map with --docs first.")
    try:
        found = records.again(parse_json(written.read_bytes()), answers.read_bytes())
    except (DamagedError, LookupError) as error:
        raise UserError(f"{answers} and {written.name} do not belong together ({error}): run the map again.") from error
    write_atomically(written, to_json(found))
    page.render(docs)


def _write(folder: Path, written: Record, answers: bytes) -> None:
    """Keep the record with its right answers."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "regimes.npz", answers)
    write_atomically(folder / "regimes.json", to_json(written))


class Mapper:
    """Runs cells one after the other; those that are finished are taken from the folder.

    Args:
        folder: Of the run: each cell and network has a folder of its own in it.
        places: Where images are found.
        terms: Episodes and device.
        seed: Of the episodes.
        console: Where progress is shown.
    """

    def __init__(self, folder: Path, places: Places, terms: Terms, seed: int, console: Console) -> None:
        self._folder, self._terms, self._seed, self._console = folder, terms, seed, console
        self._watch = ConsoleWatch(console)
        self._opener = Opener(places, self._watch)
        self._methods = code_of(catalogue.build(name) for name in METHODS)

    def run(self, cells: Sequence[Cell], networks: Mapping[str, Sequence[str]]) -> Ran:
        """Run cells, each on all networks of its kind, and take what the folder has of the others.

        Args:
            cells: To be run.
            networks: Kind -> backbones.
        """
        asked = {cell.id for cell in cells}
        ran = Ran({}, {}, {}, self._terms.episodes, self._seed)
        # Neighbours share images and features.
        taken = [cell for cell in table.CELLS if cell.id in asked or self._has(cell)]
        order = sorted(taken, key=lambda c: (c.network == "imagenet", c.images, c.network, c.resolution, c.view))
        for number, cell in enumerate(order):
            backbones = networks[cell.network]
            if not backbones:
                ran.not_run[cell.id] = f"no network of this kind is at hand: give one as --networks {cell.network}=..."
            for network in backbones:
                if absent(network):
                    ran.not_run[f"{cell.id}, network {network}"] = "weights that are not here"
                    continue
                self._watch.note(f"cell {number + 1} of {len(order)}: {cell.id}, {Path(network).stem}")
                try:
                    counted, about = self._cell(cell, network, compute=cell.id in asked)
                except UserError as error:
                    ran.not_run[f"{cell.id}, network {Path(network).stem}"] = str(error).rstrip(".")
                    self._watch.note(f"not run: {error}")
                    continue
                if counted is not None:
                    ran.table.setdefault(cell.id, []).append(counted)
                    ran.about[cell.id] = about
        places = {cell.id: k for k, cell in enumerate(table.CELLS)}
        in_order = dict(sorted(ran.table.items(), key=lambda item: places[item[0]]))
        return Ran(in_order, ran.about, ran.not_run, ran.episodes, ran.seed)

    def _has(self, cell: Cell) -> bool:
        """Tell whether a cell may be finished in the folder, on whatever network and with however many episodes."""
        return any((self._folder / "cells").glob(f"{_slug(cell)}-*/{RIGHT}"))

    def _cell(self, cell: Cell, network: str, *, compute: bool) -> tuple[Counted | None, Record]:
        """Take a cell on one network from the folder; one that is not there is run, or is None."""
        started = time.monotonic()
        material, sampler = self._opener.open(cell, network, self._seed)
        panel = Panel("cell", material, entries(cell, material), sampler, TRANSPORT)
        identity = {
            "command": "regimes",
            "format": records.FORMAT,
            "cell": cell.settings,
            "taken": asdict(IMAGES[cell.images]),
            "protocol": panel.protocol(self._terms),
            "versions": versions(),
        }
        place = self._folder / "cells" / f"{_slug(cell)}-{short_hash(identity)}"
        if not compute and not (place / RIGHT).is_file():
            return None, {}
        directory = RunDirectory(place, identity)
        code = f"{self._methods} {code_digest(*code_behind(cell))}"
        note = self._watch.note if compute else _unsaid
        kept = directory.load_file(RIGHT, code, note)
        counted = None
        if kept is not None:
            try:
                counted = records.from_bytes(kept)[cell.id][0]
            except (DamagedError, KeyError, IndexError):
                note(f"{RIGHT} of {cell.id} cannot be read; computing it again")
        if counted is None:
            if not compute:
                raise UserError("what is kept of it is damaged or of other code: name it in --cells to run it again.")
            finished = Study([panel], self._terms, identity, place, watch=self._watch).evaluate()["cell"]
            p = sampler.protocol
            right = np.stack([finished.scores[name].correct.sum(1) for name in METHODS])
            name = material.first.backbone.name
            counted = Counted(name, right, p.way * p.query, *finished.units)
            directory.save_file(RIGHT, records.to_bytes({cell.id: [counted]}), code)
            self._watch.note(f"{cell.id}: {time.monotonic() - started:.0f} s; {report.brief(counted)}")
        return counted, _about(material, cell)


def _unsaid(line: str) -> None:
    """Drop a line that says that something is computed, where nothing is."""


def _slug(cell: Cell) -> str:
    return cell.id.replace("/", "-")


def absent(network: str) -> bool:
    """Tell whether a network is one of ours whose weights are not here."""
    if known(network):
        return find(network) is None
    ours = {name for kind in table.NETWORKS.values() for name in kind}
    return network in ours and network != table.IMAGENET


def code_behind(cell: Cell) -> tuple[str, ...]:
    """Name the modules, beside methods and evaluation, that a cell's right answers depend on."""
    more = VIEWS if cell.view or cell.query_view else ()
    return (*CODE, *more, *(DESIGNED if cell.images == "mosaics" else ()))


def entries(cell: Cell, material: CellMaterial) -> tuple[Entry, ...]:
    """Name the methods of a cell, all with the same weights."""
    nodes = material.nodes_spec(NODES)
    return tuple(Entry(name, name, nodes, {"weights": cell.weights}) for name in METHODS)


def _about(material: CellMaterial, cell: Cell) -> Record:
    """Say what a record tells of a cell's images."""
    first = material.first
    return {
        "nodes": material.nodes_spec(NODES),
        "images": len(first.images),
        "classes": len(first.classes),
        "crop": first.preparation.crop,
        "notes": [*first.images.notes, *_said(first.seen, cell)],
    }


def _said(seen: int | None, cell: Cell) -> list[str]:
    """Say of external networks which classes they have seen."""
    return [f"external network: {seen} of the classes were in its training"] if cell.network == "imagenet" else []
