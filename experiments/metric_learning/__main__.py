"""``python -m experiments.metric_learning``."""

from otfew.experiments.common.cli import run
from otfew.experiments.metric_learning.command import main

if __name__ == "__main__":
    run(main)
