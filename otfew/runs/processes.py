"""Several processes that share the work of one command, as torchrun starts them.

A process learns from its environment which one it is (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE; MASTER_ADDR and
MASTER_PORT for how to meet). Only where there is more than one do they form a group, the first time that they exchange
something: a gloo group on CPUs, because what the evaluator exchanges is small. Trainings form their own, with Fabric.

Every process runs the same command and reaches the same exchanges in the same order. The main process alone writes and
prints.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")

WAIT = timedelta(days=1)
"""How long to wait for a process that lives and says nothing: longer than any extraction. One that ends is noticed at
once, because its connections close."""
_MEETING_POINT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class PeerLostError(RuntimeError):
    """Another process of the run has ended, so that an exchange cannot take place."""


@dataclass(frozen=True)
class World:
    """Which process this is.

    Attributes:
        rank: Among all.
        size: How many there are.
        local_rank: Among those on this machine.
        local_size: How many are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """True in the one that writes and prints."""
        return self.rank == 0


def world() -> World:
    """Read the environment; alone unless a launcher has set all that is needed to meet others."""
    if not all(os.environ.get(name) for name in _MEETING_POINT) or int(os.environ["WORLD_SIZE"]) == 1:
        return World()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return World(rank, size, int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def cores() -> int:
    """Count the cores that this process may use: those that a scheduler has bound it to, else all."""
    with contextlib.suppress(AttributeError):  # only Linux tells
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gather(value: T) -> list[T]:
    """Collect a picklable value from every process, in every process, by rank.

    Raises:
        PeerLostError: Another process has ended.
    """
    here = world()
    if here.size == 1:
        return [value]
    import torch.distributed as dist

    found: list[Any] = [None] * here.size
    with _lost():
        dist.all_gather_object(found, value, group=_group())
    return found


def from_main(value: T) -> T:
    """Give every process the main one's picklable value.

    Raises:
        PeerLostError: Another process has ended.
    """
    if world().size == 1:
        return value
    import torch.distributed as dist

    box: list[Any] = [value]
    with _lost():
        dist.broadcast_object_list(box, src=0, group=_group())
    given: T = box[0]
    return given


@contextlib.contextmanager
def leaders_first() -> Iterator[None]:
    """Let one process on each machine go through a block before the others there.

    For what is kept on disk: the leaders fetch, draw or extract it, each for its own disk or, where disks are shared,
    under the lock of that cache; the others then find it. A leader takes the threads of those that wait for it.

    Raises:
        PeerLostError: Another process has ended.
    """
    here = world()
    if here.size == 1:
        yield
    elif here.local_rank == 0:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(threads * here.local_size)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
        gather(None)
    else:
        gather(None)
        yield


def first_to_fail() -> bool:
    """Claim the right to say why the run ends: true in one process, so that one line is written and not one a process.

    Asks the store that the launcher keeps, which needs no answer from the others. True as well where that cannot be
    reached: several lines are better than none.
    """
    if world().size == 1:
        return True
    import torch.distributed as dist

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=10)
        )
        return bool(store.add(f"otfew/failed/{attempt}", 1) == 1)
    except RuntimeError:
        return True


def leave() -> None:
    """Part from the others, if this process ever met them.

    Also where a training met them: the threads of a group that is left to the interpreter's end may be ended before
    they are joined, which aborts the process although its work is done.
    """
    if "torch.distributed" in sys.modules:
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
    _group.cache_clear()


@functools.cache
def _group() -> Any:
    """Meet the others; once."""
    import torch.distributed as dist

    with _lost():
        if dist.is_initialized():
            # A training's own group may be one that moves tensors of accelerators only.
            return dist.new_group(backend="gloo", timeout=WAIT)
        dist.init_process_group("gloo", timeout=WAIT)
    return dist.group.WORLD


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    """Turn the many messages about closed connections into one kind of error."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(f"another process of this run has ended ({' '.join(str(error).split())})") from error
