"""A command of otfew that ends with the process that started it: ``python -m ...device.child LOCK COMMAND ...``.

It holds a pipe on its stdin, which closes when that process ends, however it does. A training then saves its state, as
at any SIGTERM, and does not go on beside the next call: the process of that waits for the lock of this one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path


def main() -> None:
    """Run the command."""
    # stdin itself is none of the command's: nobody answers questions there.
    lifeline = os.dup(sys.stdin.fileno())
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    from otfew.experiments.__main__ import main as otfew
    from otfew.runs.files import locked

    lock, *words = sys.argv[1:]
    sys.argv = ["otfew", *words]
    with locked(Path(lock), lambda: sys.stderr.write("waiting for the process of an earlier call to end\n")):
        otfew()


def _end_with(lifeline: int) -> None:
    while os.read(lifeline, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
