"""How much the page takes."""

from __future__ import annotations

from dataclasses import dataclass

from otfew.errors import UserError

_MEGA = 10**6


class LimitError(UserError):
    """More than the page takes; what is held already stays."""


@dataclass(frozen=True)
class Limits:
    """What is refused, before it is read where that can be.

    Attributes:
        file_bytes: Of one photo. How many pixels it may hold is a matter of its decoding.
        photos: Held at once.
        total_bytes: Of all photos that are held.
        label: Characters of a label.
        reading: Photos that are read from the network at once; others wait.
    """

    file_bytes: int = 40 * _MEGA
    photos: int = 300
    total_bytes: int = 1000 * _MEGA
    label: int = 80
    reading: int = 4

    def check_file(self, size: int) -> None:
        """Raise ``LimitError`` where a photo has too many bytes."""
        if size > self.file_bytes:
            raise LimitError(f"this file has more than {_mega(self.file_bytes)}, the most the page takes: shrink it.")

    def check_room(self, photos: int, held: int, more: int) -> None:
        """Raise ``LimitError`` where another photo has no room beside those that are held.

        Args:
            photos: That are held.
            held: Their bytes.
            more: Bytes of the new one.
        """
        if photos >= self.photos:
            raise LimitError(f"the page holds {self.photos} photos, its most: remove some, or use otfew classify.")
        if held + more > self.total_bytes:
            told = f"the page holds {_mega(held)} of photos and takes {_mega(self.total_bytes)} in all"
            raise LimitError(f"{told}: remove some.")


def _mega(count: int) -> str:
    return f"{count / _MEGA:,.3g} MB"
