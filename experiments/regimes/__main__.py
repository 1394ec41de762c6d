"""``python -m experiments.regimes``."""

from otfew.experiments.common.cli import run
from otfew.experiments.regimes.command import main

if __name__ == "__main__":
    run(main)
