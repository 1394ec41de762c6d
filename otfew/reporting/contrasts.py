"""What transport adds, as results.json has it in either format, for sentences, tables and pictures.

Format 2 has the differences to controls that are fixed beforehand, format 1 that to the control which was best on the
very episodes: it is said wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

OLD = "best control on these episodes (old format)"


@dataclass(frozen=True)
class Contrast:
    """The difference of a transport method to a control.

    Attributes:
        named: The control, as the method's class names it.
        control: The control's name in the run.
        record: The paired difference, as in results.json.
        old: Whether the control was chosen because it was best on the episodes of the run.
    """

    named: str
    control: str
    record: Mapping[str, Any]
    old: bool = False


def contrasts(adds: Mapping[str, Any]) -> list[Contrast]:
    """List the contrasts of a method.

    Args:
        adds: Its entry of "transport_adds".
    """
    if "contrasts" in adds:
        return [Contrast(named, record["control"], record) for named, record in adds["contrasts"].items()]
    return [Contrast(adds["control"], adds["control"], adds, old=True)] if adds.get("control") else []


def all_contrasts(results: Mapping[str, Any]) -> Iterator[tuple[str, Contrast]]:
    """Go through the contrasts of all methods of a run, by name, but for those that transport single nodes.

    Args:
        results: With "transport_adds" and "methods".

    Yields:
        Name of a method, and one of its contrasts.
    """
    for name, adds in sorted(results.get("transport_adds", {}).items()):
        # Between single nodes there is one plan: the figures say nothing for or against it.
        if not results["methods"].get(name, {}).get("one_node"):
            for contrast in contrasts(adds):
                yield name, contrast
