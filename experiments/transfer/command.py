"""Accuracy against severity, and what transport gains under a shift: ``python -m experiments.transfer``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.common.cli import parse
from otfew.experiments.transfer.config import Config


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "transfer", arguments)
    from otfew.experiments.common import setup

    console = setup.make_console()
    if config.page:
        from otfew.experiments.transfer import page

        page.write(config.docs)
        console.print(f"written: {config.docs / 'transfer.md'}", markup=False, highlight=False, soft_wrap=True)
    else:
        from otfew.experiments.transfer.run import transfer

        transfer(config, console)
