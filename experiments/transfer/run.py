"""The command's work: what is compared under each shift is chosen on the others, then everything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from otfew import plugins
from otfew.choices import Part
from otfew.data.domains import across
from otfew.data.parts import few_of_each
from otfew.data.shifts import parse as parse_view
from otfew.errors import UserError
from otfew.evaluation.estimates import rounded, to_record
from otfew.evaluation.figures import FORMAT
from otfew.evaluation.lineup import Entry, choose, pick_reference
from otfew.evaluation.running import takes_prior
from otfew.evaluation.shift_gain import CLEAN, Accuracies, effect, gain, shift_of
from otfew.evaluation.shift_gain import choose as choose_candidate
from otfew.evaluation.study import Finished, Panel, Study, Terms
from otfew.experiments.common import analysis, setup
from otfew.experiments.common.watch import ConsoleWatch
from otfew.experiments.transfer import report, rule
from otfew.experiments.transfer.config import CONTROLS, TRANSPORT, Config
from otfew.features.material import ImageMaterial, between
from otfew.reporting.comparison import protocol_lines
from otfew.reporting.severity_plot import picture
from otfew.runs.directory import to_json
from otfew.runs.identity import short_hash, versions
from otfew.statistics.intervals import Estimate, estimate

Record = dict[str, Any]
Pairs = dict[str, tuple[str, str]]
"""Shift -> the method that is judged under it and the control that it is compared with, by names of entries."""


def transfer(config: Config, console: Console) -> Path:
    """Choose, run all methods on all views, and write the report.

    Args:
        config: The command line.
        console: Where tables and progress go.

    Returns:
        Folder of the run.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.
    """
    shifts, severities = list(dict.fromkeys(config.shifts)), sorted(set(config.severities))
    if not shifts or not severities:
        raise UserError("--shifts and --severities name no view: give at least one of each.")
    for view in _views([*shifts, *config.choice_shifts], severities):
        parse_view(view)
    terms = analysis.check(config)
    setup.check_solver(config.solver)
    material = _few(config, config.split, console)
    lineup = _Lineup(config, material, terms)
    chosen: Pairs = {}
    if lineup.transport and lineup.controls:
        chosen = _choose(config, lineup, terms, shifts, severities, console)
    entries = lineup.entries([*dict.fromkeys(left for left, _ in chosen.values())] if chosen else None)
    views = _views(shifts, severities)
    terms = lineup.told(terms, entries)
    panels = _panels(config, material, entries, [CLEAN, *views])
    settings = {
        "views": {panel.key: view for panel, view in zip(panels, [CLEAN, *views], strict=True)},
        "chosen": {shift: list(pair) for shift, pair in chosen.items()},
        **{name: _plain(getattr(config, name)) for name in rule.TERMS},
    }
    session = analysis.Session("transfer", config.output, panels, settings, terms, console)
    finished = session.evaluate()
    by_view = {view: finished[panel.key] for panel, view in zip(panels, [CLEAN, *views], strict=True)}
    found = _effects(by_view, chosen, views)
    record = _record(material, by_view, settings, found, lineup.left_out)
    session.directory.write("record.json", to_json(record))
    return session.write(
        finished,
        {"effects": found, "left_out": lineup.left_out},
        report.tables(record),
        [*report.lines(record), *_shared([f.record for f in by_view.values()])],
        {"severity.png": picture([record])},
    )


def _shared(records: Sequence[Record]) -> list[str]:
    """Say on what the figures of all views rest."""
    first, *others = (protocol_lines(record) for record in records)
    return [line for line in first if all(line in lines for lines in others)]


def _views(shifts: Sequence[str], severities: Sequence[int]) -> list[str]:
    return [f"{shift}:{severity}" for shift in dict.fromkeys(shifts) for severity in severities]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _few(config: Config, split: Part, console: Console) -> ImageMaterial:
    """Open a split with the backbone, and keep some images of each class."""
    material = setup.open_material(replace(config, split=split), config.dataset, None, config.nodes, console)
    assert isinstance(material, ImageMaterial)
    return replace(material, images=few_of_each(material.images, config.images), _features={})


class _Lineup:
    """Who runs: entries by the names of options."""

    def __init__(self, config: Config, material: ImageMaterial, terms: Terms) -> None:
        self._material, self._solver, self._device = material, config.solver, terms.device
        self.left_out: dict[str, str] = {}
        transport, controls = ((), config.methods) if config.methods else (config.transport, config.controls)
        self.transport = self._chosen(transport, usual=transport == TRANSPORT)
        self.controls = self._chosen(controls, usual=not config.methods and controls == CONTROLS)

    def _chosen(self, names: Sequence[str], *, usual: bool) -> list[Entry]:
        """Make entries; of the default, those that do not apply to the features are left out."""
        entries: dict[str, Entry] = {}
        for name in names:
            found, reason = self._entry(name)
            if found is None and not usual:
                raise UserError(f"{reason}.")
            if found is None:
                self.left_out[name] = reason
            else:
                entries[found.name] = found
        return list(entries.values())

    def _entry(self, name: str) -> tuple[Entry | None, str]:
        """Make an entry, or say why that cannot be."""
        try:
            (found,), _ = choose([name], self._material, self._solver, self._device)
        except UserError as error:
            return None, str(error).rstrip(".")
        return found, ""

    def entries(self, transport: Sequence[str] | None) -> list[Entry]:
        """Return the controls, and behind them the candidates of these names; None takes all."""
        own = [entry for entry in self.transport if transport is None or entry.name in transport]
        if not own and not self.controls:
            raise UserError("no method runs: give --methods, or --transport and --controls.")
        return [*self.controls, *own]

    def told(self, terms: Terms, entries: Sequence[Entry]) -> Terms:
        """Leave the class prior out where no method makes use of it."""
        return terms if any(takes_prior(entry.kind) for entry in entries) else replace(terms, class_prior="uniform")


def _panels(config: Config, material: ImageMaterial, entries: Sequence[Entry], views: Sequence[str]) -> list[Panel]:
    """Make a panel of every view: the same episodes, with queries seen through it."""
    panels = []
    for view in views:
        seen = material
        if view != CLEAN:
            seen = between(material, across(material.images, None, view, _no_folder))
        sampler = analysis.sample(seen, config, config.shot)
        reference = pick_reference(config.reference, entries)
        panels.append(Panel(plugins.file_name(view), seen, tuple(entries), sampler, reference))
    return panels


def _no_folder(path: Path) -> Any:
    raise UserError(f"{path} is no view.")


def _choose(
    config: Config, lineup: _Lineup, terms: Terms, shifts: Sequence[str], severities: Sequence[int], console: Console
) -> Pairs:
    """Choose a candidate and a control for each shift, by the others, on classes that are not evaluated."""
    views = _views(config.choice_shifts, severities)
    for shift in shifts:
        if not any(shift_of(view) != shift for view in views):
            raise UserError(
                f"--choice-shifts has none beside {shift}: give others, on which methods are chosen for it."
            )
    if config.choice_split == config.split:
        raise UserError(f"--choice-split {config.choice_split} is what is evaluated: give another.")
    material = _few(config, config.choice_split, console)
    entries = lineup.entries(None)
    terms = lineup.told(replace(terms, episodes=config.choice_episodes), entries)
    panels = _panels(config, material, entries, views)
    identity = {
        "command": "transfer-choice",
        "format": FORMAT,
        "panels": {panel.key: panel.protocol(terms) for panel in panels},
        "versions": versions(),
    }
    output = config.output.with_name(f"{config.output.name}-choice") if config.output else None
    folder = output or Path("runs") / f"transfer-choice-{short_hash(identity)}"
    study = Study(panels, terms, identity, folder, watch=ConsoleWatch(console))
    accuracies = _accuracies({view: f for view, f in zip(views, study.evaluate().values(), strict=True)})
    found: Pairs = {}
    for shift in shifts:
        left, right = (
            choose_candidate([entry.name for entry in part], accuracies, shift)
            for part in (lineup.transport, lineup.controls)
        )
        found[shift] = left, right
    if study.directory is not None:
        means = {view: {name: rounded(float(v.mean())) for name, v in own.items()} for view, own in accuracies.items()}
        study.directory.write("results.json", to_json({**identity, "accuracies": means, "chosen": found}))
    return found


def _accuracies(finished: Mapping[str, Finished]) -> Accuracies:
    return {view: {name: s.accuracy for name, s in f.scores.items()} for view, f in finished.items()}


def _effects(by_view: Mapping[str, Finished], pairs: Pairs, views: Sequence[str]) -> Record:
    """Estimate the gains under each view, and the effects: of each view, of each shift, and of all."""
    if not pairs:
        return {}
    accuracies, (classes, names) = _accuracies(by_view), by_view[CLEAN].units

    def told(values: Any) -> Record:
        return _told(estimate(values, classes, names))

    found: Record = {"pairs": {shift: list(pair) for shift, pair in pairs.items()}, "views": {}, "shifts": {}}
    for shift, pair in pairs.items():
        own = [view for view in views if shift_of(view) == shift]
        found["shifts"][shift] = told(effect(accuracies, pairs, own))
        found["views"][f"{shift}:0"] = {"gain": told(gain(accuracies[CLEAN], pair))}
        for view in own:
            found["views"][view] = {
                "gain": told(gain(accuracies[view], pair)),
                "effect": told(effect(accuracies, pairs, [view])),
            }
    return {**found, "all": told(effect(accuracies, pairs, views))}


def _told(value: Estimate) -> Record:
    """Put an estimate into JSON, with what averages over data sets need."""
    jackknife = value.jackknife
    return {**to_record(value), "class_error": rounded(jackknife.standard_error), "degrees": jackknife.degrees}


def _record(
    material: ImageMaterial,
    by_view: Mapping[str, Finished],
    settings: Record,
    effects: Record,
    left_out: Mapping[str, str],
) -> Record:
    """Make the record of a cell, which docs/results keeps: figures, and nothing of this machine."""
    first = by_view[CLEAN].record
    p = first["protocol"]
    network = material.backbone
    return {
        "command": "transfer",
        "format": 1,
        "network": network.name,
        "data": p["data"],
        "backbone": p["backbone"],
        "resolution": p["resolution"],
        "settings": settings,
        "class_prior": p.get("class_prior", ""),
        "off_rule": rule.follows(settings, network.name, p["data"], p["resolution"], left_out, p["crop"]),
        "left_out": left_out,
        "order": p["order"],
        "reference": p["reference"],
        "methods": {
            view: {
                name: {**m["accuracy"], "transductive": m["transductive"]} for name, m in f.record["methods"].items()
            }
            for view, f in by_view.items()
        },
        "effects": effects,
        "versions": versions(),
    }
