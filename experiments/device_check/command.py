"""Is this GPU right, and how fast: ``make device-check``, or ``python -m experiments.device_check``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.common.cli import parse
from otfew.experiments.device_check.config import Config

WRONG = 1
"""Exit code where a test failed, an answer has no certificate or a part broke down."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and check.

    Args:
        arguments: Instead of those of the process.

    Raises:
        SystemExit: With ``WRONG``, after the record is written, where something is wrong with the card or with otfew.
    """
    config = parse(Config, "device-check", arguments)
    from otfew.experiments.common import setup
    from otfew.experiments.common.console import make_console

    setup.need_one_process("device-check")
    if config.page:
        from otfew.experiments.device_check.page import write

        write(config.docs)
        return
    from otfew.experiments.device_check.run import check

    if not check(config, make_console()):
        raise SystemExit(WRONG)
