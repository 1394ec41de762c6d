"""``python -m experiments.latent_space``."""

from otfew.experiments.common.cli import run
from otfew.experiments.latent_space.command import main

if __name__ == "__main__":
    run(main)
