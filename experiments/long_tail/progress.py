"""Progress of the trainings of long-tail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otfew.training.long_tail.run import Epoch, Watcher

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class Display(Watcher):
    """Shows the progress of a training.

    Args:
        bar: Where.
        console: Lines about epochs go here.
        epochs: Of the whole run.
        title: What is trained.
    """

    def __init__(self, bar: Progress, console: Console, epochs: int, title: str) -> None:
        self.bar, self.console, self.epochs, self.title = bar, console, epochs, title
        self.job = bar.add_task(title, total=None)

    def on_resume(self, epochs: int, batches: int) -> None:
        """Say where it goes on."""
        if epochs < self.epochs:
            self.console.print(f"{self.title}: resuming after {epochs} epochs and {batches} batches")

    def on_batch(self, epoch: int, batch: int, batches: int, loss: float) -> None:
        """Move the bar."""
        done = (epoch - 1) * batches + batch
        if self.bar.tasks[0].total is None:
            self.bar.reset(self.job, total=self.epochs * batches, completed=done - 1)
        self.bar.update(self.job, completed=done, description=f"{self.title}, epoch {epoch}, loss {loss:.3f}")

    def on_epoch(self, record: Epoch) -> None:
        """Print one line."""
        self.console.print(
            f"{self.title}, epoch {record.epoch}: loss {record.loss:.3f}, validation error "
            f"{record.validation_error:.2f} %, {record.seconds:.0f} s"
        )


def progress(console: Console) -> Progress:
    """Make a progress bar with time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
