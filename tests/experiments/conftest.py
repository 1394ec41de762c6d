"""What tests of analysis commands share: small features, pictures, a stand-in for a backbone, and how commands end."""

from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch

from otfew import backbones
from otfew.data import load
from otfew.experiments.common import setup
from otfew.experiments.common.cli import run
from otfew.features import material


@pytest.fixture(scope="session", autouse=True)
def drawn():
    """Glyphs are drawn once a machine: with caches of their own, tests find those of the user."""
    for split in ("train", "val", "test"):
        load("glyphs", split)


@pytest.fixture
def surroundings(tmp_path, monkeypatch, unrendered):
    """Caches and default outputs in a folder of the test; thread settings as they were; no picture is rendered."""
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OTFEW_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "set_threads", lambda threads: 1)


@pytest.fixture(scope="session")
def own_features(tmp_path_factory):
    """Own features: 12 classes of 20 images, 6 nodes of 8 channels, half of the nodes background."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 20)
    nodes = rng.normal(size=(12, 1, 8))[labels] + rng.normal(size=(240, 6, 8))
    nodes[:, 3:] = rng.normal(size=(240, 3, 8))
    path = tmp_path_factory.mktemp("own") / "features.npz"
    np.savez(path, nodes=np.abs(nodes).astype(np.float32), labels=labels)
    return path


@pytest.fixture(scope="session")
def toy_pictures(tmp_path_factory):
    """Given splits of one-coloured pictures: 6 classes to test, 2 to train, 16 images each."""
    root = tmp_path_factory.mktemp("toys")
    rng = np.random.default_rng(0)
    for split, classes in (("train", 2), ("test", 6)):
        for c in range(classes):
            folder = root / split / f"{split}-{c}"
            folder.mkdir(parents=True)
            colour = rng.integers(40, 216, 3)
            for i in range(16):
                noisy = np.clip(colour + rng.normal(0, 40, (20, 24, 3)), 0, 255)
                cv2.imwrite(str(folder / f"{i}.png"), noisy.astype(np.uint8))
    return root


@pytest.fixture
def toy_backbone(monkeypatch):
    """Stand in for a checkpoint: averages of 4 x 4 parts; returns it."""
    card = backbones.Card("parts", "parts", resolution=16, training_data="toys", training_classes=("toy",))
    network = backbones.Backbone(torch.nn.AdaptiveAvgPool2d(4), card, "parts")
    monkeypatch.setattr(material, "load_backbone", lambda spec, dataset=None, trained_on=None: network)
    return network


@pytest.fixture
def refused(capsys):
    """Return a function that gives the one line with which a command line is refused, exit code 2."""

    def refuse(main, *arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(lambda: main([str(a) for a in arguments]))
        said = capsys.readouterr()
        assert ended.value.code == 2
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
        return said.err

    return refuse


@pytest.fixture
def finish():
    """Return a function that runs a command into a folder and gives its results.json."""

    def run_into(main, folder, *arguments):
        run(lambda: main([str(a) for a in (*arguments, "--output", folder)]))
        return json.loads((folder / "results.json").read_text())

    return run_into


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Noisy one-coloured pictures in class folders, the splits given."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, classes in (("train", 4), ("val", 5), ("test", 5)):
        for c in range(classes):
            colour = rng.integers(40, 216, 3)
            place = root / split / f"{split}-{c}"
            place.mkdir(parents=True)
            for i in range(8):
                noisy = np.clip(colour + rng.normal(0, 30, (20, 24, 3)), 0, 255)
                cv2.imwrite(str(place / f"{i}.png"), noisy.astype(np.uint8))
    return root


class Reader(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.scripts, self.texts, self._inside = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        (self.scripts if self._inside == "script" else self.texts).append(data)


OURS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "ul", "li", "div", "table", "thead",
    "tbody", "tr", "th", "td", "button", "svg", "line", "text", "circle", "rect", "image", "img", "figure",
    "figcaption", "br", "script",
}  # fmt: skip


def read_page(text):
    """A page asks nobody for anything, and runs its own script alone; returns it read."""
    page = Reader(text)
    assert set(page.tags) <= OURS
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    linked = [value for name, value in page.attributes if name in {"src", "href", "xlink:href", "action", "srcset"}]
    assert all(value.startswith("data:image/jpeg;base64,") for value in linked)
    assert "url(" not in text
    assert "@import" not in text
    (script,) = page.scripts
    (policy,) = (value for name, value in page.attributes if name == "content" and "default-src" in value)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'")
    return page


@pytest.fixture
def check_page():
    """Return a function that checks a page of a report and gives it read."""
    return read_page
