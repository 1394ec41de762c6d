"""``python -m experiments.serve``."""

from otfew.experiments.common.cli import run
from otfew.experiments.serve.command import main

if __name__ == "__main__":
    run(main)
