"""Panels of entries on the same episodes, in one run folder: a comparison is a study of one panel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch

from otfew.choices import ClassPrior
from otfew.errors import UserError
from otfew.evaluation import figures
from otfew.evaluation.across_domains import QueriesBehind, TwoDomains
from otfew.evaluation.answers import Answers, gather
from otfew.evaluation.episodes import Episodes, Indices, Protocol, Sampler
from otfew.evaluation.fixed_classes import FixedClasses
from otfew.evaluation.lineup import Entry, plugged_in
from otfew.evaluation.one_node import trivial
from otfew.evaluation.run import Ready, Scores, evaluate
from otfew.evaluation.running import get_ready, query_settings, takes_prior, timings
from otfew.evaluation.unknown_classes import UnknownClasses, open_records
from otfew.evaluation.worst import Worst, find_worst
from otfew.features.extract import BASE_IMAGES
from otfew.features.material import DomainMaterial, ImageMaterial, Material
from otfew.runs.directory import RunDirectory
from otfew.runs.watch import SILENT, Watch
from otfew.statistics.photos import Roles
from otfew.statistics.units import Drawn, as_units

Record = dict[str, Any]
Where = str | Path | Callable[[Mapping[str, Any]], Path] | None
"""Folder of a run, or what names it after the run's identity; None keeps nothing."""


@dataclass(frozen=True)
class Terms:
    """What holds for all panels of a study.

    Attributes:
        episodes: How many episodes each panel has.
        class_prior: What transductive methods are told of the classes' shares in the queries.
        allow_overlap: Go on where the backbone has seen evaluated classes in training.
        device: Where methods run.

    Raises:
        UserError: No whole number of episodes, or fewer than one.
    """

    episodes: int
    class_prior: ClassPrior = "uniform"
    allow_overlap: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not isinstance(self.episodes, Integral):
            raise UserError(f"`episodes` must be a whole number, not {self.episodes!r}.")
        if self.episodes < 1:
            raise UserError(f"`episodes` must be at least 1, not {self.episodes}.")


@dataclass(frozen=True)
class Panel:
    """Entries on the same episodes of one split.

    Attributes:
        key: Names its folder, and the panel in results.json.
        material: What they run on.
        entries: In the order of reports.
        sampler: The episodes.
        reference: Name of the entry that the others are compared with.
        not_run: Name -> reason.
        more: What its protocol says beside, or instead of, what every panel's does; JSON-ready.
    """

    key: str
    material: Material
    entries: tuple[Entry, ...]
    sampler: Sampler
    reference: str
    not_run: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    def protocol(self, terms: Terms) -> Record:
        """Describe all that the panel's figures depend on, but for versions; JSON-ready.

        Raises:
            UserError: A class prior that is unknown or without effect.
        """
        p = self.sampler.protocol
        described = self.material.describe()
        return {
            **described,
            **plugged_in(described, self.entries),
            **{name: getattr(p, name) for name in ("way", "shot", "query", "seed")},
            **query_settings(self.sampler, terms.class_prior, [entry.kind for entry in self.entries]),
            **self.sampler.settings,
            "episodes": terms.episodes,
            "allow_overlap": terms.allow_overlap,
            "device": terms.device.partition(":")[0],
            "base_images_per_class": BASE_IMAGES,
            "methods": {entry.name: entry.describe() for entry in self.entries},
            "order": [entry.name for entry in self.entries],
            "reference": self.reference,
            **self.more,
        }


class FirstShots(Sampler):
    """Episodes with fewer shots: the same classes and queries, and the first of the support images.

    Accuracies at different shots are then paired, and a larger support contains the smaller.

    Args:
        sampler: Of the most shots.
        shot: How many to keep.
    """

    def __init__(self, sampler: Sampler, shot: int) -> None:
        self.protocol = replace(sampler.protocol, shot=shot)
        self.settings = sampler.settings
        self._sampler = sampler

    def __call__(self, start: int, stop: int) -> Episodes:
        """Draw episodes ``start`` to ``stop - 1``."""
        episodes = self._sampler(start, stop)
        return replace(episodes, support=episodes.support[:, :, : self.protocol.shot].copy())


def sample(
    material: Material,
    *,
    way: int,
    shot: int,
    query: int,
    seed: int = 1,
    query_balance: str = "balanced",
    fixed_classes: Callable[[], Indices] | None = None,
    unknown_classes: int = 0,
    logits: bool = False,
) -> Sampler:
    """Make the sampler of a material's episodes, keyed by what the material says that it is.

    Args:
        material: What is drawn from.
        way: Classes of an episode.
        shot: Labelled images of each.
        query: Images of each to classify.
        seed: Of the episodes.
        query_balance: As in ``Protocol``.
        fixed_classes: Every class in each episode, whatever ``way`` says; tells which images are copies of one another:
            (images,) ids.
        unknown_classes: Classes without support, of which images are asked about too.
        logits: Keep those of every query beside the answers.

    Raises:
        UserError: A number out of range, or fewer classes or images than an episode needs.
    """
    data = material.describe()["data"]
    keys = {name: data[name] for name in ("dataset", "variant", "split")}
    protocol = Protocol(**keys, seed=seed, way=way, shot=shot, query=query, query_balance=query_balance)
    if fixed_classes is not None:
        if unknown_classes:
            raise UserError("`fixed_classes` has every class in each episode, so that `unknown_classes` are none.")
        if isinstance(material, DomainMaterial):
            raise UserError("`fixed_classes` draws from one domain: leave it out, or `query_domain`.")
        sampler: Sampler = FixedClasses(protocol, material.labels, material.classes, fixed_classes())
    else:
        domains = material.domains if isinstance(material, DomainMaterial) else None
        labels = material.labels if domains is None else domains.query.labels
        if domains is None or domains.same:
            sampler = Sampler(protocol, labels, material.classes)
        else:
            sampler = TwoDomains(protocol, (domains.support.labels, labels), material.classes, domains.names)
        if unknown_classes:
            sampler = UnknownClasses(sampler, labels, material.classes, unknown_classes)
        if domains is not None:
            sampler = QueriesBehind(sampler, len(domains.support))
    if logits:
        sampler.keeps = "logits"
        sampler.settings["logits"] = True
    return sampler


@dataclass(frozen=True)
class Finished:
    """What a panel gave.

    Attributes:
        record: "protocol", "methods", "transport_adds", "not_run", "class_names", "class_units" where classes belong
            together, and "across_groups" where there are two.
        times: As timings.json has them.
        scores: By name of entry.
        classes: (episodes, way) indices into the material's classes.
        directory: Where its blocks lie; None where nothing is kept.
        answers: To every query.
        units: The same as intervals over classes take them: see ``otfew.statistics.units``.
    """

    record: Record
    times: Record
    scores: Mapping[str, Scores]
    classes: Indices
    units: Drawn
    directory: RunDirectory | None = None
    answers: Answers | None = None


def estimated(
    panel: Panel, scores: Mapping[str, Scores], episodes: Episodes, told: Mapping[str, str] | None = None
) -> Record:
    """Compute a panel's figures, JSON-ready.

    Args:
        panel: Whose entries ran.
        scores: By name.
        episodes: Of the scores.
        told: As in ``figures.compare``.
    """
    drawn, names = drawn_units(panel.material, episodes)
    roles = roles_of(panel, episodes)
    shot = panel.sampler.protocol.shot
    found = figures.compare(panel.entries, scores, drawn, names, panel.reference, told, roles, shot)
    if panel.sampler.unknown:
        logits = {name: np.asarray(s.logits, dtype=np.float64) for name, s in scores.items()}
        for name, record in open_records(logits, episodes.answers, drawn, names).items():
            found["methods"][name]["unknown"] = record
    return found


def roles_of(panel: Panel, episodes: Episodes) -> Roles | None:
    """Say which photo was what in a panel's episodes, where every class is in each of them."""
    return panel.sampler.roles(episodes) if isinstance(panel.sampler, FixedClasses) else None


def units_of(material: Material) -> tuple[str, ...]:
    """Say which classes of a material belong together; empty where each is by itself."""
    return material.images.units if isinstance(material, ImageMaterial) else ()


def drawn_units(material: Material, episodes: Episodes) -> Drawn:
    """Say of which units the classes of episodes are: what intervals over classes are over."""
    return as_units(episodes.classes, material.classes, units_of(material))


def names_of(material: Material) -> tuple[str, ...]:
    """Name a material's images: by number where they have no names of their own."""
    if isinstance(material, ImageMaterial):
        return material.images.names
    return tuple(f"image {i}" for i in range(len(material.labels)))


class Study:
    """A run of panels: its folder is claimed, filled block by block, and gone on with after an interruption.

    Args:
        panels: What will run.
        terms: What holds for all of them.
        identity: All that results depend on, JSON-ready: a folder belongs to one. Under "panels", where it has that,
            are the panels' protocols, and each panel has a folder of its own; else the one panel lies in the run's.
        output: Folder of the run.
        watch: Where progress is shown.

    Attributes:
        directory: The run's folder; None where nothing is kept.

    Raises:
        UserError: ``output`` holds another run, the backbone has seen the classes, or features cannot be had; nothing
            is written then.
    """

    def __init__(
        self,
        panels: Sequence[Panel],
        terms: Terms,
        identity: Mapping[str, Any],
        output: Where,
        *,
        watch: Watch = SILENT,
    ) -> None:
        self.panels, self.terms, self.identity = tuple(panels), terms, dict(identity)
        self._watch = watch
        path = output(self.identity) if callable(output) else None if output is None else Path(output)
        if path is not None:
            RunDirectory.check(path, self.identity)
        # Features first: an image that cannot be used must not leave a claimed folder behind.
        self._ready = {
            panel.key: [
                get_ready(entry, panel.material, terms.device, terms.class_prior, allow_overlap=terms.allow_overlap)
                for entry in panel.entries
            ]
            for panel in self.panels
        }
        self.directory = None if path is None else RunDirectory(path, self.identity)

    def evaluate(self) -> dict[str, Finished]:
        """Run all panels, or take finished episodes from the folder; by key of panel."""
        return {panel.key: self._evaluate(panel) for panel in self.panels}

    def worst(self, key: str, name: str, scores: Scores) -> Worst:
        """Ask a method again about the episodes in which it was worst.

        Args:
            key: Of its panel.
            name: Of the method.
            scores: Of it.
        """
        panel = next(panel for panel in self.panels if panel.key == key)
        ready = next(ready for ready in self._ready[key] if ready.name == name)
        nodes = next(entry.nodes for entry in panel.entries if entry.name == name)
        full = panel.material.features(nodes, self.terms.device)
        return find_worst(ready, full, panel.sampler, scores.accuracy, self.terms.device)

    def _evaluate(self, panel: Panel) -> Finished:
        directory, ready = self._folder(panel), self._ready[panel.key]
        scores = self._score(panel, ready, directory)
        sampler, material = panel.sampler, panel.material
        episodes = sampler(0, self.terms.episodes)
        told = {e.name: r.class_prior for e, r in zip(panel.entries, ready, strict=True) if takes_prior(e.kind)}
        record = {
            "protocol": panel.protocol(self.terms),
            "not_run": dict(panel.not_run),
            "class_names": list(material.classes),
            **({"class_units": list(units)} if (units := units_of(material)) else {}),
            **estimated(panel, scores, episodes, told),
        }
        for name in trivial(panel.entries, ready):
            record["methods"][name]["one_node"] = True
        p = sampler.protocol
        images = p.way * (p.shot + p.query) + sampler.unknown
        times = timings(ready, scores, images, self.terms.device, torch.get_num_threads())
        answers = gather(
            scores, episodes, names_of(material), material.labels, material.classes,
            with_logits=bool(sampler.settings.get("logits")),
        )  # fmt: skip
        drawn = drawn_units(material, episodes)
        return Finished(record, times, scores, episodes.classes, drawn, directory, answers)

    def _folder(self, panel: Panel) -> RunDirectory | None:
        """Claim the folder of a panel: the run's own, where that is of one panel."""
        if self.directory is None or "panels" not in self.identity:
            return self.directory
        protocol = self.identity["panels"][panel.key]
        path = self.directory.path / "panels" / panel.key
        return RunDirectory(path, {**self.identity, "panels": {panel.key: protocol}})

    def _score(self, panel: Panel, ready: Sequence[Ready], directory: RunDirectory | None) -> dict[str, Scores]:
        """Run all episodes of a panel, and tell how far they are."""
        total, done = self.terms.episodes * len(ready), 0
        with self._watch.task("episodes") as step:

            def advance(more: int, name: str) -> None:
                nonlocal done
                done += more
                step(done, total, f"episodes: {name}")

            return evaluate(
                ready,
                panel.sampler,
                self.terms.episodes,
                directory=directory,
                device=self.terms.device,
                progress=advance,
                note=self._watch.note,
                allow_overlap=self.terms.allow_overlap,
            )
