"""Patches: boxes against the published recipe in plain loops, draws that depend on the image alone, distributions."""

import itertools
import math

import numpy as np
import pytest
import torch

from otfew import nodes
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.nodes.fcn import FCN
from otfew.nodes.grid import Grid
from otfew.nodes.patches import Patch, cut
from otfew.nodes.sampling import Sampling
from otfew.random.draws import uniforms


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# Feature pyramids.


def plain_pool(feature_map, level):
    """Average (channels, h, w) over level x level parts; part k of n spans floor(k L / n) to ceil((k + 1) L / n)."""
    _, height, width = feature_map.shape
    found = []
    for r in range(level):
        rows = slice(r * height // level, math.ceil((r + 1) * height / level))
        for c in range(level):
            columns = slice(c * width // level, math.ceil((c + 1) * width / level))
            found.append(feature_map[:, rows, columns].mean((1, 2)))
    return found


@pytest.mark.parametrize("levels", [(2, 1), (1,), (3, 2), (5,)])
def test_feature_pyramids_are_averages_of_parts_and_then_the_map(levels):
    maps = torch.randn(3, 1, 4, 5, 6, dtype=torch.float64)
    spec = f"fcn:{','.join(map(str, levels))}"
    found = nodes.parse(spec).nodes(maps).numpy()
    for image, feature_map in zip(found, maps[:, 0].numpy(), strict=True):
        pooled = [node for level in levels for node in plain_pool(feature_map, level)]
        whole = [feature_map[:, y, x] for y in range(5) for x in range(6)]
        np.testing.assert_allclose(image, np.array(pooled + whole), rtol=0, atol=1e-12)


def test_the_published_pyramid_has_thirty_nodes():
    assert nodes.parse("fcn:2,1").nodes(torch.zeros(2, 1, 640, 5, 5)).shape == (2, 30, 640)


@pytest.mark.parametrize("levels", ["1", "3,2,1"])
def test_nomap_leaves_the_map_out_and_nothing_else(levels):
    maps = torch.randn(2, 1, 4, 5, 6)
    found, whole = (nodes.parse(f"fcn:{levels}{end}").nodes(maps) for end in (",nomap", ""))
    assert torch.equal(found, whole[:, :-30])
    assert nodes.parse("fcn:3,2,1,nomap").nodes(maps).shape == (2, 14, 4)
    torch.testing.assert_close(nodes.parse("fcn:1,nomap").nodes(maps)[:, 0], maps.mean((1, 3, 4)))


@pytest.mark.parametrize("shape", [(2, 2), (2, 5), (5, 2)])
def test_a_level_larger_than_the_map_is_refused(shape):
    with pytest.raises(UserError, match=f"level 3 is larger than the backbone's map of {shape[0]} x {shape[1]}"):
        nodes.parse("fcn:1,3").nodes(torch.zeros(1, 1, 4, *shape))


# Grids.


def published_boxes(height, width, size, ratio):
    """Boxes of one grid as the released code cuts them (specification, section on local embeddings)."""
    boxes = []
    for r, c in itertools.product(range(size), range(size)):
        box = []
        for length, k in ((height, r), (width, c)):
            raw = math.floor(length / size)
            big = math.floor(length / size * ratio)
            centre = raw // 2 + k * raw
            box += [max(0, centre - big // 2), min(length, centre + big // 2)]
        boxes.append(tuple(box))
    return boxes


@pytest.mark.parametrize("shape", [(84, 84), (333, 500), (32, 32), (17, 90), (6, 6)])
@pytest.mark.parametrize("sizes", [(2, 3), (5, 3, 2), (1,), (6,)])
def test_grid_boxes_are_those_of_the_published_code(shape, sizes):
    found = Grid(sizes).patches(*shape, "any")
    expected = [box for size in sizes for box in published_boxes(*shape, size, 2.0)]
    assert [patch[:4] for patch in found] == expected
    assert not any(patch.flip for patch in found)
    assert len(found) == Grid(sizes).n_views == sum(size**2 for size in sizes)


def test_a_grid_of_one_cell_is_the_whole_image():
    assert Grid((1,)).patches(30, 41, "any") == [Patch(0, 30, 0, 41)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6])
def test_grids_cover_the_image(size):
    """Of 2 g^2 pixels to a side at least: of fewer, whole-pixel cells may leave some over at the end."""
    for height, width in ((72, 72), (89, 83), (500, 333)):
        seen = np.zeros((height, width), dtype=bool)
        for top, bottom, left, right, _ in Grid((size,)).patches(height, width, "any"):
            seen[top:bottom, left:right] = True
        assert seen.all()


def test_in_training_ratios_are_drawn_once_for_a_grid_and_patches_are_mirrored_at_random():
    ratios, flips = [], []
    for seed in range(300):
        found = Grid((2, 3), training=True, seed=seed).patches(3000, 3000, "bird")
        for size, part in ((2, found[:4]), (3, found[4:])):
            raw = 3000 // size
            # The first patch is cut off by the border: its end tells the ratio.
            ratio = 2 * (part[0].bottom - raw // 2) / raw
            ratios.append(ratio)
            for box, expected in zip(part, published_boxes(3000, 3000, size, ratio), strict=True):
                np.testing.assert_allclose(box[:4], expected, rtol=0, atol=2)
        flips += [patch.flip for patch in found]
    assert min(ratios) >= 0.99
    assert max(ratios) <= 3.01
    assert abs(np.mean(ratios) - 2) < 4 * np.std(ratios) / math.sqrt(len(ratios))
    assert abs(np.mean(flips) - 0.5) < 4 * 0.5 / math.sqrt(len(flips))


def test_training_draws_depend_on_seed_and_image_alone():
    grid = Grid((2, 3), training=True, seed=1)
    assert grid.patches(90, 80, "a") == grid.patches(90, 80, "a")
    assert grid.patches(90, 80, "a") != grid.patches(90, 80, "b")
    assert grid.patches(90, 80, "a") != Grid((2, 3), training=True, seed=2).patches(90, 80, "a")
    # Never mistaken for inference in a cache.
    assert len({grid.spec, Grid((2, 3), training=True, seed=2).spec, Grid((2, 3)).spec}) == 3


@pytest.mark.parametrize("seed", range(20))
def test_training_patches_of_tiny_images_hold_a_pixel(seed):
    for top, bottom, left, right, _ in Grid((3, 4), training=True, seed=seed).patches(4, 5, "tiny"):
        assert 0 <= top < bottom <= 4
        assert 0 <= left < right <= 5


def test_more_cells_than_pixels_are_refused():
    Grid((5,)).patches(5, 9, "any")
    with pytest.raises(UserError, match="6 cells to a side out of an image of 5 x 9 pixels: give grids of at most 5"):
        Grid((2, 6)).patches(5, 9, "any")


# Random crops.


def test_crops_depend_on_seed_and_image_alone_and_are_nested():
    few, many = Sampling(4).patches(70, 90, "a"), Sampling(9).patches(70, 90, "a")
    assert few == many[:4]
    assert len(set(many)) == 9
    assert set(many).isdisjoint(Sampling(9).patches(70, 90, "b"))
    assert set(many).isdisjoint(Sampling(9, seed=1).patches(70, 90, "a"))


def test_without_mirroring_the_boxes_are_the_same():
    mirrored, plain = Sampling(25).patches(70, 90, "a"), Sampling(25, flip=False).patches(70, 90, "a")
    assert [patch[:4] for patch in mirrored] == [patch[:4] for patch in plain]
    assert any(patch.flip for patch in mirrored)
    assert not any(patch.flip for patch in plain)


def simulated_shapes(height, width, n, rng):
    """Rows and columns of random resized crops, drawn with NumPy and thrown away until they fit."""
    found = []
    while len(found) < n:
        area = height * width * rng.uniform(0.08, 1)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        rows, columns = math.sqrt(area / aspect), math.sqrt(area * aspect)
        if rows < height + 0.5 and columns < width + 0.5:
            found.append((rows, columns))
    return np.array(found)


@pytest.mark.parametrize("shape", [(400, 400), (400, 560)])
def test_crops_have_the_published_distribution(shape):
    height, width = shape
    crops = [Sampling(1).patches(height, width, f"image {i}")[0] for i in range(4000)]
    rows = np.array([c.bottom - c.top for c in crops])
    columns = np.array([c.right - c.left for c in crops])
    assert all(0 <= c.top < c.bottom <= height and 0 <= c.left < c.right <= width for c in crops)
    expected = simulated_shapes(height, width, 4000, np.random.default_rng(0))
    for ours, theirs in (
        (rows, expected[:, 0]),
        (columns, expected[:, 1]),
        (np.log(columns / rows), np.log(expected[:, 1] / expected[:, 0])),
        (rows * columns, expected.prod(1)),
    ):
        error = math.hypot(ours.std(), theirs.std()) / math.sqrt(4000)
        assert abs(ours.mean() - theirs.mean()) < 4 * error
        assert ours.std() == pytest.approx(theirs.std(), rel=0.06)
    # Places are uniform among those that hold the crop.
    for start, room in (([c.top for c in crops], height - rows), ([c.left for c in crops], width - columns)):
        share = ((np.array(start) + 0.5) / (room + 1))[room > 20]
        assert abs(share.mean() - 0.5) < 4 * share.std() / math.sqrt(len(share))
    assert abs(np.mean([c.flip for c in crops]) - 0.5) < 4 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((10, 1000), (0, 10, 493, 507)), ((1000, 10), (493, 507, 0, 10)), ((1, 1), (0, 1, 0, 1))],
)
def test_images_too_narrow_for_random_crops_give_their_middle(shape, expected):
    (height, width), (top, bottom, left, right) = shape, expected
    found = Sampling(30).patches(height, width, "narrow")
    assert all(0 <= p.top < p.bottom <= height and 0 <= p.left < p.right <= width for p in found)
    # At most 13 x 10 of 10,000 pixels: no attempt can reach 8 % of the area.
    middle = Patch(top, bottom, left, right)
    assert all(abs(a - b) <= 1 for patch in found for a, b in zip(patch[:4], middle[:4], strict=True))


def test_draws_are_uniform_and_independent_of_each_other():
    rows = np.array([list(itertools.islice(uniforms("x", k), 40)) for k in range(2000)])
    assert ((rows >= 0) & (rows < 1)).all()
    assert np.abs(rows.mean(0) - 0.5).max() < 5 / math.sqrt(12 * 2000)
    off_diagonal = np.corrcoef(rows.T) - np.eye(40)
    assert np.abs(off_diagonal).max() < 5 / math.sqrt(2000)


def test_draws_are_pinned():
    """Caches and reports rest on them: they may not change between versions."""
    expected = [Patch(2, 42, 13, 61, flip=True), Patch(16, 58, 0, 49)]
    assert Sampling(2).patches(60, 80, "test/0") == expected


# Cutting.


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_patches_are_cut_mirrored_and_resized(dtype):
    image = picture(40, 50).astype(dtype)
    views = cut(image, [Patch(0, 8, 2, 10), Patch(5, 13, 7, 15, flip=True), Patch(0, 40, 0, 50)], 8)
    assert views.dtype == dtype
    np.testing.assert_array_equal(views[0], image[:8, 2:10])
    np.testing.assert_array_equal(views[1], image[5:13, 7:15][:, ::-1])
    assert abs(float(views[2].mean()) - float(image.mean())) < 2


@pytest.mark.parametrize("spec", ["grid:2,3", "sampling:5"])
def test_patches_come_from_the_whole_image_whatever_the_crop(spec):
    extractor = nodes.parse(spec)
    image = picture(40, 50)
    plain, cropped = (extractor.views(image, Preparation(8, crop), "a") for crop in ("none", "center"))
    np.testing.assert_array_equal(plain, cropped)
    assert plain.shape == (extractor.n_views, 8, 8, 3)


def test_a_node_is_the_average_of_a_patch():
    maps = torch.randn(2, 13, 4, 3, 5, dtype=torch.float64)
    found = nodes.parse("grid:2,3").nodes(maps)
    for i in range(2):
        for p in range(13):
            for c in range(4):
                assert float(found[i, p, c]) == pytest.approx(float(np.mean(maps[i, p, c].numpy())))


# Specifications.


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("fcn", FCN()),
        ("fcn:2,1", FCN((2, 1))),
        ("fcn:3,2,1,nomap", FCN((3, 2, 1), with_map=False)),
        ("grid:2,3", Grid((2, 3))),
        ("grid:5,3,2", Grid((5, 3, 2))),
        ("sampling:9", Sampling(9)),
        ("sampling:25,seed=7", Sampling(25, seed=7)),
        ("sampling:16,seed=2,noflip", Sampling(16, seed=2, flip=False)),
    ],
)
def test_specifications_are_read_and_written(spec, expected):
    assert nodes.parse(spec) == expected
    assert nodes.parse(spec).spec == spec


def test_specifications_have_one_form():
    assert nodes.parse("sampling:09,noflip,seed=0").spec == "sampling:9,noflip"
    assert nodes.parse("grid:02,3").spec == "grid:2,3"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("grids:2,3", "unknown nodes"),
        ("Grid:2", "unknown nodes"),
        ("", "unknown nodes"),
        ("fcn:", "nothing follows"),
        ("grid:", "nothing follows"),
        ("grid", "number is missing"),
        ("sampling", "number is missing"),
        ("grid:2,", "number is missing"),
        ("grid:2,,3", "number is missing"),
        ("grid:0", "'0' is not a whole number"),
        ("grid:2,0", "'0' is not a whole number"),
        ("grid:-2", "'-2' is not a whole number"),
        ("grid:2.5", "'2.5' is not a whole number"),
        ("grid:2 3", "'2 3' is not a whole number"),
        ("grid:2;3", "'2;3' is not a whole number"),
        ("grid:²", "is not a whole number"),
        ("grid:99999", "is not a whole number"),
        ("grid:" + "9" * 5000, "is not a whole number"),
        ("grid:2,2", "2 stands there twice"),
        ("grid:40", "1,600 patches of each image: ask for at most 1,000"),
        ("grid:20,30", "1,300 patches"),
        ("fcn:0", "'0' is not a whole number"),
        ("fcn:2,2", "stands there twice"),
        ("fcn:x", "'x' is not a whole number"),
        ("fcn:9999", "at most 1,000"),
        ("fcn:nomap", "are none: name the levels"),
        ("fcn:nomap,2", "'nomap' is not a whole number"),
        ("sampling:0", "'0' is not a whole number"),
        ("sampling:nine", "'nine' is not a whole number"),
        ("sampling:9,16", "'16' cannot follow"),
        ("sampling:9,seed=x", "'seed=x' cannot follow"),
        ("sampling:9,", "'' cannot follow"),
        ("sampling:1001", "1,001 patches"),
    ],
)
def test_malformed_specifications_are_refused_in_one_sentence(spec, said):
    with pytest.raises(UserError) as caught:
        nodes.parse(spec)
    assert said in str(caught.value)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
