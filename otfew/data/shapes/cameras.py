"""From where objects are looked at."""

from __future__ import annotations

import numpy as np

from otfew.data.shapes.mesh import Floats

ELEVATION = 30.0
"""Degrees above the ground of the twelve views (MVCNN, Su et al. 2015)."""


def around(views: int = 12, elevation: float = ELEVATION, start: float = 0.0) -> Floats:
    """Go round an upright object at one height.

    Args:
        views: How many, evenly spaced.
        elevation: Degrees above the ground.
        start: Degrees about z of the first; 0 looks from where y is negative, the front of generated objects.

    Returns:
        (views, 3) unit vectors from the object to the camera.
    """
    turn = np.deg2rad(start - 90 + np.arange(views) * (360 / views))
    high = np.deg2rad(elevation)
    flat = np.cos(high)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), np.full(views, np.sin(high))], axis=1)


def dodecahedron() -> Floats:
    """Look from the 20 corners of a regular dodecahedron, which need no upright (MVCNN's second setting): (20, 3)."""
    golden = (1 + 5**0.5) / 2
    corners = [(x, y, z) for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]
    for a in (-1 / golden, 1 / golden):
        for b in (-golden, golden):
            corners += [(0.0, a, b), (a, b, 0.0), (b, 0.0, a)]
    found = np.array(corners, dtype=np.float64)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def frame(direction: Floats) -> Floats:
    """Turn space so that a camera looks along it.

    Args:
        direction: (3,) unit vector from the object to the camera.

    Returns:
        (3, 3), rows: to the right of the picture, up in it, and towards the camera. z is up in the picture unless the
        camera looks along it.
    """
    up = np.array([0.0, 0.0, 1.0]) if abs(direction[2]) < 0.999 else np.array([0.0, 1.0, 0.0])
    right = np.cross(up, direction)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(direction, right), direction])
