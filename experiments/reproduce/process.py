"""Commands as processes of their own: each starts afresh, and the end of one is not the end of the suite."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from otfew.experiments.common.cli import INTERRUPTED, USAGE

GRACE = 5.0
"""Seconds in which a process that was interrupted from the keyboard, as this one was, is expected to end by itself."""
TERMINATED = 128 + signal.SIGTERM
_ERROR = "error: "


def run(command: str, arguments: Sequence[str]) -> str:
    """Run a command of otfew; what it prints is shown as it comes.

    Args:
        command: Its name.
        arguments: Its words.

    Returns:
        Why it failed, in a sentence; "" where it did not.

    Raises:
        KeyboardInterrupt: This process or the command was interrupted; the command has ended.
        SystemExit: With ``TERMINATED``, where SIGTERM ended this process: it is passed on, and waited for.
    """
    sys.stdout.flush()
    last: list[str] = []
    words = [sys.executable, "-m", "otfew.experiments", command, *arguments]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as child:
        assert child.stderr is not None  # it is a pipe
        shown = threading.Thread(target=_show, args=(child.stderr, last.append), daemon=True)
        shown.start()
        try:
            with _passing_on(child) as told:
                code = child.wait()
        except KeyboardInterrupt:
            _interrupt(child)
            raise
        finally:
            if child.poll() is None:
                child.kill()
            shown.join()
    if told:
        raise SystemExit(TERMINATED)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return reason(code, last[-1] if last else "")


def _show(stream: IO[bytes], remember: Callable[[str], None]) -> None:
    """Copy what a process says to stderr, line by line."""
    for line in stream:
        text = line.decode("utf-8", errors="replace")
        sys.stderr.write(text)
        sys.stderr.flush()
        if text.strip():
            remember(text.strip())


@contextlib.contextmanager
def _passing_on(child: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Pass SIGTERM on to a process, for a while; yields the list of those passed on."""
    told: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread listen
        yield told
        return

    def pass_on(number: int, _: object) -> None:
        told.append(number)
        child.send_signal(number)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(child: subprocess.Popen[bytes]) -> None:
    """Wait for a process to end; a keyboard interrupts it as well, another sender does not."""
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)
        child.wait()


def reason(code: int, line: str) -> str:
    """Say why a process failed, by its exit code and the last line that it wrote to stderr."""
    if code == 0:
        return ""
    if code == USAGE and line.startswith(_ERROR):
        return line.removeprefix(_ERROR)
    if code < 0:
        return f"it was ended by the signal {signal.Signals(-code).name}"
    return f"it ended with exit code {code}{f' ({line})' if line else ''}"
