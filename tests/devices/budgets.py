"""What calls may cost on a device, forward and backward together: a gate for its speed that needs no device.

Each line is what was counted on the pretended device, and a tenth more of operations: an operation is about 5 us of the
host's time, a wait 10 us and an idle device. See ``tests/devices/pretended.py`` for what is counted, and the tests
beside it for the calls. ``OTFEW_COUNTS=FILE pytest -n 0 tests/devices`` writes down what is counted now.
"""

from __future__ import annotations

from typing import NamedTuple


class Budget(NamedTuple):
    """Most of what a call may cost."""

    operations: int
    waits: int = 0
    uploads: int = 0


BUDGETS: dict[str, Budget] = {}
