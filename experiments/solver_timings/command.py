"""Which solver when: times and accuracy of every installed solver: ``python -m experiments.solver_timings``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.common.cli import parse
from otfew.experiments.solver_timings.config import Config


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and measure.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "solver-timings", arguments)
    from otfew.experiments.common import setup
    from otfew.experiments.common.console import make_console
    from otfew.experiments.solver_timings.run import measure

    setup.need_one_process("solver-timings")
    measure(config, make_console())
