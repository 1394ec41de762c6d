"""From the LP to no matching at all, on the same nodes: ``python -m experiments.does_ot_matter``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.common.cli import parse
from otfew.experiments.does_ot_matter.config import Config


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and measure.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "does-ot-matter", arguments)
    from otfew.experiments.common import setup
    from otfew.experiments.does_ot_matter.run import measure

    measure(config, setup.make_console())
