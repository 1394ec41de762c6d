"""``python -m experiments.solver_timings``."""

from otfew.experiments.common.cli import run
from otfew.experiments.solver_timings.command import main

if __name__ == "__main__":
    run(main)
