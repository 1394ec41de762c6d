"""Publishers' folders of shapes and sketches through the command, whole and damaged; each refusal is one line."""

from __future__ import annotations

import json
import shutil

import cv2
import pytest

from otfew.data.shapes.cameras import around
from otfew.data.shapes.drawing import sketch
from otfew.data.shapes.mesh import in_unit_ball
from otfew.data.shapes.objects import make
from otfew.data.shapes.render import views
from otfew.experiments.metric_learning import command as metric_learning

pytestmark = pytest.mark.slow

pytest.importorskip("trimesh")

CLASSES = ("cup", "table")
RUN = (
    "--views 2 --resolution 16 --head 8 --batch-size 4 --seeds 1 --epochs 1 --threads 1 --device cpu --losses all-pairs"
)
NAN = "OFF\n3 1 0\n0 0 0\n1 nan 0\n0 1 0\n3 0 1 2\n"
BEYOND = "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n"
EMPTY = "OFF\n0 0 0\n"
HUGE = "OFF\n8000000 10000000 0\n"


def write_off(path, name, number):
    """Write an object as publishers do; every other header has its counts on the first line, as in ModelNet40."""
    mesh = make(name, "folder", number)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"OFF{'' if number % 2 else chr(10)}{len(mesh.vertices)} {len(mesh.faces)} 0"]
    lines += [" ".join(f"{x:.5f}" for x in row) for row in mesh.vertices]
    lines += ["3 " + " ".join(map(str, row)) for row in mesh.faces]
    path.write_text("\n".join(lines) + "\n")


def write_png(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])


@pytest.fixture
def modelnet(tmp_path, monkeypatch):
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    for name in CLASSES:
        for number in range(7):
            split = "train" if number < 5 else "test"
            write_off(tmp_path / "data" / "ModelNet10" / name / split / f"{name}_{number:04d}.off", name, number)
    return tmp_path / "data"


@pytest.fixture
def rendered(tmp_path):
    """Views as the MVCNN line of work distributes them."""
    for name in CLASSES:
        for number in range(7):
            split = "train" if number < 5 else "test"
            mesh = in_unit_ball(make(name, "folder", number))
            for view, image in enumerate(views(mesh, around(3), 24)):
                write_png(
                    tmp_path / "data" / name / split / f"{name}_{number:04d}.obj.shaded_v{view + 1:03d}.png", image
                )
    return tmp_path / "data"


@pytest.fixture
def shrec(tmp_path, monkeypatch):
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    root, number, listed = tmp_path / "data", 0, []
    for name in CLASSES:
        listed.append(f"\n{name} 0 4\n")
        for _ in range(4):
            write_off(root / "models" / f"M{number:06d}.off", name, number)
            listed.append(f"{number:06d}\n")
            number += 1
        for split, count in (("train", 5), ("test", 2)):
            for each in range(count):
                drawn = sketch(make(name, split, each), around(1, 20, 15)[0], 48, name, split, each)
                write_png(root / "sketches" / name / split / f"{each}.png", drawn)
    (root / "models" / "SHREC13_SBR_Model.cla").write_text(f"PSB 1\n{len(CLASSES)} {number}\n{''.join(listed)}")
    return root


def words(dataset, root, output, *more):
    return ["--dataset", dataset, "--data-root", str(root), *RUN.split(), *map(str, more), "--output", str(output)]


def ran(dataset, root, output, *more):
    metric_learning.main(words(dataset, root, output, *more))
    return json.loads((output / "results.json").read_text())["protocol"]


def test_modelnet_as_it_is_distributed(modelnet, tmp_path):
    protocol = ran("modelnet10", modelnet, tmp_path / "run")
    assert protocol["images"] == {"train": [10], "test": [4]}
    assert protocol["notes"] == []


def test_views_as_the_mvcnn_line_of_work_distributes_them(rendered, tmp_path):
    protocol = ran("modelnet40", rendered, tmp_path / "run")
    assert protocol["images"] == {"train": [10], "test": [4]}


def test_shrec_sketches_ask_for_its_shapes(shrec, tmp_path):
    protocol = ran("shrec13", shrec, tmp_path / "run", "--query-modality", "sketch")
    assert protocol["images"] == {"train": [8, 10], "test": [8, 4]}
    assert any("one gallery" in note or "trained on as well" in note for note in protocol["notes"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (NAN, "cup/cup_0002 has a coordinate that is NaN or infinite"),
        (BEYOND, "cup/cup_0002 is damaged: "),
        (EMPTY, "cup/cup_0002 is empty: it has 0 vertices and 0 faces"),
        (HUGE, "cup/cup_0002 has 10,000,000 faces, more than 2,000,000: thin it out first"),
        ("", "cup/cup_0002 is no OFF file"),
    ],
)
def test_a_bad_mesh_is_left_out_and_named(modelnet, tmp_path, capsys, content, said):
    (modelnet / "ModelNet10" / "cup" / "train" / "cup_0002.off").write_text(content)
    protocol = ran("modelnet10", modelnet, tmp_path / "run")
    assert protocol["images"]["train"] == [9]
    (note,) = protocol["notes"]
    assert note.startswith(f"1 of 10 meshes can't be rendered and are left out: {said}")
    assert said in " ".join(capsys.readouterr().out.split())
    # Runs on the same shapes are one run, wherever the folder lies.
    assert str(tmp_path) not in json.dumps(protocol)


def test_a_class_of_bad_meshes_is_refused(modelnet, tmp_path, refused):
    for path in (modelnet / "ModelNet10" / "cup" / "test").iterdir():
        path.write_text(NAN)
    said = refused(metric_learning.main, *words("modelnet10", modelnet, tmp_path / "run"))
    assert "no mesh of the class 'cup' can be rendered; the first of all: cup/cup_0005 has a coordinate" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("folder", ["sketches", "models"])
def test_a_class_in_one_modality_only_is_refused_before_anything_is_rendered(shrec, tmp_path, refused, folder):
    if folder == "sketches":
        shutil.rmtree(shrec / "sketches" / "table")
    else:
        shutil.copytree(shrec / "sketches" / "table", shrec / "sketches" / "zebra")
    said = refused(metric_learning.main, *words("shrec13", shrec, tmp_path / "run", "--query-modality", "sketch"))
    lonely = "table" if folder == "sketches" else "zebra"
    assert f"the modalities differ in classes: '{lonely}' of the split train is in one only" in said
    assert not (tmp_path / "cache").exists()


def test_a_folder_without_views_is_left_out_and_named(rendered, tmp_path, capsys):
    (rendered / "cup" / "train" / "cup_0099").mkdir()
    protocol = ran("modelnet40", rendered, tmp_path / "run")
    assert protocol["notes"] == ["1 of 11 shapes have no views and are left out: cup/cup_0099"]
    assert protocol["images"]["train"] == [10]


def test_a_class_without_views_is_refused(rendered, tmp_path, refused):
    (rendered / "zebra" / "train" / "zebra_0001").mkdir(parents=True)
    said = refused(metric_learning.main, *words("modelnet40", rendered, tmp_path / "run"))
    assert "no shape of the class 'zebra' has views in the split train: zebra/zebra_0001 is empty" in said


def test_views_that_differ_in_number_are_refused_unless_fewer_are_taken(rendered, tmp_path, refused):
    (rendered / "table" / "train" / "table_0003.obj.shaded_v002.png").unlink()
    given = [word for word in words("modelnet40", rendered, tmp_path / "run") if word not in {"--views", "2"}]
    said = refused(metric_learning.main, *given)
    assert "shape table/table_0003.obj has 2 views where 3 are needed" in said
    assert ran("modelnet40", rendered, tmp_path / "run")["views"] == 2


@pytest.mark.parametrize("name", ["picture.png", "cup_0001.obj.shaded_v001.png"])
def test_a_picture_that_is_none_is_refused(rendered, tmp_path, refused, name):
    (rendered / "cup" / "train" / name).write_bytes(b"no picture")
    said = refused(metric_learning.main, *words("modelnet40", rendered, tmp_path / "run"))
    assert name in said


def test_rendering_goes_on_where_it_was_stopped(modelnet, tmp_path, monkeypatch):
    from otfew.data.shapes import layouts

    read, count = layouts.read_off, 0

    def stopped(path, named):
        nonlocal count
        count += 1
        if count > 4:
            raise KeyboardInterrupt
        return read(path, named)

    monkeypatch.setattr(layouts, "read_off", stopped)
    with pytest.raises(KeyboardInterrupt):
        metric_learning.main(words("modelnet10", modelnet, tmp_path / "run"))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.png")}
    assert 1 <= len(kept) <= 4
    monkeypatch.setattr(layouts, "read_off", read)
    ran("modelnet10", modelnet, tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list((tmp_path / "cache").rglob("*.png"))) == 14
