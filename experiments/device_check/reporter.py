"""A plugin of pytest: writes what happens to a file, a line an event, so that a run that is killed leaves its findings.

Events are JSON: {"collected": [tests]}, {"begins": test}, {"test", "outcome", "seconds", "text"} and {"error": text}. A
start on a file that is there leaves out the tests that have ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

REPORT = "OTFEW_DEVICE_REPORT"
"""Environment variable with the path of the file."""
DEVICE_LOST = 77
"""Exit code where no further test can run on the device in this process."""
LENGTH = 3000
"""Characters of a failure's report that are kept: its end."""


def write(event: dict[str, Any]) -> None:
    """Append an event."""
    with Path(os.environ[REPORT]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """Read the events of a file, if it is there; a line is torn where its process was killed."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            events.append(json.loads(line))
    return events


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave out what has ended."""
    ended = {event["test"] for event in read(Path(os.environ[REPORT])) if "outcome" in event}
    left_out = [item for item in items if item.nodeid in ended]
    items[:] = [item for item in items if item.nodeid not in ended]
    if left_out:
        config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish(session: Any) -> None:
    """Say which tests there are."""
    write({"collected": [item.nodeid for item in session.items]})


def pytest_collectreport(report: Any) -> None:
    """Say which file cannot be imported."""
    if report.failed:
        write({"error": str(report.longrepr)[-LENGTH:]})


def pytest_runtest_logstart(nodeid: str) -> None:
    """Say what begins."""
    write({"begins": nodeid})


def pytest_runtest_logreport(report: Any) -> None:
    """Say how a test ended: by its call, or by what failed or was skipped before or after it."""
    if report.when == "call" or report.failed or (report.when == "setup" and report.skipped):
        text = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else report.longreprtext
        outcome = report.outcome
        write({"test": report.nodeid, "outcome": outcome, "seconds": report.duration, "text": text[-LENGTH:]})


def pytest_runtest_logfinish(nodeid: str) -> None:
    """End a process that has lost the device."""
    if lost():
        import pytest

        pytest.exit(f"the device is lost since {nodeid}", returncode=DEVICE_LOST)


def lost() -> bool:
    """Tell whether the device answers this process no more."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
