"""Meshes from OFF files, sound and unsound."""

import numpy as np
import pytest

from otfew.data.shapes.mesh import MOST_FACES, Mesh, check, in_unit_ball, joined
from otfew.data.shapes.off_files import read_off
from otfew.errors import UserError

pytest.importorskip("trimesh")

TETRAHEDRON = "0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"


@pytest.mark.parametrize(
    "head",
    ["OFF\n4 4 6\n", "OFF4 4 6\n", "OFF 4 4 6\n", "off\n4 4 0\n", "\ufeffOFF\n4 4 6\n", "OFF\n# a comment\n4 4 6\n\n"],
)
def test_headers_as_publishers_write_them(tmp_path, head):
    path = tmp_path / "mesh.off"
    path.write_text(head + TETRAHEDRON, encoding="utf-8")
    mesh = read_off(path)
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]


def test_quadrangles_become_triangles_of_the_same_area(tmp_path):
    path = tmp_path / "square.off"
    path.write_text("OFF\n4 1 0\n0 0 0\n2 0 0\n2 3 0\n0 3 0\n4 0 1 2 3\n")
    corners = (mesh := read_off(path)).vertices[mesh.faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    assert len(areas) == 2
    assert areas.sum() == 6


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no OFF file"),
        ("solid cube\nfacet normal 0 0 1\n", "is no OFF file"),
        ("OFF\n0 0 0\n", "is empty: it has 0 vertices and 0 faces"),
        ("OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "is empty"),
        ("OFF\n3 1 0\n0 0 0\n1 nan 0\n0 1 0\n3 0 1 2\n", "a coordinate that is NaN or infinite"),
        ("OFF\n3 1 0\n0 0 0\n1 inf 0\n0 1 0\n3 0 1 2\n", "a coordinate that is NaN or infinite"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n", "outside the range of its vertices"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 -1\n", "outside the range of its vertices"),
        ("OFF\n3 1 0\n5 5 5\n5 5 5\n5 5 5\n3 0 1 2\n", "has no extent"),
        ("OFF\n4 4 6\n0 0 0\n1 0 0\n", "is damaged"),
        ("OFF\n3 1 0\n0 0 0\n1 x 0\n0 1 0\n3 0 1 2\n", "is damaged"),
        ("OFF\n8000000 10000000 0\n0 0 0\n", "has 10,000,000 faces, more than 2,000,000: thin it out first"),
    ],
)
def test_bad_meshes_are_named(tmp_path, content, said):
    path = tmp_path / "bad.off"
    path.write_text(content)
    with pytest.raises(UserError, match=said) as error:
        read_off(path)
    assert str(error.value).startswith(f"{path} ")


def test_a_missing_corner_and_a_flood_of_faces_are_refused_without_a_file():
    with pytest.raises(UserError, match="face \\(1\\) beyond its 3 vertices"):
        check(Mesh(np.eye(3), np.array([[0, 1, 2], [0, 1, 3]])))
    with pytest.raises(UserError, match="more than"):
        check(Mesh(np.eye(3), np.zeros((MOST_FACES + 1, 3), dtype=np.int64)))


def test_the_unit_ball_ignores_vertices_that_no_face_uses():
    mesh = Mesh(np.array([[1.0, 1, 1], [3, 1, 1], [1, 2, 1], [900, 900, 900]]), np.array([[0, 1, 2]]))
    inside = in_unit_ball(mesh)
    used = inside.vertices[:3]
    assert np.linalg.norm(used, axis=1).max() == pytest.approx(1)
    assert used.min(axis=0) + used.max(axis=0) == pytest.approx(0)


def test_joining_keeps_each_face_with_its_vertices():
    one, two = Mesh(np.eye(3), np.array([[0, 1, 2]])), Mesh(2 * np.eye(3), np.array([[2, 1, 0]]))
    both = joined(one, two)
    assert (both.vertices[both.faces[1]] == two.vertices[two.faces[0]]).all()
