"""The record of a check: which card, which versions, which figures; written anew after every one of them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from otfew.errors import UserError
from otfew.experiments.device_check.bars import judged
from otfew.experiments.device_check.bench import Row
from otfew.experiments.device_check.config import Config
from otfew.runs.directory import to_json
from otfew.runs.files import write_atomically
from otfew.runs.identity import code_digest
from otfew.runs.processes import cores

FORMAT = 1
LIBRARIES = ("torch", "numpy", "numba", "scipy", "scikit-learn", "kornia", "pot", "geomloss", "pykeops", "pytest")
CODE = ("otfew", "otfew.methods", "otfew.baselines")


class Record:
    """What is known so far.

    Args:
        folder: Where it is written.
        device: That is checked.
        config: The command line.
    """

    def __init__(self, folder: Path, device: torch.device, config: Config) -> None:
        card = describe(device)
        self.path = folder / f"device-{slug(card['name'], config.toy)}.json"
        self.content: dict[str, Any] = {
            "command": "device-check",
            "format": FORMAT,
            "line": typed(config),
            "toy": config.toy,
            "card": card,
            "host": {"processor": processor(), "cores": cores(), "system": platform.system()},
            "versions": versions(),
            "code": code_digest(*CODE),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "minutes": config.minutes,
            "parts": {},
            "bars": [],
        }

    def begin(self, part: str) -> list[Row]:
        """Open a part; rows that are appended to the list are in the record from the next ``write`` on."""
        rows: list[Row] = []
        self.content["parts"][part] = {"state": "under way", "seconds": None, "rows": rows}
        return rows

    def end(self, part: str, state: str, seconds: float | None) -> None:
        """Close a part.

        Args:
            part: Which.
            state: "done", or why it did not come to its end, or was not begun.
            seconds: How long it took; None where it was not begun.
        """
        entry = self.content["parts"].setdefault(part, {"rows": []})
        entry |= {"state": state, "seconds": None if seconds is None else round(seconds, 1)}
        self.write()

    def write(self) -> None:
        """Write all that is known."""
        self.content["bars"] = judged(self.content["parts"])
        write_atomically(self.path, to_json(self.content))

    def sound(self) -> bool:
        """Tell whether nothing failed, broke down, or lacks its certificate; what was left out is no fault."""
        parts = self.content["parts"]
        rows = [row for part in parts.values() for row in part["rows"]]
        broken = any("broke down" in part["state"] for part in parts.values())
        wrong = any(row.get("certified") is False or row.get("failures") or row.get("errors") for row in rows)
        return not broken and not wrong


def describe(device: torch.device) -> dict[str, Any]:
    """Say what a device is."""
    if device.type != "cuda":
        return {"name": processor() if device.type == "cpu" else device.type, "kind": device.type}
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "kind": "cuda",
        "capability": f"{found.major}.{found.minor}",
        "memory_gib": round(found.total_memory / 2**30, 1),
        "multiprocessors": found.multi_processor_count,
        "cuda": torch.version.cuda,
    }


def slug(name: str, toy: bool = False) -> str:
    """Turn the name of a card into a part of a file's name.

    Example:
        >>> slug("NVIDIA H100 80GB HBM3")
        'nvidia-h100-80gb-hbm3'
    """
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"
    return f"toy-{words}" if toy else words


def versions() -> dict[str, str]:
    """Versions of what is installed of that which figures may depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def processor() -> str:
    """Name the processor as well as the system can."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def typed(config: Config) -> str:
    """Spell the command as it can be typed, without paths."""
    usual = Config()
    words = ["python -m experiments.device_check"]
    words += [f"--minutes {config.minutes:g}"] * (config.minutes != usual.minutes)
    words += [f"--parts {' '.join(config.parts)}"] * (config.parts != usual.parts)
    words += [f"--device {config.device}"] * (config.device != usual.device)
    words += ["--toy"] * config.toy
    return " ".join(words)


def load(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        UserError: It is none of this version.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: run device-check again on that card, or remove the file.") from error
    if not isinstance(content, dict) or (content.get("command"), content.get("format")) != ("device-check", FORMAT):
        raise UserError(f"{path} is no record of device-check of this version: run it again on that card.")
    return content
