"""What commands that train share: progress, checkpoints while they train, and the closing table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from otfew import data
from otfew.backbones.base import Card
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.reporting.console import PlainConsole
from otfew.runs import processes
from otfew.training.augmentation import Augmentation
from otfew.training.board import Board, installed
from otfew.training.progress import LAST, Epoch, Step, Watcher, Watchers, kept_epoch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from otfew.training.validation import Validation


def make_console() -> Console:
    """Write to stderr, in the first process only."""
    return PlainConsole(stderr=True, quiet=not processes.world().is_main)


def progress_bar(console: Console) -> Progress:
    """Make a progress bar with time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


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

    def write(self, best: Mapping[str, Tensor], history: Sequence[Epoch]) -> None:
        """Write the weights that are kept with their card, and history.json."""
        from otfew.runs.files import write_atomically
        from otfew.training.checkpoint import save

        kept = kept_epoch(history, self.select)
        found = {
            "epochs_done": max(record.epoch for record in history),
            "kept_epoch": kept.epoch,
            **({"learned": {self.method: dict(kept.learned)}} if kept.learned else {}),
            "val_accuracies": {name: round(a.mean, 3) for name, a in kept.validation.items()},
            "val_intervals": {name: round(a.interval, 3) for name, a in kept.validation.items()},
        }
        module = self.build()
        module.load_state_dict(dict(best))
        records = [record.to_json() for record in history]
        save(self.path, module, replace(self.card, protocol={**self.card.protocol, **found}), half=self.half)
        text = json.dumps(records, indent=1) + "\n"
        write_atomically(self.path.parent / "history.json", text.encode())

    def report(self, history: Sequence[Epoch], validation: Validation, console: Console) -> None:
        """Print the first and last epochs, the kept one, and the accuracies of the file just written."""
        import torch

        from otfew.training.checkpoint import load

        kept = kept_epoch(history, self.select)
        methods = list(kept.validation)
        table = Table(title=self.path.stem)
        for heading in ("epoch", "loss", "train %", *(f"val %, {method}" for method in methods), "seconds"):
            table.add_column(heading, justify="right")
        for record in history:
            if record is kept or record.epoch == 0 or record.epoch > history[-1].epoch - 5:
                table.add_row(
                    f"{record.epoch}{' (kept)' if record is kept else ''}",
                    "" if record.loss is None else f"{record.loss:.3f}",
                    "" if record.train_accuracy is None else f"{record.train_accuracy:.1f}",
                    *(_accuracy(record, method) for method in methods),
                    f"{record.seconds:.0f}",
                )
        if processes.world().size == 1:  # the others have left, and would have to take part
            again = replace(kept, validation=validation(load(self.path).module, torch.device("cpu"), kept.learned))
            table.add_row("as saved", "", "", *(_accuracy(again, method) for method in methods), "", end_section=True)
        console.print(table)
        size = self.path.stat().st_size / 1e6
        console.print(f"{self.path} ({size:.2f} MB); use it with --backbone {self.path}", soft_wrap=True)


def _accuracy(record: Epoch, method: str) -> str:
    accuracy = record.validation[method]
    return f"{accuracy.mean:.2f} ± {accuracy.interval:.2f}"


class Display(Watcher):
    """Shows progress and writes the weights to keep as soon as there are any.

    Args:
        bar: Where steps are counted.
        console: Where lines go.
        epochs: Of the whole run.
        target: Where weights go.
    """

    def __init__(self, bar: Progress, console: Console, epochs: int, target: Target) -> None:
        self._bar, self._console, self._epochs, self._target = bar, console, epochs, target
        self._job = bar.add_task("training", total=None)

    def on_resume(self, epochs: int, steps: int) -> None:
        """Say where the run goes on."""
        self._console.print(f"resuming after {epochs} epochs and {steps} steps")

    def on_step(self, step: Step) -> None:
        """Move the bar."""
        done = (step.epoch - 1) * step.steps + step.step
        if self._bar.tasks[0].total is None:
            self._bar.reset(self._job, total=self._epochs * step.steps, completed=done - 1)
        text = f"epoch {step.epoch}/{self._epochs} loss {step.loss:.3f}"
        self._bar.update(self._job, completed=done, description=text)

    def on_epoch(self, history: Sequence[Epoch], best: Mapping[str, Tensor] | None) -> None:
        """Print a line, and write the weights where they are the ones to keep."""
        record = history[-1]
        validation = ", ".join(f"{method} {_accuracy(record, method)}" for method in record.validation)
        left = (self._epochs - record.epoch) * record.seconds / 60
        training = "" if record.loss is None else f"loss {record.loss:.3f}, train {record.train_accuracy:.1f} %, "
        self._console.print(
            f"epoch {record.epoch}/{self._epochs}: {training}val % {validation}, {record.seconds:.0f} s"
            + (f", about {left:.0f} min left" if record.epoch else ""),
            soft_wrap=True,
        )
        if best is not None:
            self._target.write(best, history)

    def on_terminate(self) -> None:
        """Say that nothing is lost."""
        self._console.print("terminated; the state is saved and the same command resumes")


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


def watch(bar: Progress, console: Console, epochs: int, target: Target, board: bool) -> Watcher:
    """Make the watchers of a run: display and, where it is wanted and installed, TensorBoard."""
    display = Display(bar, console, epochs, target)
    if not board:
        return display
    if not installed():
        console.print('no TensorBoard here, so no curves: pip install "otfew[logs]", or --no-tensorboard')
        return display
    return Watchers(display, Board(target.path.parent / "tensorboard"))


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


def augmentation_of(dataset: str, min_scale: float | None, flip: bool | None, colour: float) -> Augmentation:
    """Decide how training images of a data set are augmented, where the command line does not say."""
    drawn = data.DATASETS[dataset].drawn
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
