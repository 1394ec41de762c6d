"""The guard against seen classes: figures on classes of the backbone's own training say nothing about new ones."""

from __future__ import annotations

from otfew.errors import UserError


def refuse_overlap(overlap: str, allow_overlap: bool) -> None:
    """Raise ``UserError`` where the backbone has seen evaluated classes in training and nobody has allowed it.

    Args:
        overlap: What was seen, as ``Material.overlap`` and ``FeatureSet.overlap`` say it; "" where nothing was.
        allow_overlap: Go on; reports then speak of a leak.
    """
    if overlap and not allow_overlap:
        raise UserError(
            f"{overlap}: give another backbone or split, or `allow_overlap` to go on and have the report say so."
        )
