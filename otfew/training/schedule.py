"""Learning rates as closed forms of progress, so that a resumed run needs no scheduler's state."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "step"]


def learning_rate(
    schedule: Schedule,
    peak: float,
    epoch: int,
    progress: float,
    epochs: int,
    step_epochs: int = 30,
    factor: float = 0.2,
) -> float:
    """Return the learning rate of one batch.

    Args:
        schedule: "cosine" falls to zero over all epochs, batch by batch (Loshchilov & Hutter 2017, without restarts);
            "step" multiplies by ``factor`` every ``step_epochs`` epochs (DeepEMD's pre-training).
        peak: Rate of the first batch.
        epoch: From 0.
        progress: Share of this epoch's batches already done, in [0, 1).
        epochs: Of the whole run.
        step_epochs: For "step".
        factor: For "step".
    """
    if schedule == "cosine":
        return peak * (1 + math.cos(math.pi * (epoch + progress) / epochs)) / 2
    return peak * factor ** (epoch // step_epochs)
