"""The tests marked cuda, a process of pytest a file, some at a time; what each came to outlives whatever follows.

A kernel that fails takes the device from its process. Such a process is followed by another, for the tests that are
left. Nothing but pytest itself is needed: options that belong to plugins are not given.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from otfew.errors import UserError
from otfew.experiments.device_check.bench import CARD, Row
from otfew.experiments.device_check.reporter import DEVICE_LOST, REPORT, read
from otfew.runs.processes import cores

FOLDER = Path("tests")
MARKED = re.compile(r"\bmark\.cuda\b")
"""What a file says in which tests are marked; in the folder of that name, the fixture ``place`` marks them too."""
MOST_PROCESSES = 8
POLL = 0.1


def why_not() -> str:
    """Say why the tests cannot run here, or return ""."""
    if not (FOLDER / "conftest.py").is_file():
        return "there is no folder tests here: start in a checkout"
    if importlib.util.find_spec("pytest") is None:
        return "pytest is not installed"
    return ""


def run(seconds: float, marker: str = "cuda", paths: Sequence[Path] | None = None) -> Row:
    """Run the tests.

    Args:
        seconds: When they must have ended.
        marker: Of the tests.
        paths: Files; by default those under tests that speak of cuda.

    Returns:
        How many tests had which outcome, how many were not reached, what failed with its report, and how long the
        slowest took.

    Raises:
        UserError: There is no test, or pytest cannot begin.
    """
    files = [*paths] if paths is not None else marked()
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        processes = [Process(file, Path(folder) / f"{k}", marker) for k, file in enumerate(files)]
        waiting = list(processes)
        running: list[Process] = []
        at_once = max(1, min(MOST_PROCESSES, cores() // 2))
        try:
            while (waiting or running) and time.monotonic() < until:
                while waiting and len(running) < at_once:
                    running.append(waiting.pop(0))
                    running[-1].start()
                time.sleep(POLL)
                running = [process for process in running if process.goes_on()]
        finally:
            for process in running:
                process.kill()
        events = [event for process in processes for event in process.events()]
        said = "; ".join(process.last_words() for process in processes)
        not_begun = [process.file.name for process in waiting]
    if not any(event.get("collected") for event in events):
        raise UserError(f"pytest found no test marked {marker}: {said}.")
    return {**summary(events), "not_begun": not_begun}


class Process:
    """A process of pytest on a file, and those that follow where it is lost.

    Args:
        file: With tests.
        place: Path, without suffix, of what it reports and says.
        marker: Of the tests.

    Attributes:
        file: See above.
    """

    def __init__(self, file: Path, place: Path, marker: str) -> None:
        self.file = file
        self._report, self._said = place.with_suffix(".jsonl"), place.with_suffix(".txt")
        words = ["-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider", "--strict-markers", "-q"]
        words += ["-p", "otfew.experiments.device_check.reporter", "-m", marker, "--tb=short"]
        words += ["--continue-on-collection-errors"]
        self._words = [sys.executable, "-m", "pytest", *words, str(file)]
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start on the tests that have not ended yet."""
        with self._said.open("wb") as said:
            environment = {**os.environ, REPORT: str(self._report), "OMP_NUM_THREADS": "1"}
            # A group of its own: what tests have started must not go on beside the parts that measure.
            self._child = subprocess.Popen(
                self._words, stdout=said, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    def goes_on(self) -> bool:
        """Tell whether it runs, and start another where the last one was lost."""
        assert self._child is not None  # it was started
        code = self._child.poll()
        if code is None:
            return True
        if code != DEVICE_LOST and code >= 0:
            return False
        if code < 0:
            text = f"its process was ended by the signal {-code}"
            lines = [{"test": name, "outcome": "failed", "seconds": 0.0, "text": text} for name in self._under_way()]
            if not lines:  # it did not get to a test: the next would not either
                return False
            with self._report.open("a", encoding="utf-8") as file:
                # The line before may be torn.
                file.write("\n" + "".join(json.dumps(line) + "\n" for line in lines))
        self.start()
        return True

    def kill(self) -> None:
        """End it, and all that it has started."""
        assert self._child is not None  # it was started
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
        self._child.kill()
        self._child.wait()

    def events(self) -> list[Row]:
        """Read what it reported."""
        return read(self._report)

    def last_words(self) -> str:
        """Return the last line that it said."""
        if not self._said.is_file():
            return "it was not begun"
        lines = self._said.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

    def _under_way(self) -> list[str]:
        return under_way(self.events())


def under_way(events: Sequence[Row]) -> list[str]:
    """Name the tests that have begun and not ended."""
    ended = {event["test"] for event in events if "outcome" in event}
    return sorted({event["begins"] for event in events if "begins" in event} - ended)


def marked() -> list[Path]:
    """Find the files that may hold tests with the marker; collecting all others would take longer than their tests.

    Those come first whose tests start processes of their own: they take longest.
    """
    files = [path for path in sorted(FOLDER.rglob("test_*.py")) if path.parent.name != "benchmarks"]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    chosen = [path for path in files if path.parent == FOLDER / "cuda" or MARKED.search(texts[path])]
    return sorted(chosen, key=lambda path: "import subprocess" not in texts[path])


def summary(events: Sequence[Row]) -> Row:
    """Reduce what the processes reported to one row.

    Args:
        events: See ``otfew.experiments.device_check.reporter``.
    """
    collected = {name for event in events for name in event.get("collected", ())}
    ended = {event["test"]: event for event in events if "outcome" in event}
    slowest = sorted(ended.values(), key=lambda event: -event["seconds"])[:5]
    counts = Counter(event["outcome"] for event in ended.values())
    return {
        "what": "tests",
        "by": CARD,
        "count": len(collected),
        **{outcome: counts[outcome] for outcome in ("passed", "failed", "skipped")},
        "not_reached": len(collected - ended.keys()),
        "under_way": under_way(events),
        "failures": {name: event["text"] for name, event in ended.items() if event["outcome"] == "failed"},
        "errors": [event["error"] for event in events if "error" in event],
        "skips": dict(Counter(event["text"] for event in ended.values() if event["outcome"] == "skipped")),
        "slowest": {event["test"]: round(event["seconds"], 1) for event in slowest},
    }
