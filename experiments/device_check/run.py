"""A check from its first part to its last: time is shared out, and every part leaves its findings in the record."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from otfew import devices
from otfew.errors import UserError
from otfew.experiments.device_check import report, suite
from otfew.experiments.device_check.bench import Bench, Row
from otfew.experiments.device_check.config import Config
from otfew.experiments.device_check.parts import TESTS, Part, chosen, measure, seconds
from otfew.experiments.device_check.record import Record
from otfew.experiments.device_check.worker import BrokenError, rows_of
from otfew.experiments.solver_timings.measure import in_a_line
from otfew.reporting.tables import terminal

if TYPE_CHECKING:
    from rich.console import Console

RESERVE = 3.0
"""Seconds of the whole that no part gets: for starting and ending."""

Say = Callable[[str], None]


def check(config: Config, console: Console) -> bool:
    """Check a card and write its record.

    Args:
        config: The command line.
        console: Where tables and progress go.

    Returns:
        Whether all is well: no test failed, no part broke down, every answer has its certificate.

    Raises:
        UserError: There is no GPU, or an option is out of range.
    """
    started = time.monotonic()
    parts = chosen(config.parts)
    if not 0 < config.minutes < math.inf:
        raise UserError(f"`minutes` must be positive, not {config.minutes}.")
    device = _device(config)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    record = Record(_folder(config), device, config)
    say(f"{record.content['card']['name']}; {', '.join(f'{n} {v}' for n, v in record.content['versions'].items())}")
    until = started + 60 * config.minutes - RESERVE * min(1.0, config.minutes)
    for place, part in enumerate(parts):
        share = seconds(part, parts[place + 1 :], until - time.monotonic(), config.minutes)
        if share:
            _do(part, share, config, device, record, say)
        else:
            record.end(part.name, "left out: there was no time left for it", None)
        say(f"{part.name}: {record.content['parts'][part.name]['state']}")
    for table in report.tables(record.content):
        console.print(terminal(table))
    for line in report.failures(record.content["parts"].get(TESTS, {}).get("rows", ())):
        say(line)
    say(f"record: {record.path}")
    return record.sound()


def _do(part: Part, share: float, config: Config, device: torch.device, record: Record, say: Say) -> None:
    """Do a part; whatever goes wrong in it is written into the record and does not end the others."""
    began = time.monotonic()
    state = "done"
    rows = record.begin(part.name)
    try:
        for row in _rows(part, share, config, device):
            rows.append(row)
            record.write()
            say(f"  {_line(row)}")
    except BrokenError as error:
        state = str(error)
    except UserError as error:
        state = f"left out: {error}"
    except Exception as error:
        state = f"broke down: {in_a_line(error)}"
    record.end(part.name, state, time.monotonic() - began)


def _rows(part: Part, share: float, config: Config, device: torch.device) -> Iterator[Row]:
    if part.name == TESTS:
        if reason := suite.why_not():
            raise UserError(reason)
        yield suite.run(share)
    elif config.toy:
        # Nothing of a card can take this process down, and a start takes longer than a part.
        yield from measure(part.name, Bench(device, True, time.monotonic() + share))
    else:
        yield from rows_of(part.name, str(device), share, config.toy)


def _line(row: Row) -> str:
    """Say a row in a line, as it comes."""
    shown = {key: value for key, value in row.items() if isinstance(value, int | float | str)}
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())


def _device(config: Config) -> torch.device:
    """Find the card."""
    if config.toy:
        return devices.pick(config.device if config.device != "cuda" else "auto", among=("cuda",))
    if not torch.cuda.is_available():
        raise UserError(
            "there is no GPU that torch can use here: start on a machine with one, or see with --toy that all works."
        )
    device = devices.pick(config.device)
    if device.type != "cuda":
        raise UserError(f"`device` {config.device} is no GPU: give cuda, or --toy with it.")
    return torch.device("cuda", device.index or 0)


def _folder(config: Config) -> Path:
    """Decide where the record goes; a trial at toy size goes beside no real one."""
    if config.output is not None:
        return config.output
    if config.toy:
        return Path(tempfile.mkdtemp(prefix="otfew-device-check-"))
    results = Path("docs") / "results"
    return results if results.is_dir() else Path()
