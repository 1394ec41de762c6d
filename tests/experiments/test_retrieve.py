"""The retrieval command: tables with controls, the same bytes after an interruption, one sentence for a mistake."""

from __future__ import annotations

import csv
import json
from typing import get_args

import numpy as np
import pytest

from otfew import backbones
from otfew.choices import RetrievalScore
from otfew.data import DataOptions
from otfew.data.halves import load_half
from otfew.experiments.common.cli import run
from otfew.experiments.reproduce.answers import gather
from otfew.experiments.reproduce.figures import reader_of
from otfew.experiments.retrieve import command as retrieve
from otfew.features import material as _material
from otfew.reporting.retrieval_picture import choose
from otfew.retrieval.reranking import CONTROLS, TRANSPORT
from otfew.retrieval.run import Ranked
from otfew.runs import processes
from otfew.runs.directory import RunDirectory
from otfew.statistics.intervals import holm

pytestmark = pytest.mark.usefixtures("surroundings")
SCORES = ["deepemd", "chamfer", "cr-pooled", "product-coupling", "pooled-cosine"]


def given(path, *more):
    return ["--features", path, *more]


def test_a_table_and_a_report(own_features, tmp_path, finish, capsys):
    results = finish(retrieve.main, tmp_path / "run", *given(own_features, "--rerank", 30))
    said = capsys.readouterr().out
    for word in ("what transport adds", "MAP@R", "Holm", "first 30 are re-ranked", "jackknife over the queries"):
        assert word in said
    order = ["global", *(f"{score} [file]" for score in SCORES)]
    assert results["protocol"]["order"] == order
    assert set(results["methods"]) == set(order)
    rows = list(csv.DictReader((tmp_path / "run" / "queries.csv").open()))
    assert len(rows) == 6 * 240
    values = {
        name: np.array([float(row["map_at_r"]) for row in rows if row["ranking"] == name]) for name in order
    }  # fmt: skip
    for name, found in values.items():
        record = results["methods"][name]
        assert record["metrics"]["map_at_r"]["mean"] == pytest.approx(found.mean(), abs=1e-7)
        if name != "global":
            change = found - values["global"]
            assert record["difference"]["map_at_r"]["mean"] == pytest.approx(change.mean(), abs=1e-7)
            half = 1.96 * change.std(ddof=1) / np.sqrt(240)
            assert record["difference"]["map_at_r"]["query_ci"] == pytest.approx(half, abs=1e-7)
    reader = reader_of(gather("retrieve", tmp_path / "run"), "run")
    for name in order[1:]:
        kept, told = reader.difference(name, reader, "global", ""), results["methods"][name]["difference"]["map_at_r"]
        assert kept.mean == pytest.approx(100 * told["mean"], abs=2e-6)
        halves = {"queries": 100 * told["query_ci"], "classes": 100 * told["class_ci"]}
        assert kept.intervals == pytest.approx(halves, abs=2e-6)
        assert kept.p == pytest.approx(told["p"], abs=1e-6)
    # Classes are as large as each other: the jackknife over them is the interval of the mean of class means.
    by_class = values["deepemd [file]"].reshape(12, 20).mean(1)
    expected = 2.200985 * by_class.std(ddof=1) / np.sqrt(12)
    assert results["methods"]["deepemd [file]"]["metrics"]["map_at_r"]["class_ci"] == pytest.approx(expected, rel=1e-5)
    adds = results["transport_adds"]["deepemd [file]"]
    assert list(adds) == ["contrasts"]
    raw = []
    for control in ("chamfer", "product-coupling"):
        over = adds["contrasts"][control]
        assert over["control"] == f"{control} [file]"
        change = values["deepemd [file]"] - values[f"{control} [file]"]
        assert over["map_at_r"]["mean"] == pytest.approx(change.mean(), abs=1e-7)
        raw.append(over["map_at_r"]["p"])
    written = [over["map_at_r"]["p_holm"] for over in adds["contrasts"].values()]
    assert written == pytest.approx(holm(raw), abs=1e-8)
    times = json.loads((tmp_path / "run" / "timings.json").read_text())
    assert all(found["ms_per_query"] > 0 for found in times["methods"].values())
    assert "| deepemd |" in (tmp_path / "run" / "report.md").read_text()


def test_equal_weights_have_controls_of_equal_weights(own_features, tmp_path, finish, capsys):
    scores = "--scores", "deepemd", "deepemd-equal", "chamfer", "product-coupling-equal"
    adds = finish(retrieve.main, tmp_path / "run", *given(own_features, "--rerank", 5, *scores))["transport_adds"]
    said = " ".join(capsys.readouterr().out.split())
    assert {name: list(own["contrasts"]) for name, own in adds.items()} == {
        "deepemd [file]": ["chamfer"],
        "deepemd-equal [file]": ["product-coupling-equal"],
    }
    assert adds["deepemd-equal [file]"]["reason"] == "chamfer-equal did not run on nodes file"
    assert "what transport adds is the difference to chamfer and product-coupling-equal: controls that are" in said
    assert "what transport adds in deepemd [file]: product-coupling did not run on nodes file" in said


def test_results_hold_no_paths_or_times(own_features, tmp_path, finish):
    finish(retrieve.main, tmp_path / "run", *given(own_features, "--scores", "chamfer"))
    text = (tmp_path / "run" / "results.json").read_text()
    for word in (str(tmp_path), str(own_features), "ms_per", "seconds", "threads"):
        assert word not in text


def test_an_interrupted_run_resumes_to_the_same_bytes(own_features, tmp_path, finish, monkeypatch, capsys):
    finish(retrieve.main, tmp_path / "whole", *given(own_features))
    save = RunDirectory.save_block

    def interrupted(self, index, arrays, form):
        if index == 2:
            raise KeyboardInterrupt
        save(self, index, arrays, form)

    monkeypatch.setattr(RunDirectory, "save_block", interrupted)
    with pytest.raises(SystemExit) as ended:
        run(lambda: retrieve.main([*map(str, given(own_features)), "--output", str(tmp_path / "cut")]))
    assert ended.value.code == 130
    assert not (tmp_path / "cut" / "results.json").exists()
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "cut" / "blocks").iterdir()}
    assert len(kept) == 2
    monkeypatch.setattr(RunDirectory, "save_block", save)
    finish(retrieve.main, tmp_path / "cut", *given(own_features))
    for name in ("results.json", "queries.csv", "protocol.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert all(file.stat().st_mtime_ns == when for file, when in kept.items())


def test_the_whole_gallery_is_all_pairs(own_features, tmp_path, finish, capsys):
    scores = "--scores", "deepemd", "pooled-cosine"
    finish(retrieve.main, tmp_path / "all", *given(own_features, "--all-pairs", *scores))
    assert "all pairs are scored" in capsys.readouterr().out
    finish(retrieve.main, tmp_path / "239", *given(own_features, "--rerank", 239, *scores))
    finish(retrieve.main, tmp_path / "many", *given(own_features, "--rerank", 5000, *scores))
    assert "more than the 239 others: all pairs are scored" in " ".join(capsys.readouterr().out.split())
    whole = (tmp_path / "all" / "results.json").read_bytes()
    assert whole == (tmp_path / "239" / "results.json").read_bytes()
    assert whole == (tmp_path / "many" / "results.json").read_bytes()


def test_a_short_list_says_what_it_leaves(own_features, tmp_path, finish, capsys):
    finish(retrieve.main, tmp_path / "run", *given(own_features, "--rerank", 5, "--scores", "chamfer"))
    assert "up to 19 images are to be found" in " ".join(capsys.readouterr().out.split())


def test_images_through_a_backbone(toy_pictures, toy_backbone, tmp_path, finish, capsys, rendered):
    arguments = ["--dataset", "image-folder", "--data-root", toy_pictures, "--scores", "deepemd", "pooled-cosine"]
    arguments += ["--nodes", "fcn:2,1,nomap", "grid:2", "sampling:3", "--patch-resolution", 8]
    results = finish(retrieve.main, tmp_path / "run", *arguments)
    said = " ".join(capsys.readouterr().out.split())
    assert "16 px, centre crop" in said
    assert "grid:2 and sampling:3: patches of whole images at their original resolution, resized to 8 px each" in said
    assert list(results["transport_adds"]) == [f"deepemd [{n}]" for n in ("fcn:2,1,nomap", "grid:2", "sampling:3")]
    assert results["queries"] == 96
    assert (tmp_path / "run" / "retrieved.png").read_bytes().startswith(b"\x89PNG")
    times = json.loads((tmp_path / "run" / "timings.json").read_text())
    assert set(times["extraction_ms_per_image"]) == {"global", "fcn:2,1,nomap", "grid:2", "sampling:3"}
    cached = tmp_path / "cache" / "features"
    before = {file.name for file in cached.glob("*.safetensors")}
    finish(retrieve.main, tmp_path / "same", *arguments[:-2])
    # At another resolution patches are extracted again, whole images are not.
    assert (len(before), len({file.name for file in cached.glob("*.safetensors")} - before)) == (4, 2)


def test_halves_of_the_classes(toy_pictures, toy_backbone, tmp_path, finish, capsys):
    arguments = ["--dataset", "image-folder", "--data-root", toy_pictures, "--nodes", "fcn:1,nomap"]
    results = finish(retrieve.main, tmp_path / "run", *arguments, "--split", "second-half")
    assert results["class_names"] == ["test-4", "test-5", "train-0", "train-1"]
    assert "the second half, by name, of the 8 classes that are there" in capsys.readouterr().out
    material = _material.load_image_material("image-folder", "second-half", toy_pictures)
    assert material.base().digest == load_half("image-folder", "first-half", toy_pictures, DataOptions()).digest


def test_a_backbone_that_saw_the_classes_is_refused(toy_pictures, toy_backbone, tmp_path, monkeypatch, refused, finish):
    card = backbones.Card("seen", "parts", dataset="image-folder", training_data="toys", training_classes=("test-1",))
    network = backbones.Backbone(toy_backbone.module, card, "seen")
    monkeypatch.setattr(_material, "load_backbone", lambda spec, dataset=None, trained_on=None: network)
    arguments = ["--dataset", "image-folder", "--data-root", toy_pictures, "--nodes", "fcn:2,nomap"]
    arguments += ["--resolution", 16, "--output", tmp_path / "run"]
    assert "was trained on 1 of the 6 classes" in refused(retrieve.main, *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nodes", "pixels"], "unknown nodes 'pixels'"),
        (["--rerank", 0], "--rerank must be at least 1, not 0"),
        (["--rerank", 5, "--all-pairs"], "leave out --rerank"),
        (["--scores", "emd"], "--scores must be deepemd, deepemd-equal, chamfer"),
        (["--scores"], "--scores must name at least one of deepemd, deepemd-equal, chamfer"),
        (["--solver", "simplex"], "unknown solver"),
        (["--solver", "keops"], "works on point clouds"),
        (["--dataset", "birds"], "unknown data set"),
        (
            ["--split", "third-half"],
            "--split must be train, val, test, first-half, second-half or all, not 'third-half'",
        ),
        (["--dataset", "image-folder", "--data-root", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_mistakes_get_one_sentence(arguments, said, refused):
    assert said in refused(retrieve.main, *arguments)


def test_scores_that_can_be_asked_for_are_those_that_there_are():
    assert list(get_args(RetrievalScore)) == [*TRANSPORT, *CONTROLS]


def test_several_processes_are_refused(monkeypatch, refused):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "first_to_fail", lambda: True)
    assert "retrieve does not share its work, but 2 processes were started" in refused(retrieve.main)


def test_nodes_of_own_features_cannot_be_chosen(own_features, refused):
    assert "hold nodes of their own" in refused(retrieve.main, *given(own_features, "--nodes", "fcn"))


def test_one_class_is_refused(tmp_path, refused):
    path = tmp_path / "one.npz"
    np.savez(path, nodes=np.ones((4, 2, 3), np.float32), labels=np.array(["wren"] * 4))
    assert "all images are of one class (wren)" in refused(retrieve.main, *given(path))


def test_another_protocol_is_refused(own_features, tmp_path, finish, refused):
    finish(retrieve.main, tmp_path / "run", *given(own_features, "--scores", "chamfer"))
    said = refused(retrieve.main, *given(own_features, "--rerank", 7, "--output", tmp_path / "run"))
    assert "holds a run of another protocol" in said


def test_pictured_queries_are_chosen_by_rule():
    rng = np.random.default_rng(0)
    one, two = (Ranked({"map_at_r": rng.random(50)}, np.zeros((50, 3), np.int64), 1.0) for _ in range(2))
    one.metrics["map_at_r"][:5] = np.nan
    change = two.metrics["map_at_r"] - one.metrics["map_at_r"]
    chosen = choose(one, two)
    assert chosen == choose(one, two)
    assert sorted(chosen.values()) == ["drawn", "drawn", "largest gain", "largest loss"]
    by_reason = {why: query for query, why in chosen.items()}
    assert by_reason["largest gain"] == np.nanargmax(change)
    assert by_reason["largest loss"] == np.nanargmin(change)
    assert min(chosen) >= 5
    assert list(choose(one, one).values()) == ["drawn", "drawn", "largest gain, largest loss"]
