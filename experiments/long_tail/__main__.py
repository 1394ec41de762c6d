"""``python -m experiments.long_tail``."""

from otfew.experiments.common.cli import run
from otfew.experiments.long_tail.command import main

if __name__ == "__main__":
    run(main)
