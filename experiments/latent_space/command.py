"""The Latent Space Transform beside PT-MAP and its rivals: ``python -m experiments.latent_space``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.common.cli import parse
from otfew.experiments.latent_space.config import Config


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and compare.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "latent-space", arguments)
    from otfew.experiments.common import setup
    from otfew.experiments.latent_space.run import compare_spaces

    compare_spaces(config, setup.make_console())
