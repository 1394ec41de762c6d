"""What flows where: figures 6 and 7 of the DeepEMD paper: ``python -m experiments.show_flows A.jpg B.jpg``.

With ``--labelled``, one image beside the nearest photos of the class it is taken for and of the runner-up.
With ``--measure``, on ``glyphs``, where the true box of the letter is known: how much of the flow from a query's letter
lands on the support's letter.
"""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.common.cli import parse
from otfew.experiments.show_flows.config import Config


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, then draw or measure.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "show-flows", arguments)
    from otfew.experiments.common import setup
    from otfew.experiments.common.console import make_console
    from otfew.experiments.show_flows.drawing import show
    from otfew.experiments.show_flows.measuring import measure

    setup.need_one_process("show-flows")
    work = measure if config.measure else show
    work(config, make_console())
