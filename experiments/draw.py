"""The pictures of finished runs, drawn again from what they wrote: ``python -m experiments.draw``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from otfew.experiments.common.cli import parse, run


@dataclass
class Config:
    """Draw the pictures of finished runs again, from their figures alone: nothing is run, and no data is needed.

    Of compare, does-ot-matter, latent-space, long-tail, shots and solver-timings; of metric-learning the ledger's
    records.
    """

    records: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECORD")]
    """Folders of runs, or records of docs/results."""
    output: Path | None = None
    """Folder of the pictures. Default: that of each record. The one picture of a record NAME.json is NAME.png."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and draw.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "draw", arguments)
    from otfew.experiments.common import setup
    from otfew.experiments.common.drawing import draw

    console = setup.make_console()
    for path in draw(config.records, config.output):
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(main)
