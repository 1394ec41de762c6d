"""The page of compare: whole, its figures those of the run, names as text, photos with flows where there are photos."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest

import otfew
from otfew.experiments import compare
from otfew.experiments.common.cli import run
from otfew.reporting import comparison_page
from otfew.runs.directory import to_json

pytestmark = pytest.mark.usefixtures("surroundings")
METHODS = ("--methods", "cosine-centroid", "chamfer", "deepemd", "--episodes", 40, "--query", 4)


def made(folder, *arguments):
    run(lambda: compare.main([str(word) for word in (*arguments, *METHODS, "--output", folder)]))
    return (folder / "report.html").read_text()


def test_own_features(own_features, tmp_path, check_page):
    text = made(tmp_path / "run", "--features", own_features)
    page = check_page(text)
    told = " ".join(page.texts)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    best = max(results["methods"], key=lambda name: results["methods"][name]["accuracy"]["mean"])
    assert f"{best} has the highest mean, {100 * results['methods'][best]['accuracy']['mean']:.2f} %" in told
    for word in ("Classes, the hardest first", "Confusions", "The worst queries", "Protocol", "jackknife"):
        assert word in told
    assert text.count('class="forest"') == 3
    assert "deepemd over chamfer" in text
    assert "what transport adds: difference to its controls, points" in text
    assert "image" not in page.tags
    assert re.search(r"image \d+ is 7|image \d+ is \d", told)


def test_results_keep_their_bytes(own_features, tmp_path, monkeypatch):
    made(tmp_path / "run", "--features", own_features)
    with_page = {
        f.name: f.read_bytes() for f in (tmp_path / "run").iterdir() if f.name in {"results.json", "episodes.csv"}
    }
    monkeypatch.setattr("otfew.reporting.result.page", lambda *given: "")
    monkeypatch.setattr("otfew.evaluation.study.find_worst", lambda *given: None)
    made(tmp_path / "other", "--features", own_features)
    assert with_page == {name: (tmp_path / "other" / name).read_bytes() for name in with_page}
    found = otfew.load(tmp_path / "run")
    assert to_json(found.results) == with_page["results.json"]
    monkeypatch.undo()
    # What is read again has no queries at hand, and says the rest.
    found.save(tmp_path / "again")
    assert "The worst queries" not in (tmp_path / "again" / "report.html").read_text()


def test_a_second_start_writes_the_same_page(own_features, tmp_path):
    first = made(tmp_path / "run", "--features", own_features)
    second = made(tmp_path / "run", "--features", own_features)
    times = re.compile(r"<td>[\d.]+</td>")  # times of a block are kept; figures and pictures are the run's
    assert times.sub("", first) == times.sub("", second)


def test_photos_and_flows_of_traps(toy_backbone, tmp_path, check_page):
    """Noise, of which no method is right more than by chance, in folders whose names are traps."""
    rng = np.random.default_rng(0)
    trap = '<img src=x onerror=alert(1)>"'
    for name in (trap, "b", "c", "d", "e"):
        for i in range(8):
            path = tmp_path / "toys" / "test" / name / f"{i}{trap}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", rng.integers(0, 256, (20, 24, 3), dtype=np.uint8))[1].tobytes())
    data = ("--dataset", "image-folder", "--data-root", tmp_path / "toys", "--shot", 2)
    text = made(tmp_path / "run", *data)
    page = check_page(text)
    assert trap in "".join(page.texts)
    assert page.tags.count("image") >= 4
    assert page.tags.count("rect") >= 3


def test_unbalanced_episodes_have_no_table_of_classes(own_features, tmp_path):
    text = made(tmp_path / "run", "--features", own_features, "--query-balance", "dirichlet:2", "--shot", 1, "--way", 2)
    assert "Classes, the hardest first" not in text
    assert "Confusions" in text


def test_shares_of_classes_are_those_of_the_episodes():
    classes = np.array([[0, 1], [0, 2]])
    correct = {"a": np.array([[4, 1], [2, 3]])}
    record = {"transductive": False, "accuracy": {"mean": 0.5}}
    results = {"class_names": ["x", "y", "z"], "methods": {"a": record}, "protocol": {"query": 5}}
    grid = comparison_page._hardest(results, classes, correct)
    assert [list(row) for row in grid.rows] == [["y", 5, "20.0"], ["x", 10, "60.0"], ["z", 5, "60.0"]]
