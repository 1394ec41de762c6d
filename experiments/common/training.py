"""What commands that train share: progress, checkpoints while they train, and the closing table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from otfew import backbones, data, plugins
from otfew.backbones.base import Card
from otfew.backbones.plugged import spelled
from otfew.data.base import DataOptions, ImageSet
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.experiments.common.training_options import SplitChoices
from otfew.reporting.console import PlainConsole
from otfew.reporting.tables import Table, terminal
from otfew.runs import processes
from otfew.runs.files import write_atomically
from otfew.runs.identity import code_digest
from otfew.runs.lines import Lines
from otfew.training.augmentation import Augmentation
from otfew.training.board import Board, installed
from otfew.training.checkpoint import save
from otfew.training.progress import LAST, Accuracy, Epoch, Score, Step, V, Watcher, Watchers, by_accuracy, kept_epoch
from otfew.training.validation import Validation

CODE = tuple(
    f"otfew.{name}"
    for name in (
        "backbones", "baselines", "data", "devices", "methods", "nodes", "pair_loss", "random", "retrieval", "scores",
        "training", "transport",
    )
)  # fmt: skip
"""What a training computes with."""


def code() -> str:
    """Return the digest of the code that trainings depend on."""
    return code_digest(*CODE)


def plugged_in(*names: object) -> dict[str, Any]:
    """Return what a training's identity and its card say of the plug-ins among names: nothing where there are none."""
    found = plugins.digests(names)
    return {"plugins": found} if found else {}


def make_console() -> Console:
    """Write to stderr, in the first process only."""
    return PlainConsole(stderr=True, quiet=not processes.world().is_main)


class Bars(Progress):
    """Bars with the time left on a terminal; elsewhere a plain line a minute.

    Args:
        console: Where they go.
        clock: Seconds, of any zero.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        super().__init__(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._clock = clock
        self._lines: dict[TaskID, Lines] = {}

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Take note of how far a task is; arguments are those of ``Progress.update``."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Take note that a task is further."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        task = self._tasks[task_id]
        if self.disable and task.total is not None:
            if task_id not in self._lines:
                self._lines[task_id] = Lines(self._say, task.description, clock=self._clock)
            self._lines[task_id](int(task.completed), int(task.total), task.description)

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class WithData(Protocol):
    """The part of a command line that says which images are trained on; see ``training_options``."""

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        ...

    @property
    def data_root(self) -> Path | None:
        """Folder of the data."""
        ...

    @property
    def data(self) -> SplitChoices:
        """Options of the data set."""
        ...


@dataclass(frozen=True)
class Target:
    """Where a checkpoint goes, and what its card says besides the outcome.

    Attributes:
        path: Of the weights.
        card: As far as it is known before training.
        build: Makes the module that the weights belong to.
        half: Store half-precision weights.
        select: Which epoch is kept: "last", or a method, whose validation accuracy chooses it.
        method: That is trained with the backbone, or ""; the card keeps what it learned.
    """

    path: Path
    card: Card
    build: Callable[[], nn.Module]
    half: bool
    select: str
    method: str = ""

    @property
    def score(self) -> Score[Accuracy] | None:
        """What chooses the epoch."""
        return by_accuracy(self.select)

    def write(self, best: Mapping[str, Tensor], history: Sequence[Epoch[Accuracy]]) -> None:
        """Write the weights that are kept with their card, and history.json."""
        kept = kept_epoch(history, self.score)
        found = {
            "epochs_done": max(record.epoch for record in history),
            "kept_epoch": kept.epoch,
            **({"learned": {self.method: dict(kept.learned)}} if kept.learned else {}),
            "val_accuracies": {name: round(a.mean, 3) for name, a in kept.validation.items()},
            "val_intervals": {name: round(a.interval, 3) for name, a in kept.validation.items()},
            "val_curves": {
                name: [round(record.validation[name].mean, 2) for record in history] for name in kept.validation
            },
        }
        module = self.build()
        module.load_state_dict(dict(best))
        records = [record.to_json() for record in history]
        save(self.path, module, replace(self.card, protocol={**self.card.protocol, **found}), half=self.half)
        text = json.dumps(records, indent=1) + "\n"
        write_atomically(self.path.parent / "history.json", text.encode())

    def report(self, history: Sequence[Epoch[Accuracy]], validation: Validation, console: Console) -> None:
        """Print the first and last epochs, the kept one, and the accuracies of the file just written."""
        kept = kept_epoch(history, self.score)
        methods = list(kept.validation)
        head = ["epoch", "loss", "train %", *(f"val %, {method}" for method in methods), "seconds"]
        rows = [
            [
                f"{record.epoch}{' (kept)' if record is kept else ''}",
                "" if record.loss is None else f"{record.loss:.3f}",
                "" if record.train_accuracy is None else f"{record.train_accuracy:.1f}",
                *(_accuracy(record, method) for method in methods),
                f"{record.seconds:.0f}",
            ]
            for record in history
            if record is kept or record.epoch == 0 or record.epoch > history[-1].epoch - 5
        ]
        if processes.world().size == 1:  # the others have left, and would have to take part
            network = backbones.load(spelled(self.card.architecture, self.path)).module
            again = replace(kept, validation=validation(network, torch.device("cpu"), kept.learned))
            rows.append(["as saved", "", "", *(_accuracy(again, method) for method in methods), ""])
        console.print(terminal(Table(self.path.stem, head, rows)))
        size = self.path.stat().st_size / 1e6
        given = spelled(self.card.architecture, self.path)
        console.print(f"{self.path} ({size:.2f} MB); use it with --backbone {given}", soft_wrap=True)


def _accuracy(record: Epoch[Accuracy], method: str) -> str:
    accuracy = record.validation[method]
    return f"{accuracy.mean:.2f} ± {accuracy.interval:.2f}"


class Display(Watcher[V]):
    """Shows the progress of a training.

    Args:
        bar: Where steps are counted.
        console: Where lines go.
        epochs: Of the whole run.
        say: Says what an epoch came to.
        title: What is trained, where a command trains more than once.
    """

    def __init__(
        self, bar: Progress, console: Console, epochs: int, say: Callable[[Epoch[V]], str], title: str = ""
    ) -> None:
        self.bar, self.epochs, self.say, self.title = bar, epochs, say, title
        self._console = console
        self._job: TaskID | None = None

    def on_resume(self, epochs: int, steps: int) -> None:
        """Say where the run goes on."""
        self.line(f"resuming after {epochs} epochs and {steps} steps")

    def on_other_code(self, then: str, now: str) -> None:
        """Say that the code has changed since."""
        self.line(
            f"the state was written by other code ({then[:12] or 'unknown'}, now {now[:12]}): the weights may be those "
            "of neither; both digests are kept in the state"
        )

    def on_step(self, step: Step) -> None:
        """Move the bar."""
        done = (step.epoch - 1) * step.steps + step.step
        if self._job is None:
            self._job = self.bar.add_task("", total=self.epochs * step.steps, completed=done - 1)
        text = f"epoch {step.epoch}/{self.epochs} loss {step.loss:.3f}"
        self.bar.update(self._job, completed=done, description=self._titled(text, ", "))

    def on_epoch(self, history: Sequence[Epoch[V]], best: Mapping[str, Tensor] | None) -> None:
        """Print a line."""
        del best
        record = history[-1]
        left = (self.epochs - record.epoch) * record.seconds / 60
        self.line(
            f"epoch {record.epoch}/{self.epochs}: {self.say(record)}, {record.seconds:.0f} s"
            + (f", about {left:.0f} min left" if record.epoch else ""),
            ", ",
        )

    def on_terminate(self) -> None:
        """Say that nothing is lost."""
        self.line("terminated; the state is saved and the same command resumes")

    def line(self, text: str, joint: str = ": ") -> None:
        """Print a line about this training."""
        self._console.print(self._titled(text, joint), soft_wrap=True, markup=False, highlight=False)

    def _titled(self, text: str, joint: str) -> str:
        return f"{self.title}{joint}{text}" if self.title else text


class Keeper(Watcher[Accuracy]):
    """Writes the weights to keep as soon as there are any.

    Args:
        target: Where they go.
    """

    def __init__(self, target: Target) -> None:
        self._target = target

    def on_epoch(self, history: Sequence[Epoch[Accuracy]], best: Mapping[str, Tensor] | None) -> None:
        """Write them."""
        if best is not None:
            self._target.write(best, history)


def accuracies(record: Epoch[Accuracy]) -> str:
    """Say what an epoch came to, by validation accuracies."""
    validation = ", ".join(f"{method} {_accuracy(record, method)}" for method in record.validation)
    training = "" if record.loss is None else f"loss {record.loss:.3f}, train {record.train_accuracy:.1f} %, "
    return f"{training}val % {validation}"


def selection(select: str, validation: Validation, initial: bool) -> str:
    """Say in a card which epoch was kept.

    Args:
        select: "last", or the method whose validation accuracy chose it.
        validation: The episodes.
        initial: The start was among those to choose from.
    """
    p = validation.sampler.protocol
    episodes = (
        f"{validation.episodes} episodes of the val split ({len(validation.images.classes)} classes), {p.way}-way "
        f"{p.shot}-shot {p.query}-query"
    )
    if select == LAST:
        return f"the last epoch; validated on {episodes}, which chose nothing"
    return f"best epoch{', the start included,' if initial else ''} on {episodes}, by {select}"


def watch(bar: Progress, console: Console, epochs: int, target: Target, board: bool) -> Watcher[Accuracy]:
    """Make the watchers of a run: display, keeper and, where it is wanted and installed, TensorBoard."""
    watchers: list[Watcher[Accuracy]] = [Display(bar, console, epochs, accuracies), Keeper(target)]
    if board and installed():
        watchers.append(Board(target.path.parent / "tensorboard"))
    elif board:
        console.print('no TensorBoard here, so no curves: pip install "otfew[logs]", or --no-tensorboard')
    return Watchers(*watchers)


def spell(program: str, *parts: Any, always: set[str], never: set[str]) -> str:
    """Spell out the command that repeats a run, without paths of this machine.

    Args:
        program: Name of the command's module.
        *parts: Dataclasses of its options.
        always: Options to give even where they are defaults.
        never: Options to leave out.
    """
    words = [f"python -m experiments.{program}"]
    for part in parts:
        for entry in fields(part):
            value = getattr(part, entry.name)
            if entry.name in never or is_dataclass(value) or (value == entry.default and entry.name not in always):
                continue
            flag = entry.name.replace("_", "-")
            switch = isinstance(value, bool) and isinstance(entry.default, bool)
            words.append(f"--{'' if value else 'no-'}{flag}" if switch else f"--{flag} {value}")
    return " ".join(words)


def splits(config: WithData) -> tuple[ImageSet, ImageSet]:
    """Find the training and the validation images; what has to be fetched or drawn is, once a machine."""
    options = DataOptions(**asdict(config.data))
    with processes.leaders_first():
        train, val = (data.load(config.dataset, split, config.data_root, options) for split in ("train", "val"))
    return train, val


def augmentation_of(dataset: str, min_scale: float | None, flip: bool | None, colour: float) -> Augmentation:
    """Decide how training images of a data set are augmented, where the command line does not say."""
    drawn = data.find(dataset).drawn
    return Augmentation(
        min_scale=(0.6 if drawn else 0.08) if min_scale is None else min_scale,
        flip=not drawn if flip is None else flip,
        colour=colour,
    )


def stored(preparation: Preparation) -> Preparation:
    """Keep, of training images, the margin that the centre crop would cut: random crops may use it."""
    side = preparation.resolution
    return Preparation(round(side * 92 / 84) if preparation.crop == "center" else side)


def checkpoint_name(given: str, default: str) -> str:
    """Return the checkpoint's name; raises ``UserError`` unless it is a plain file name."""
    name = given or default
    if Path(name).name != name:
        raise UserError(f"--name {name!r} must be a plain file name; --output names the folder.")
    return name
