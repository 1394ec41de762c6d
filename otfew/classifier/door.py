"""The door by which images come in: decoded one after another, and what cannot be used is refused or left out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy.typing as npt

from otfew.classifier.pictures import in_order
from otfew.data.decoding.picture import decode_picture, name_of
from otfew.errors import UserError

OnError: TypeAlias = Literal["raise", "skip"]


@dataclass(frozen=True)
class Skipped:
    """An image that was left out.

    Attributes:
        place: Among the images that were given, from 0.
        name: Its path, or "image K".
        reason: The sentence that it would have been refused with.
    """

    place: int
    name: str
    reason: str

    def __str__(self) -> str:
        return self.reason if self.name in self.reason else f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Shown:
    """An image that could be read.

    Attributes:
        place: Among the images that were given, from 0.
        name: Its path, or "image K".
        path: Absolute; None where it came in memory.
        pixels: (height, width, 3) uint8, or float32 with values in [0, 255] where the user's were floating.
    """

    place: int
    name: str
    path: Path | None
    pixels: npt.NDArray[Any]


@dataclass
class Door:
    """Reads images, and keeps a list of those left out.

    Attributes:
        on_error: "raise" refuses the first image that cannot be used; "skip" leaves it out.
        skipped: Those left out so far.
        count: Images that came so far, those left out among them.
    """

    on_error: OnError = "raise"
    skipped: list[Skipped] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        if self.on_error not in get_args(OnError):
            raise UserError(f"`on_error` is {self.on_error!r}: give 'raise' or 'skip'.")

    def read(self, images: Any) -> Iterator[Shown]:
        """Decode images by position, one at a time.

        Args:
            images: As in ``otfew.classifier.pictures.in_order``.

        Raises:
            UserError: No container of images, or, with "raise", an image that cannot be used, named.
        """
        # What is wrong with the container is said at once, not when the first image is asked for.
        return self._decoded(in_order(images))

    def refuse(self, place: int, name: str, error: UserError) -> None:
        """Raise, or keep the reason and go on."""
        if self.on_error == "raise":
            raise error
        self.skipped.append(Skipped(place, name, str(error)))

    def tell(self) -> None:
        """Warn once of all that were left out."""
        if self.skipped:
            count = f"{len(self.skipped)} of {self.count} images cannot be used and are left out (see `skipped_`)"
            warnings.warn(f"{count}; the first: {self.skipped[0]}", stacklevel=3)

    def _decoded(self, images: Iterator[Any]) -> Iterator[Shown]:
        for place, image in enumerate(images):
            self.count += 1
            name = name_of(image, place)
            try:
                pixels = decode_picture(image, place)
            except UserError as error:
                self.refuse(place, name, error)
                continue
            path = Path(os.path.abspath(name)) if isinstance(image, str | os.PathLike) else None
            yield Shown(place, name, path, pixels)
