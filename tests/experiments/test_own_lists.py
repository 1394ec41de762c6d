"""A CSV file of one's own images through every command that takes a data set."""

from __future__ import annotations

import json
import shutil

import pytest

from otfew import backbones
from otfew.data import load
from otfew.experiments import compare, metatrain, pretrain
from otfew.experiments.classify import command as classify
from otfew.experiments.common.cli import run
from otfew.experiments.retrieve import command as retrieve

pytestmark = pytest.mark.usefixtures("surroundings")
FAST = ["--methods", "cosine-centroid", "deepemd", "--way", "3", "--query", "3", "--episodes", "50"]
TRAINING = ["--val-episodes", "10", "--accelerator", "cpu", "--threads", "1", "--no-tensorboard"]


@pytest.fixture(scope="module")
def pictures(folder, tmp_path_factory):
    """The pictures of ``folder`` in one heap without class folders, and their rows: (image, label, split)."""
    root, rows = tmp_path_factory.mktemp("heap"), []
    for path in sorted(folder.rglob("*.png")):
        split, label, name = path.relative_to(folder).parts
        shutil.copy(path, root / f"{label}_{name}")
        rows.append((f"{label}_{name}", label, split))
    return root, rows


def write(path, rows, head="image,label,split"):
    path.write_text("\n".join([head, *(",".join(row) for row in rows), ""]))
    return path


@pytest.fixture(scope="module")
def listed(pictures):
    root, rows = pictures
    return write(root / "photos.csv", rows)


def test_the_same_figures_as_of_the_same_pictures_in_folders(listed, folder, toy_backbone, tmp_path, finish, capsys):
    ours = finish(compare.main, tmp_path / "csv", "--dataset", listed, *FAST)
    assert "data: photos.csv, split test: 5 of 5 classes, 40 images" in capsys.readouterr().out
    data = ours["protocol"]["data"]
    assert (data["dataset"], data["variant"], data["split"]) == ("photos.csv", "", "test")
    assert str(listed.parent) not in json.dumps(ours)
    # Episodes are keyed by the data set's name: called alike, the two are the same.
    files = load(str(listed), "test")
    folders = load("image-folder", "test", folder)
    assert files.classes == folders.classes
    assert [files.read(i).tolist() for i in (0, 17, 39)] == [folders.read(i).tolist() for i in (0, 17, 39)]
    # The same command takes up its run.
    again = finish(compare.main, tmp_path / "csv", "--dataset", listed, *FAST)
    assert again == ours


def test_the_name_does_not_depend_on_where_the_file_lies(listed, toy_backbone, tmp_path, finish):
    ours = finish(compare.main, tmp_path / "one", "--dataset", listed, *FAST)
    elsewhere = tmp_path / "lists" / "photos.csv"
    elsewhere.parent.mkdir()
    shutil.copy(listed, elsewhere)
    moved = finish(compare.main, tmp_path / "two", "--dataset", elsewhere, "--data-root", listed.parent, *FAST)
    assert moved == ours


def test_every_class_on_request(listed, toy_backbone, tmp_path, finish):
    results = finish(compare.main, tmp_path / "run", "--dataset", listed, "--split", "all", *FAST)
    assert results["protocol"]["data"]["classes"] == 14
    assert "all the 14 classes that are there" in results["protocol"]["data"]["notes"]


def test_retrieval(listed, toy_backbone, tmp_path, finish):
    words = ["--dataset", listed, "--nodes", "fcn", "--scores", "deepemd", "pooled-cosine", "--rerank", "5"]
    results = finish(retrieve.main, tmp_path / "run", *words)
    assert results["queries"] == 40
    assert results["protocol"]["data"]["dataset"] == "photos.csv"


def test_training_and_then_comparing(listed, tmp_path, finish, refused):
    trained = tmp_path / "pretrained"
    words = ["--backbone", "conv4", "--no-last-pool", "--resolution", "16", "--epochs", "1", "--batch-size", "16"]
    run(lambda: pretrain.main(["--dataset", str(listed), *words, *TRAINING, "--output", str(trained)]))
    path = trained / "photos-conv4.safetensors"
    card = backbones.load(str(path)).card
    assert card.dataset == "photos.csv"
    assert card.training_classes == ("train-0", "train-1", "train-2", "train-3")
    assert "--dataset photos.csv" in card.protocol["command"]
    assert str(listed.parent) not in path.with_suffix(".json").read_text()
    episodes = ["--way", "3", "--query", "4", "--epochs", "1", "--episodes-per-epoch", "2", "--method", "deepemd"]
    further = tmp_path / "metatrained"
    given = ["--dataset", str(listed), "--backbone", str(path)]
    run(lambda: metatrain.main([*given, *episodes, *TRAINING, "--output", str(further)]))
    (last,) = further.glob("*.safetensors")
    assert "--dataset photos.csv" in backbones.load(str(last)).card.protocol["command"]
    assert str(listed.parent) not in last.with_suffix(".json").read_text()
    results = finish(compare.main, tmp_path / "run", "--dataset", listed, "--backbone", last, *FAST)
    assert results["protocol"]["backbone"]["test_classes_seen"] == 0
    # The guard knows the classes of the very file.
    said = refused(compare.main, "--dataset", listed, "--backbone", last, "--split", "train", *FAST)
    assert "was trained on 4 of the 4 classes" in said


def test_without_splits_training_and_comparing_draw_the_same(pictures, tmp_path, finish, toy_backbone):
    root, rows = pictures
    few = write(root / "few.csv", [row[:2] for row in rows], head="image,label")
    with pytest.raises(SystemExit):
        run(lambda: pretrain.main(["--dataset", str(few), "--backbone", "conv4"]))
    results = finish(compare.main, tmp_path / "run", "--dataset", few, *FAST)
    notes = results["protocol"]["data"]["notes"]
    assert notes == ["all 14 classes are in test: too few to draw a class split"]
    more = [*(row[:2] for row in rows[:-4]), *((row[0], "another") for row in rows[-4:])]
    many = write(root / "many.csv", more, head="image,label")
    results = finish(
        compare.main, tmp_path / "drawn", "--dataset", many, "--split-seed", 2, *FAST[:-4], "--query", 3,
        "--episodes", 20,
    )  # fmt: skip
    assert results["protocol"]["data"]["variant"] == "seed2"
    assert results["protocol"]["data"]["notes"][-1] == "class split drawn from 15 classes with seed 2"


def test_nested_folders(pictures, toy_backbone, tmp_path, finish):
    root, rows = pictures
    for name, label, _ in rows:
        target = tmp_path / "nested" / label.partition("-")[0] / label
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, target / name)
    given = ["--dataset", "image-folder", "--data-root", tmp_path / "nested", *FAST]
    results = finish(compare.main, tmp_path / "deep", *given, "--depth", 2)
    assert results["protocol"]["data"]["classes"] == 14
    assert "test/test-0" in results["class_names"]


def test_labelled_photos_of_a_list(pictures, tmp_path, capsys, monkeypatch):
    root, rows = pictures
    network = "glyphs-resnet12-quarter"
    listed = write(
        root / "labelled.csv", [(n, label, "test" if n.endswith("_7.png") else "train") for n, label, _ in rows]
    )
    (tmp_path / "new").mkdir()
    asked = [row for row in rows if row[0].endswith("_7.png")]
    for name, _, _ in asked:
        shutil.copy(root / name, tmp_path / "new" / name)
    words = [listed, tmp_path / "new", "--method", "cosine-centroid", "--backbone", network]
    run(lambda: classify.main([str(word) for word in words]))
    said = capsys.readouterr().out
    assert "14 of 112 images are left out, whose split is not train" in said
    answers = (tmp_path / "predictions.csv").read_text().splitlines()[1:]
    assert len(answers) == len(asked) == 14
    known = {label for _, label, _ in rows}
    assert {answer.split(",")[1] for answer in answers} <= known


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("missing.png,a,test", "line 3: missing.png is not in"),
        ("/etc/passwd,a,test", "line 3: /etc/passwd is not inside"),
        ("train-0_1.png,a", "line 3: 2 columns, too few for the 3"),
    ],
)
def test_mistakes_name_the_option_that_helps(pictures, refused, row, said):
    root, _ = pictures
    broken = root / "broken.csv"
    broken.write_text(f"image,label,split\ntrain-0_0.png,a,test\n{row}\n")
    for main, more in ((compare.main, ()), (pretrain.main, ()), (retrieve.main, ())):
        found = refused(main, "--dataset", broken, *more)
        assert said in found
        assert "`" not in found
        if "columns" not in said:
            assert "--data-root" in found
