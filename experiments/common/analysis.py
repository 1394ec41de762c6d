"""What the analyses share: a command line, variants of methods, and panels of paired scores in one run folder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from otfew import catalogue
from otfew.errors import UserError
from otfew.evaluation.episodes import Episodes, Indices, Protocol, Sampler
from otfew.evaluation.run import ClassPrior, Contender, Scores
from otfew.evaluation.running import competitor, get_ready, query_settings, run_episodes, timings
from otfew.experiments.common import setup
from otfew.features.extract import BASE_IMAGES
from otfew.features.material import Material
from otfew.method import FewShotMethod
from otfew.reporting import comparison as report
from otfew.reporting.tables import Table, sections, terminal, to_csv
from otfew.runs.directory import RunDirectory, to_json
from otfew.transport import ConvergenceWarning

Record = dict[str, Any]


@dataclass
class Options:
    """What every analysis takes."""

    data_root: Path | None = None
    """Folder of data sets. Default: $OTFEW_DATA, then a cache folder."""
    split: str = "test"
    """train, val or test."""
    backbone: str | None = None
    """Name, path of a .safetensors file, package.module:factory or timm:NAME. Default: ours for the data set, else
    efficientnet-lite0."""
    resolution: int | None = None
    """Side of the images in pixels. Default: that of the backbone's training."""
    crop: str | None = None
    """none or center (resize to 92/84 of the side, cut out the middle). Default: center for photographs."""
    way: int = 5
    """Classes in an episode."""
    query: int = 15
    """Images to classify of each class."""
    query_balance: str = "balanced"
    """balanced, or dirichlet:ALPHA: as many queries in all, divided among the classes at random (2 is usual)."""
    class_prior: str = "uniform"
    """What transductive methods are told of the classes' shares in the queries: uniform, true (an oracle) or estimated
    (nothing)."""
    episodes: int = 600
    """How many episodes."""
    seed: int = 1
    """Seed of the episodes."""
    output: Path | None = None
    """Folder of the run. Default: runs/COMMAND-HASH."""
    allow_overlap: bool = False
    """Go on although the backbone has seen the evaluated classes, and say so."""
    cub_split: str = "feat"
    """Class split of CUB: feat or closerlook."""
    split_seed: int = 0
    """Seed of the class split of image-folder."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    threads: int = 0
    """CPU threads; 0 takes all cores, or of several processes each its share."""


@dataclass
class OneSet(Options):
    """What analyses of one data set take."""

    dataset: str = "glyphs"
    """Data set; compare --list prints them."""
    features: Path | None = None
    """Your own features (.safetensors or .npz) instead of a data set and a backbone."""


@dataclass(frozen=True)
class Variant:
    """A method with options and nodes, under a name of its own.

    Attributes:
        name: In reports; unique in a panel.
        method: Key of the catalogue.
        nodes: Canonical kind of nodes.
        options: Of the constructor; objects among them are told apart by ``repr``.
        class_prior: What it is told of the classes' shares in the queries, if not what --class-prior says.
    """

    name: str
    method: str
    nodes: str
    options: Mapping[str, Any] = field(default_factory=dict)
    class_prior: ClassPrior | None = None

    @property
    def kind(self) -> type[FewShotMethod]:
        """Return the method's class."""
        return catalogue.find(self.method)

    def describe(self) -> Record:
        """Return what tells it from other variants, JSON-ready."""
        plain = (str, int, float, bool, type(None))
        options = {key: value if isinstance(value, plain) else repr(value) for key, value in self.options.items()}
        told = {"class_prior": self.class_prior} if self.class_prior else {}
        return {"method": self.method, "nodes": self.nodes, "options": options, **told}


@dataclass(frozen=True)
class Panel:
    """Variants on the same episodes of one split.

    Attributes:
        key: Names its folder, and the panel in results.json.
        material: What they run on.
        variants: In the order of reports.
        sampler: The episodes.
        reference: Name of the variant that the others are compared with.
        not_run: Name -> reason.
    """

    key: str
    material: Material
    variants: tuple[Variant, ...]
    sampler: Sampler
    reference: str
    not_run: Mapping[str, str] = field(default_factory=dict)

    def protocol(self, options: Options, device: str) -> Record:
        """Describe the panel as ``compare`` does a run."""
        p = self.sampler.protocol
        return {
            **self.material.describe(),
            **{name: getattr(p, name) for name in ("way", "shot", "query", "seed")},
            **query_settings(self.sampler, options.class_prior, [variant.kind for variant in self.variants]),
            "episodes": options.episodes,
            "allow_overlap": options.allow_overlap,
            "device": device.partition(":")[0],
            "base_images_per_class": BASE_IMAGES,
            "methods": {variant.name: variant.describe() for variant in self.variants},
            "order": [variant.name for variant in self.variants],
            "reference": self.reference,
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
        self._sampler = sampler

    def __call__(self, start: int, stop: int) -> Episodes:
        """Draw episodes ``start`` to ``stop - 1``."""
        episodes = self._sampler(start, stop)
        return replace(episodes, support=episodes.support[:, :, : self.protocol.shot].copy())


@dataclass(frozen=True)
class Finished:
    """What a panel gave.

    Attributes:
        record: As ``compare`` writes it: "protocol", "methods", "transport_adds", "not_run", "class_names".
        times: As ``compare`` writes timings.json.
        scores: By name of variant.
        classes: (episodes, way) indices into the material's classes.
    """

    record: Record
    times: Record
    scores: Mapping[str, Scores]
    classes: Indices


def check(options: Options) -> str:
    """Refuse what can be refused without data, set the threads, and return the device.

    Raises:
        UserError: A number out of range, or no such device.
    """
    Protocol("", "", options.split, options.seed, options.way, 1, options.query, options.query_balance)
    if options.episodes < 1:
        raise UserError(f"--episodes must be at least 1, not {options.episodes}.")
    device = setup.pick_device(options.device)
    setup.set_threads(options.threads)
    return device


def sample(material: Material, options: Options, shot: int) -> Sampler:
    """Make the sampler of a material's episodes; the same episodes as those of ``compare``."""
    data = material.describe()["data"]
    keys = {name: data[name] for name in ("dataset", "variant", "split")}
    numbers = {"seed": options.seed, "way": options.way, "shot": shot, "query": options.query}
    protocol = Protocol(**keys, **numbers, query_balance=options.query_balance)
    return Sampler(protocol, material.labels, material.classes)


class Run:
    """The folder of an analysis: claimed, filled panel by panel, and finished with a report.

    Args:
        command: Its name.
        options: The command line.
        panels: What will run.
        extra: Further settings that the results depend on, JSON-ready.
        device: Where methods run.
        console: Where tables and progress go.

    Raises:
        UserError: ``--output`` holds another run, or features cannot be had; nothing is written then.
    """

    def __init__(
        self,
        command: str,
        options: Options,
        panels: Sequence[Panel],
        extra: Record,
        device: str,
        console: Console,
    ) -> None:
        self.options, self.panels, self.device, self.console = options, panels, device, console
        self.identity: Record = {
            "command": command,
            "format": report.FORMAT,
            "settings": extra,
            "panels": {panel.key: panel.protocol(options, device) for panel in panels},
            "versions": setup.versions(),
        }
        output = options.output or Path("runs") / f"{command}-{setup.short_hash(self.identity)}"
        RunDirectory.check(output, self.identity)
        # Features first: an image that cannot be used must not leave a claimed folder behind.
        self._contenders = {
            panel.key: [
                get_ready(v, panel.material, device, v.class_prior or options.class_prior)  # type: ignore[arg-type]
                for v in panel.variants
            ]
            for panel in panels
        }
        self.directory = RunDirectory(output, self.identity)

    def evaluate(self) -> dict[str, Finished]:
        """Run all panels, or take finished episodes from the folder."""
        return {panel.key: self._evaluate(panel) for panel in self.panels}

    def _evaluate(self, panel: Panel) -> Finished:
        protocol = self.identity["panels"][panel.key]
        folder = self.directory.path / "panels" / panel.key
        directory = RunDirectory(folder, {**self.identity, "panels": {panel.key: protocol}})
        contenders: list[Contender] = self._contenders[panel.key]
        with warnings.catch_warnings():
            # Where an entropic solver stops early shows in the table of accuracies.
            warnings.simplefilter("ignore", ConvergenceWarning)
            scores = run_episodes(
                contenders, panel.sampler, self.options.episodes, directory, self.device, self.console
            )
        competitors = [competitor(*pair) for pair in zip(panel.variants, contenders, strict=True)]
        classes = panel.sampler(0, self.options.episodes).classes
        directory.write("classes.csv", report.classes_csv(classes, panel.material.classes))
        record = {
            "protocol": protocol,
            "not_run": dict(panel.not_run),
            "class_names": list(panel.material.classes),
            **report.compare(competitors, scores, classes, panel.material.classes, panel.reference),
        }
        p = panel.sampler.protocol
        images = p.way * (p.shot + p.query)
        times = timings(contenders, scores, images, self.device, torch.get_num_threads())
        return Finished(record, times, scores, classes)

    def write(
        self,
        finished: Mapping[str, Finished],
        found: Record,
        tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]],
        lines: Sequence[str],
        pictures: Mapping[str, bytes],
    ) -> Path:
        """Write the report's files and print the tables.

        Args:
            finished: By panel.
            found: What results.json holds beside the panels.
            tables: (title, head, rows).
            lines: Sentences below them.
            pictures: File name -> PNG.
        """
        results = {**self.identity, **found, "panels": {key: f.record for key, f in finished.items()}}
        self.directory.write("results.json", to_json(results))
        self.directory.write("timings.json", to_json({key: f.times for key, f in finished.items()}))
        self.directory.write("episodes.csv", _episodes_csv(finished))
        laid_out = [Table(*table) for table in tables]
        for table in laid_out:
            self.console.print(terminal(table))
        lines = [*lines, *dict.fromkeys(line for f in finished.values() for line in report.timing_lines(f.times))]
        for line in lines:
            self.console.print(f"- {line}", markup=False, highlight=False)
        self.directory.write("report.md", sections(laid_out, lines).encode())
        for name, picture in pictures.items():
            self.directory.write(name, picture)
        self.console.print(f"report: {self.directory.path}", markup=False, highlight=False, soft_wrap=True)
        return self.directory.path


def _episodes_csv(finished: Mapping[str, Finished]) -> bytes:
    """A row for every panel, method and episode."""
    rows = (
        (key, name, i, round(a, 8))
        for key, panel in finished.items()
        for name, scores in panel.scores.items()
        for i, a in enumerate(scores.accuracy.tolist())
    )
    return to_csv(["panel", "method", "episode", "accuracy"], rows)
