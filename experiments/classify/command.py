"""Classify your own photos: ``otfew classify LABELLED NEW --to predictions.csv``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.classify.config import Config
from otfew.experiments.common.cli import parse


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and classify.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "classify", arguments)
    from otfew.experiments.classify.run import run_classify
    from otfew.experiments.common import setup
    from otfew.experiments.common.console import make_console
    from otfew.experiments.common.watch import ConsoleWatch

    setup.need_one_process("classify")
    run_classify(config, ConsoleWatch(make_console()))
