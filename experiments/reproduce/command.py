"""The claims of the papers, judged by runs: ``python -m experiments.reproduce --suite quick``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.common.cli import parse
from otfew.experiments.reproduce.config import Config


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "reproduce", arguments)
    from otfew.experiments.common import setup
    from otfew.experiments.reproduce.suite import reproduce

    reproduce(config, setup.make_console())
