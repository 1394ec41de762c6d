"""What every second stage of long-tail answered to every test image, kept beside the figures that rest on it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FILE = "answers.npz"
"""Of the run's folder."""


def to_bytes(blocks: Mapping[str, Sequence[Mapping[str, Any]]], labels: npt.NDArray[np.int64]) -> bytes:
    """Write answers as an ``.npz`` file; equal answers are equal bytes.

    Args:
        blocks: Arm -> one record a seed, with "predictions" (test images,).
        labels: (test images,) the class of each.

    Returns:
        The file: "arms", "labels", and for the arm of number K "predictions-K" (seeds, test images), int16.
    """
    arrays = {
        f"predictions-{number}": np.stack([record["predictions"] for record in records]).astype(np.int16)
        for number, records in enumerate(blocks.values())
    }
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, allow_pickle=False, arms=np.array(list(blocks)), labels=labels.astype(np.int16), **arrays
    )
    return buffer.getvalue()
