"""The commands on a device, each as a process of its own: the CPU's losses, episodes and accuracies."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

DEVICES = [pytest.param("cuda", marks=pytest.mark.cuda), pytest.param("cpu", marks=pytest.mark.slow)]
"""The second shows that these tests are right."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An image-folder split train/val/test: fields of noise, a colour a class."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, classes in (("train", 6), ("val", 5), ("test", 5)):
        for c in range(classes):
            colour = rng.integers(40, 216, 3)
            place = root / split / f"{split}-{c}"
            place.mkdir(parents=True)
            for i in range(16):
                noisy = np.clip(colour + rng.normal(0, 30, (36, 36, 3)), 0, 255)
                cv2.imwrite(str(place / f"{i}.png"), noisy.astype(np.uint8))
    return root


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Run a command of otfew to its end; returns the folder of its output."""
    cache = tmp_path_factory.mktemp("cache")

    def run(*words):
        output = tmp_path_factory.mktemp("run")
        called = [sys.executable, "-m", "otfew.experiments", *map(str, words), "--output", str(output)]
        environment = {**os.environ, "OTFEW_CACHE": str(cache)}
        done = subprocess.run(called, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return output

    return run


def history(output):
    return json.loads((output / "history.json").read_text(encoding="utf-8"))


PRETRAIN = "--backbone conv4 --resolution 32 --epochs 2 --batch-size 24 --val-episodes 10 --no-tensorboard --no-half"
METATRAIN = "--query 4 --epochs 1 --episodes-per-epoch 4 --val-episodes 10 --no-tensorboard --no-half"


@pytest.mark.parametrize("device", DEVICES)
def test_pretraining_and_meta_training(device, folder, command):
    """What is drawn does not depend on the device, so losses differ by rounding alone (in TF32, where it is on)."""
    data = ("--dataset", "image-folder", "--data-root", folder)
    start, there = (command("pretrain", *data, *PRETRAIN.split(), "--device", name) for name in ("cpu", device))
    losses = [[epoch["loss"] for epoch in history(output)] for output in (start, there)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    checkpoint = start / "image-folder-conv4.safetensors"
    for method in ("deepemd", "protonet"):
        words = (*data, "--backbone", checkpoint, "--method", method, *METATRAIN.split())
        here, there = (history(command("metatrain", *words, "--device", name)) for name in ("cpu", device))
        assert there[1]["loss"] == pytest.approx(here[1]["loss"], rel=0.05)
        assert there[0]["validation"][method]["mean"] == pytest.approx(here[0]["validation"][method]["mean"], abs=2.0)


@pytest.mark.parametrize("device", DEVICES)
def test_compare_on_glyphs(device, command):
    """Features and methods on the device: accuracies as on the CPU, but for an answer that a rounding turns."""
    words = (
        "--dataset",
        "glyphs",
        "--episodes",
        "20",
        "--methods",
        "deepemd",
        "protonet",
        "chamfer",
        "tim",
        "logistic",
    )
    here, there = (
        json.loads((command("compare", *words, "--device", name) / "results.json").read_text(encoding="utf-8"))
        for name in ("cpu", device)
    )
    assert there["methods"].keys() == here["methods"].keys() == set(words[5:])
    for name, row in here["methods"].items():
        assert there["methods"][name]["accuracy"]["mean"] == pytest.approx(row["accuracy"]["mean"], abs=0.004), name
