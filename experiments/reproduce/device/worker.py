"""A job as a process: started, followed by what it says, and stopped when its time is over."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from otfew.experiments.reproduce import process

CHILD = "otfew.experiments.reproduce.device.child"
LOG, LOCK = "log.txt", "lock"
POLL = 0.2
EPOCH = re.compile(rb"^epoch (\d+)/(\d+): ", re.MULTILINE)
"""What a training says after every epoch."""


class Worker:
    """A process on a job.

    Args:
        words: The command and its arguments.
        folder: Of the job, for what the process says.

    Attributes:
        epochs_done: That it has told of.
        epochs: Of all; 0 before it has told of one.
        ends: When it told of epochs, by the clock of ``time.monotonic``, the first first.
    """

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.epochs_done = self.epochs = 0
        self.ends: list[float] = []
        self._log = folder / LOG
        self._read = self._log.stat().st_size if self._log.exists() else 0
        self._last = ""
        with self._log.open("ab") as log:
            # A group of its own: an interruption of this process reaches it through this process alone.
            self._child = subprocess.Popen(
                [sys.executable, "-m", CHILD, str(folder / LOCK), *words],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def epoch_seconds(self) -> float:
        """What an epoch takes, between those that this process has told of; 0 before there are two."""
        if len(self.ends) < 2:
            return 0.0
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)

    def goes_on(self) -> bool:
        """Wait a little and listen; tell whether it still runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(POLL)
        running = self._child.poll() is None
        self._listen()
        return running

    def failure(self) -> str:
        """Say why it failed; "" where it did not."""
        code = self._child.wait()
        self._listen()
        return process.reason(code, self._last)

    def stop(self, grace: float) -> None:
        """End it: a training has so many seconds to save its state."""
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, None)):
            if self._child.poll() is None:
                self._signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._child.wait(seconds)
        self._listen()

    def close(self) -> None:
        """Leave nothing of it, whatever has happened."""
        if self._child.poll() is None:
            self._signal(signal.SIGKILL)
        assert self._child.stdin is not None  # it is a pipe
        self._child.stdin.close()
        self._child.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, number)

    def _listen(self) -> None:
        """Read what it has said since."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            new = log.read()
        # A line that is not whole yet is read again.
        whole = new[: new.rfind(b"\n") + 1] if self._child.poll() is None else new
        self._read += len(whole)
        for found in EPOCH.finditer(whole):
            self.epochs_done, self.epochs = int(found[1]), int(found[2])
            self.ends.append(time.monotonic())
        lines = [line.strip() for line in whole.decode("utf-8", errors="replace").splitlines() if line.strip()]
        self._last = lines[-1] if lines else self._last


Start = Callable[[Sequence[str], Path], Worker]
