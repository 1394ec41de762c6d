"""What rendering a set of meshes costs, from OFF files to twelve views each on disk.

The bar: 1,000 meshes of 5,000 faces in 10 minutes on two cores. CPU seconds and not those of a clock, since machines
are shared: rendering works on all cores, each mesh on one. $OTFEW_MESHES says how many are made (100), and with
$OTFEW_RECORD the figures also go into that file (JSON).
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from otfew.data.shapes import objects
from otfew.data.shapes.mesh import Mesh
from otfew.data.shapes.sets import SIDE, load_shapes
from otfew.runs.identity import versions

pytest.importorskip("trimesh")

RECORDED = (
    "OTFEW_RECORD=docs/results/shapes-rendering.json pytest tests/benchmarks/test_rendering.py --benchmark-only -n 0"
)
MESHES = int(os.environ.get("OTFEW_MESHES", "100"))
FACES = 5000


def finer(mesh: Mesh, faces: int) -> Mesh:
    """Halve the largest faces at the middle of their longest edge until there are so many."""
    vertices, found = mesh.vertices, mesh.faces
    while len(found) < faces:
        corners = vertices[found]
        sides = np.linalg.norm(corners[:, [1, 2, 0]] - corners[:, [2, 0, 1]], axis=2)
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        halved = np.argsort(-area)[: faces - len(found)]
        # Corner k is opposite the longest edge; the two others meet in the new vertex.
        k = sides[halved].argmax(axis=1)
        old = found[halved]
        top, left, right = (old[np.arange(len(old)), (k + turn) % 3] for turn in range(3))
        middle = len(vertices) + np.arange(len(old))
        vertices = np.concatenate([vertices, (vertices[left] + vertices[right]) / 2])
        kept = np.delete(found, halved, axis=0)
        found = np.concatenate([kept, np.stack([top, left, middle], 1), np.stack([top, middle, right], 1)])
    return Mesh(vertices, found)


def write_off(path: Path, mesh: Mesh) -> None:
    """Write a mesh as ModelNet's are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"OFF\n{len(mesh.vertices)} {len(mesh.faces)} 0"]
    lines += [" ".join(f"{x:.6f}" for x in row) for row in mesh.vertices.tolist()]
    lines += ["3 " + " ".join(map(str, row)) for row in mesh.faces.tolist()]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def made(tmp_path) -> Path:
    """Lay out generated objects, cut into smaller faces, as ModelNet10 is."""
    names = list(objects.CLASSES)
    for number in range(MESHES):
        name = names[number % len(names)]
        mesh = finer(objects.make(name, "benchmark", number), FACES)
        write_off(tmp_path / "ModelNet10" / name / "test" / f"{name}_{number:04d}.off", mesh)
    return tmp_path


def test_rendering_a_folder_of_meshes(made, tmp_path, monkeypatch, benchmark, summarise):
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    least = made / "warm"
    write_off(least / "ModelNet10" / "a" / "test" / "a.off", objects.make("chair", "benchmark", 0))
    load_shapes("modelnet10", least, "test", None)  # compiles
    seen: list[int] = []
    wall, cpu = time.perf_counter(), time.process_time()
    shapes = load_shapes("modelnet10", made, "test", None, seen.append)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert seen[0] == len(shapes) == MESHES
    again = time.process_time()
    load_shapes("modelnet10", made, "test", None)
    again = time.process_time() - again
    found = {
        "meshes": MESHES,
        "faces": FACES,
        "views": shapes.views,
        "pixels": SIDE,
        "cores": len(os.sched_getaffinity(0)),
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(wall, 2),
        "load": round(os.getloadavg()[0], 1),
        "cpu_seconds_when_all_is_there": round(again, 2),
        "cpu_minutes_of_1000": round(cpu / MESHES * 1000 / 60, 2),
        "bytes_a_mesh": round(sum(path.stat().st_size for (path,) in shapes.paths) / MESHES),
    }
    summarise(f"{MESHES} meshes of {FACES:,} faces, {shapes.views} views of {SIDE} px", {"a mesh (CPU)": cpu / MESHES})
    if os.environ.get("OTFEW_RECORD"):
        record = {"command": RECORDED, "versions": versions(), **found}
        Path(os.environ["OTFEW_RECORD"]).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    benchmark.pedantic(lambda: None)
