"""Views of a mesh: a z-buffer with a light at the camera, no window system needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otfew.data.base import Image
from otfew.data.shapes.cameras import frame
from otfew.data.shapes.mesh import Floats, Mesh

VERSION = 1
"""Of the pictures: raised whenever the same mesh would look otherwise."""

DISTANCE = 2.8
"""Of the camera from the middle of the object, whose furthest point is 1 away."""

FILLED = 0.94
"""Share of half the picture's side that the unit ball takes."""

FINER = 2
"""Pixels along each side that are averaged to one of the picture."""

DARK, LIGHT, PAPER = 45.0, 225.0, 255
"""Greys of a face seen edge on, of one seen frontally, and of the background."""


@dataclass(frozen=True)
class Seen:
    """What a camera sees, before it is shaded or drawn.

    Attributes:
        nearness: (side, side) float32: one over the distance from the camera, 0 where there is nothing.
        owner: (side, side) int32: the face that is seen, -1 where there is none.
        normals: (faces, 3) float64: unit normals in the camera's frame, turned towards it; zero for a face without
            area.
    """

    nearness: npt.NDArray[np.float32]
    owner: npt.NDArray[np.int32]
    normals: Floats


def look(mesh: Mesh, direction: Floats, side: int) -> Seen:
    """Look at a mesh in the unit ball from one direction, in perspective.

    Args:
        mesh: In the unit ball (``otfew.data.shapes.mesh.in_unit_ball``).
        direction: (3,) unit vector to the camera.
        side: Pixels along each side.
    """
    from otfew.data.shapes.raster import draw

    seen = mesh.vertices @ frame(direction).T
    near = 1.0 / (DISTANCE - seen[:, 2])
    # The unit ball's outline touches the circle that is filled.
    scale = FILLED * side / 2 * np.sqrt(DISTANCE**2 - 1)
    points = np.stack(
        [(side - 1) / 2 + scale * seen[:, 0] * near, (side - 1) / 2 - scale * seen[:, 1] * near, near], axis=1
    )
    nearness = np.zeros((side, side), dtype=np.float32)
    owner = np.full((side, side), -1, dtype=np.int32)
    draw(np.ascontiguousarray(points), np.ascontiguousarray(mesh.faces), nearness, owner)
    corners = seen[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)
    to_camera = np.array([0.0, 0.0, DISTANCE]) - corners.mean(axis=1)
    normals *= np.where((normals * to_camera).sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    return Seen(nearness, owner, normals)


def render(mesh: Mesh, direction: Floats, side: int) -> Image:
    """Take a picture of a mesh, grey on white, with a light at the camera.

    Args:
        mesh: In the unit ball.
        direction: (3,) unit vector to the camera.
        side: Pixels along each side.

    Returns:
        (side, side, 3) uint8 RGB.
    """
    seen = look(mesh, direction, FINER * side)
    greys = np.append(DARK + (LIGHT - DARK) * np.abs(seen.normals[:, 2]), PAPER)
    fine = greys[seen.owner].reshape(side, FINER, side, FINER).mean(axis=(1, 3))
    grey = np.rint(fine).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def views(mesh: Mesh, directions: Floats, side: int) -> list[Image]:
    """Take a picture from each of several directions, (views, 3)."""
    return [render(mesh, direction, side) for direction in directions]


def strip(images: list[Image]) -> Image:
    """Lay pictures of one size side by side: (side, views * side, 3)."""
    return np.concatenate(images, axis=1)
