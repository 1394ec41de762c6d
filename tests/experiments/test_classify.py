"""The command for one's own photos: columns, resuming, saved models, refusals, names that are traps, bad input."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import otfew
from otfew import FewShotClassifier
from otfew.backbones import ARCHITECTURES, weights
from otfew.backbones.base import Backbone, Card
from otfew.classifier import embedder, many
from otfew.classifier.answer_table import HEAD
from otfew.classifier.places import find_photos
from otfew.experiments.classify import command
from otfew.experiments.common.cli import run

pytestmark = pytest.mark.usefixtures("surroundings")
COLOURS = {"brick": (180, 60, 50), "grass": (60, 170, 60), "lake": (50, 70, 180), "sand": (190, 180, 120)}
METHOD = ("--method", "cosine-centroid")
ZOO = "glyphs-resnet12-quarter"


def draw(path, colour, seed, spread=40):
    """A picture of noise about a colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, spread, (20, 24, 3))
    data = cv2.imencode(".png", np.clip(np.array(colour[::-1]) + noise, 0, 255).astype(np.uint8))[1]
    path.write_bytes(data.tobytes())


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Four kinds of six labelled pictures, ten new ones."""
    root = tmp_path_factory.mktemp("album")
    for c, (name, colour) in enumerate(COLOURS.items()):
        for i in range(6):
            draw(root / "labelled" / name / f"{i}.png", colour, 100 * c + i)
    for i in range(10):
        draw(root / "new" / f"{i:02d}.png", list(COLOURS.values())[i % 4], 1000 + i, spread=60)
    return root


@pytest.fixture
def album(originals, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(originals, tmp_path / "album")
    return tmp_path / "album"


@pytest.fixture
def small(monkeypatch):
    """Stand in for a network: averages of 2 x 2 parts."""
    card = Card("parts", "parts", resolution=8, mean=(0, 0, 0), std=(1, 1, 1))
    network = Backbone(torch.nn.AdaptiveAvgPool2d(2), card, "parts")
    monkeypatch.setattr(embedder, "load_backbone", lambda spec: network)
    return network


def classify(album, *more, labelled="labelled", method=METHOD):
    """Run the command on an album."""
    words = [album / labelled, album / "new", *method, *more]
    run(lambda: command.main([str(word) for word in words]))


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def code_of(album, *more, **settings):
    with pytest.raises(SystemExit) as ended:
        classify(album, *more, **settings)
    return ended.value.code


def test_columns_say_what_the_library_says(album, small, capsys):
    classify(album, "--unknown", 0.2, "--to", album / "out.csv")
    fitted = FewShotClassifier(small, "cosine-centroid", reject=0.2).fit_folder(album / "labelled")
    files = find_photos(album / "new")
    shares, told = fitted.predict_proba(files), fitted.predict(files)
    known = torch.nn.functional.normalize(fitted.labelled_.nodes.mean(1), dim=1)
    _, nodes, _ = fitted._embedded(files)
    near = (torch.nn.functional.normalize(nodes.mean(1), dim=1) @ known.T).argmax(1)
    rows = rows_of(album / "out.csv")
    assert tuple(rows[0]) == HEAD == (
        "file", "label", "confidence", "runner_up", "runner_up_confidence", "unknown", "nearest",
    )  # fmt: skip
    assert [row["file"] for row in rows] == [str(path) for path in files]
    for row, share, answer, place in zip(rows, shares, told.tolist(), near.tolist(), strict=True):
        first, second = np.argsort(-share)[:2]
        assert row["label"] == fitted.classes_[first]
        assert row["runner_up"] == fitted.classes_[second]
        assert float(row["confidence"]) == pytest.approx(share[first], abs=1e-6)
        assert float(row["runner_up_confidence"]) == pytest.approx(share[second], abs=1e-6)
        assert row["unknown"] == ("yes" if answer == otfew.UNKNOWN else "no")
        assert row["nearest"] == fitted.labelled_.photos[place].title
    said = capsys.readouterr().out.splitlines()
    refused = sum(row["unknown"] == "yes" for row in rows)
    assert re.match(
        r"24 photos of 4 classes \(6 to 6 each\); held out one a class, \d+ times: [\d.]+ % right \[", said[0]
    )
    assert said[-1].startswith(f"10 new photos -> {album / 'out.csv'}: {10 - refused} answered (median confidence 0.")
    assert f", {refused} unknown at 20 % of known photos refused; " in said[-1]


def test_candidates_are_printed_with_their_costs_and_the_reason(album, small, capsys):
    """As they are kept in the saved model, from which they are printed again."""
    classify(album, "--to", album / "out.csv", "--save", album / "kinds.otfew", method=("--backbone", "parts"))
    said = capsys.readouterr().out.splitlines()
    chosen = FewShotClassifier.load(album / "kinds.otfew", backbone=small).selection_
    head, *rows = [line[2:] for line in said if line.startswith("  ")]
    assert head.split()[:2] == ["candidate", "cost"]
    assert [head, *rows] == str(chosen).split("\n")[:-1]
    assert len(rows) == len(chosen.judged) > 5
    assert f"method: {str(chosen).splitlines()[-1]}" in said
    classify(album, "--to", album / "out.csv", labelled="kinds.otfew", method=("--backbone", "parts"))
    again = capsys.readouterr().out.splitlines()
    assert [line for line in again if line.startswith("  ")] == [f"  {line}" for line in (head, *rows)]


def test_without_a_rate_nothing_is_unknown(album, small):
    classify(album, "--to", album / "out.csv")
    assert {row["unknown"] for row in rows_of(album / "out.csv")} == {""}


def test_json_holds_the_same(album, small):
    classify(album, "--to", album / "out.csv", "--unknown", 0.2)
    classify(album, "--to", album / "out.json", "--unknown", 0.2)
    record = json.loads((album / "out.json").read_text())
    cells = {True: "yes", False: "no", None: ""}
    as_text = [
        {name: cells[value] if value is None or isinstance(value, bool) else str(value) for name, value in row.items()}
        for row in record["answers"]
    ]
    assert as_text == rows_of(album / "out.csv")
    assert record["skipped"] == []
    assert "10 new photos" in record["summary"]


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_second_start_after_a_kill_gives_the_same_bytes(album, small, monkeypatch, suffix, capsys):
    target = album / f"out.{suffix}"
    monkeypatch.setattr(many, "AT_ONCE", 3)
    (album / "new" / "04.png").write_bytes(b"no picture")
    classify(album, "--to", target)
    whole = target.read_bytes()
    target.unlink()
    ask, asked = many.ask, []

    def dies(classifier, nodes):
        asked.append(len(nodes))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return ask(classifier, nodes)

    monkeypatch.setattr(many, "ask", dies)
    assert code_of(album, "--to", target) == 130
    assert not target.exists()
    (left,) = album.glob(f"out.{suffix}.unfinished-*")
    assert json.loads((left / "protocol.json").read_text())["command"] == "classify"
    asked.clear()
    asked.extend([0] * 3)
    classify(album, "--to", target)
    assert asked[3:] == [3, 1]
    assert "6 of the 10 new photos were answered before; going on from there" in capsys.readouterr().out
    assert target.read_bytes() == whole
    assert not left.exists()


def test_what_another_model_or_other_files_left_is_not_taken(album, small, monkeypatch, capsys):
    monkeypatch.setattr(many, "AT_ONCE", 3)
    ask, asked = many.ask, []

    def dies(classifier, nodes):
        asked.append(len(nodes))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return ask(classifier, nodes)

    monkeypatch.setattr(many, "ask", dies)
    assert code_of(album, "--to", album / "out.csv") == 130
    (left,) = album.glob("*.unfinished-*")
    draw(album / "labelled" / "lake" / "more.png", COLOURS["lake"], 7)
    monkeypatch.setattr(many, "ask", lambda classifier, nodes: asked.append(len(nodes)) or ask(classifier, nodes))
    asked.clear()
    classify(album, "--to", album / "out.csv")
    assert asked == [3, 3, 3, 1]
    assert left.exists()
    assert f"{left} holds what another run has left unfinished" in capsys.readouterr().out


def test_what_is_kept_is_of_files_as_they_are(album, small):
    fitted = FewShotClassifier(small, "cosine-centroid").fit_folder(album / "labelled")
    files = find_photos(album / "new")
    names = {many.folder_of(album / "a.csv", many._identity(fitted, files)).name}
    draw(files[0], COLOURS["sand"], 8)
    names.add(many.folder_of(album / "a.csv", many._identity(fitted, files)).name)
    names.add(many.folder_of(album / "a.csv", many._identity(fitted, files[1:])).name)
    fitted.remove("lake")
    names.add(many.folder_of(album / "a.csv", many._identity(fitted, files[1:])).name)
    assert len(names) == 4


def test_a_damaged_part_is_computed_again(album, small, monkeypatch, capsys):
    monkeypatch.setattr(many, "AT_ONCE", 3)
    monkeypatch.setattr(many.shutil, "rmtree", lambda *given, **options: None)
    classify(album, "--to", album / "out.csv")
    whole = (album / "out.csv").read_bytes()
    (left,) = album.glob("*.unfinished-*")
    (left / "000001.json").write_bytes((left / "000001.json").read_bytes().replace(b"answers", b"answer5", 1))
    classify(album, "--to", album / "out.csv")
    assert "000001.json is damaged" in capsys.readouterr().out
    assert (album / "out.csv").read_bytes() == whole


@pytest.mark.processes
def test_a_saved_model_gives_the_same_answers_in_another_process(album):
    classify(album, "--to", album / "out.csv", "--save", album / "kinds.otfew", "--backbone", ZOO, "--unknown", 0.2)
    words = [album / "kinds.otfew", album / "new", "--to", album / "again.csv", "--threads", 1]
    words = [sys.executable, "-m", "otfew", "classify", *map(str, words)]
    where = {**os.environ, "PYTHONPATH": str(Path(otfew.__file__).parents[1])}
    made = subprocess.run(words, capture_output=True, text=True, timeout=600, env=where, check=False)
    assert made.returncode == 0, made.stderr
    assert "24 photos of 4 classes" in made.stdout
    assert (album / "again.csv").read_bytes() == (album / "out.csv").read_bytes()


def otherwise(album, *words, **surroundings):
    """Run the command in another process: its exit code, what it said, and what it complained of."""
    where = {**os.environ, "PYTHONPATH": str(Path(otfew.__file__).parents[1]), **surroundings}
    words = [sys.executable, "-m", "otfew", "classify", *map(str, words), "--threads", "1"]
    made = subprocess.run(words, capture_output=True, text=True, timeout=600, env=where, check=False, cwd=album)
    return made.returncode, made.stdout, made.stderr


def test_a_network_of_ones_own_goes_with_the_model(album, capsys):
    """Its file is gone when the model is read."""
    torch.manual_seed(0)
    card = Card("mine", "conv4", {"channels": 8}, resolution=32)
    weights.save(album / "mine.safetensors", ARCHITECTURES["conv4"](channels=8), card)
    classify(
        album, "--to", album / "out.csv", "--save", album / "kinds.otfew", "--backbone", album / "mine.safetensors"
    )
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("saved: "))
    assert re.fullmatch(r"saved: .*kinds\.otfew \([\d.]+ MB\)", said)
    for path in album.glob("mine.*"):
        path.unlink()
    words = [album / "kinds.otfew", album / "new", "--to", album / "again.csv"]
    run(lambda: command.main([str(word) for word in words]))
    assert (album / "again.csv").read_bytes() == (album / "out.csv").read_bytes()


NETWORK = """
import torch

def make():
    torch.manual_seed({seed})
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2)).eval()
"""


@pytest.mark.slow
@pytest.mark.processes
def test_a_network_made_by_a_function_is_named_by_its_digest(album, capsys, monkeypatch):
    """Whoever reads the model gives the network, and the very same one."""
    (album / "mynetwork.py").write_text(NETWORK.format(seed=0))
    monkeypatch.syspath_prepend(album)
    given = ("--backbone", "mynetwork:make")
    classify(album, "--to", album / "out.csv", "--save", album / "kinds.otfew", *given)
    assert "by a digest of its weights: give --backbone where it is loaded" in capsys.readouterr().out
    paths = {"PYTHONPATH": os.pathsep.join([str(Path(otfew.__file__).parents[1]), str(album)])}
    code, _, error = otherwise(album, "kinds.otfew", album / "new", "--to", "again.csv", **paths)
    assert code == 2
    assert "which it does not hold: give it as --backbone" in error
    assert error.count("\n") == 1
    code, _, error = otherwise(album, "kinds.otfew", album / "new", "--to", "again.csv", *given, **paths)
    assert code == 0, error
    assert (album / "again.csv").read_bytes() == (album / "out.csv").read_bytes()
    (album / "mynetwork.py").write_text(NETWORK.format(seed=1))
    code, _, error = otherwise(album, "kinds.otfew", album / "new", "--to", "other.csv", *given, **paths)
    assert code == 2
    assert "other weights of" in error
    assert not (album / "other.csv").exists()


def test_a_saved_model_takes_another_rate(album, small):
    classify(album, "--to", album / "a.csv", "--save", album / "kinds.otfew", "--unknown", 0.1)
    classify(album, "--to", album / "b.csv", "--unknown", 0.6)
    classify(album, "--to", album / "c.csv", "--unknown", 0.6, labelled="kinds.otfew", method=("--backbone", "parts"))
    assert (album / "c.csv").read_bytes() == (album / "b.csv").read_bytes() != (album / "a.csv").read_bytes()


def test_photos_that_cannot_be_used_are_listed(album, small, capsys):
    (album / "new" / "broken.png").write_bytes(b"no picture")
    (album / "labelled" / "sand" / "empty.png").write_bytes(b"")
    classify(album, "--to", album / "out.csv")
    said = capsys.readouterr().out
    assert said.count("skipped: ") == 2
    assert "empty.png" in said
    assert ", 1 skipped" in said.splitlines()[-1]
    (row,) = (row for row in rows_of(album / "out.csv") if row["file"].endswith("broken.png"))
    assert {value for name, value in row.items() if name != "file"} == {""}


def test_strict_ends_with_2_after_all_is_written(album, small, capsys):
    (album / "new" / "broken.png").write_bytes(b"no picture")
    assert code_of(album, "--strict", "--to", album / "out.csv") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 1 of 11 photos cannot be used")
    assert error.count("\n") == 1
    assert len(rows_of(album / "out.csv")) == 11
    (album / "new" / "broken.png").unlink()
    classify(album, "--strict", "--to", album / "out.csv")


def test_strict_refuses_a_labelled_photo(album, small):
    (album / "labelled" / "sand" / "empty.png").write_bytes(b"")
    assert code_of(album, "--strict", "--to", album / "out.csv") == 2
    assert not (album / "out.csv").exists()


def test_labelled_photos_among_the_new_are_told(album, small, capsys):
    shutil.rmtree(album / "new")
    (album / "new").symlink_to(album / "labelled" / "sand")
    classify(album, "--to", album / "out.csv")
    assert "6 of the 6 new photos are labelled ones too" in capsys.readouterr().out


def test_depth(album, small):
    shutil.move(album / "labelled", album / "kinds")
    (album / "labelled").mkdir()
    shutil.move(album / "kinds", album / "labelled" / "ground")
    classify(album, "--depth", 2, "--to", album / "out.csv")
    assert {row["label"].split("/")[0] for row in rows_of(album / "out.csv")} == {"ground"}


def test_the_page_is_whole(album, small, check_page):
    (album / "new" / "broken.png").write_bytes(b"no picture")
    classify(album, "--to", album / "out.csv", "--report", album / "out.html", "--unknown", 0.2)
    text = (album / "out.html").read_text()
    page = check_page(text)
    told = " ".join(page.texts)
    for word in (
        "held out one a class",
        "Answers",
        "could not be used",
        "broken.png",
        "explained",
        "Protocol",
        "09.png",
    ):
        assert word in told
    assert page.tags.count("h3") >= 1 + 6
    assert text.count('class="forest"') == 1
    assert text.count("sortable") >= 1
    assert str(album) not in text.replace(str(album / "out.csv"), "").replace(str(album / "new" / "broken.png"), "")


TRAPS = ("<img src=x onerror=alert(1)>", '"><svg onload=alert(2)>', "=HYPERLINK(1)", "{{ 7 * 7 }}", "a\x1b[31m\u202eb")


def test_names_are_names_and_nothing_else(album, small, capsys, check_page):
    for trap, name in zip(TRAPS, COLOURS, strict=False):
        (album / "labelled" / name).rename(album / "labelled" / trap)
    for i, trap in enumerate(TRAPS):
        (album / "new" / f"{i:02d}.png").rename(album / "new" / f"{trap}.png")
    (album / "new" / "<b>.png").write_bytes(b"no picture")
    (album / "new" / "line\nbreak.png").write_bytes(b"none")
    for number, target in enumerate(("out.csv", "out.json")):
        classify(album, "--to", album / target, "--report", album / f"{number}.html")
        text = (album / f"{number}.html").read_text()
        told = "".join(check_page(text).texts)
        for trap in TRAPS[:4]:
            assert trap in told
        assert "49" not in [part.strip() for part in check_page(text).texts]
        assert "\x1b" not in text
        assert "\u202e" not in text
    said = capsys.readouterr().out
    assert "\x1b[31m" not in said
    rows = rows_of(album / "out.csv")
    assert {row["label"] for row in rows} - {""} <= {f"'{t}" if t[0] == "=" else t for t in TRAPS}
    assert len(rows) == 12
    assert len(json.loads((album / "out.json").read_text())["answers"]) == 12


BAD = [
    (("nowhere", "new"), "nowhere is not there"),
    (("labelled", "nowhere"), "nowhere is not there"),
    (("labelled", "empty"), "holds no images"),
    (("empty", "new"), "holds no images"),
    (("labelled", "new/*.tif"), "no image fits the pattern"),
    (("labelled",), "NEW must be given"),
    (("labelled", "labelled"), "one folder"),
    (("new/00.png", "new"), "is no classifier"),
    (("labelled/sand", "new"), "images"),
    (("labelled", "new", "--to", "out.txt"), "--to is 'out.txt'"),
    (("labelled", "new", "--to", "folder.csv"), "is a folder"),
    (("labelled", "new", "--to", "own.csv"), "holds no answers of classify"),
    (("labelled", "new", "--report", "page.pdf"), "--report is 'page.pdf'"),
    (("labelled", "new", "--report", "own.html"), "holds no report of classify"),
    (("labelled", "new", "--save", "new/00.png"), "--save is 'new/00.png'"),
    (("labelled", "new", "--report", "a.html", "--to", "./a.html"), "--to is 'a.html'"),
    (("labelled", "new", "--save", "folder.otfew"), "is a folder"),
    (("labelled", "new", "--unknown", "2"), "--unknown is 2"),
    (("labelled", "new", "--unknown", "0"), "--unknown is 0"),
    (("labelled", "new", "--unknown", "nan"), "--unknown is nan"),
    (("labelled", "new", "--unknown", "0.001"), "needs 999 labelled photos"),
    (("labelled", "new", "--unknown", "much"), "--unknown"),
    (("labelled", "new", "--unknown", "0.05"), "--unknown 0.05 needs 19 labelled photos"),
    (("labelled", "new", "--method", "deepmd"), "deepmd"),
    (("labelled", "new", "--nodes", "rings"), "rings"),
    (("labelled", "new", "--resolution", "0"), "resolution"),
    (("labelled", "new", "--depth", "0"), "depth"),
    (("labelled", "new", "--device", "tpu9"), "tpu9"),
    (("labelled", "new", "--rejct", "0.1"), "unknown option --rejct"),
]


@pytest.mark.parametrize(("words", "why"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_is_one_sentence(words, why, album, small, refused, monkeypatch):
    monkeypatch.chdir(album)
    (album / "empty").mkdir()
    (album / "folder.csv").mkdir()
    (album / "folder.otfew").mkdir()
    (album / "own.csv").write_text("my,own\n1,2\n")
    (album / "own.html").write_text("<html>mine</html>")
    more = () if "--method" in words else METHOD
    assert why in refused(command.main, *words, *more)
    assert (album / "own.csv").read_text() == "my,own\n1,2\n"
    assert not (album / "predictions.csv").exists()


@pytest.mark.parametrize("option", [("--method", "knn"), ("--nodes", "fcn"), ("--resolution", "8"), ("--depth", "2")])
def test_what_a_saved_model_has_settled(option, album, small, refused):
    classify(album, "--to", album / "a.csv", "--save", album / "kinds.otfew")
    said = refused(command.main, album / "kinds.otfew", album / "new", "--backbone", "parts", *option)
    assert f"{option[0]} cannot be had of" in said


def test_a_damaged_model_is_refused(album, small, refused):
    classify(album, "--to", album / "a.csv", "--save", album / "kinds.otfew")
    data = bytearray((album / "kinds.otfew").read_bytes())
    data[len(data) // 2] ^= 255
    (album / "kinds.otfew").write_bytes(bytes(data))
    assert "kinds.otfew" in refused(command.main, album / "kinds.otfew", album / "new")
