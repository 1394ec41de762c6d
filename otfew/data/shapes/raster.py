"""A z-buffer: which triangle is seen at each pixel, and how far away; compiled by numba."""

from __future__ import annotations

import numpy as np
from numba import float32, float64, int32, int64, void

from otfew.transport.jit import jit


@jit(void(float64[:, ::1], int64[:, ::1], float32[:, ::1], int32[:, ::1]), nogil=True, error_model="numpy")
def draw(points, faces, nearness, owner):
    """Draw triangles of either orientation.

    Args:
        points: (vertices, 3) float64: x and y in pixels, pixel (column j, row i) at (j, i), and one over the distance
            from the camera, which is linear over a triangle in the picture.
        faces: (faces, 3) int64.
        nearness: (height, width) float32, zero where nothing is seen yet: one over the distance; written.
        owner: (height, width) int32: the number of the triangle that is seen; written. The one drawn first stays where
            two are equally near.
    """
    height, width = nearness.shape
    for face in range(len(faces)):
        a, b, c = points[faces[face, 0]], points[faces[face, 1]], points[faces[face, 2]]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area == 0.0:
            continue
        left = max(0, int(np.ceil(min(a[0], b[0], c[0]))))
        right = min(width - 1, int(np.floor(max(a[0], b[0], c[0]))))
        top = max(0, int(np.ceil(min(a[1], b[1], c[1]))))
        bottom = min(height - 1, int(np.floor(max(a[1], b[1], c[1]))))
        for i in range(top, bottom + 1):
            for j in range(left, right + 1):
                u = ((b[0] - j) * (c[1] - i) - (b[1] - i) * (c[0] - j)) / area
                v = ((c[0] - j) * (a[1] - i) - (c[1] - i) * (a[0] - j)) / area
                w = 1.0 - u - v
                if u >= 0.0 and v >= 0.0 and w >= 0.0:
                    near = np.float32(u * a[2] + v * b[2] + w * c[2])
                    if near > nearness[i, j]:
                        nearness[i, j] = near
                        owner[i, j] = face
