"""Records of classify beside the truth: figures against those of the library, albums whose truth is known."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

import otfew
from otfew import FewShotClassifier
from otfew.backbones.base import Backbone, Card
from otfew.classifier import embedder
from otfew.classifier.places import find_photos
from otfew.experiments.common.cli import run
from otfew.experiments.transcript import command

pytestmark = pytest.mark.usefixtures("surroundings")
ROOT = Path(__file__).parents[2]
COLOURS = {"brick": (180, 60, 50), "brick-wall": (60, 170, 60), "lake": (50, 70, 180), "sand": (190, 180, 120)}


@pytest.fixture
def small(monkeypatch):
    """Stand in for a network: averages of 2 x 2 parts."""
    card = Card("parts", "parts", resolution=8, mean=(0, 0, 0), std=(1, 1, 1))
    network = Backbone(torch.nn.AdaptiveAvgPool2d(2), card, "parts")
    monkeypatch.setattr(embedder, "load_backbone", lambda spec: network)
    return network


@pytest.fixture
def album(tmp_path):
    """Four kinds, of which one's name begins like another's; two photos of no kind."""

    def draw(path, colour, seed, spread):
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).normal(0, spread, (20, 24, 3))
        data = cv2.imencode(".png", np.clip(np.array(colour[::-1]) + noise, 0, 255).astype(np.uint8))[1]
        path.write_bytes(data.tobytes())

    for c, (name, colour) in enumerate(COLOURS.items()):
        for i in range(6):
            draw(tmp_path / "album" / "labelled" / name / f"{i}.png", colour, 100 * c + i, 40)
        for i in range(3):
            draw(tmp_path / "album" / "new" / f"{name}-{i + 1}.png", colour, 900 + 10 * c + i, 90)
    for i in range(2):
        draw(tmp_path / "album" / "new" / f"other-{i + 1}.png", (120, 120, 120), 990 + i, 20)
    return tmp_path / "album"


def made(tmp_path, *words):
    """Run the command and read its record."""
    words = [*words, "--output", tmp_path / "a.json", "--method", "cosine-centroid", "--unknown", 0.2]
    run(lambda: command.main([str(word) for word in words]))
    return json.loads((tmp_path / "a.json").read_text())


def test_figures_are_those_of_the_library(album, small, tmp_path, capsys):
    record = made(tmp_path, "--folder", album)
    new = record["new"]
    fitted = FewShotClassifier(small, "cosine-centroid", reject=0.2).fit_folder(album / "labelled")
    files = find_photos(album / "new")
    truth = np.array([path.name.rpartition("-")[0] for path in files])
    known = truth != "other"
    told, shares, logits = fitted.predict(files), fitted.predict_proba(files), fitted.decision_function(files)
    right = fitted.classes_[shares.argmax(1)] == truth
    assert (new["known"], new["unknown"]) == (12, 2)
    assert new["accuracy"] == pytest.approx(right[known].mean(), abs=1e-6)
    assert new["after"]["log_loss"] == pytest.approx(
        log_loss(truth[known], shares[known], labels=fitted.classes_), abs=1e-5
    )
    plain = torch.softmax(torch.tensor(logits), 1).numpy()
    assert new["before"]["log_loss"] == pytest.approx(
        log_loss(truth[known], plain[known], labels=fitted.classes_), abs=1e-5
    )
    one_hot = truth[known][:, None] == fitted.classes_[None]
    for when, of in (("before", plain), ("after", shares)):
        assert new[when]["brier"] == pytest.approx(((of[known] - one_hot) ** 2).sum(1).mean(), abs=1e-5)
    refused = np.array([answer == otfew.UNKNOWN for answer in told.tolist()])
    assert new["refused_known"] == refused[known].sum()
    assert new["found_unknown"] == refused[~known].sum()
    sure = logits.max(1) - logits.mean(1)
    assert new["auroc"] == pytest.approx(roc_auc_score(known, sure), abs=1e-6)
    # The transcript is what classify prints, without where the files were.
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line in record["transcript"]] == record["transcript"]
    assert record["transcript"][-1].startswith("14 new photos -> predictions.csv: ")
    assert record["command"] == (
        f"python -m experiments.transcript --folder {album} --unknown 0.2 --method cosine-centroid"
    )
    assert record["held_out"]["accuracy"]["mean"] == pytest.approx(fitted.report_.accuracy.mean, abs=1e-6)


def test_an_album_of_a_data_set_is_the_same_in_every_run(small, tmp_path):
    words = ("--dataset", "glyphs", "--kinds", 4, "--labelled", 6, "--new", 3, "--unknown-kinds", 2)
    record = made(tmp_path, *words, "--unknown-new", 2)
    assert record == made(tmp_path, *words, "--unknown-new", 2)
    source = record["source"]
    assert len(set(source["kinds"] + source["unknown_kinds"])) == 6
    assert (record["new"]["known"], record["new"]["unknown"]) == (12, 4)
    assert record["transcript"][0].startswith("24 photos of 4 classes (6 to 6 each)")
    assert not re.search(r"/tmp|\\\\", json.dumps(record["transcript"]))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--folder", "nowhere"), "holds no folders labelled and new"),
        (("--dataset", "glyphs", "--kinds", "900"), "classes, and 902 are asked for"),
        (("--dataset", "glyphs", "--labelled", "9000"), "images, and 9005 are asked for"),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence(words, why, small, refused, tmp_path):
    assert why in refused(command.main, *words, "--output", tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()


def test_a_new_photo_must_name_its_class(album, small, refused, tmp_path):
    (album / "new" / "lake-1.png").rename(album / "new" / "pond-1.png")
    said = refused(
        command.main, "--folder", album, "--output", tmp_path / "a.json", "--method", "knn", "--unknown", "0.2"
    )
    assert "pond-1.png in --folder names no class" in said


ROWS = {"birds": "birds, 12 x 8", "cifar": "CIFAR-100, 12 x 8", "groceries": "groceries on shelves, 8 x 6"}


@pytest.mark.parametrize("name", ROWS)
def test_the_table_of_the_docs_is_that_of_the_records(name):
    record = json.loads((ROOT / f"docs/results/own-photos-{name}.json").read_bytes())
    new, held_out = record["new"], record["held_out"]["accuracy"]
    before, after = new["before"], new["after"]
    low, high = new["interval"]
    figures = [
        f"{100 * new['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]",
        f"{100 * held_out['mean']:.1f} %",
        f"{before['log_loss']:.3f}, {after['log_loss']:.3f}",
        f"{before['brier']:.3f}, {after['brier']:.3f}",
        f"{new['refused_known']} of {new['known']}",
        f"{new['found_unknown']} of {new['unknown']}",
        f"{new['auroc']:.3f}",
    ]
    page = (ROOT / "docs/own-photos.md").read_text(encoding="utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith(f"| {ROWS[name]} |"))
    assert [cell.strip() for cell in row.strip("|").split("|")][2:] == figures
