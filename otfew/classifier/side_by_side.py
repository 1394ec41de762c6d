"""Work of candidates side by side, each in one thread: together they keep the cores busier than one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from otfew.errors import UserError


def side_by_side(tasks: Sequence[Callable[[], None]], threads: int) -> list[UserError | None]:
    """Run tasks, as many at a time as there are threads; each computes as with one thread, whatever their number.

    Args:
        tasks: Of which none touches what another one changes.
        threads: At most.

    Returns:
        For each task None, or the error that it ended with.
    """
    modes = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def ended(task: Callable[[], None]) -> UserError | None:
        # Torch keeps both for each thread.
        with torch.inference_mode(modes[0]), torch.set_grad_enabled(modes[1]):
            try:
                task()
            except UserError as error:
                return error
        return None

    if threads <= 1 or len(tasks) < 2:
        return [ended(task) for task in tasks]
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # A limit that one task sets and takes back must not be what another one finds.
        with threadpool_limits(1), ThreadPoolExecutor(min(threads, len(tasks))) as pool:
            return list(pool.map(ended, tasks))
    finally:
        torch.set_num_threads(before)
