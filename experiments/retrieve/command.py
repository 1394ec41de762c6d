"""Image retrieval: Table 8 of the DeepEMD paper with controls: ``python -m experiments.retrieve --dataset cub``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.common.cli import parse
from otfew.experiments.retrieve.config import Config


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and retrieve.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "retrieve", arguments)
    from otfew.experiments.common import setup
    from otfew.experiments.common.console import make_console
    from otfew.experiments.retrieve.run import run_retrieval

    setup.need_one_process("retrieve")
    run_retrieval(config, make_console())
