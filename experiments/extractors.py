"""Which nodes? Table 3 of the DeepEMD paper, baselines on the same nodes: ``python -m experiments.extractors``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.analyses.configs import Extractors as Config
from otfew.experiments.common.cli import parse, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and compare.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "extractors", arguments)
    from otfew.experiments.analyses import extractors
    from otfew.experiments.common import setup

    extractors.compare_nodes(config, setup.make_console())


if __name__ == "__main__":
    run(main)
