"""Write the oldest releases that ``pyproject.toml`` allows of the required libraries, as constraints for pip.

A lower bound is a release that exists: ``torch>=2.6`` is tested with torch 2.6.0.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
_BOUND = re.compile(r"(?P<name>[\w-]+)>=(?P<release>[\d.]+)(?P<marker> *;.*)?")


def constraints(requirements: Sequence[str]) -> list[str]:
    """Turn lower bounds into pins, markers kept.

    Raises:
        ValueError: A requirement has another form than "name>=release; marker".
    """
    pins = []
    for requirement in requirements:
        found = _BOUND.fullmatch(requirement)
        if found is None:
            raise ValueError(f"{requirement!r} is no lower bound alone")
        pins.append(f"{found['name']}=={found['release']}{found['marker'] or ''}")
    return pins


def main(arguments: Sequence[str]) -> None:
    """Write them into the file that is given."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    Path(arguments[0]).write_text("\n".join(constraints(project["dependencies"])) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
