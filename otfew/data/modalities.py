"""Two modalities of the same classes: sketches and shapes, say."""

from __future__ import annotations

from collections.abc import Sequence

from otfew.errors import UserError


def need_same_classes(first: Sequence[str], second: Sequence[str], split: str) -> None:
    """Refuse modalities that do not have the same classes.

    Args:
        first: Classes of the one, in any order.
        second: Classes of the other.
        split: What both are parts of, for the sentence.

    Raises:
        UserError: A class is in one of them only; the first such is named.
    """
    if lonely := sorted(set(first) ^ set(second)):
        raise UserError(f"the modalities differ in classes: {lonely[0]!r} of the split {split} is in one only.")
