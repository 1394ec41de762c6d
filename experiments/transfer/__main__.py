"""``python -m experiments.transfer``."""

from otfew.experiments.common.cli import run
from otfew.experiments.transfer.command import main

if __name__ == "__main__":
    run(main)
