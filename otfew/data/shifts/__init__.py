"""Views of any data set as if it came from another place: seeded, and the same on every machine.

``shifted(images, "blur:2")`` has the same images under the same names, blurred when they are read; features of it are
kept under a key of their own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property

import numpy as np
import numpy.typing as npt

from otfew import plugins
from otfew.data.base import Image, ImageSet
from otfew.data.shifts.base import SEVERITIES, Others, Shift
from otfew.errors import UserError
from otfew.registry import Registry
from otfew.runs.identity import code_digest

__all__ = ["SEVERITIES", "SHIFTS", "Others", "Shift", "names_view", "parse", "shifted"]

SHIFTS: Registry[Shift] = Registry(
    {
        name: f"otfew.data.shifts.{name}:{name.upper()}"
        for name in ("edges", "blur", "dark", "clutter", "occlusion", "scale")
    }
)
"""Name -> shift. A new one is a file and a name."""


def parse(spec: str) -> tuple[Shift, int]:
    """Read NAME:SEVERITY.

    Args:
        spec: NAME is a key of ``SHIFTS``, or ``package.module:Name`` of a ``Shift`` of the user's own; SEVERITY is 1, 2
            or 3.

    Returns:
        The shift, under that name, and the severity.

    Raises:
        UserError: Nothing is called so, or there is no such severity.

    Examples:
        >>> shift, severity = parse("blur:2")
        >>> shift.name, severity
        ('blur', 2)
    """
    name, _, number = spec.rpartition(":")
    if name not in SHIFTS and not plugins.is_plugin(name):
        if spec in SHIFTS or plugins.is_plugin(spec):
            raise UserError(f"view {spec!r} has no severity: give {spec}:1 (mild), {spec}:2 or {spec}:3 (hard).")
        close = get_close_matches(name or spec, list(SHIFTS), n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(
            f"unknown view {spec!r}{hint}: give {', '.join(SHIFTS)} or package.module:Name of your own, and behind a "
            "colon the severity 1 (mild), 2 or 3 (hard), as in blur:2."
        )
    if number not in map(str, SEVERITIES):
        raise UserError(f"view {spec!r}: its severity must be 1 (mild), 2 or 3 (hard), not {number!r}.")
    if name in SHIFTS:
        return SHIFTS[name], int(number)
    found = plugins.load(name, "plug-in")
    if not isinstance(found, Shift):
        raise UserError(f"view {name!r} is of type {type(found).__name__}: name an otfew.data.shifts.Shift.")
    return replace(found, name=name), int(number)


def names_view(spec: str) -> bool:
    """Tell whether a text is meant as a view: one of ours or a plug-in's, with or without a severity.

    Args:
        spec: The text; nothing is imported for it.
    """
    return any(name in SHIFTS or plugins.is_plugin(name) for name in (spec, spec.rpartition(":")[0]))


def shifted(images: ImageSet, spec: str) -> ImageSet:
    """See a set of images through a shift.

    Args:
        images: Any; through another shift already, if it is.
        spec: As ``parse`` takes it.

    Returns:
        The same images under the same names, of which ``view``, and so ``digest``, and ``fingerprint`` differ.

    Raises:
        UserError: As ``parse`` says, or a single class where patches of other classes are needed.
    """
    shift, severity = parse(spec)
    if shift.takes_others and len(np.unique(images.labels)) < 2:
        raise UserError(
            f"view {spec!r} takes patches of other classes, but these images of {images.dataset!r} are of one: choose "
            "another."
        )
    view = "+".join([*([images.view] if images.view else []), f"{shift.name}:{severity}"])
    # Whoever changes a shift's code gets new features; what a run says of its images does not change with the code.
    code = plugins.digest(shift.name) if plugins.is_plugin(shift.name) else code_digest("otfew.data.shifts")
    told = "\n".join(["otfew view 1", images.fingerprint, view, code])
    return replace(
        images,
        view=view,
        read=_Reader(images, shift, severity),
        fingerprint=hashlib.sha256(told.encode()).hexdigest(),
    )


@dataclass(frozen=True)
class _Reader:
    """Decodes image i and changes it; pickles where the images do."""

    images: ImageSet
    shift: Shift
    severity: int

    def __call__(self, index: int) -> Image:
        """Read image ``index``: (height, width, 3) uint8 RGB."""
        image = self.images.read(index)
        return self.shift.apply(image, self.severity, self.images.names[index], self._others(index))

    def _others(self, index: int) -> Others:
        """Choose among the images of other classes."""
        order, ends = self._by_class
        label = int(self.images.labels[index])
        start, stop = (int(ends[label - 1]) if label else 0), int(ends[label])

        def other(number: float) -> Image:
            place = int(number * (len(order) - (stop - start)))
            return self.images.read(int(order[place if place < start else place + stop - start]))

        return other

    @cached_property
    def _by_class(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Images class after class, and where each class ends."""
        counts = np.bincount(self.images.labels, minlength=len(self.images.classes))
        return np.argsort(self.images.labels, kind="stable").astype(np.int64), np.cumsum(counts)
