"""Classes that are not independent of each other, such as the turns of a character: a jackknife leaves out all at once.

A data set may say which of its classes belong together. Those of one name are then one unit of the statistics over
classes, with as many degrees of freedom as there are units less one; otherwise every class is a unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Drawn = tuple[Indices, tuple[str, ...]]
"""Units, as indices, and the names that these are of."""


def as_units(classes: Indices, names: Sequence[str], units: Sequence[str] = ()) -> Drawn:
    """Replace classes by the units that they belong to.

    Args:
        classes: Indices into ``names``, of any shape.
        names: Of all classes.
        units: (classes,) the name of each class's unit; empty where each class is one.

    Returns:
        Indices of the same shape and the names that they are of, in the order in which these come first.

    Raises:
        ValueError: Not as many units as classes.
    """
    if not units:
        return classes, tuple(names)
    if len(units) != len(names):
        raise ValueError(f"`units` must name the unit of each of the {len(names)} classes, not of {len(units)}")
    found = tuple(dict.fromkeys(units))
    place = {unit: i for i, unit in enumerate(found)}
    return np.array([place[unit] for unit in units], np.int64)[classes], found
