"""Views and line drawings against what geometry says that is seen."""

import numpy as np
import pytest

from otfew.data.shapes.cameras import around, dodecahedron, frame
from otfew.data.shapes.drawing import lines, sketch
from otfew.data.shapes.mesh import Mesh
from otfew.data.shapes.objects import CLASSES, make
from otfew.data.shapes.render import DISTANCE, FILLED, PAPER, look, render
from otfew.data.shapes.solids import box, cylinder, ellipsoid, tube


def test_twelve_cameras_at_thirty_degrees_and_twenty_at_the_corners_of_a_dodecahedron():
    twelve, twenty = around(), dodecahedron()
    assert np.linalg.norm(twelve, axis=1) == pytest.approx(1)
    assert np.rad2deg(np.arcsin(twelve[:, 2])) == pytest.approx(30)
    assert np.rad2deg(np.arctan2(twelve[:, 1], twelve[:, 0]) - np.arctan2(-1, 0)) % 360 == pytest.approx(
        np.arange(12) * 30.0
    )
    assert len(twenty) == 20
    assert np.linalg.norm(twenty, axis=1) == pytest.approx(1)
    # Each corner has three neighbours, whose angle is that of the edges of a dodecahedron.
    cosines = twenty @ twenty.T
    assert (np.isclose(cosines, 5**0.5 / 3).sum(axis=1) == 3).all()


@pytest.mark.parametrize("direction", [*around(3), np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.0, -1.0])])
def test_a_camera_looks_along_its_direction_and_sees_up_as_up(direction):
    turned = frame(direction)
    assert turned @ turned.T == pytest.approx(np.eye(3))
    assert np.linalg.det(turned) == pytest.approx(1)
    assert turned @ direction == pytest.approx([0, 0, 1])
    assert (turned @ [0, 0, 1])[1] >= 0


def test_the_nearest_triangle_is_seen_where_a_plain_search_sees_it():
    rng = np.random.default_rng(0)
    mesh = Mesh(rng.uniform(-0.6, 0.6, (60, 3)), rng.integers(0, 60, (40, 3)))
    direction, side = around(12)[2], 20
    seen = look(mesh, direction, side)
    camera = direction * DISTANCE
    right, up, towards = frame(direction)
    scale = FILLED * side / 2 * np.sqrt(DISTANCE**2 - 1)
    corners = mesh.vertices[mesh.faces]
    for i in range(side):
        for j in range(side):
            ray = right * (j - (side - 1) / 2) / scale - up * (i - (side - 1) / 2) / scale - towards
            first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
            # Möller and Trumbore's test of a ray against all triangles.
            across = np.cross(ray, second)
            determinant = (first * across).sum(1)
            with np.errstate(divide="ignore", invalid="ignore"):
                start = camera - corners[:, 0]
                u = (start * across).sum(1) / determinant
                other = np.cross(start, first)
                v, far = (other @ ray) / determinant, (second * other).sum(1) / determinant
                clear = np.minimum(np.minimum(u, v), 1 - u - v)
            far = np.where(clear >= 0, far, np.inf)
            if (np.abs(clear[np.isfinite(clear)]) < 1e-9).any():
                continue
            if np.isfinite(far).any():
                assert seen.owner[i, j] == far.argmin()
                assert 1 / seen.nearness[i, j] == pytest.approx(far.min(), rel=1e-5)
            else:
                assert seen.owner[i, j] == -1


def test_a_ball_is_a_disc_that_fills_the_picture_brightest_in_its_middle():
    image = render(ellipsoid(1, 1, 1), around()[0], 100)[..., 0]
    inside = image < PAPER
    rows, columns = np.nonzero(inside)
    distance = np.hypot(rows - 49.5, columns - 49.5)
    assert distance.max() == pytest.approx(FILLED * 50, abs=1.5)
    # Facets lie a little within the ball.
    assert inside.sum() == pytest.approx(np.pi * (FILLED * 50) ** 2, rel=0.03)
    away = np.hypot(*np.indices(image.shape) - 49.5)
    assert image[away < 3].min() > image[(away > 40) & (away < 44)].max()


def test_a_flat_face_is_as_bright_as_it_is_turned_to_the_camera():
    square = Mesh(
        np.array([[-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]]), np.array([[0, 1, 2], [0, 2, 3]])
    )
    frontal = render(square, np.array([0.0, -1, 0]), 32)[16, 16, 0]
    behind = render(square, np.array([0.0, 1, 0]), 32)[16, 16, 0]
    slanted = render(square, around(1, 60.0)[0], 32)[16, 16, 0]
    assert frontal == behind == 225
    assert slanted == round(45 + 180 * 0.5)


def test_a_drawing_of_a_box_is_its_visible_edges_and_no_diagonal():
    cube, direction, side = box(1, 1, 1).moved(0, 0, -0.5), around(1, 30.0, 30.0)[0], 200
    found = lines(look(cube, direction, side))
    right, up, towards = frame(direction)
    scale = FILLED * side / 2 * np.sqrt(DISTANCE**2 - 1)

    def at(point):
        near = 1 / (DISTANCE - point @ towards)
        return (side - 1) / 2 + scale * (point @ right) * near, (side - 1) / 2 - scale * (point @ up) * near

    corners = cube.vertices
    hidden = (corners @ direction).argmin()
    edges = [
        (a, b) for a in range(8) for b in range(a) if (corners[a] != corners[b]).sum() == 1 and hidden not in (a, b)
    ]
    assert len(edges) == 9
    near_an_edge = np.zeros_like(found)
    for a, b in edges:
        points = [at(corners[a] + (corners[b] - corners[a]) * s) for s in np.linspace(0.02, 0.98, 400)]
        covered = 0
        for x, y in points:
            window = (slice(int(y) - 2, int(y) + 4), slice(int(x) - 2, int(x) + 4))
            near_an_edge[window] = True
            covered += found[window].any()
        assert covered == len(points)
    assert not (found & ~near_an_edge)[5:-5, 5:-5].any()


def test_round_parts_are_drawn_by_their_outline_alone():
    found = lines(look(ellipsoid(0.9, 0.9, 0.9), around(1, 0.0)[0], 200))
    rows, columns = np.nonzero(found)
    assert np.hypot(rows - 99.5, columns - 99.5).min() > 70
    rim = lines(look(cylinder(0.6, 1.0).moved(0, 0, -0.5), around(1, 30.0)[0], 200))
    assert rim.sum() > found.sum() * 0.5


def test_a_hand_draws_the_same_lines_the_same_way_and_others_otherwise():
    mesh = make("chair", "train", 0)
    one, again, other = (sketch(mesh, around()[1], 64, "chair", number) for number in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()
    assert 0.02 < (one < 128).mean() < 0.4


def test_tubes_are_as_thick_as_they_are_told():
    bent = tube([(0, 0, 0), (0.5, 0, 0.2), (1, 0.3, 0.2)], 0.1, sides=12)
    middle = bent.vertices[24:36]
    assert np.linalg.norm(middle - [0.5, 0, 0.2], axis=1) == pytest.approx(0.1)


@pytest.mark.parametrize("name", CLASSES)
def test_objects_are_sound_alike_each_time_and_unlike_each_other(name):
    from otfew.data.shapes.mesh import check

    first, again, other = make(name, "train", 0), make(name, "train", 0), make(name, "train", 1)
    for mesh in (first, other):
        check(mesh)
        used = mesh.vertices[np.unique(mesh.faces)]
        assert np.linalg.norm(used, axis=1).max() == pytest.approx(1)
    assert (first.vertices == again.vertices).all()
    assert first.vertices.shape != other.vertices.shape or (first.vertices != other.vertices).any()


def test_there_are_at_least_twenty_classes():
    assert len(CLASSES) >= 20
