"""``python -m experiments.reproduce``."""

from otfew.experiments.common.cli import run
from otfew.experiments.reproduce.command import main

if __name__ == "__main__":
    run(main)
