"""The command of the local page: its port, its sentences, what it says and opens."""

from __future__ import annotations

import socket
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from otfew import FewShotClassifier
from otfew.app import listening
from otfew.backbones import load
from otfew.backbones.base import Backbone, Card
from otfew.classifier import embedder
from otfew.experiments.common.cli import run
from otfew.experiments.serve import command

COLOURS = {"brick": (180, 60, 50), "grass": (60, 170, 60), "lake": (50, 70, 180), "sand": (190, 180, 120)}


@pytest.fixture
def album(tmp_path, monkeypatch):
    """Four kinds of six pictures, and averages of 2 x 2 parts in place of a network."""
    card = Card("parts", "parts", resolution=8, mean=(0, 0, 0), std=(1, 1, 1))
    network = Backbone(torch.nn.AdaptiveAvgPool2d(2), card, "parts")
    monkeypatch.setattr(embedder, "load_backbone", lambda spec: network)
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    for c, (name, colour) in enumerate(COLOURS.items()):
        for i in range(6):
            noise = np.random.default_rng(100 * c + i).normal(0, 40, (20, 24, 3))
            path = tmp_path / "labelled" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            data = cv2.imencode(".png", np.clip(np.array(colour[::-1]) + noise, 0, 255).astype(np.uint8))[1]
            path.write_bytes(data.tobytes())
    return tmp_path / "labelled"


def serve(*words):
    run(lambda: command.main([str(word) for word in words]))


def refused(capsys, *words):
    """Return the one line that a command ends with."""
    with pytest.raises(SystemExit) as ended:
        serve(*words)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def shown(monkeypatch):
    """Stand in for the page: what would be served, told and opened."""
    pytest.importorskip("uvicorn", reason='no uvicorn: pip install "otfew[app]"')
    found = {"opened": []}

    def stand_in(session, listening, tell):
        found.update(session=session, address=listening.getsockname())
        tell("http://127.0.0.1:1/#token")

    monkeypatch.setattr(listening, "serve", stand_in)
    monkeypatch.setattr("webbrowser.open", found["opened"].append)
    return found


def test_the_page_knows_the_folder_and_listens_here_alone(album, shown, capsys):
    serve(album, "--method", "cosine-centroid", "--port", 0, "--unknown", 0.2)
    state = shown["session"].state()
    assert [(entry["label"], entry["photos"]) for entry in state["classes"]] == [(name, 6) for name in sorted(COLOURS)]
    assert state["reject"] == 0.2
    assert shown["address"][0] == "127.0.0.1"
    assert shown["opened"] == ["http://127.0.0.1:1/#token"]
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("24 photos of 4 classes")
    assert said[-2:] == ["the page, until Ctrl-C: http://127.0.0.1:1/#token", "stopped"]


def test_nothing_is_opened_unasked(album, shown):
    serve(album, "--method", "cosine-centroid", "--port", 0, "--no-open")
    assert shown["opened"] == []


def test_corrections_that_are_lost_are_told(album, shown, monkeypatch, capsys):
    before = listening.serve

    def teach(session, taken, tell):
        before(session, taken, tell)
        number = session.drop("a.png", (album / "lake" / "0.png").read_bytes())["number"]
        session.teach(number, "pond")

    monkeypatch.setattr(listening, "serve", teach)
    serve(album, "--method", "cosine-centroid", "--port", 0)
    assert capsys.readouterr().out.splitlines()[-1] == "stopped; 1 change of what is known was not saved"


def test_a_saved_classifier_is_served(album, shown, tmp_path, monkeypatch):

    kept = tmp_path / "kept.otfew"
    monkeypatch.setattr(embedder, "load_backbone", load)
    FewShotClassifier("glyphs-resnet12-quarter", "cosine-centroid").fit_folder(album).save(kept)
    serve(kept, "--port", 0, "--unknown", 0.2)
    state = shown["session"].state()
    assert len(state["classes"]) == 4
    assert state["reject"] == 0.2


def test_a_port_in_use_is_one_sentence_and_read_before_the_photos(album, shown, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert refused(capsys, "nowhere", "--port", port) == (
            f"error: --port {port} is in use: give another one, or 0 for any that is free."
        )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--port", "70000"], "--port is 70000"),
        (["--port", "-1"], "--port"),
        (["--port", "x"], "--port"),
        (["--unknown", "2"], "--unknown is 2"),
        (["--unknown", "0.001"], "--unknown 0.001 needs"),
        (["--method", "pt-map"], "--method pt-map classifies photos by one another"),
        (["--method", "nosuch"], "nosuch"),
        (["--depth", "5"], ""),
    ],
)
def test_what_can_be_set_right_is_one_sentence(album, shown, capsys, words, sentence):
    assert sentence in refused(capsys, album, *["--port", "0"], *words)


def test_without_its_packages_it_says_what_to_install(album, monkeypatch, capsys):
    monkeypatch.setattr(listening.importlib.util, "find_spec", lambda name: None)
    assert refused(capsys, album) == 'error: the page needs two packages: run pip install "otfew[app]".'


def test_help_is_light():
    code = """
import sys
sys.argv = ["otfew", "serve", "--help"]
from otfew.experiments.__main__ import main
try:
    main()
except SystemExit:
    pass
print(*sorted({"torch", "starlette", "uvicorn", "cv2"} & set(sys.modules)), file=sys.stderr)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "--unknown" in found.stdout
    assert found.stderr.strip() == ""
