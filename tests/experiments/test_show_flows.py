"""Places of nodes against pooling and pixels, flows against cv2, pictures by plain loops, letters on real glyphs."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from otfew.data import load as load_images
from otfew.data.preparation import Preparation
from otfew.experiments.show_flows import command as show_flows
from otfew.experiments.show_flows import drawing, pictures
from otfew.experiments.show_flows.drawing import by_class
from otfew.experiments.show_flows.measure import landing, on_target
from otfew.experiments.show_flows.pictures import Candidate, order, region, repaint, with_rest
from otfew.experiments.show_flows.scenes import Scene, covered, look
from otfew.features import material as _material
from otfew.nodes import parse
from otfew.nodes.boxes import map_boxes
from otfew.reporting.flow_picture import ANSWER, RUNNER_UP

pytestmark = pytest.mark.usefixtures("surroundings")
PNG = b"\x89PNG"


def scene(rng, name="x", side=12, cells=3, channels=5):
    boxes = map_boxes(cells, cells, (), side)
    picture = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
    nodes = torch.from_numpy(rng.random((cells * cells, channels))).float()
    return Scene(name, picture, boxes, nodes)


@pytest.mark.parametrize(("size", "levels"), [((5, 5), ()), ((5, 5), (2, 1)), ((7, 4), (3, 2)), ((4, 4), (4,))])
def test_boxes_are_the_cells_that_pooling_averages(size, levels):
    height, width = size
    boxes = map_boxes(height, width, levels, 1)
    # One hot cell at a time: a node sees it if and only if the cell's middle lies in its box.
    hot = torch.eye(height * width).view(-1, 1, 1, height, width)
    nodes = parse(f"fcn:{','.join(map(str, levels))}" if levels else "fcn").nodes(hot)[..., 0]
    y, x = np.divmod(np.arange(height * width), width)
    y, x = (y + 0.5) / height, (x + 0.5) / width
    inside = (boxes[:, 0] < x[:, None]) & (x[:, None] < boxes[:, 2]) & (boxes[:, 1] < y[:, None])
    inside &= y[:, None] < boxes[:, 3]
    np.testing.assert_array_equal(nodes.numpy() > 0, inside)


def test_covered_counts_pixels():
    rng = np.random.default_rng(0)
    low, high = rng.integers(0, 10, (20, 2)), rng.integers(1, 10, (20, 2))
    boxes = np.concatenate([low, low + high], 1).astype(float)
    target = np.array([4.0, 3.0, 12.0, 9.0])
    grid = np.zeros((30, 30))
    grid[3:9, 4:12] = 1
    counted = [grid[int(y0) : int(y1), int(x0) : int(x1)].mean() for x0, y0, x1, y1 in boxes]
    np.testing.assert_allclose(covered(boxes, target), counted)


@pytest.mark.parametrize("spec", ["fcn", "fcn:2", "fcn:2,1,nomap", "grid:2", "sampling:4"])
def test_looking_gives_the_nodes_of_extraction(spec, toy_pictures, toy_backbone):
    images = load_images("image-folder", "test", toy_pictures)
    preparation = Preparation(16)
    seen = look(images.read(3), images.names[3], toy_backbone, parse(spec), preparation)
    from otfew.features.extract import embed

    views = torch.from_numpy(parse(spec).views(images.read(3), preparation, images.names[3]))[None]
    torch.testing.assert_close(seen.nodes, embed(views, toy_backbone, parse(spec))[0])
    assert len(seen.boxes) == len(seen.nodes)
    height, width = seen.picture.shape[:2]
    assert (seen.boxes[:, 2:] > seen.boxes[:, :2]).all()
    assert (seen.boxes.min(), seen.boxes[:, 2].max(), seen.boxes[:, 3].max()) >= (0, 0, 0)
    assert seen.boxes[:, 2].max() <= width
    assert seen.boxes[:, 3].max() <= height


@pytest.mark.parametrize("weights", ["cross_reference", "uniform"])
def test_flow_is_that_of_opencv(weights):
    rng = np.random.default_rng(3)
    a, b = scene(rng), scene(rng)
    flow = drawing.flow_between(a, b, weights, "exact")
    u, v = a.nodes.numpy(), b.nodes.numpy()
    s = np.maximum(u @ v.mean(0), 0) + 1e-3 if weights == "cross_reference" else np.ones(9)
    d = np.maximum(v @ u.mean(0), 0) + 1e-3 if weights == "cross_reference" else np.ones(9)
    s, d = (s / s.sum()).astype(np.float32), (d / d.sum()).astype(np.float32)
    u, v = u - u.mean(1, keepdims=True), v - v.mean(1, keepdims=True)
    cosine = (u / np.linalg.norm(u, axis=1)[:, None]) @ (v / np.linalg.norm(v, axis=1)[:, None]).T
    distance, *_ = cv2.EMD(s[:, None], d[:, None], cv2.DIST_USER, (1 - cosine).astype(np.float32))
    assert flow.similarity == pytest.approx(1 - distance, abs=1e-5)
    np.testing.assert_allclose(flow.plan.sum(1), s, atol=1e-6)
    np.testing.assert_allclose(flow.plan.sum(0), d, atol=1e-6)
    assert (flow.plan * (1 - cosine)).sum() == pytest.approx(distance, abs=1e-5)


def test_repainting_by_loops():
    rng = np.random.default_rng(4)
    a, b = scene(rng), scene(rng)
    plan = rng.random((9, 9)) * (rng.random((9, 9)) < 0.4)
    plan[2] = 0
    for best in (False, True):
        wanted = np.zeros((12, 12, 3))
        for i in range(9):
            for y in range(4):
                for x in range(4):
                    row = plan[i] if not best else plan[i] * (np.arange(9) == plan[i].argmax())
                    for j in range(9):
                        if row.sum() > 0:
                            pixel = b.picture[j // 3 * 4 + y, j % 3 * 4 + x] / 255
                            wanted[i // 3 * 4 + y, i % 3 * 4 + x] += row[j] / row.sum() * pixel
        np.testing.assert_allclose(repaint(a, b, plan, best=best), wanted, atol=1e-6)


def test_the_identity_repaints_the_image_itself():
    a = scene(np.random.default_rng(5))
    np.testing.assert_allclose(repaint(a, a, np.eye(9) / 9), a.picture / 255, atol=1e-6)


def candidate(rng, query, label, name):
    photo = scene(rng, name)
    return Candidate(label, photo, drawing.flow_between(query, photo, "cross_reference", "exact"))


def numbers(figure):
    """Number -> middles of its badges, by row of photos."""
    found = []
    for axes in figure.axes:
        ends = {}
        for text in axes.texts:
            if text.get_bbox_patch() is not None:
                ends.setdefault(int(text.get_text()), []).append(text.xy)
        found.append(ends)
    return found


def lines(axes, colour):
    """Width and ends of each line of a colour, in the order in which they were drawn."""
    from matplotlib.colors import to_hex
    from matplotlib.patches import FancyArrowPatch

    drawn = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    return [one.get_linewidth() for one in drawn if to_hex(one.get_edgecolor()) == colour.lower()]


def words(figure):
    return " ".join(text.get_text() for part in (figure, *figure.axes) for text in part.texts)


def test_every_number_stands_on_both_photos_of_its_flow():
    rng = np.random.default_rng(11)
    query = scene(rng, "query.jpg")
    answer, rival = candidate(rng, query, "Fig", "1.jpg"), candidate(rng, query, "Pear", "2.jpg")
    (found,) = numbers(pictures.draw_answer(query, answer, rival, 4))
    assert sorted(found) == list(range(1, 9))
    lefts = (0, 1 + pictures.GAP, 2 * (1 + pictures.GAP))
    flows = [(one, 0) for one in _largest(answer.flow.plan, 4)] + [(one, 2) for one in _largest(rival.flow.plan, 4)]
    for number, ((i, j), other) in enumerate(flows, 1):
        ends = {(lefts[1] + (i % 3 + 0.5) / 3, 1 - (i // 3 + 0.5) / 3)}
        ends.add((lefts[other] + (j % 3 + 0.5) / 3, 1 - (j // 3 + 0.5) / 3))
        np.testing.assert_allclose(sorted(found[number]), sorted(ends))


def _largest(plan, count):
    places = sorted(np.ndindex(plan.shape), key=lambda at: -plan[at])
    return places[:count]


def test_lines_are_as_wide_as_flows_are_large():
    rng = np.random.default_rng(12)
    query = scene(rng, "query.jpg")
    answer, rival = candidate(rng, query, "Fig", "1.jpg"), candidate(rng, query, "Pear", "2.jpg")
    figure = pictures.draw_answer(query, answer, rival, 4)
    most = max(answer.flow.plan.max(), rival.flow.plan.max())
    for colour, one in ((ANSWER, answer), (RUNNER_UP, rival)):
        masses = [one.flow.plan[at] for at in _largest(one.flow.plan, 4)]
        widths = lines(figure.axes[0], colour)
        assert widths == sorted(widths, reverse=True)
        np.testing.assert_allclose(widths, [max(0.6, 5 * mass / most) for mass in masses])


def test_the_picture_says_names_scores_and_the_mass_that_it_shows():
    rng = np.random.default_rng(13)
    query = scene(rng, "query.jpg")
    answer, rival = candidate(rng, query, "Fig", "1.jpg"), candidate(rng, query, "$Pear_", "2.jpg")
    said = words(pictures.draw_answer(query, answer, rival, 5)).replace("\\$", "$")
    for one in (answer, rival):
        assert f"similarity {one.flow.similarity:.3f}" in said
        together = sum(one.flow.plan[at] for at in _largest(one.flow.plan, 5))
        assert f"to {one.label}, together {100 * together:.0f} %:" in said
        for i, j in _largest(one.flow.plan, 5):
            assert f"{100 * one.flow.plan[i, j]:.1f} at {one.flow.sim[i, j]:.2f}" in said
    assert "query.jpg is taken for Fig" in said
    assert "$Pear_" in said


def test_equal_flows_are_numbered_by_similarity():
    rng = np.random.default_rng(14)
    a, b = scene(rng, "a.jpg"), scene(rng, "b.jpg")
    flow = drawing.flow_between(a, b, "uniform", "exact")
    found = pictures._links(flow, 9, 0, 1)
    similar = [flow.sim[one.start[1], one.end[1]] for one in found]
    assert [one.number for one in found] == list(range(1, 10))
    assert similar == sorted(similar, reverse=True)
    assert "together 100 %" in pictures.listed(found, flow, "equal weights")


def test_rows_of_pairs_are_named_by_their_weights():
    rng = np.random.default_rng(15)
    a, b = scene(rng, "a.jpg"), scene(rng, "b.jpg")
    flows = {name: drawing.flow_between(a, b, name, "exact") for name in ("cross_reference", "uniform")}
    figure = pictures.draw_pairs(a, b, flows, 3)
    assert [sorted(found) for found in numbers(figure)] == [[1, 2, 3], [1, 2, 3]]
    assert all(len(ends) == 2 for found in numbers(figure) for ends in found.values())
    said = words(figure)
    for name, flow in flows.items():
        assert f"{pictures.NAMES[name]}: similarity {flow.similarity:.3f}" in said


def test_the_matrix_holds_all_mass():
    rng = np.random.default_rng(16)
    plan = rng.random((20, 14)) * (rng.random((20, 14)) < 0.3)
    plan /= plan.sum()
    s, d = plan.sum(1), plan.sum(0)
    rows, columns = order(plan, s, d, 6)
    assert set(rows) == set(np.argsort(-s)[:6])
    assert set(columns) == set(np.argsort(-d)[:6])
    assert (np.diff(s[rows]) <= 0).all()
    shown = with_rest(plan, rows, columns)
    np.testing.assert_allclose(shown[:6, :6], plan[rows][:, columns])
    np.testing.assert_allclose(shown.sum(1)[:6], s[rows])
    np.testing.assert_allclose(shown.sum(0)[:6], d[columns])
    assert shown.sum() == pytest.approx(1)
    # A permuted diagonal is a diagonal again, whichever way its columns came.
    turned = np.diag(np.arange(9, 0, -1) / 45)[:, rng.permutation(9)]
    rows, columns = order(turned, turned.sum(1), turned.sum(0), 9)
    np.testing.assert_allclose(turned[rows][:, columns], np.diag(np.arange(9, 0, -1) / 45))


def test_the_matrix_writes_its_numbers():
    rng = np.random.default_rng(17)
    a, b = scene(rng, "a.jpg", cells=4), scene(rng, "b.jpg", cells=4)
    flow = drawing.flow_between(a, b, "cross_reference", "exact")
    said = words(pictures.draw_matrix(a, b, flow))
    rows, columns = order(flow.plan, flow.s, flow.d, pictures.SHOWN)
    for value in 100 * with_rest(flow.plan, rows, columns).ravel():
        assert value < 0.05 or f"{value:.1f}" in said
    assert f"{100 * flow.plan[rows][:, columns].sum():.0f} % of the mass of a.jpg" in said.replace("\n", " ")


def test_regions_are_ninths_of_a_picture():
    assert region(np.array([0, 0, 10, 10]), (100, 200, 3)) == "top left"
    assert region(np.array([90, 40, 110, 60]), (100, 200, 3)) == "middle centre"
    assert region(np.array([180, 90, 200, 100]), (100, 200, 3)) == "bottom right"


def test_the_nearest_photo_stands_for_its_class():
    rng = np.random.default_rng(18)
    query = scene(rng)
    every = [candidate(rng, query, label, str(k)) for k, label in enumerate("aabbcc")]
    nearest = by_class(every)
    best = {label: max((c for c in every if c.label == label), key=lambda c: c.flow.similarity) for label in "abc"}
    assert nearest == sorted(best.values(), key=lambda c: -c.flow.similarity)


def test_landing_by_loops():
    rng = np.random.default_rng(7)
    plan, here, there = rng.random((3, 2, 4, 5)), rng.random((3, 2, 4)), rng.random((3, 2, 5))
    on, share = landing(*map(torch.from_numpy, (plan, here, there)))
    for e in range(3):
        for w in range(2):
            mass = sum(plan[e, w, i, j] * here[e, w, i] for i in range(4) for j in range(5))
            landed = sum(plan[e, w, i, j] * here[e, w, i] * there[e, w, j] for i in range(4) for j in range(5))
            assert on[e, w] == pytest.approx(mass / plan[e, w].sum())
            assert share[e, w] == pytest.approx(landed / mass)


def test_two_files_become_three_pictures(toy_pictures, tmp_path, toy_backbone, finish, monkeypatch, capsys, rendered):
    monkeypatch.setattr(drawing, "load_backbone", lambda spec, trained_on=None: toy_backbone)
    files = [toy_pictures / "test" / "test-0" / f"{i}.png" for i in (0, 1)]
    for nodes in ("fcn", "grid:2"):
        results = finish(show_flows.main, tmp_path / nodes, *files, "--nodes", nodes)
        assert "A = 0.png, B = 1.png" in capsys.readouterr().out
        for weights in ("cross_reference", "uniform"):
            plan = np.array(results["flows"][weights]["plan"])
            np.testing.assert_allclose(plan.sum(1), results["flows"][weights]["query_weights"], atol=1e-6)
        for name in ("flows.png", "full-flows.png", "reconstruction.png"):
            assert (tmp_path / nodes / name).read_bytes().startswith(PNG)
        assert str(tmp_path) not in (tmp_path / nodes / "results.json").read_text()


def test_one_file_beside_the_nearest_labelled_ones(toy_pictures, tmp_path, toy_backbone, finish, monkeypatch, capsys):
    monkeypatch.setattr(drawing, "load_backbone", lambda spec, trained_on=None: toy_backbone)
    image = toy_pictures / "test" / "test-0" / "0.png"
    results = finish(show_flows.main, tmp_path / "run", image, "--labelled", toy_pictures / "test", "--flows", 3)
    # The image is among the labelled ones: nothing is more like it.
    nearest = sorted(results["classes"], key=results["classes"].get, reverse=True)
    assert [results["flows"][key]["label"] for key in ("answer", "runner_up")] == nearest[:2]
    assert nearest[0] == "test-0"
    assert results["flows"]["answer"]["similarity"] == pytest.approx(1, abs=1e-5)
    assert len(results["settings"]["labelled"]) == 96
    assert (tmp_path / "run" / "flows.png").exists()
    assert "nearest photo" in capsys.readouterr().out


@pytest.mark.slow
def test_images_of_a_data_set_by_name_and_number(toy_pictures, tmp_path, toy_backbone, finish):
    given = ["--dataset", "image-folder", "--data-root", toy_pictures, "--solver", "sinkhorn"]
    names = load_images("image-folder", "test", toy_pictures).names
    one = finish(show_flows.main, tmp_path / "one", 5, names[20], *given)
    other = finish(show_flows.main, tmp_path / "other", names[5], 20, *given)
    assert one == other


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "takes two images, not 0"),
        (("a.jpg",), "takes two images, not 1"),
        (("a.jpg", "b.jpg"), "image a.jpg does not exist"),
        (("a.jpg", "b.jpg", "--labelled", "."), "--labelled takes one image to name, not 2"),
        (("a.jpg", "--labelled", ".", "--dataset", "cub"), "--labelled compares files"),
        (("a.jpg", "b.jpg", "--flows", "0"), "--flows must be at least 1, not 0"),
        (("--measure", "--labelled", "."), "draws its own pairs"),
        (("a.jpg", "b.jpg", "--weights", "heavy"), "--weights must be cross_reference or uniform, not 'heavy'"),
        (("a.jpg", "b.jpg", "--weights"), "--weights must name cross_reference, uniform or both"),
        (("a.jpg", "b.jpg", "--nodes", "cells"), "unknown nodes 'cells'"),
        (("a.jpg", "b.jpg", "--solver", "guess"), "--solver"),
        (("--measure", "a.jpg", "b.jpg"), "draws its own pairs"),
        (("--measure", "--pairs", "0"), "--pairs must be at least 1"),
        (("--measure", "--dataset", "cub"), "which 'cub' does not have"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_sentence(arguments, said, refused):
    assert said in refused(show_flows.main, *arguments)


def test_an_image_that_is_not_there(toy_pictures, refused, toy_backbone):
    given = ["--dataset", "image-folder", "--data-root", toy_pictures]
    said = refused(show_flows.main, 0, 96, *given)
    assert "'96' is no image of split 'test'" in said
    assert "0 to 95" in said


def test_where_the_flow_lands_on_glyphs(toy_backbone, tmp_path, finish, capsys):
    results = finish(show_flows.main, tmp_path / "run", "--measure", "--pairs", 60)
    assert "where the flow from the letter lands" in capsys.readouterr().out
    shares, mass = results["shares"], results["mass"]
    # Equal weights: the mass on the letter is its share of the picture's area, and without matching so is what lands.
    images = load_images("glyphs", "test")
    area = ((images.boxes[:, 2] - images.boxes[:, 0]) * (images.boxes[:, 3] - images.boxes[:, 1])).mean() / 64**2
    assert mass["same class, uniform, plan"]["mean"] == pytest.approx(area, rel=0.15)
    assert mass["same class, uniform, plan"] == mass["same class, uniform, product"]
    assert shares["same class, uniform, product"]["mean"] == pytest.approx(area, rel=0.2)
    difference = results["differences"]["same class, plan: cross-reference minus equal weights"]
    gap = shares["same class, cross_reference, plan"]["mean"] - shares["same class, uniform, plan"]["mean"]
    assert difference["mean"] == pytest.approx(gap, abs=1e-7)
    assert len((tmp_path / "run" / "shares.csv").read_text().splitlines()) == 9
    record = json.loads((tmp_path / "run" / "protocol.json").read_text())
    assert record["settings"]["pairs"] == 60


def test_nodes_of_a_glyph_are_on_it_by_area(toy_backbone):

    images = load_images("glyphs", "test")
    material = _material.ImageMaterial(images, toy_backbone, Preparation(16), lambda: images, None)
    inside = on_target(material, "fcn")
    assert inside.shape == (len(images), 16)
    area = (images.boxes[:, 2] - images.boxes[:, 0]) * (images.boxes[:, 3] - images.boxes[:, 1]) / 64**2
    np.testing.assert_allclose(inside.mean(1), area, atol=1e-6)
