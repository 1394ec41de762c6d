"""The command that judges the choice of a method, on stand-ins for its data sets and its network."""

import json

import numpy as np
import pytest
import torch

from otfew.backbones.base import Backbone, Card
from otfew.classifier import folder_pool, folder_run
from otfew.classifier.folder_plan import Source
from otfew.classifier.folder_tables import BEGIN, END
from otfew.data.base import ImageSet
from otfew.experiments import folders as command

SHAPES = ((4, 3), (5, 4))
SOURCES = tuple(Source(name, "test", 16, 7, 4, 5, SHAPES) for name in ("one", "other"))


def images(name, classes=7, each=9):
    rng = np.random.default_rng(len(name))
    labels = np.repeat(np.arange(classes), each)
    tints = np.linspace(40, 210, classes)[labels, None] + rng.integers(-12, 13, (len(labels), 3))
    pixels = np.clip(tints[:, None, None] + rng.integers(-60, 61, (len(labels), 16, 16, 3)), 0, 255).astype(np.uint8)
    return ImageSet(
        dataset=name, split="test", variant="", classes=tuple(f"c{i}" for i in range(classes)), labels=labels,
        names=tuple(f"{name}/{i}" for i in range(len(labels))), read=lambda i: pixels[i],
        fingerprint=name, published_classes=classes,
    )  # fmt: skip


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the command in a folder of its own; returns what ``judge`` was asked about."""
    asked = []

    def judge(pool, folder, prior):
        asked.append(folder.number)
        return right(pool, folder, prior)

    right = folder_run.judge
    card = Card("net", "pool", resolution=16, mean=(0, 0, 0), std=(1, 1, 1))
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folder_pool, "load", lambda name, *_: images(name))
    monkeypatch.setattr(folder_run, "load_backbone", lambda _: Backbone(torch.nn.AdaptiveAvgPool2d(2), card, "net"))
    monkeypatch.setattr(folder_run.run, "__kwdefaults__", {**folder_run.run.__kwdefaults__, "sources": SOURCES})
    monkeypatch.setattr(folder_run, "judge", judge)
    monkeypatch.chdir(tmp_path)

    def start(*arguments):
        asked.clear()
        command.main(["--output", "run", "--record", "folders.json", "--docs", ".", *arguments])
        return list(asked)

    return start


def test_a_run_goes_on_where_it_was_interrupted_and_writes_the_same(run, tmp_path, capsys):
    assert run() == [0, 1, 2, 3]
    whole = (tmp_path / "folders.json").read_bytes()
    assert (tmp_path / "run" / "results.json").read_bytes() == whole
    record = json.loads(whole)
    assert [one["number"] for one in record["folders"]] == [0, 1, 2, 3]
    assert record["summary"]["folders"] == 4
    assert "auto - deepemd: " in capsys.readouterr().out

    (tmp_path / "run" / "folder-02.json").unlink()
    damaged = tmp_path / "run" / "folder-01.json"
    damaged.write_bytes(damaged.read_bytes().replace(b'"number": 1', b'"number": 2'))
    assert run() == [1, 2]
    assert (tmp_path / "folders.json").read_bytes() == whole
    assert "damaged" in capsys.readouterr().out

    (tmp_path / "own-photos.md").write_text(f"{BEGIN}\n{END}\n")
    assert run("--page") == []
    assert "| auto |" in (tmp_path / "own-photos.md").read_text()
