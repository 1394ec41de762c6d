"""Parts that objects are made of: boxes, cylinders, spheres, surfaces of revolution, bent tubes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from otfew.data.shapes.mesh import Floats, Mesh

SIDES = 24
"""Of round parts: their facets meet at 15 degrees, which a line drawing takes for round."""

_CUBE = np.array([[x, y, z] for z in (-0.5, 0.5) for y in (-0.5, 0.5) for x in (-0.5, 0.5)])
_CUBE_FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 5, 7], [4, 7, 6], [0, 1, 5], [0, 5, 4], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4],
     [1, 3, 7], [1, 7, 5]],
    dtype=np.int64,
)  # fmt: skip


def box(width: float, depth: float, height: float) -> Mesh:
    """Make a box of these sides along x, y and z, standing on the middle of the ground."""
    return Mesh(_CUBE * np.array([width, depth, height]) + np.array([0, 0, height / 2]), _CUBE_FACES)


def lathe(profile: Sequence[tuple[float, float]], sides: int = SIDES) -> Mesh:
    """Turn an outline about the z axis.

    Args:
        profile: (radius, z) from one end to the other; open ends are open.
        sides: Facets around; few make a prism.
    """
    outline = np.array(profile, dtype=np.float64)
    angles = np.arange(sides) * (2 * np.pi / sides)
    vertices = np.stack(
        [
            np.outer(outline[:, 0], np.cos(angles)),
            np.outer(outline[:, 0], np.sin(angles)),
            np.repeat(outline[:, 1:], sides, axis=1),
        ],
        axis=-1,
    ).reshape(-1, 3)
    return Mesh(vertices, _strips(len(outline), sides))


def cylinder(radius: float, height: float, top: float | None = None, sides: int = SIDES) -> Mesh:
    """Make a closed cylinder, or with another radius at its ``top`` a cone or its stump, standing on the ground."""
    top = radius if top is None else top
    return lathe([(0, 0), (radius, 0), (top, height), (0, height)], sides)


def ellipsoid(x: float, y: float, z: float) -> Mesh:
    """Make an ellipsoid of these half-axes about the origin."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, SIDES // 2 + 1)
    return lathe([(float(np.cos(a)), float(np.sin(a))) for a in angles]).scaled(x, y, z)


def tube(path: Sequence[Sequence[float]] | Floats, radius: float | Sequence[float], sides: int = 10) -> Mesh:
    """Lead a round tube along a path.

    Args:
        path: (points, 3), at least two, none at the place of the one before it.
        radius: One for all of it, or one a point.
        sides: Facets around.
    """
    points = np.asarray(path, dtype=np.float64)
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), len(points))
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    angles = np.arange(sides) * (2 * np.pi / sides)
    across = np.cross(along[0], [0.0, 0.0, 1.0] if abs(along[0, 2]) < 0.9 else [1.0, 0.0, 0.0])
    rings = []
    for point, direction, width in zip(points, along, radii, strict=True):
        # Carried on from ring to ring, so that the tube does not twist.
        across = across - direction * (across @ direction)
        across /= np.linalg.norm(across)
        other = np.cross(direction, across)
        rings.append(point + width * (np.outer(np.cos(angles), across) + np.outer(np.sin(angles), other)))
    # Both ends are closed by rings that have shrunk to a point.
    ends = [np.broadcast_to(points[0], (sides, 3)), *rings, np.broadcast_to(points[-1], (sides, 3))]
    return Mesh(np.concatenate(ends), _strips(len(ends), sides))


def arc(radius: float, start: float, stop: float, points: int = 17) -> Floats:
    """Walk along part of a circle about the y axis: (points, 3); angles in degrees from the x axis towards z."""
    angles = np.deg2rad(np.linspace(start, stop, points))
    return np.stack([radius * np.cos(angles), np.zeros(points), radius * np.sin(angles)], axis=1)


def prism(outline: Sequence[tuple[float, float]], depth: float) -> Mesh:
    """Give a flat outline in x and z, convex, a depth along y, half of it to each side."""
    flat: npt.NDArray[np.float64] = np.array([(x, 0.0, z) for x, z in outline])
    shift = np.array([0, depth / 2, 0])
    count = len(flat)
    around = np.arange(count)
    nearest = np.roll(around, -1)
    sides = np.concatenate(
        [np.stack([around, nearest, nearest + count], 1), np.stack([around, nearest + count, around + count], 1)]
    )
    cap = np.stack([np.zeros(count - 2, dtype=np.int64), around[1:-1], around[2:]], axis=1)
    return Mesh(np.concatenate([flat - shift, flat + shift]), np.concatenate([sides, cap, cap + count]))


def _strips(rings: int, sides: int) -> npt.NDArray[np.int64]:
    """Join rings of vertices, each with the next, by two triangles a facet."""
    ring, side = np.meshgrid(np.arange(rings - 1), np.arange(sides), indexing="ij")
    here, there = ring * sides + side, ring * sides + (side + 1) % sides
    lower = np.stack([here, there, there + sides], axis=-1).reshape(-1, 3)
    upper = np.stack([here, there + sides, here + sides], axis=-1).reshape(-1, 3)
    return np.concatenate([lower, upper]).astype(np.int64)
