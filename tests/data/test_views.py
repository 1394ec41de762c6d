import numpy as np
import pytest

from otfew.data.views import load_views
from otfew.errors import UserError


def layouts(root, write, views=12):
    """Write the same four shapes three ways; a view's grey is its number."""
    for split in ("train", "test"):
        for name, shape in (
            ("chair", "chair_0001"),
            ("chair", "chair_0002"),
            ("lamp", "lamp_0001"),
            ("lamp", "lamp_2"),
        ):
            for v in range(1, views + 1):
                grey = np.full((4, 4, 3), v, np.uint8)
                write(root / "folders" / split / name / shape / f"{v}.png", grey)
                write(root / "above" / split / name / f"{shape}.obj.shaded_v{v:03d}.png", grey)
                write(root / "below" / name / split / f"{shape}_{v:03d}.png", grey)


def test_three_layouts_hold_the_same_shapes(tmp_path, write):
    layouts(tmp_path, write)
    for layout, ending in (("folders", ""), ("above", ".obj"), ("below", "")):
        shapes = load_views(tmp_path / layout, "test")
        assert shapes.classes == ("chair", "lamp")
        assert shapes.labels.tolist() == [0, 0, 1, 1]
        assert shapes.names == tuple(f"{name}{ending}" for name in (
            "chair/chair_0001", "chair/chair_0002", "lamp/lamp_0001", "lamp/lamp_2"))  # fmt: skip
        assert [view[0, 0, 0] for view in shapes.read(1)] == list(range(1, 13))


def test_fewer_views_are_evenly_spaced(tmp_path, write):
    layouts(tmp_path, write)
    for views, expected in ((4, [1, 4, 7, 10]), (1, [1]), (12, list(range(1, 13)))):
        shapes = load_views(tmp_path / "folders", "train", views)
        assert shapes.views == views
        assert [view[0, 0, 0] for view in shapes.read(0)] == expected


def test_bad_input(tmp_path, write):
    layouts(tmp_path, write, views=3)
    (tmp_path / "folders" / "test" / "lamp" / "lamp_2" / "2.png").unlink()
    for root, split, views, message in (
        (tmp_path / "no", "test", None, "is not there"),
        (tmp_path / "folders", "tset", None, "unknown split 'tset'"),
        (tmp_path / "folders", "val", None, "holds no shapes of the split val: it needs val/CLASS/ or CLASS/val/"),
        (tmp_path / "folders", "test", None, "shape lamp/lamp_2 has 2 views where 3 are needed"),
        (tmp_path / "folders", "test", 5, "shape chair/chair_0001 has 3 views where 5 are needed: choose fewer"),
        (tmp_path / "folders", "test", 0, "at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            load_views(root, split, views)
    write(tmp_path / "above" / "test" / "chair" / "plain.png")
    with pytest.raises(UserError, match=r"plain\.png has no number of a view"):
        load_views(tmp_path / "above", "test")
