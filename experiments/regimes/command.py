"""When does transport pay: ``python -m experiments.regimes``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.common.cli import parse
from otfew.experiments.regimes.config import Config


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and map.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "regimes", arguments)
    from otfew.experiments.common import setup
    from otfew.experiments.regimes import run

    run.execute(config, setup.make_console())
