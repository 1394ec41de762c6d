"""The names of what there is: ``otfew list``, the same as ``python -m experiments.compare --list``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from otfew.experiments.common.cli import parse, run


@dataclass
class Config:
    """Print the names of data sets, backbones, nodes, methods and solvers, with a line about each."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the names.

    Args:
        arguments: Instead of those of the process.
    """
    parse(Config, "list", arguments)
    from otfew.experiments.common.console import make_console
    from otfew.experiments.common.names import print_names

    print_names(make_console())


if __name__ == "__main__":
    run(main)
