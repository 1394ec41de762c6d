"""A part that measures, as a process of its own: what brings the device down ends that part alone.

``python -m otfew.experiments.device_check.worker PART DEVICE SECONDS TOY`` writes a row a line to stdout, as JSON, as
soon as it has one; what libraries say goes to stderr.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otfew.experiments.device_check.bench import Row

GRACE = 2.0
"""Seconds behind its time after which a part is ended: a row that was begun may end."""
OVER = 3
"""Exit code of a part whose time was over before its last row."""
TAIL = 15
"""Lines of what a part said last that are kept where it broke down."""


class BrokenError(Exception):
    """A part has not come to its end; the message says why."""


def rows_of(name: str, device: str, seconds: float, toy: bool) -> Iterator[Row]:
    """Run a part in a process of its own, and yield its rows as they come.

    Args:
        name: Of the part.
        device: Where it runs.
        seconds: How long it may take, its start included.
        toy: Whether sizes are tiny.

    Raises:
        BrokenError: The process failed, or did not end in time and was ended; all rows until then were yielded.
    """
    words = [sys.executable, "-m", "otfew.experiments.device_check.worker", name, device, str(seconds), str(int(toy))]
    said: list[str] = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace") as child:
        assert child.stdout is not None  # both are pipes
        assert child.stderr is not None
        listener = threading.Thread(target=said.extend, args=(child.stderr,), daemon=True)
        listener.start()
        late = threading.Event()

        def end() -> None:
            late.set()
            child.kill()

        alarm = threading.Timer(seconds + GRACE, end)
        alarm.start()
        try:
            for line in child.stdout:
                yield json.loads(line)
            child.wait()
        except BaseException:
            child.kill()
            raise
        finally:
            alarm.cancel()
        listener.join()
    if late.is_set() or child.returncode == OVER:
        raise BrokenError(f"cut off: its {seconds:.0f} s were over")
    if child.returncode:
        tail = "".join(said[-TAIL:]).strip()
        raise BrokenError(f"broke down with exit code {child.returncode}: {tail}")


def main(words: Sequence[str]) -> None:
    """Measure, and write rows.

    Args:
        words: Part, device, seconds, and 1 for tiny sizes or 0.
    """
    started = time.monotonic()
    name, device, seconds, toy = words
    # Whatever a library prints must not be taken for a row.
    rows = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    import torch

    from otfew.experiments.device_check.bench import Bench
    from otfew.experiments.device_check.parts import measure

    bench = Bench(torch.device(device), toy == "1", started + float(seconds))
    for row in measure(name, bench):
        rows.write(json.dumps(row) + "\n")
        rows.flush()
        if bench.left() < 0:
            raise SystemExit(OVER)


if __name__ == "__main__":
    main(sys.argv[1:])
