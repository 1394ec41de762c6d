"""``python -m experiments.show_flows``."""

from otfew.experiments.common.cli import run
from otfew.experiments.show_flows.command import main

if __name__ == "__main__":
    run(main)
