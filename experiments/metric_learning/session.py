"""The runs of ``experiments.metric_learning``, kept one by one in a folder."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID
from torch import Tensor, nn

from otfew import data
from otfew.backbones.architectures import ARCHITECTURES
from otfew.data.shapes.sets import SHAPES, need_sketches
from otfew.errors import UserError
from otfew.experiments.common.training import Bars, Display, code, make_console, spell
from otfew.experiments.metric_learning import checkpoints
from otfew.experiments.metric_learning import material as metric_material
from otfew.experiments.metric_learning.config import Config
from otfew.experiments.metric_learning.losses import LossSpec, parse_loss
from otfew.experiments.metric_learning.start import as_trained, find_start
from otfew.runs.directory import RunDirectory, to_json
from otfew.runs.identity import short_hash, versions
from otfew.training.augmentation import Augmentation
from otfew.training.loop import DivergedError
from otfew.training.metric.embedding import Pool, Space, default_head, default_pool
from otfew.training.metric.nearest import nearest, one_a_class
from otfew.training.metric.run import MAP, Figure, train
from otfew.training.metric.settings import Settings
from otfew.training.metric.task import Task, check_test, check_training
from otfew.training.progress import Epoch, Step, curves

QUERIES, NEAREST = 12, 8
"""Queries that reports show, and items found for each."""
TUNING_SEED = 0
"""Seed of the trials of learning rates: none of those that are reported."""

Record = dict[str, Any]


class Show(Display[Figure]):
    """Moves the one bar of all runs, in epochs.

    Args:
        bar: Where epochs are counted.
        job: Of all runs.
        before: Epochs of the runs before this one.
        console: Where lines go.
        title: What is trained.
    """

    def __init__(self, bar: Progress, job: TaskID, before: int, console: Console, title: str) -> None:
        super().__init__(bar, console, 0, lambda _: "", title)
        self._all, self._before = job, before

    def on_step(self, step: Step) -> None:
        """Move the bar."""
        done = self._before + step.epoch - 1 + step.step / step.steps
        self.bar.update(self._all, completed=done, description=f"{self.title}: {step.loss:.3g}")

    def on_epoch(self, history: Any, best: Any) -> None:
        """Print nothing: there are many runs."""


class Session:
    """The runs that a command line asks for.

    Args:
        config: The command line.
        console: Where tables and progress go.

    Raises:
        UserError: Whatever the user can set right, before anything is written.
    """

    def __init__(self, config: Config, console: Console) -> None:
        self.config, self.console, self.lines = config, console, make_console()
        self.losses = list({spec.name: spec for spec in map(parse_loss, config.losses)}.values())
        self.reference = parse_loss(config.reference).name
        self.start = find_start(config.backbone)
        self.architecture = config.backbone if self.start is None else self.start.card.architecture
        if config.dataset not in SHAPES and config.dataset not in data.DATASETS:
            raise UserError(f"unknown data set {config.dataset!r}; there are {', '.join([*data.DATASETS, *SHAPES])}.")
        if config.query_modality:
            if config.dataset not in SHAPES:
                raise UserError(f"--query-modality sketch goes with a set of shapes: {', '.join(SHAPES)}.")
            need_sketches(config.dataset)
        elif config.dataset in SHAPES and not SHAPES[config.dataset].divided:
            raise UserError(
                f"the shapes of {config.dataset} are one gallery, so that none is left to test: give --query-modality "
                "sketch, whose sketches are divided."
            )
        self.settings = [self._settings(rate) for rate in dict.fromkeys(config.learning_rates)]
        plain = config.min_scale == 1 and not config.flip and config.colour == 0
        self.augmentation = None if plain else Augmentation(config.min_scale, config.flip, config.colour)
        self.material = self._load()
        if self.start is not None:
            self.material = as_trained(self.material, self.start.card)
        self.code = code()
        self.head = () if config.pooled else tuple(config.head) or default_head(self.architecture)
        check_training(self.material.splits["train"][0], config.batch_size)
        tested = self.material.splits["test"]
        check_test(tested, len(tested) == 1 or self.material.same_things)
        # Fails here, before a folder is made, where images are too small or options are wrong.
        space = self._space()
        self.channels = space.channels
        for spec in self.losses:
            spec.build(len(self.material.classes), space.channels)
        self.protocol = self._protocol()
        path = config.output or Path("runs") / f"metric-learning-{short_hash(self.protocol)}"
        self.directory = RunDirectory(path, {"protocol": self.protocol, "versions": versions()})
        (path / "runs").mkdir(exist_ok=True)

    def train(self) -> None:
        """Do all runs that are not there yet."""
        trials = len(self.settings) * self.config.tune_epochs if len(self.settings) > 1 else 0
        epochs = len(self.losses) * (trials + self.config.seeds * self.config.epochs)
        with Bars(self.console) as bar:
            job = bar.add_task("epochs", total=epochs)
            done = 0
            rates = {}
            for spec in self.losses:
                rates[spec.name] = self._tune(spec, partial(Show, bar, job, done, self.lines))
                done += trials
            # Seeds outside: an interrupted command has compared all losses on the first seeds.
            for seed in range(1, self.config.seeds + 1):
                for spec in self.losses:
                    settings = replace(self._settings(rates[spec.name]), seed=seed)
                    show = Show(bar, job, done, self.lines, f"{spec.name}, seed {seed}")
                    self._run(spec, settings, "test", show)
                    done += self.config.epochs
                    bar.update(job, completed=done)

    def runs(self, split: str) -> dict[str, list[Record]]:
        """Return the finished runs of the folder by loss, also of earlier commands; this one's losses first."""
        found: dict[str, list[Record]] = {spec.name: [] for spec in self.losses}
        for path in sorted((self.directory.path / "runs").glob("*.json")):
            record = self._finished(path.stem)
            if record is not None and record["split"] == split:
                found.setdefault(record["loss"], []).append(record)
        return {
            loss: sorted(records, key=lambda record: (record["seed"], record["rate"]))
            for loss, records in found.items()
            if records
        }

    def _settings(self, rate: float) -> Settings:
        c = self.config
        return Settings(
            epochs=c.epochs,
            batch_size=c.batch_size,
            learning_rate=rate,
            momentum=c.momentum,
            decay=c.decay,
            weight_decay=c.weight_decay,
            per_class=c.per_class,
            accelerator=c.device,
            precision=c.precision,
        )

    def _load(self) -> metric_material.Material:
        c = self.config
        splits = ["train", "val", "test"] if len(self.settings) > 1 else ["train", "test"]
        with Bars(self.console) as bar:
            meshes = bar.add_task("rendering", total=None, visible=False)
            job = bar.add_task("reading images", total=None)

            def on_image(total: int) -> None:
                bar.update(job, total=total) if total else bar.advance(job)

            def on_mesh(total: int) -> None:
                bar.reset(meshes, total=total, visible=True) if total else bar.advance(meshes)

            options = metric_material.Options(
                c.dataset,
                c.data_root,
                c.across,
                bool(c.query_modality),
                c.resolution,
                c.views,
                c.train_images,
                c.test_images,
                c.note,
                c.download,
                on_mesh,
            )
            material = metric_material.load(options, splits, on_image)
        if material.same_things:
            for split, (part, _) in material.splits.items():
                if int(part.labels.bincount()[part.labels].min()) < 2:
                    raise UserError(f"--across edges needs two images of each class, and the split {split} has one.")
        return material

    def _space(self) -> Space:
        """Make the networks."""
        samples = [part.pixels[:1].flatten(0, -4)[:2].float() / 255 for part in self.material.splits["train"]]
        pool: Pool = "mean" if self.config.pooled else default_pool(self.architecture)
        return Space(self._trunk, samples, self.head, pool)

    def _trunk(self) -> nn.Module:
        """Make a trunk: a new one, or a copy of the one to go on from."""
        if self.start is None:
            return ARCHITECTURES[self.architecture]()
        return copy.deepcopy(self.start.module).requires_grad_(True)

    def _protocol(self) -> Record:
        """Say what the folder's runs have in common: all but losses and seeds."""
        c, material = self.config, self.material
        return {
            "dataset": c.dataset,
            "data": material.digests,
            "notes": list(material.notes),
            "classes": len(material.classes),
            "images": {split: [len(part.labels) for part in parts] for split, parts in material.splits.items()},
            "across": c.query_modality or (c.across if c.across in {"", metric_material.EDGES} else "folder"),
            "views": c.views,
            "resolution": material.resolution,
            "backbone": self.architecture,
            **self._started_from(),
            "head": list(self.head),
            "epochs": c.epochs,
            "batch_size": c.batch_size,
            "learning_rates": [settings.learning_rate for settings in self.settings],
            "tune_epochs": c.tune_epochs,
            "optimizer": {"kind": "SGD", "momentum": c.momentum, "decay": c.decay, "weight_decay": c.weight_decay},
            "per_class": c.per_class,
            "augmentation": None if self.augmentation is None else asdict(self.augmentation),
            "probe_images": c.probe_images,
            **({"svc": True} if c.svc else {}),
            "precision": c.precision,
            "curve": self._curve(),
        }

    def _started_from(self) -> Record:
        """Say which trained backbone the trunks are copies of: nothing where they are new."""
        if self.start is None:
            return {}
        return {"started_from": {"name": self.start.card.name, "sha256": self.start.card.sha256}}

    def _curve(self) -> Record | None:
        """Say what the curves are measured on."""
        material = self.material
        if not material.curve:
            return None
        items = [len(part.labels) for part in material.curve]
        return {"from": material.curve_from, "items": items, "data": list(material.curve_digests)}

    def _tune(self, spec: LossSpec, show: Callable[[str], Show]) -> float:
        """Return the rate, of several that with the best mAP on the val split; of equals the lower one."""
        if len(self.settings) == 1:
            return self.settings[0].learning_rate
        found: list[tuple[float, float]] = []
        for settings in self.settings:
            rate = settings.learning_rate
            trial = replace(settings, seed=TUNING_SEED, epochs=self.config.tune_epochs)
            record = self._run(spec, trial, "val", show(f"{spec.name}, rate {rate:g}"))
            if not record["diverged"]:
                found.append((record["history"][-1]["figures"]["map"], -rate))
        if not found:
            raise UserError(f"--losses {spec.name}: every rate of --learning-rates diverges; give lower ones.")
        return -max(found)[1]

    def _finished(self, name: str) -> Record | None:
        """Read a finished run; None where there is none that can be believed, as where other code made it."""
        data = self.directory.load_file(f"runs/{name}.json", self.code, self._note)
        record: Record | None = None if data is None else json.loads(data)
        return record

    def _note(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def _run(self, spec: LossSpec, settings: Settings, split: str, show: Show) -> Record:
        """Do one run, or read it where it is finished."""
        identity = {"loss": spec.name, "rate": settings.learning_rate, "seed": settings.seed, "split": split}
        slug = re.sub(r"[^a-z0-9]+", "_", f"{spec.name} {split} {settings.seed} {settings.learning_rate:g}".lower())
        name = f"{slug}-{hashlib.sha256(to_json(identity)).hexdigest()[:6]}"
        path = self.directory.path / "runs" / f"{name}.json"
        if (finished := self._finished(name)) is not None:
            return finished
        material = self.material
        task = Task(
            train=material.splits["train"],
            test=material.splits[split],
            classes=len(material.classes),
            resolution=material.resolution,
            same_things=material.same_things,
            shared_classes=material.shared_classes,
            augmentation=self.augmentation,
            probe_images=self.config.probe_images,
            identity={**self.protocol, **identity},
            curve=material.curve if split == "test" else (),
            svc=self.config.svc,
        )
        state = path.with_suffix(".pt")
        build_loss = partial(spec.build, len(material.classes), self.channels)
        try:
            weights, history = train(self._space, build_loss, task, settings, state, show, code=self.code)
            codes = list(dict.fromkeys(epoch.code for epoch in history))
            curve = curves(history).get(MAP, [])
            record = {**identity, "diverged": "", "history": [_record(epoch) for epoch in history], "curve": curve}
            record["code"] = codes
            if split == "test" and settings.seed == 1:
                queries = one_a_class(task.test[-1].labels, QUERIES)
                found = nearest(weights, self._space, build_loss, task, queries, NEAREST)
                record["nearest"] = [list(pair) for pair in zip(queries.tolist(), found, strict=True)]
            if self.config.checkpoints and split == "test":
                self._keep(spec, settings, weights, curve)
        except DivergedError as error:
            record = {**identity, "diverged": f"{error.found}: lower the learning rate.", "history": [], "curve": []}
        self.directory.save_file(f"runs/{name}.json", to_json(record), self.code)
        state.unlink(missing_ok=True)
        return record

    def _keep(self, spec: LossSpec, settings: Settings, weights: dict[str, Tensor], curve: list[float]) -> None:
        """Write the trunks of a run that is done, before its record says so."""
        material, start = self.material, self.start
        own = {
            "command": command(self.config, self.architecture if start is None else start.card.name, spec, settings),
            "loss": spec.name,
            "learning_rate": settings.learning_rate,
            "seed": settings.seed,
            "val_curves": {MAP: curve},
        }
        checkpoints.write(
            self.directory.path,
            weights,
            material.splits["train"],
            checkpoints.card(self.architecture, start, material, checkpoints.protocol(self.protocol, start, **own)),
        )


NEVER = {"data_root", "output", "download", "list", "checkpoints", "clock", "device", "page", "docs"}
"""Options that say nothing of what is learned."""


def command(config: Config, backbone: str, spec: LossSpec, settings: Settings) -> str:
    """Spell out the command of one run, without paths of this machine."""
    alone = replace(config, backbone=backbone, seeds=settings.seed)
    own = {"losses": (spec.name,), "learning_rates": (f"{settings.learning_rate:g}",)}
    return _spelled(alone, {"dataset", "backbone"}, NEVER | {"reference", "across"}, own)


def spelled(config: Config) -> str:
    """Spell out the command of all runs, without paths of this machine."""
    rates = tuple(f"{rate:g}" for rate in config.learning_rates)
    folder = set() if config.across in {"", metric_material.EDGES} else {"across"}
    return _spelled(
        config, {"dataset"}, (NEVER - {"clock"}) | folder, {"learning_rates": rates, "losses": config.losses}
    )


def _spelled(config: Config, always: set[str], never: set[str], own: Mapping[str, tuple[str, ...]]) -> str:
    several = {"head": config.head, **own}
    words = [spell("metric_learning", config, always=always, never=never | several.keys())]
    words += [f"--{name.replace('_', '-')} {' '.join(map(str, given))}" for name, given in several.items() if given]
    return " ".join(words)


def _record(epoch: Epoch[Figure]) -> Record:
    """Write an epoch as the folder's records hold it: times of training and of evaluation apart."""
    return {
        "epoch": epoch.epoch,
        "loss": epoch.loss,
        "figures": dict(epoch.validation),
        "diagnostics": dict(epoch.diagnostics),
        "seconds": epoch.training_seconds,
        "cpu_seconds": epoch.cpu_seconds,
        "evaluation_seconds": epoch.seconds - epoch.training_seconds,
    }
