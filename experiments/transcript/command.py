"""What classify says beside the truth: ``python -m experiments.transcript --dataset cub --output birds.json``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.common.cli import parse
from otfew.experiments.transcript.config import Config


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and write the record.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "transcript", arguments)
    from otfew.experiments.common import setup
    from otfew.experiments.common.console import make_console
    from otfew.experiments.common.watch import ConsoleWatch
    from otfew.experiments.transcript.run import run_transcript

    setup.need_one_process("transcript")
    run_transcript(config, ConsoleWatch(make_console()))
