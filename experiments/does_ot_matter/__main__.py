"""``python -m experiments.does_ot_matter``."""

from otfew.experiments.common.cli import run
from otfew.experiments.does_ot_matter.command import main

if __name__ == "__main__":
    run(main)
