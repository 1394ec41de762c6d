"""The command: one table, the same bytes after an interruption, and one sentence for every mistake."""

import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from otfew import api, backbones, catalogue
from otfew.data.base import ImageSet
from otfew.errors import UserError
from otfew.experiments import __main__ as otfew_command
from otfew.experiments import compare
from otfew.experiments.common import names, setup
from otfew.experiments.common.cli import parse, run
from otfew.features import material
from otfew.reporting.tables import Table, terminal
from otfew.runs.directory import RunDirectory

FAST = ["--methods", "protonet", "cosine-centroid", "cr-pooled", "deepemd", "--episodes", "120"]


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """Caches and default outputs in a folder of the test; thread settings as they were."""
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OTFEW_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "set_threads", lambda threads: 1)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Own features: 12 classes of 20 images, 4 nodes of 6 channels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 20)
    rows = np.abs(rng.normal(size=(12, 1, 6))[labels] + 0.8 * rng.normal(size=(240, 4, 6)))
    path = tmp_path_factory.mktemp("features") / "features.npz"
    np.savez(path, nodes=rows.astype(np.float32), labels=labels, base_mean=np.full(6, 0.5))
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Given splits of one-coloured pictures: 6 classes to test, 4 to train, 18 images each."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, classes in (("train", 4), ("test", 6)):
        for c in range(classes):
            folder = root / split / f"{split}-{c}"
            folder.mkdir(parents=True)
            colour = rng.integers(40, 216, 3)
            for i in range(18):
                noisy = np.clip(colour + rng.normal(0, 40, (20, 24, 3)), 0, 255)
                cv2.imwrite(str(folder / f"{i}.png"), noisy.astype(np.uint8))
    return root


@pytest.fixture
def backbone(monkeypatch):
    """Stand in for a checkpoint; returns a function that sets fields of its card."""

    def give(**fields):
        card = backbones.Card("quarters", "quarters", resolution=16, **fields)
        network = backbones.Backbone(torch.nn.AdaptiveAvgPool2d(2), card, "quarters")
        monkeypatch.setattr(material, "load_backbone", lambda spec, dataset, trained_on=None: network)

    give(training_data="toys", training_classes=("toy",))
    return give


def run_ok(*arguments):
    run(lambda: compare.main([str(a) for a in arguments]))


def refused(capsys, *arguments):
    """Return the one line with which a command line is refused."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_ok(*arguments)
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert said.err.endswith("\n")
    return said.err


def contents(folder):
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_own_features_give_a_table_and_a_report(features, tmp_path, capsys, rendered):
    run_ok("--features", features, *FAST, "--output", tmp_path / "run")
    said = capsys.readouterr().out
    for word in ("cosine-centroid", "reference", "Holm", "what transport adds in deepemd", "conditional on"):
        assert word in said
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["methods"]) == {"protonet", "cosine-centroid", "cr-pooled", "deepemd"}
    # Neither of those that ran is a control that is fixed beforehand.
    assert results["transport_adds"]["deepemd"] == {
        "contrasts": {},
        "reason": "chamfer and product-coupling did not run on nodes file",
    }
    assert results["protocol"]["reference"] == "cosine-centroid"
    timings = json.loads((tmp_path / "run" / "timings.json").read_text())
    assert all(t["ms_per_episode"] > 0 for t in timings["methods"].values())
    rows = (tmp_path / "run" / "episodes.csv").read_text().splitlines()
    assert len(rows) == 1 + 4 * 120
    mean = np.mean([float(row.split(",")[2]) for row in rows if row.startswith("deepemd,")])
    assert results["methods"]["deepemd"]["accuracy"]["mean"] == pytest.approx(mean)
    assert (tmp_path / "run" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert "| deepemd |" in (tmp_path / "run" / "report.md").read_text()


def test_results_hold_no_paths_times_or_dates(features, tmp_path):
    run_ok("--features", features, *FAST, "--output", tmp_path / "run")
    text = (tmp_path / "run" / "results.json").read_text()
    for word in (str(tmp_path), str(features), "ms_per", "seconds", "threads"):
        assert word not in text


def test_an_interrupted_run_resumes_to_the_same_bytes(features, tmp_path, monkeypatch, capsys):
    arguments = ["--features", features, *FAST, "--output"]
    run_ok(*arguments, tmp_path / "whole")
    save = RunDirectory.save_block

    def interrupted(self, index, arrays, form):
        if index == 1:
            raise KeyboardInterrupt
        save(self, index, arrays, form)

    monkeypatch.setattr(RunDirectory, "save_block", interrupted)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_ok(*arguments, tmp_path / "cut")
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted; the same command resumes\n"
    assert not (tmp_path / "cut" / "results.json").exists()
    monkeypatch.setattr(RunDirectory, "save_block", save)
    run_ok(*arguments, tmp_path / "cut")
    for name in ("results.json", "episodes.csv", "protocol.json", "answers.npz", "table.csv", "table.tex"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_all_methods_that_apply(features, tmp_path, capsys):
    run_ok("--features", features, "--episodes", 4, "--shot", 2, "--query", 3, "--output", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {"simpleshot", "deepemd", "protonet", "frn", "logistic"} <= set(results["methods"])
    assert all("preset of deepemd" in results["not_run"][f"deepemd-{kind}"] for kind in ("fcn", "grid", "sampling"))
    assert "not run: deepemd-fcn" in capsys.readouterr().out


def test_signed_features_have_no_power(features, tmp_path, capsys):
    """Methods that need it are left out of all, with the reason, and refused where named."""
    with np.load(features) as file:
        signed = {name: file[name] for name in file.files}
    signed["nodes"] = signed["nodes"] - 1
    np.savez(tmp_path / "signed.npz", **signed)
    arguments = ["--features", str(tmp_path / "signed.npz"), "--episodes", "2"]
    run_ok(*arguments, "--methods", "all", "--output", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    for name in ("lst", "pt-map"):
        assert "needs features of at least 0" in results["not_run"][name]
        assert name not in results["methods"]
    said = refused(capsys, *arguments, "--methods", "protonet", "lst")
    assert "method 'lst' needs features of at least 0" in said
    assert "take a backbone whose features end in ReLU" in said


def test_images_through_a_backbone(pictures, tmp_path, backbone, capsys):
    arguments = ["--dataset", "image-folder", "--data-root", pictures, "--query", 5, "--episodes", 60]
    arguments += ["--methods", "simpleshot", "protonet"]
    run_ok(*arguments)
    said = capsys.readouterr().out
    assert "16 px, centre crop" in said
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("compare-image-folder-")
    first = contents(folder)
    timings = json.loads(first[folder / "timings.json"])
    assert timings["extraction_ms_per_image"]["fcn"] > 0
    plain, extracted = (timings["methods"]["protonet"][k] for k in ("ms_per_episode", "ms_per_episode_with_extraction"))
    assert extracted == pytest.approx(plain + 30 * timings["extraction_ms_per_image"]["fcn"])
    run_ok(*arguments)
    assert contents(folder) == first


@pytest.mark.slow
def test_each_preset_runs_on_its_nodes_when_named(pictures, tmp_path, backbone, capsys):
    arguments = ["--dataset", "image-folder", "--data-root", pictures, "--query", 3, "--episodes", 4]
    run_ok(*arguments, "--methods", "deepemd-fcn", "deepemd-grid", "deepemd-sampling", "--output", tmp_path / "run")
    said = " ".join(capsys.readouterr().out.split())
    assert "grid:2,3 and sampling:9: patches of whole images at their original resolution" in said
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [results["methods"][f"deepemd-{kind}"]["nodes"] for kind in ("fcn", "grid", "sampling")] == [
        "fcn",
        "grid:2,3",
        "sampling:9",
    ]


@pytest.mark.parametrize("nodes", ["fcn:2,1", "grid:2,3", "sampling:9"])
def test_all_methods_run_on_any_nodes(pictures, tmp_path, backbone, nodes):
    arguments = ["--dataset", "image-folder", "--data-root", pictures, "--query", 3, "--episodes", 4]
    run_ok(*arguments, "--nodes", nodes, "--output", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {method["nodes"] for method in results["methods"].values()} == {nodes}
    assert set(results["methods"]) | set(results["not_run"]) == set(catalogue.methods())
    for name, reason in results["not_run"].items():
        # The stand-in hands out normalised pixels, of both signs.
        signed = catalogue.find(name).needs_nonnegative
        assert ("needs features of at least 0" if signed else "on the same nodes") in reason


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ("grids:2", "unknown nodes"),
        ("grid:2,x", "'x' is not a whole number"),
        ("sampling:0", "'0' is not a whole number"),
        (
            "grid:21",
            "image 'test/test-0/0.png' of 'image-folder': nodes 'grid:21' cut 21 cells to a side",
        ),
        ("fcn:3", "level 3 is larger than the backbone's map of 2 x 2 nodes"),
    ],
)
def test_nodes_that_cannot_be_cut_are_refused(pictures, tmp_path, backbone, capsys, nodes, said):
    arguments = ["--dataset", "image-folder", "--data-root", pictures, "--query", 3, "--episodes", 4]
    assert said in refused(capsys, *arguments, "--nodes", nodes, "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_base_classes_are_needed_for_centring(pictures, backbone, tmp_path, capsys):
    arguments = ["--dataset", "image-folder", "--data-root", pictures / "test", "--query", 5, "--episodes", 4]
    run_ok(*arguments, "--methods", "all", "--output", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert "train split" in results["not_run"]["simpleshot"]
    assert "base classes" in refused(capsys, *arguments, "--methods", "simpleshot")


def test_classes_that_were_seen_in_training_are_refused(pictures, backbone, tmp_path, capsys):
    backbone(training_data="x", dataset="image-folder", training_classes=("test-0", "test-3", "other"))
    arguments = ["--dataset", "image-folder", "--data-root", pictures, "--query", 5, "--episodes", 4]
    arguments += ["--methods", "protonet", "--output", tmp_path / "run"]
    assert "2 of the 6 classes" in refused(capsys, *arguments)
    assert not (tmp_path / "run").exists()
    run_ok(*arguments, "--allow-overlap")
    assert "2 of 6 test classes were seen in training" in " ".join(capsys.readouterr().out.split())


def test_external_backbones_are_labelled_not_refused(pictures, backbone, capsys):
    backbone(training_data="web", external=True, training_classes=("test-0",))
    run_ok("--dataset", "image-folder", "--data-root", pictures, "--query", 5, "--episodes", 4, "--methods", "protonet")
    assert "external data; test classes seen in pretraining: 1 of 6" in capsys.readouterr().out


def test_an_output_of_another_protocol_is_refused_and_untouched(features, tmp_path, capsys):
    arguments = ["--features", features, "--methods", "protonet", "--episodes", 5, "--output", tmp_path / "run"]
    run_ok(*arguments)
    before = contents(tmp_path / "run")
    for change in (["--seed", 2], ["--shot", 2], ["--methods", "knn"], ["--episodes", 6]):
        assert "another protocol" in refused(capsys, *arguments, *change)
    assert contents(tmp_path / "run") == before


WITHOUT_EFFECT = {
    "output": "it is the folder itself",
    "data_root": "images are told by their digest, wherever they lie",
    "download": "what is there counts, however it got there",
    "threads": "figures do not depend on it",
    "list_names": "nothing runs",
}
CHANGES = {
    "dataset": "cifar-fs", "split": "val", "cub_split": "closerlook", "split_seed": 1, "depth": 2,
    "features": None, "backbone": "other", "resolution": 8, "crop": "none", "allow_overlap": True, "way": 4,
    "shot": 2, "query": 4, "query_balance": "dirichlet:2", "class_prior": "true", "episodes": 5, "seed": 2,
    "device": "elsewhere", "methods": ("protonet", "tim", "knn"), "nodes": "fcn:2,1", "reference": "tim",
    "solver": "sinkhorn", "fixed_classes": True, "unknown_classes": 1, "logits": True, "shots": (1, 2),
    "seeds": (1, 2), "trained_on": "others", "support_domain": "dark:1", "query_domain": "blur:1",
}  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Folder of this file's tests."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def claimed(shared, monkeypatch):
    """A run on a stand-in for CUB, which tells in its variant what it was asked for; returns its Config."""
    pictures = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)

    def images(name, split, root, options):
        return ImageSet(
            dataset=name, split=split, classes=tuple("abcde"),
            variant=f"{options.cub_split} {options.split_seed} {options.depth}", labels=np.repeat(np.arange(5), 12),
            names=tuple(map(str, range(60))), read=lambda i: pictures[i], fingerprint="1", published_classes=5,
        )  # fmt: skip

    def network(spec, dataset, trained_on):
        card = backbones.Card("quarters", "quarters", resolution=16, training_data=trained_on or "toys")
        return backbones.Backbone(torch.nn.AdaptiveAvgPool2d(2), card, str(spec))

    monkeypatch.setattr(material, "load_images", images)
    monkeypatch.setattr(material, "load_backbone", network)
    config = compare.Config(
        dataset="cub", backbone="one", way=3, query=3, episodes=4, methods=("protonet", "tim"), output=shared / "run"
    )
    if not config.output.exists():
        compare.compare(config, Console(quiet=True))
    return config


def test_every_option_is_part_of_a_runs_identity_or_has_a_reason_not_to_be():
    fields = {field.name for field in dataclasses.fields(compare.Config)}
    assert fields == set(CHANGES) | set(WITHOUT_EFFECT)


@pytest.mark.parametrize("option", CHANGES)
def test_a_folder_of_other_options_is_refused(option, claimed, features, monkeypatch):
    value = CHANGES[option]
    if option == "device":
        monkeypatch.setattr(api, "pick_device", lambda name: "cuda:0" if name == value else "cpu")
    changed = dataclasses.replace(claimed, **{option: value})
    if option == "features":
        changed = dataclasses.replace(changed, features=(features,), dataset=None, backbone=None)
    before = contents(claimed.output)
    several = "panels is only here; axes is only here; protocol is only there"
    said = several if option in {"shots", "seeds"} else "protocol."
    with pytest.raises(UserError, match=rf"holds a run of another protocol \({re.escape(said)}"):
        compare.compare(changed, Console(quiet=True))
    assert contents(claimed.output) == before


def test_all_differences_are_named_the_most_telling_first(claimed):
    changed = dataclasses.replace(claimed, shot=2, seed=3, methods=("protonet",), nodes="fcn:2,1", reference="protonet")
    with pytest.raises(UserError) as caught:
        compare.compare(changed, Console(quiet=True))
    told = str(caught.value).partition("(")[2].partition("): ")[0].split("; ")
    assert told == [
        "protocol.shot is 1 there and 2 here",
        "protocol.seed is 1 there and 3 here",
        "protocol.methods.protonet.nodes is 'fcn' there and 'fcn:2,1' here",
        "protocol.methods.tim is only there",
        "protocol.class_prior is only there ('uniform')",
        "protocol.order is ['protonet', 'tim'] there and ['protonet'] here",
    ]


def test_features_put_images_aside(features, capsys):
    for arguments in (["--dataset", "cub"], ["--dataset", "glyphs"], ["--backbone", "x"], ["--resolution", "84"]):
        line = refused(capsys, "--features", features, "--methods", "knn", *arguments)
        assert f"--features comes in place of images, so that {arguments[0]} is without effect: leave it out" in line


def test_seeds_and_shots_are_joined_in_one_table(features, tmp_path, capsys):
    arguments = ["--features", features, "--methods", "cosine-centroid", "knn", "--episodes", 60, "--query", 4]
    run_ok(*arguments, "--seeds", 1, 2, "--shots", 1, 5, "--output", tmp_path / "run")
    said = capsys.readouterr().out
    for word in (
        "1-shot",
        "5-shot",
        "difference to the reference",
        "seeds 1 and 2 of the episodes are pooled",
        "report:",
    ):
        assert word in said
    assert sorted(f.name for f in (tmp_path / "run" / "panels").iterdir()) == [
        "shot-1-seed-1", "shot-1-seed-2", "shot-5-seed-1", "shot-5-seed-2",
    ]  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    run_ok(*arguments, "--seed", 2, "--shot", 5, "--output", tmp_path / "alone")
    alone = json.loads((tmp_path / "alone" / "results.json").read_text())
    assert results["panels"]["shot-5-seed-2"] == {key: alone[key] for key in results["panels"]["shot-5-seed-2"]}


def test_two_files_of_features_are_compared_with_each_other(features, tmp_path, capsys):
    arrays = dict(np.load(features))
    np.savez(tmp_path / "other.npz", nodes=arrays["nodes"] ** 2, labels=arrays["labels"].astype(str))
    line = refused(capsys, "--features", features, tmp_path / "other.npz", "--methods", "knn", "--query", 4)
    # As text, "10" comes before "2": episodes would be others.
    assert "has its classes in another order than features, as where labels are numbers in one and text in" in line
    np.savez(tmp_path / "other.npz", nodes=arrays["nodes"] ** 2, labels=arrays["labels"])
    run_ok("--features", features, tmp_path / "other.npz", "--methods", "knn", "--query", 4, "--episodes", 20)
    said = " ".join(capsys.readouterr().out.split())
    assert "difference to features features" in said
    assert "features other: 4 nodes of 6 channels an image" in said


def test_an_interrupted_joined_run_resumes_to_the_same_bytes(features, tmp_path, monkeypatch):
    arguments = ["--features", features, "--methods", "knn", "protonet", "--episodes", 60, "--shots", 1, 3, "--output"]
    run_ok(*arguments, tmp_path / "whole")
    save, saved = RunDirectory.save_block, []

    def interrupted(self, index, arrays, form):
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(index)
        save(self, index, arrays, form)

    monkeypatch.setattr(RunDirectory, "save_block", interrupted)
    with pytest.raises(SystemExit):
        run_ok(*arguments, tmp_path / "cut")
    monkeypatch.setattr(RunDirectory, "save_block", save)
    run_ok(*arguments, tmp_path / "cut")
    whole, cut = (contents(tmp_path / name) for name in ("whole", "cut"))
    for file, data in whole.items():
        # Blocks hold seconds.
        if file.name not in {"timings.json", "000000.npz", "000001.npz"}:
            assert cut[tmp_path / "cut" / file.relative_to(tmp_path / "whole")] == data, file


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shot", "0"], "--shot must be at least 1"),
        (["--way", "1"], "--way must be at least 2"),
        (["--query", "0"], "--query must be at least 1"),
        (["--episodes", "0"], "--episodes must be at least 1"),
        (["--shot", "x"], "--shot"),
        (["--shott", "1"], "--shott"),
        (["--shot"], "--shot"),
        (["--dataset", "cubb"], "cubb"),
        (["--dataset", "cub", "--data-root", "missing"], "missing"),
        (["--dataset", "cub", "--cub-split", "mine"], "mine"),
        (["--dataset", "image-folder", "--data-root", "."], "class folders"),
        (["--methods", "protonett"], "did you mean protonet"),
        (["--methods"], "names no method"),
        (["--solver", "exactt"], "exactt"),
        (["--device", "quantum"], "quantum"),
        (["--features", "missing.npz"], "missing.npz"),
    ],
)
def test_mistakes_are_one_sentence(capsys, arguments, said, features):
    if arguments == ["--methods"]:
        arguments = ["--features", features, *arguments]
    assert said in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--query", "30"], "has 18 images, but an episode needs 31"),
        (["--way", "7"], "--way 7 asks for more classes than the 6"),
        (["--nodes", "spline"], "spline"),
        (["--resolution", "0"], "resolution"),
        (["--crop", "sides"], "sides"),
        (["--split", "exam"], "exam"),
        (["--split", "val"], "val"),
        (["--methods", "protonet", "--reference", "knn"], "--reference 'knn'"),
    ],
)
def test_mistakes_about_images_are_one_sentence(capsys, arguments, said, pictures, backbone, tmp_path):
    line = refused(capsys, "--dataset", "image-folder", "--data-root", pictures, "--query", 5, *arguments)
    assert said in line
    assert not (tmp_path / "runs").exists()


def test_an_image_with_nan_features_is_named(pictures, backbone, monkeypatch, capsys):
    class Nan(torch.nn.Module):
        def forward(self, images):
            return torch.full((len(images), 3, 2, 2), torch.nan)

    network = backbones.Backbone(Nan(), backbones.Card("nan", "nan", training_data="x"), "nan")
    monkeypatch.setattr(material, "load_backbone", lambda spec, dataset, trained_on=None: network)
    assert "test-0" in refused(capsys, "--dataset", "image-folder", "--data-root", pictures, "--query", 5)


def test_nan_among_own_features_is_named(tmp_path, capsys):
    rows = np.ones((10, 3), np.float32)
    rows[7] = np.nan
    np.savez(tmp_path / "f.npz", features=rows, labels=np.arange(10) % 2)
    assert "image 7" in refused(capsys, "--features", tmp_path / "f.npz")


@pytest.mark.parametrize("wrong", ["unknown", "truncated"])
def test_backbones_that_cannot_be_loaded(pictures, capsys, wrong, tmp_path):
    spec = "nobody-knows"
    if wrong == "truncated":
        spec = str(tmp_path / "cut.safetensors")
        (tmp_path / "cut.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
        card = backbones.Card("cut", "conv4").to_json()
        (tmp_path / "cut.json").write_text(json.dumps(card))
    line = refused(capsys, "--dataset", "image-folder", "--data-root", pictures, "--backbone", spec, "--query", 5)
    assert "cut" in line if wrong == "truncated" else spec in line


def test_an_image_that_cannot_be_used_leaves_no_claimed_folder(pictures, backbone, tmp_path, capsys):
    root = tmp_path / "spoilt"
    shutil.copytree(pictures, root)
    np.save(root / "test" / "test-0" / "nan.npy", np.full((16, 16, 3), np.nan, np.float32))
    line = refused(capsys, "--dataset", "image-folder", "--data-root", root, "--query", 5, "--output", tmp_path / "run")
    assert "nan.npy" in line
    assert not (tmp_path / "run").exists()


def test_brackets_in_tables_are_text():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal(Table("title", ["method"], [["deepemd [fcn]"]])))
    names._print(console, "backbones", [("x", 'run pip install "otfew[pretrained]"')])
    said = console.export_text()
    assert "deepemd [fcn]" in said
    assert "otfew[pretrained]" in said


def test_names_are_listed(capsys):
    run_ok("--list")
    said = capsys.readouterr().out
    for name in ("glyphs", "cub", "efficientnet-lite0", "fcn", "deepemd", "protonet", "exact"):
        assert name in said


def test_help_ends_well(capsys):
    with pytest.raises(SystemExit) as ended:
        run_ok("--help")
    assert ended.value.code == 0
    assert "--cub-split" in capsys.readouterr().out


def test_the_otfew_command_finds_its_files(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["otfew", "compare", "--shot", "0"])
    with pytest.raises(SystemExit) as ended:
        otfew_command.main()
    assert ended.value.code == 2
    assert "--shot" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["otfew", "compair"])
    with pytest.raises(SystemExit) as ended:
        otfew_command.main()
    assert ended.value.code == 2
    assert "compair" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["otfew"])
    otfew_command.main()
    assert "compare" in capsys.readouterr().out


def test_a_process_of_its_own_says_the_same(pytestconfig):
    command = [sys.executable, "-m", "experiments.compare", "--shot", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=pytestconfig.rootpath)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --shot must be at least 1, not 0.\n"


def test_parse_reads_values():
    config = parse(compare.Config, "compare", ["--methods", "a", "b", "--seed", "-3"])
    assert (config.methods, config.seed) == (("a", "b"), -3)


def test_run_leaves_other_errors_alone():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)
    with pytest.raises(SystemExit) as ended:
        run(lambda: (_ for _ in ()).throw(UserError("two\nlines")))
    assert ended.value.code == 2
