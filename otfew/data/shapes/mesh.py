"""A triangle mesh, and what makes one unfit to be rendered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from otfew.errors import UserError

MOST_FACES = 2_000_000
"""A mesh of more is refused: it takes minutes and gigabytes, and its views show no more than those of a thinned one."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mesh:
    """Triangles in space; z points up.

    Attributes:
        vertices: (vertices, 3) float64.
        faces: (faces, 3) int64, indices into ``vertices``. Which way round they go is of no matter.
    """

    vertices: Floats
    faces: Integers

    def moved(self, x: float, y: float, z: float) -> Mesh:
        """Shift it."""
        return Mesh(self.vertices + np.array([x, y, z]), self.faces)

    def scaled(self, x: float, y: float, z: float) -> Mesh:
        """Stretch it along the axes."""
        return Mesh(self.vertices * np.array([x, y, z]), self.faces)

    def turned(self, axis: str, angle: float) -> Mesh:
        """Turn it about "x", "y" or "z" by an angle in degrees, counter-clockwise seen from the axis' tip."""
        first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        vertices = self.vertices.copy()
        vertices[:, first] = cosine * self.vertices[:, first] - sine * self.vertices[:, second]
        vertices[:, second] = sine * self.vertices[:, first] + cosine * self.vertices[:, second]
        return Mesh(vertices, self.faces)


def joined(*meshes: Mesh) -> Mesh:
    """Put several into one, as they lie."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes[:-1])])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]),
    )


def in_unit_ball(mesh: Mesh) -> Mesh:
    """Move a mesh's bounding box to the origin and shrink or stretch it until its furthest used vertex is 1 away."""
    used = mesh.vertices[np.unique(mesh.faces)]
    centre = (used.min(axis=0) + used.max(axis=0)) / 2
    radius = float(np.sqrt(((used - centre) ** 2).sum(axis=1).max()))
    return Mesh((mesh.vertices - centre) / radius, mesh.faces)


def check(mesh: Mesh) -> None:
    """Refuse a mesh that can't be rendered.

    Raises:
        UserError: It has no faces or too many, a face names a vertex that is not there, a used coordinate is NaN or
            infinite, or all used vertices are one point. The sentence says which, beginning with a verb.
    """
    if not len(mesh.vertices) or not len(mesh.faces):
        raise UserError("holds no faces" if len(mesh.vertices) else "is empty")
    if len(mesh.faces) > MOST_FACES:
        raise UserError(f"has {len(mesh.faces):,} faces, more than {MOST_FACES:,}: thin it out first")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        wrong = int(np.flatnonzero(((mesh.faces < 0) | (mesh.faces >= len(mesh.vertices))).any(axis=1))[0])
        raise UserError(f"has a face ({wrong}) beyond its {len(mesh.vertices):,} vertices")
    used = mesh.vertices[np.unique(mesh.faces)]
    if not np.isfinite(used).all():
        raise UserError("has a coordinate that is NaN or infinite")
    extent = float(np.ptp(used, axis=0).max())
    if not extent > 0 or not np.isfinite(extent):
        raise UserError("has no extent: all its vertices are one point" if extent == 0 else "is too large for float64")
