"""Renew the table behind method="auto": ``python -m experiments.prior``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from otfew.experiments.common.cli import parse, run


@dataclass
class Config:
    """Run the classifier's candidates on validation classes and write what to expect of each.

    Photographs: birds (validation classes of CUB) and CIFAR-FS (training classes); never a test split.
    """

    backbones: tuple[str, ...] = ("efficientnet-lite0",)
    """Networks; each multiplies the candidates."""
    episodes: int = 20
    """Episodes of each data set, way and number of shots."""
    seed: int = 1
    """Seed of the episodes."""
    data_root: Path | None = None
    """Folder of data sets. Default: $OTFEW_DATA, then a cache folder."""
    download: Annotated[bool | None, tyro.conf.DisallowNone] = None
    """Fetch what is missing where the publisher allows it. Default: ask about more than 100 MB at a terminal, and
    fetch no such thing elsewhere."""
    output: Path = Path("prior.json")
    """Where the table goes; otfew/classifier/prior.json is what the classifier reads."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and make the table.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "prior", arguments)
    from otfew.classifier.prior_study import Size, study
    from otfew.experiments.common import setup
    from otfew.experiments.common.watch import ConsoleWatch
    from otfew.runs.directory import to_json
    from otfew.runs.files import write_atomically

    console = setup.make_console()
    setup.need_one_process("prior")
    setup.set_threads(config.threads)
    table = study(
        config.backbones,
        size=Size(episodes=config.episodes, seed=config.seed),
        data_root=config.data_root,
        download=config.download,
        command=f"python -m experiments.prior --backbones {' '.join(config.backbones)} "
        f"--episodes {config.episodes} --seed {config.seed}",
        watch=ConsoleWatch(console),
    )
    write_atomically(config.output, to_json(table))
    console.print(f"table: {config.output}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(main)
