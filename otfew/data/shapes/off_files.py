"""Meshes in OFF files, as ModelNet and SHREC distribute them: read by trimesh, damaged headers mended first."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np

from otfew.data.shapes.mesh import MOST_FACES, Mesh, check
from otfew.errors import UserError
from otfew.runs.files import reading

_HEAD = re.compile(rb"\A\s*(?:\xef\xbb\xbf)?\s*C?OFF[ \t]*", re.IGNORECASE)
"""What a file begins with. Its counts may follow on the same line: hundreds of ModelNet40's begin "OFF490 518 0"."""

_LONGEST_HEAD = 1 << 16
"""Bytes within which a file must say how large it is, comments before that included."""


def read_off(path: Path, named: str = "") -> Mesh:
    """Read a mesh, its polygons cut into triangles.

    Args:
        path: An OFF file; "OFF490 518 0" for "OFF" and "490 518 0" on lines of their own is understood, as are
            lower-case headers and a byte order mark.
        named: What sentences on the mesh call it; "" for its path.

    Raises:
        UserError: The file can't be read, is no OFF file, is cut off, or holds a mesh that ``otfew.data.shapes.mesh``
            refuses; or trimesh is not installed.
    """
    try:
        from trimesh.exchange.off import load_off
    except ImportError:
        raise UserError("meshes need trimesh: pip install 'otfew[shapes]'.") from None
    name = named or str(path)
    with reading(path), path.open("rb") as file:
        head = _HEAD.sub(b"OFF\n", file.read(_LONGEST_HEAD))
        counts = _counts(head)
        if counts is None:
            raise UserError(f"{name} is no OFF file: it should begin with OFF and the numbers of vertices and faces.")
        if counts[1] > MOST_FACES:
            # Said before the rest is read.
            raise UserError(f"{name} has {counts[1]:,} faces, more than {MOST_FACES:,}: thin it out first.")
        if 0 in counts:
            raise UserError(f"{name} is empty: it has {counts[0]:,} vertices and {counts[1]:,} faces.")
        content = head + file.read()
    try:
        loaded = load_off(io.BytesIO(content))
        mesh = Mesh(
            np.asarray(loaded["vertices"], dtype=np.float64).reshape(-1, 3),
            np.asarray(loaded["faces"], dtype=np.int64).reshape(-1, 3),
        )
    except (ValueError, IndexError, OverflowError, NameError, TypeError) as error:
        raise UserError(f"{name} is damaged: {str(error) or type(error).__name__}") from None
    try:
        check(mesh)
    except UserError as error:
        raise UserError(f"{name} {error}.") from None
    return mesh


def _counts(content: bytes) -> tuple[int, int] | None:
    """Read the numbers of vertices and faces off the head, past comments; None where there are none."""
    words: list[bytes] = []
    for line in content.splitlines():
        words += line.partition(b"#")[0].split()
        if len(words) >= 3:
            break
    if len(words) < 3 or words[0] != b"OFF":
        return None
    try:
        return int(words[1]), int(words[2])
    except ValueError:
        return None
