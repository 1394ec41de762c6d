"""The claims of the papers, judged by runs: ``python -m experiments.reproduce --suite quick``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.common.cli import parse
from otfew.experiments.reproduce.config import Config

FAILED = 1
"""Exit code where a job of the suite device has failed."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        arguments: Instead of those of the process.

    Raises:
        SystemExit: With ``FAILED``, where a job of the suite device has failed.
    """
    config = parse(Config, "reproduce", arguments)
    if config.suite == "device":
        from otfew.experiments.common.console import make_console
        from otfew.experiments.reproduce.device.run import run

        if not run(config, make_console()):
            raise SystemExit(FAILED)
        return
    from otfew.experiments.common import setup
    from otfew.experiments.reproduce.suite import reproduce

    reproduce(config, setup.make_console())
