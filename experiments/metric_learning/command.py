"""Compare losses of metric learning on the same batches: ``python -m experiments.metric_learning``.

What the paper on batch-wise OT claims, in two parts: all pairs of two batches against matched pairs, and pairs weighted
by a transport plan against all pairs alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from otfew.errors import UserError
from otfew.experiments.common.cli import parse
from otfew.experiments.metric_learning.config import Config

if TYPE_CHECKING:
    from rich.console import Console


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and compare.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "metric-learning", arguments)
    if config.page:
        from otfew.experiments.metric_learning.record import write_page

        write_page(config.docs)
        return
    from otfew.experiments.common import setup

    console = setup.make_console()
    if config.list:
        print_losses(console)
    else:
        compare(config, console)


def compare(config: Config, console: Console) -> Path:
    """Train with all losses and seeds and write the report.

    Args:
        config: The command line.
        console: Where tables and progress go.

    Returns:
        Folder of the runs.

    Raises:
        UserError: Whatever the user can set right; finished runs stay where they are.
    """
    from otfew.experiments.common import setup
    from otfew.experiments.metric_learning.outcome import write
    from otfew.experiments.metric_learning.session import Session

    check(config)
    setup.need_one_process("metric_learning")
    setup.set_threads(config.threads)
    session = Session(config, console)
    session.train()
    return write(session)


def check(config: Config) -> None:
    """Refuse what needs no data to be seen as wrong."""
    for name, least in (("seeds", 1), ("tune_epochs", 1), ("epochs", 1), ("batch_size", 2)):
        if getattr(config, name) < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(config, name)}.")
    for name in ("train_images", "test_images", "probe_images", "resolution"):
        value = getattr(config, name)
        if value is not None and value < 2:
            raise UserError(f"--{name.replace('_', '-')} must be at least 2, not {value}.")
    if config.query_modality and config.across:
        raise UserError("--query-modality and --across both name the queries' modality: give one of them.")
    if not config.losses:
        raise UserError("--losses names no loss: give some; --list prints them.")
    if not config.learning_rates:
        raise UserError("--learning-rates names none: give one, or several to choose from.")
    if wrong := [rate for rate in config.learning_rates if not 0 < rate < float("inf")]:
        raise UserError(f"--learning-rates must be positive, not {wrong[0]}.")
    if config.head and config.pooled:
        raise UserError("--pooled leaves out the layers that --head asks for: give one of them.")
    if any(width < 1 for width in config.head):
        raise UserError(f"--head must be widths of at least 1, not {' '.join(map(str, config.head))}.")


def print_losses(console: Console) -> None:
    """Print the names that --losses takes."""
    from otfew.experiments.metric_learning.losses import describe
    from otfew.reporting.tables import Table, terminal

    console.print(terminal(Table("losses", ("name", "what it is"), [list(row) for row in describe()])))
