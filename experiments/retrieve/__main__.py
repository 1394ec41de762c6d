"""``python -m experiments.retrieve``."""

from otfew.experiments.common.cli import run
from otfew.experiments.retrieve.command import main

if __name__ == "__main__":
    run(main)
