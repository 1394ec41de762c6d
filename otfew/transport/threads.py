"""Work on a batch shared out over threads, for compiled code that lets go of the interpreter."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def share_out(work: Callable[[int, int], None], size: int, threads: int, least: int = 1) -> None:
    """Run ``work(first, last)`` over chunks of range(size); a free thread takes the next, since problems differ.

    Args:
        work: Works on first..last-1.
        size: How much there is.
        threads: Threads to use, this one included.
        least: Chunks smaller than this are not worth a thread's while.
    """
    chunk = max(least, size // (8 * threads))
    threads = min(threads, -(-size // chunk))
    if threads <= 1:
        work(0, size)
        return
    counter = itertools.count()

    def drain() -> None:
        while (first := next(counter) * chunk) < size:
            work(first, min(first + chunk, size))

    helpers = [_pool(os.getpid(), threads - 1).submit(drain) for _ in range(threads - 1)]
    drain()
    for helper in helpers:
        helper.result()


@functools.lru_cache(maxsize=4)
def _pool(_process: int, threads: int) -> ThreadPoolExecutor:
    """Keep the threads between calls; a forked process gets its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="otfew")
