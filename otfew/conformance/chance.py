"""Whether code makes use of chance that nobody gave it: the same question under other states of all generators."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch

Answer = TypeVar("Answer")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of Python, numpy and torch, and put them back."""
    before, state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(state)  # noqa: NPY002


def twice(ask: Callable[[], Answer]) -> tuple[Answer, Answer]:
    """Ask the same under two states of the generators."""
    with seeded(1):
        first = ask()
    with seeded(2):
        return first, ask()
