"""Accuracy against the number of shots, all heads and baselines: ``python -m experiments.shots``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.analyses.configs import Shots as Config
from otfew.experiments.common.cli import parse, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and compare.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "shots", arguments)
    from otfew.experiments.analyses import shots
    from otfew.experiments.common import setup

    shots.compare_shots(config, setup.make_console())


if __name__ == "__main__":
    run(main)
