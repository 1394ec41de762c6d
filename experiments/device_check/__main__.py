"""``python -m experiments.device_check``."""

from otfew.experiments.common.cli import run
from otfew.experiments.device_check.command import main

if __name__ == "__main__":
    run(main)
