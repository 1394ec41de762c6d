"""One run of each command at reduced size, started as ``otfew NAME ...``: exit code 0, and what a machine reads.

What a command computes is tested in its own file. Commands that need data sets or networks which are not shipped run
there too, on stand-ins: ``ELSEWHERE`` names those runs.
"""

from __future__ import annotations

import ast
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from otfew.backbones import Backbone, Card
from otfew.classifier import refusal_study
from otfew.data.base import ImageSet
from otfew.experiments.__main__ import main
from otfew.experiments.commands import COMMANDS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("surroundings")]
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PHOTOS = ROOT / "examples" / "photos"
SMALL = ["--device", "cpu", "--episodes", "6", "--query", "3"]
LITTLE = ["--epochs", "1", "--val-episodes", "4", "--accelerator", "cpu", "--threads", "1"]
NETWORK = "glyphs-resnet12-quarter"

ELSEWHERE = {
    "device-check": "test_device_check.py::test_every_part_runs_and_its_figures_are_in_the_record",
    "draw": "test_charts.py::test_pictures_are_drawn_again_from_records",
    "folders": "test_folders.py::test_a_run_goes_on_where_it_was_interrupted_and_writes_the_same",
    "prior": "test_prior.py::test_the_command_writes_a_table",
    "reproduce": "test_reproduce.py::test_quick_twice_gives_the_same_bytes",
    "regimes": "test_regimes.py::test_a_map_is_resumed_and_extended_cell_by_cell",
    "serve": "test_serve.py::test_the_page_knows_the_folder_and_listens_here_alone",
    "thresholds": "test_each_command.py::test_thresholds_on_stand_ins",
}
"""Command -> the test that runs it on stand-ins."""


@dataclass
class Given:
    """What a run may use.

    Attributes:
        features: Own features, a file.
        pictures: Folder with the parts train, val and test, of noisy colours.
        photos: Folder with ``labelled`` and ``new``: two kinds of the photos that are shipped.
        out: Folder of the results, which is not there yet.
    """

    features: Path
    pictures: Path
    photos: Path
    out: Path


def otfew(words: Sequence[object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run ``otfew WORDS`` in this process; an exit code other than 0 is a ``SystemExit``."""
    monkeypatch.setattr(sys, "argv", ["otfew", *map(str, words)])
    main()


def features(*more: object) -> Callable[[Given], list[object]]:
    """Words of a command that compares methods on own features."""
    return lambda given: [*more, "--features", given.features, *SMALL, "--output", given.out]


def glyphs(*more: object) -> Callable[[Given], list[object]]:
    """Words of a command that compares methods on glyphs."""
    return lambda given: [*more, *SMALL, "--output", given.out]


def pictures(*more: object) -> Callable[[Given], list[object]]:
    """Words of a command on the parts train, val and test of a folder."""
    return lambda given: [*more, "--dataset", "image-folder", "--data-root", given.pictures, "--output", given.out]


def shared_classes(root: Path) -> Path:
    """Draw parts train and test of the same two classes."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name, colour in (("grass", (60, 170, 60)), ("lake", (180, 70, 50))):
            (root / part / name).mkdir(parents=True)
            for i in range(40):
                noisy = np.clip(colour + rng.normal(0, 40, (16, 16, 3)), 0, 255)
                cv2.imwrite(str(root / part / name / f"{i}.png"), noisy.astype(np.uint8))
    return root


RUNS: dict[str, Callable[[Given], list[object]]] = {
    "ablate-weights": features(),
    "check": lambda given: ["exact", "cosine-centroid"],
    "cache": lambda given: ["list"],
    "classify": lambda given: [
        given.photos / "labelled", given.photos / "new", "--backbone", NETWORK, "--device", "cpu",
        "--method", "cosine-centroid", "--to", given.out.with_suffix(".json"),
    ],
    "compare": features("--methods", "deepemd", "chamfer", "cosine-centroid"),
    "cross-domain": glyphs("--datasets", "glyphs", "--methods", "deepemd", "cosine-centroid", "--backbone", NETWORK),
    "does-ot-matter": features("--regs", "0.05", "--entropy-episodes", "4"),
    "extractors": glyphs("--nodes", "fcn", "--methods", "deepemd", "cosine-centroid"),
    "latent-space": features("--shots", "1", "--rivals", "cosine-centroid"),
    "list": lambda given: [],
    "long-tail": lambda given: [
        "--dataset", "image-folder", "--data-root", shared_classes(given.out.with_name("parts")), "--factor", "2",
        "--backbone", "conv4", "--resolution", "16", "--epochs", "1", "--batch-size", "8", "--meta", "2",
        "--seeds", "1", "--head.epochs", "1", "--accelerator", "cpu", "--threads", "1", "--arms", "ce", "ot-combined",
        "--no-figures", "--output", given.out,
    ],
    "metric-learning": pictures(
        "--resolution", "16", "--head", "16", "8", "--epochs", "1", "--batch-size", "8", "--losses", "all-pairs",
        "batchwise-ot", "--seeds", "1", "--threads", "1", "--device", "cpu",
    ),
    "pretrain": pictures("--backbone", "conv4", "--resolution", "16", "--batch-size", "16", *LITTLE),
    "retrieve": lambda given: ["--features", given.features, "--device", "cpu", "--rerank", "5", "--output", given.out],
    "shots": features("--shots", "1", "2", "--heads", "mean", "nn", "--baselines", "cosine-centroid"),
    "show-flows": lambda given: [
        *sorted((given.photos / "labelled" / "Garlic").iterdir())[:2], "--backbone", NETWORK, "--output", given.out,
    ],
    "solver-timings": lambda given: [
        "--quick", "--solvers", "exact", "--sizes", "4", "--batches", "2", "--point-sizes", "8", "--regs", "0.1",
        "--call-seconds", "0.01", "--episode-seconds", "0.01", "--features", given.features, "--episodes", "2",
        "--output", given.out,
    ],
    "transcript": lambda given: [
        "--folder", given.photos, "--method", "cosine-centroid", "--unknown", "0.2",
        "--output", given.out.with_suffix(".json"),
    ],
    "transfer": glyphs(
        "--dataset", "glyphs", "--shifts", "blur", "--choice-shifts", "dark", "--severities", "1", "--images", "20",
        "--choice-episodes", "2", "--shot", "1", "--transport", "cosine-nodes", "--controls", "cosine-centroid",
    ),
}  # fmt: skip
"""Command -> its words."""


@pytest.fixture
def given(tmp_path, own_features, folder) -> Given:
    """Make what a run may use."""
    photos = tmp_path / "photos"
    for kind in ("Garlic", "Kiwi"):
        shutil.copytree(PHOTOS / "labelled" / kind, photos / "labelled" / kind)
    (photos / "new").mkdir()
    for name in ("Garlic-1.jpg", "Kiwi-1.jpg", "other-Lime-1.jpg"):
        shutil.copy(PHOTOS / "new" / name, photos / "new")
    return Given(own_features, folder, photos, tmp_path / "out")


PRINT = {"cache": "features", "check": "8 of 8 laws hold", "list": "deepemd"}
"""Command that leaves no file -> what it prints."""


LEFT = {"pretrain": "history.json"}
"""Command -> the file that it leaves, where that is no results.json."""


@pytest.mark.parametrize("name", RUNS)
def test_it_runs(name, given, monkeypatch, capsys):
    otfew([name, *RUNS[name](given)], monkeypatch)
    if name in PRINT:
        assert PRINT[name] in capsys.readouterr().out
    else:
        alone = given.out.with_suffix(".json")
        assert json.loads((alone if alone.exists() else given.out / LEFT.get(name, "results.json")).read_bytes())


def test_episode_of_a_run(given, monkeypatch, capsys):
    otfew(["compare", *RUNS["compare"](given)], monkeypatch)
    capsys.readouterr()
    otfew(["episode", given.out, 3], monkeypatch)
    assert "cosine-centroid" in capsys.readouterr().out


def test_metatrain_of_what_pretrain_has_trained(given, tmp_path, monkeypatch):
    otfew(["pretrain", *RUNS["pretrain"](given)], monkeypatch)
    start = given.out / "image-folder-conv4.safetensors"
    few = ["--backbone", start, "--way", 3, "--query", 4, "--episodes-per-epoch", 2, *LITTLE]
    otfew(["metatrain", *pictures(*few)(replace(given, out=tmp_path / "tuned"))], monkeypatch)
    assert len(json.loads((tmp_path / "tuned" / "history.json").read_bytes())) == 2


def test_thresholds_on_stand_ins(tmp_path, monkeypatch):
    """The data sets that they are measured on are not shipped."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(24), 13)
    pixels = rng.integers(0, 256, (len(labels), 16, 16, 3), dtype=np.uint8)
    images = ImageSet(
        dataset="drawn", split="val", variant="", classes=tuple(f"c{i}" for i in range(24)), labels=labels,
        names=tuple(map(str, range(len(labels)))), read=lambda i: pixels[i], fingerprint="drawn", published_classes=24,
    )  # fmt: skip
    network = Backbone(torch.nn.AdaptiveAvgPool2d(2), Card("net", "pool", resolution=16), "net")
    monkeypatch.setattr(refusal_study, "load_backbone", lambda name: network)
    monkeypatch.setattr(refusal_study, "load_images", lambda *_: images)
    otfew(["thresholds", "--episodes", 1, "--output", tmp_path / "record.json"], monkeypatch)
    assert json.loads((tmp_path / "record.json").read_bytes())["rows"]


def test_no_command_is_without_a_run():
    assert {*RUNS, *ELSEWHERE, "episode", "metatrain"} == set(COMMANDS)
    for place in ELSEWHERE.values():
        file, _, test = place.partition("::")
        tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
