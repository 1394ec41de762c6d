"""LST beside PT-MAP: rows by hand, paired differences, the eight ways between them, tuning, refusals."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from scipy import stats

from otfew.evaluation import tuning as latent_tuning
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.evaluation.study import Terms
from otfew.experiments import commands as otfew_command
from otfew.experiments.common import setup
from otfew.experiments.latent_space import command as latent_space
from otfew.experiments.latent_space import run as latent_run
from otfew.experiments.latent_space.entries import published_options
from otfew.features.file import labels_digest, load_feature_file
from otfew.features.material import FileMaterial
from otfew.methods import METHODS
from otfew.methods.presets import published

pytestmark = pytest.mark.usefixtures("surroundings")
HEADS = {"NCM": "ncm", "k-means": "kmeans", "GMM": "gmm", "MAP": "map"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture(scope="module")
def done(own_features, tmp_path_factory):
    """The folder of a run that several tests read, pictures and all."""
    place = tmp_path_factory.mktemp("latent")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTFEW_CACHE", str(place / "cache"))
        patch.setattr(setup, "set_threads", lambda threads: 1)
        words = ["--features", own_features, "--query", 4, "--episodes", 40, "--shots", 1, 3, "--published", "cifar-fs"]
        latent_space.main([str(word) for word in (*words, "--rivals", "cosine-centroid", "--output", place / "run")])
    return place / "run"


@pytest.fixture(scope="module")
def finished(done):
    return json.loads((done / "results.json").read_bytes())


def episodes_csv(folder):
    rows = [row.split(",") for row in (folder / "episodes.csv").read_text().splitlines()[1:]]
    found = {}
    for panel, method, _, accuracy in rows:
        found.setdefault((panel, method), []).append(float(accuracy))
    return {key: np.array(values) for key, values in found.items()}


def test_rows_are_those_of_the_methods_called_by_hand(finished, own_features):
    features = load_feature_file(own_features)
    digest = labels_digest(features.labels, features.classes)[:16]
    protocol = Protocol("features", digest, "file", seed=1, way=5, shot=3, query=4)
    drawn = Sampler(protocol, features.labels, features.classes)(0, 40)
    support = features.nodes[torch.from_numpy(drawn.support)]
    query = features.nodes[torch.from_numpy(drawn.query)].flatten(1, 2)
    methods = finished["panels"]["shot-3"]["methods"]
    assert set(methods) == {"NCM", "cosine-centroid", *(f"{t}+{h}" for t in ("PT", "LST") for h in HEADS)}
    for method, title in (("pt-map", "PT"), ("lst", "LST")):
        for name, head in HEADS.items():
            logits = METHODS[method](**published(method, "cifar-fs", 5), head=head)(support, query)
            right = (logits.argmax(-1).view(40, 5, 4) == torch.arange(5)[:, None]).double().mean()
            assert methods[f"{title}+{name}"]["accuracy"]["mean"] == pytest.approx(right.item(), abs=1e-6)
            assert methods[f"{title}+{name}"]["transductive"]
    assert not methods["NCM"]["transductive"]


def test_differences_are_paired(finished, done):
    accuracies = episodes_csv(done)
    pairs = finished["by_shot"]["3"]["pairs"]
    assert set(pairs) == {*(f"LST+{h} - PT+{h}" for h in HEADS), "PT+MAP - PT+GMM", "LST+MAP - LST+GMM"}
    for key, record in pairs.items():
        a, b = key.split(" - ")
        values = accuracies["shot-3", a] - accuracies["shot-3", b]
        assert record["mean"] == pytest.approx(values.mean(), abs=1e-7)
        assert record["episode_ci"] == pytest.approx(1.96 * values.std(ddof=1) / 40**0.5, abs=1e-7)
        expected = stats.ttest_1samp(values, 0, alternative="greater").pvalue
        assert record["t_test"] == pytest.approx(expected, rel=1e-4)


def test_eight_ways_from_pt_to_lst(finished, done):
    accuracies = episodes_csv(done)
    options = published("lst", "cifar-fs", 1)
    methods = finished["panels"]["ablation-1"]["protocol"]["methods"]
    assert len(methods) == 8
    assert methods["111"]["options"] == {**options, "head": "map", "joint": True}
    assert methods["010"]["options"] == {**options, "head": "map", "delta": 1.0, "joint": False}
    np.testing.assert_array_equal(accuracies["ablation-1", "111"], accuracies["shot-1", "LST+MAP"])
    for place, step in enumerate(("delta", "gamma", "joint centring")):
        gains = []
        for rest in itertools.product("01", repeat=2):
            on, off = ("".join([*rest[:place], digit, *rest[place:]]) for digit in "10")
            gains.append((accuracies["ablation-1", on] - accuracies["ablation-1", off]).mean())
        assert finished["by_shot"]["1"]["steps"][step]["mean"] == pytest.approx(np.mean(gains), abs=1e-7)


def test_report_and_pictures(done):
    said = (done / "report.md").read_text()
    for words in (
        "## 1-shot on features",
        "## 3-shot on features: from PT to LST",
        "LST+MAP (transductive)",
        "as published for cifar-fs",
        "| LST+MAP | 0.5 | 0.4 | 0.95 | 10 | 0.2 | 20 |",
        "| PT+NCM | 0.5 |  |  |",
        "they are compared among themselves",
    ):
        assert words in said
    assert (done / "latent-space.png").read_bytes().startswith(b"\x89PNG")


def test_rivals_that_are_not_there_are_listed(own_features, folder, finish, monkeypatch):
    monkeypatch.setattr(latent_run, "RIVALS", ("of-another-time",))
    results = finish(
        latent_space.main, folder, "--features", own_features, "--query", 4, "--episodes", 2, "--shots", 1,
        "--rivals", "of-another-time", "simpleshot",
    )  # fmt: skip
    reasons = results["panels"]["shot-1"]["not_run"]
    assert reasons["of-another-time"] == "this version has no such method"
    assert reasons["simpleshot"] == "it needs the mean of the base classes, but the features file has no base_mean"


@pytest.fixture
def two_splits(own_features, monkeypatch):
    """Own features as the val and test splits of a data set; remembers which were opened."""
    opened = []

    def open_material(options, dataset, features, nodes, console):
        opened.append(options.split)
        return FileMaterial(own_features)

    monkeypatch.setattr(setup, "open_material", open_material)
    grid = {name: (value,) for name, value in published("lst", "cub", 1).items()}
    grid |= {"delta": (0.0, 1.0), "lam": (1.0, 10.0), "alpha": (0.2, 0.9), "slack": (0.05, 2.0)}
    monkeypatch.setattr(latent_tuning, "GRID", grid)
    return opened


def test_tuning_uses_the_validation_classes_and_finds_what_is_better(two_splits, folder, finish):
    arguments = ["--query", 4, "--episodes", 2, "--shots", 1, "--tune-on", "val", "--tune-episodes", 10, "--rivals"]
    results = finish(latent_space.main, folder, *arguments)
    assert two_splits == ["test", "val"]
    tuning = results["tuning"]["1"]
    assert set(tuning) == {f"{m} {h}" for m in ("pt-map", "lst") for h in HEADS.values()}
    chosen = results["panels"]["shot-1"]["protocol"]["methods"]["LST+MAP"]["options"]
    assert {**chosen, "head": None} == {**tuning["lst map"]["options"], "head": None}
    assert all(record["chosen_on_val"] >= record["published_on_val"] for record in tuning.values())
    assert any(record["chosen_on_val"] > record["published_on_val"] for record in tuning.values())
    assert results["settings"]["tuned_on"] == {"split": "val", "episodes": 10}
    said = (folder / "report.md").read_text()
    assert "the best on 10 episodes of the validation classes" in said
    assert "| published, % on val | chosen, % on val |" in said


@pytest.mark.slow
def test_the_slack_of_an_estimated_prior_is_chosen_too(two_splits, folder, finish, monkeypatch):
    others = {name: values[-1:] for name, values in latent_tuning.GRID.items() if name != "slack"}
    monkeypatch.setattr(latent_tuning, "GRID", {**others, "slack": latent_tuning.GRID["slack"]})
    results = finish(
        latent_space.main, folder, "--query", 3, "--episodes", 6, "--shots", 1, "--rivals", "--tune-on", "val",
        "--tune-episodes", 3, "--query-balance", "dirichlet:1", "--class-prior", "estimated",
    )  # fmt: skip
    methods = results["panels"]["shot-1"]["protocol"]["methods"]
    assert methods["LST+MAP"]["options"]["slack"] in {0.05, latent_tuning.SLACK, 2.0}
    assert all("slack" not in methods[f"LST+{head}"]["options"] for head in ("NCM", "k-means", "GMM"))
    said = (folder / "report.md").read_text()
    assert "class prior estimated" in said
    assert "published, % on val" in said


def test_no_other_value_of_the_last_option_is_better_on_the_tuning_episodes(two_splits, own_features):
    material = FileMaterial(own_features)
    features = load_feature_file(own_features).pooled
    protocol = Protocol("features", "x", "val", seed=1, way=5, shot=1, query=4)
    sampler = Sampler(protocol, features.labels, features.classes)
    start = {("lst", "map"): published_options("cub", 1, None)["lst", "map"]}
    tuned = latent_tuning.tune(material, "file", sampler, Terms(10), start, ["delta"])
    drawn = sampler(0, 10)
    support = features.nodes[torch.from_numpy(drawn.support)]
    query = features.nodes[torch.from_numpy(drawn.query)].flatten(1, 2)

    def accuracy(options):
        logits = METHODS["lst"](**options, head="map")(support, query)
        return (logits.argmax(-1).view(10, 5, 4) == torch.arange(5)[:, None]).double().mean().item()

    best = tuned.options["lst", "map"]
    assert best["delta"] == start["lst", "map"]["delta"]
    before, after = tuned.accuracies["lst", "map"]
    assert before == pytest.approx(accuracy(published("lst", "cub", 1)), abs=1e-6)
    assert after == pytest.approx(accuracy(best), abs=1e-6)
    assert all(accuracy({**best, "alpha": value}) <= after + 1e-6 for value in (0.2, 0.9))


def test_signed_features_are_refused_unless_no_power_is_taken(own_features, tmp_path, refused, finish):
    with np.load(own_features) as file:
        np.savez(tmp_path / "signed.npz", nodes=file["nodes"] - 1, labels=file["labels"])
    arguments = ["--features", tmp_path / "signed.npz", "--query", 4, "--episodes", 2, "--shots", 1, "--rivals"]
    said = refused(latent_space.main, *arguments)
    assert "method 'lst' needs features of at least 0, since it takes a power of them" in said
    assert said.endswith("take a backbone whose features end in ReLU; or give --beta 1, which takes no power.\n")
    results = finish(latent_space.main, tmp_path / "run", *arguments, "--beta", 1)
    methods = results["panels"]["shot-1"]["protocol"]["methods"]
    assert all(m["options"]["beta"] == 1 for row, m in methods.items() if row != "NCM")
    assert "but for beta, which --beta sets to 1" in (tmp_path / "run" / "report.md").read_text()


def test_what_cannot_be_run_is_refused_in_a_sentence(own_features, refused):
    for arguments, words in (
        (["--shots", "0"], "--shots must be whole numbers of at least 1"),
        (["--published", "mini"], "--published must be cifar-fs or cub, not 'mini'"),
        (["--beta", "0"], "--beta must be a number above 0"),
        (["--tune-on", "test"], "--tune-on must be val, not 'test'"),
        (["--tune-on", "val", "--split", "val"], "would choose on the evaluated classes"),
        (["--tune-on", "val", "--tune-episodes", "0"], "--tune-episodes must be at least 1"),
        (["--tune-on", "val", "--published", "cub"], "exclude each other"),
        (["--tune-on", "val", "--features", own_features], "--features is one file"),
        (["--rivals", "timm"], "unknown method 'timm'"),
        (["--features", own_features, "--query", "4", "--shots", "17"], "20"),
    ):
        assert words in refused(latent_space.main, *arguments), arguments


def test_registered():
    assert "latent-space" in otfew_command.COMMANDS
    assert json.dumps(otfew_command.COMMANDS)
