"""Lists of whole numbers in nodes such as "grid:2,3"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from otfew.errors import UserError

MOST_PATCHES = 1000
"""Patches of an image: more would not fit into memory beside the network, nor their transport problems."""


def whole_numbers(kind: str, parts: Sequence[str], example: str) -> tuple[int, ...]:
    """Read positive whole numbers, each once.

    Args:
        kind: Kind of nodes, for the message.
        parts: Between the commas.
        example: What would be right.

    Raises:
        UserError: A part is no whole number from 1 to 9999, or stands there twice.
    """
    numbers = []
    for part in parts:
        number = int(part) if re.fullmatch("[0-9]{1,4}", part) else 0
        if not number:
            what = f"{part!r} is not a whole number from 1 to 9999" if part else "a number is missing"
            raise UserError(f"nodes '{kind}:{','.join(parts)}': {what}; write for example {example}.")
        if number in numbers:
            raise UserError(f"nodes '{kind}:{','.join(parts)}': {number} stands there twice; give each number once.")
        numbers.append(number)
    return tuple(numbers)


def check_count(spec: str, patches: int) -> None:
    """Raise ``UserError`` where an image would be cut into more patches than can be handled."""
    if patches > MOST_PATCHES:
        raise UserError(f"nodes {spec!r} are {patches:,} patches of each image: ask for at most {MOST_PATCHES:,}.")
