"""A page for your own photos: ``otfew serve LABELLED``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.common.cli import parse
from otfew.experiments.serve.config import Config


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and serve.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "serve", arguments)
    from otfew.experiments.common import setup
    from otfew.experiments.common.console import make_console
    from otfew.experiments.serve.run import run_serve

    setup.need_one_process("serve")
    run_serve(config, make_console())
