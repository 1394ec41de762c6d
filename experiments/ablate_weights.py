"""Which weights? Table 2 of the DeepEMD paper on any data: ``python -m experiments.ablate_weights``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.analyses.configs import AblateWeights as Config
from otfew.experiments.common.cli import parse, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and compare.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "ablate-weights", arguments)
    from otfew.experiments.analyses import ablate_weights
    from otfew.experiments.common import setup

    ablate_weights.ablate(config, setup.make_console())


if __name__ == "__main__":
    run(main)
