"""Line drawings of a mesh: its outline and its creases, by an unsteady hand."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from otfew.data.base import Image
from otfew.data.shapes.mesh import Floats, Mesh
from otfew.data.shapes.render import FINER, PAPER, Seen, look
from otfew.random.draws import uniform_array, uniforms

CREASE = 28.0
"""Degrees between two faces from which their meeting is drawn: more than between facets of round parts."""

STEP = 0.05
"""Difference in distance, in radii of the object, from which one part is seen to lie before another."""

GRID = 6
"""The hand's unsteadiness is drawn at so many places along each side, and smooth between them."""

Lines = npt.NDArray[np.bool_]


def sketch(mesh: Mesh, direction: Floats, side: int, *identity: str | int) -> Image:
    """Draw a mesh: dark strokes on white, some bent, some left out, as people draw.

    Args:
        mesh: In the unit ball.
        direction: (3,) unit vector to the camera.
        side: Pixels along each side.
        *identity: What the hand's errors are drawn from.

    Returns:
        (side, side, 3) uint8.
    """
    large = FINER * side
    chances = uniforms("otfew.data.shapes.drawing", *identity)
    found = lines(look(mesh, direction, large))
    thick = FINER * side / 128 * (0.6 + 0.8 * next(chances))
    brush = max(1, round(thick))
    ink = np.asarray(cv2.dilate(found.astype(np.float32), np.ones((brush, brush), np.uint8)), np.float32)
    strokes = np.zeros_like(ink)
    # Two passes of the hand over the same lines, each bent its own way.
    for again in range(1 + (next(chances) < 0.5)):
        bent = _bent(ink, 0.006 + 0.010 * next(chances), (*identity, again))
        kept = _smooth(large, 2 * GRID, (*identity, again, "left out")) > 0.12 + 0.12 * next(chances)
        strokes = np.maximum(strokes, bent * kept)
    fine = strokes.reshape(side, FINER, side, FINER).mean(axis=(1, 3))
    grey = np.rint(PAPER * (1 - 0.9 * np.minimum(1.0, fine))).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def lines(seen: Seen) -> Lines:
    """Find where a drawing has lines: at the outline, where one part ends before another, and at creases.

    Returns:
        (side, side) bool.
    """
    found = np.zeros(seen.owner.shape, dtype=np.bool_)
    there = seen.owner >= 0
    # Faces without area have no normal and make no crease.
    normals = np.concatenate([seen.normals, np.zeros((1, 3))])[seen.owner]
    distance = np.where(there, 1.0 / np.where(there, seen.nearness, 1.0), np.inf)
    for here, next_ in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        outline = there[here] != there[next_]
        # A face seen at a low angle may fall back by more than a step from pixel to pixel.
        meeting = there[here] & there[next_] & (seen.owner[here] != seen.owner[next_])
        with np.errstate(invalid="ignore"):
            step = meeting & (np.abs(distance[here] - distance[next_]) > STEP)
        bend = (normals[here] * normals[next_]).sum(axis=-1)
        crease = meeting & (bend < np.cos(np.deg2rad(CREASE)))
        crease &= (normals[here] != 0).any(axis=-1) & (normals[next_] != 0).any(axis=-1)
        found[here] |= outline | step | crease
    return found


def _bent(ink: npt.NDArray[np.float32], amount: float, identity: tuple[str | int, ...]) -> npt.NDArray[np.float32]:
    """Shift each place of a picture by up to ``amount`` of its side, neighbours alike."""
    side = len(ink)
    across, down = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    shifts = [(_smooth(side, GRID, (*identity, axis)) - 0.5) * (4 * amount * side) for axis in ("across", "down")]
    bent = cv2.remap(ink, across + shifts[0], down + shifts[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(bent, np.float32)


def _smooth(side: int, grid: int, identity: tuple[str | int, ...]) -> npt.NDArray[np.float32]:
    """Draw numbers on a grid and fill in between: (side, side) float32, about 0.5."""
    coarse = uniform_array(grid * grid, "otfew.data.shapes.drawing", *identity).reshape(grid, grid)
    fine = cv2.resize(coarse.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(fine, np.float32)
