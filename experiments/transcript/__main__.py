"""``python -m experiments.transcript``."""

from otfew.experiments.common.cli import run
from otfew.experiments.transcript.command import main

if __name__ == "__main__":
    run(main)
