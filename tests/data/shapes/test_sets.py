"""Sets of shapes: publishers' folders, views kept on disk, bad meshes named."""

import cv2
import numpy as np
import pytest

from otfew.data.shapes import generated, objects
from otfew.data.shapes.cameras import around
from otfew.data.shapes.layouts import has_views, modelnet, read_classes, shrec, sketches
from otfew.data.shapes.rendering import render_all
from otfew.errors import UserError

pytest.importorskip("trimesh")

TETRAHEDRON = "OFF\n4 4 6\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"
BAD = "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def meshes(tmp_path):
    for name in ("chair", "night_stand"):
        for split, count in (("train", 3), ("test", 1)):
            for number in range(count):
                text = TETRAHEDRON.replace("OFF\n", "OFF") if number == 1 else TETRAHEDRON
                write(tmp_path / "ModelNet10" / name / split / f"{name}_{number:04d}.off", text)
    return tmp_path


def test_modelnet_as_it_is_distributed_is_rendered_once(meshes):
    found = modelnet(meshes, "modelnet10", "train")
    assert found.classes == ("chair", "night_stand")
    assert [solid.name for solid in found.solids][:2] == ["chair/chair_0000", "chair/chair_0001"]
    counts = []
    shapes = render_all(found.solids, found.classes, meshes / "views", around(), 24, 3, counts.append)
    assert counts == [6, *[0] * 6]
    assert (shapes.views, len(shapes), shapes.labels.tolist()) == (3, 6, [0, 0, 0, 1, 1, 1])
    views = shapes.read(1)
    assert [view.shape for view in views] == [(24, 24, 3)] * 3
    whole = render_all(found.solids, found.classes, meshes / "views", around(), 24)
    assert (whole.read(1)[4] == views[1]).all()
    assert all((one == two).all() for one, two in zip(shapes.read(0), shapes.read(3), strict=True))
    stamps = {path: path.stat().st_mtime_ns for path in (meshes / "views").rglob("*.png")}
    gone = next(iter(stamps))
    gone.unlink()
    render_all(found.solids, found.classes, meshes / "views", around(), 24)
    assert {path for path in stamps if path.stat().st_mtime_ns != stamps[path]} <= {gone}
    # The folder itself serves as well as the one above it.
    assert modelnet(meshes / "ModelNet10", "modelnet10", "test").classes == found.classes
    assert not has_views(meshes, "modelnet10")


def test_a_replaced_mesh_is_rendered_anew(meshes):
    path = meshes / "ModelNet10" / "chair" / "test" / "chair_0000.off"
    before = modelnet(meshes, "modelnet10", "test").solids[0].stamp
    path.write_text(TETRAHEDRON.replace("0 0 1\n", "0 0 2\n", 1))
    assert modelnet(meshes, "modelnet10", "test").solids[0].stamp != before


def test_bad_meshes_are_skipped_and_named_unless_they_are_all_of_a_class(meshes):
    bad = meshes / "ModelNet10" / "chair" / "train" / "chair_0001.off"
    bad.write_text(BAD)
    found = modelnet(meshes, "modelnet10", "train")
    shapes = render_all(found.solids, found.classes, meshes / "views", around(), 16)
    assert len(shapes) == 5
    (sentence,) = shapes.skipped
    assert sentence.startswith("chair/chair_0001 is damaged")
    # The class and the name, which are the same on every machine: they are part of a run's identity.
    assert shapes.notes == (f"1 of 6 meshes can't be rendered and are left out: {sentence.rstrip('.')}",)
    assert str(meshes) not in sentence
    for path in bad.parent.iterdir():
        path.write_text(BAD)
    found = modelnet(meshes, "modelnet10", "train")
    with pytest.raises(UserError, match="no mesh of the class 'chair' can be rendered"):
        render_all(found.solids, found.classes, meshes / "views", around(), 16)


def test_a_disk_that_takes_nothing_is_not_taken_for_a_bad_mesh(meshes):
    found = modelnet(meshes, "modelnet10", "train")
    (meshes / "views").write_text("a file in the folder's place")
    with pytest.raises(UserError, match="cannot write"):
        render_all(found.solids, found.classes, meshes / "views", around(), 16)


@pytest.mark.parametrize("views", [0, 13])
def test_no_more_views_than_there_are(meshes, views):
    found = modelnet(meshes, "modelnet10", "train")
    with pytest.raises(UserError, match="between 1 and 12"):
        render_all(found.solids, found.classes, meshes / "views", around(), 16, views)


def test_modelnet_folders_that_are_not(tmp_path, meshes):
    with pytest.raises(UserError, match="is not there"):
        modelnet(tmp_path / "no", "modelnet10", "train")
    with pytest.raises(UserError, match="holds no CLASS/val"):
        modelnet(meshes, "modelnet10", "val")
    for path in (meshes / "ModelNet10" / "chair" / "test").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"chair/test holds no \.off file"):
        modelnet(meshes, "modelnet10", "test")


def test_views_in_the_place_of_meshes_are_recognised(tmp_path):
    path = tmp_path / "chair" / "train" / "chair_0001_001.png"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.zeros((4, 4, 3)))
    assert has_views(tmp_path, "modelnet40")


CLASSES = "PSB 1\n3 3\n\nanimal 0 0\n\nant animal 2\n1\n2\n\nbridge 0 1\nM000003\n"


@pytest.fixture
def contest(tmp_path):
    write(tmp_path / "models" / "SHREC.cla", CLASSES)
    for name in ("m1", "m2", "M000003"):
        write(tmp_path / "models" / "off" / f"{name}.off", TETRAHEDRON)
    for name in ("ant", "bridge"):
        for split in ("train", "test"):
            path = tmp_path / "sketches" / name / split / "7.png"
            path.parent.mkdir(parents=True)
            cv2.imwrite(str(path), np.full((8, 8, 3), 255))
    return tmp_path


def test_shrec_shapes_by_their_class_file_and_sketches_by_their_folders(contest):
    found = shrec(contest)
    assert found.classes == ("ant", "bridge")
    assert [solid.name for solid in found.solids] == ["ant/m1", "ant/m2", "bridge/M000003"]
    drawn = sketches(contest, "shrec14", "test")
    assert drawn.classes == found.classes
    assert drawn.names == ("ant/test/7.png", "bridge/test/7.png")


def test_shrec_folders_that_are_not(contest, tmp_path):
    path = contest / "models" / "SHREC.cla"
    (contest / "models" / "off" / "m2.off").unlink()
    with pytest.raises(UserError, match="names the shape '2' of 'ant'"):
        shrec(contest)
    path.write_text(CLASSES[:40])
    with pytest.raises(UserError, match="cut off or damaged"):
        read_classes(path)
    path.write_text("no classes")
    with pytest.raises(UserError, match="should begin with PSB 1"):
        read_classes(path)
    path.unlink()
    with pytest.raises(UserError, match="holds no class file"):
        shrec(contest)
    with pytest.raises(UserError, match="holds no sketches of the split val"):
        sketches(contest, "shrec14", "val")


def test_the_generated_set_renders_its_objects_and_draws_others(monkeypatch, tmp_path):
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path))
    monkeypatch.setattr(generated, "OBJECTS", {"train": 1, "val": 1, "test": 1})
    monkeypatch.setattr(generated, "SIDE", 24)
    monkeypatch.setattr(objects, "CLASSES", {name: objects.CLASSES[name] for name in ("cup", "fir", "sword", "table")})
    shapes, drawn = generated.load_shapes("train", 2), generated.load_sketches("train")
    assert shapes.classes == drawn.classes
    assert (len(shapes), shapes.views, len(drawn)) == (len(shapes.classes), 2, len(shapes.classes))
    assert (drawn.read(3) == drawn.read(3)).all()
    assert drawn.read(3).shape == (24, 24, 3)
    assert generated.load_shapes("test", 2).digest != shapes.digest
    assert "never evidence" in drawn.notes[0]
