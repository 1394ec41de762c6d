"""``python -m experiments.classify``."""

from otfew.experiments.classify.command import main
from otfew.experiments.common.cli import run

if __name__ == "__main__":
    run(main)
