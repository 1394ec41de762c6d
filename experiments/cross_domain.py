"""One backbone on several data sets: Table 5 of the DeepEMD paper: ``python -m experiments.cross_domain``."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.experiments.analyses.configs import CrossDomain as Config
from otfew.experiments.common.cli import parse, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and compare.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "cross-domain", arguments)
    from otfew.experiments.analyses import cross_domain
    from otfew.experiments.common import setup

    cross_domain.compare_domains(config, setup.make_console())


if __name__ == "__main__":
    run(main)
