"""Runs across domains: what methods see, what is paired, and what a report says."""

import json

import cv2
import numpy as np
import pytest
import torch

import otfew
from otfew import backbones, data
from otfew.data.shifts import shifted
from otfew.errors import UserError
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.evaluation.opening import open_material
from otfew.experiments import compare, episode
from otfew.experiments.common.cli import run
from otfew.features import material as materials
from otfew.reporting.result import load

CLASSES = "abcdef"
FAST = {"episodes": 12, "query": 3, "way": 3, "methods": ["cosine-centroid", "protonet"]}


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """Six classes of noisy colours in two domains, as a CSV file and as two folders; 20 images of each."""
    root = tmp_path_factory.mktemp("domains")
    rng = np.random.default_rng(0)
    rows = ["image,label,domain"]
    for c in CLASSES:
        colour = rng.integers(40, 216, 3)
        for domain, gain in (("photo", 1.0), ("night", 0.4)):
            folder = root / domain / c
            folder.mkdir(parents=True)
            for i in range(20):
                pixels = np.clip(gain * (colour + rng.normal(0, 40, (16, 16, 3))), 0, 255)
                cv2.imwrite(str(folder / f"{i}.png"), pixels.astype(np.uint8))
                rows.append(f"{domain}/{c}/{i}.png,{c},{domain}")
    (root / "all.csv").write_text("\n".join(rows) + "\n")
    (root / "plain.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows) + "\n")
    return root


@pytest.fixture
def network(monkeypatch):
    card = backbones.Card("quarters", "quarters", resolution=16, training_data="toys", training_classes=("toy",))
    found = backbones.Backbone(torch.nn.AdaptiveAvgPool2d(2), card, "quarters")
    monkeypatch.setattr(materials, "load_backbone", lambda spec, dataset, trained_on=None: found)
    return found


def test_what_methods_see_is_of_the_right_domain(lists, network):
    """The evaluator's accuracies, from features that this test extracts itself."""
    material = open_material(str(lists / "plain.csv"), query_domain="dark:2")
    found = otfew.compare(str(lists / "plain.csv"), **FAST, query_domain="dark:2")
    images = data.load(str(lists / "plain.csv"), "test")
    clean, dark = (
        torch.stack([network.maps(torch.from_numpy(s.read(i)).permute(2, 0, 1)[None])[0].mean((1, 2))
                     for i in range(len(images))])
        for s in (images, shifted(images, "dark:2"))
    )  # fmt: skip
    protocol = Protocol("plain.csv", "", "test", way=3, shot=1, query=3)
    episodes = Sampler(protocol, images.labels, images.classes)(0, 12)
    for row in range(12):
        centres = clean[episodes.support[row, :, 0]]
        asked = dark[episodes.query[row].reshape(-1)]
        taken = torch.cosine_similarity(asked[:, None], centres[None], dim=-1).argmax(1).numpy()
        expected = (taken == episodes.answers[row]).mean()
        assert found.episodes["cosine-centroid"][row] == pytest.approx(expected)
    assert np.array_equal(found.answers.query, episodes.query.reshape(12, -1) + len(images))
    assert found.answers.images[len(images)] == f"{images.names[0]} [dark:2]"
    assert material.features("fcn", "cpu").queries.nodes.shape == material.features("fcn", "cpu").nodes.shape


def test_paired_with_the_ordinary_run_and_cached_apart(lists, network):
    path = str(lists / "plain.csv")
    plain, mild, hard = (otfew.compare(path, **FAST, query_domain=d) for d in (None, "dark:1", "dark:3"))
    for other in (mild, hard):
        assert np.array_equal(plain.answers.support, other.answers.support)
        assert np.array_equal(plain.answers.query, other.answers.query - 240)
        assert np.array_equal(plain.classes, other.classes)
    assert "domains" not in plain.results["protocol"]["data"]
    assert len({r.results["protocol"]["data"]["names_sha256"] for r in (plain, mild, hard)}) == 3
    told = hard.results["protocol"]["data"]["domains"]
    assert told["support"]["name"] == "as they are"
    assert told["query"]["name"] == "dark:3"
    assert told["same_images"] is True
    assert any("labelled images as they are, queries dark:3; the same 240 images" in line for line in hard.lines)
    assert hard.title == "accuracy on plain.csv, queries dark:3, %"


def test_a_column_two_folders_and_their_reports(lists, network, tmp_path, capsys):
    column = otfew.compare(
        str(lists / "all.csv"), **{**FAST, "query": 2}, query_domain="night", query_balance="dirichlet:1"
    )
    names = np.array(column.answers.images)
    assert all(name.startswith("photo/") for name in names[column.answers.support].reshape(-1))
    assert all(name.startswith("night/") for name in names[column.answers.query].reshape(-1))
    assert column.results["protocol"]["data"]["variant"] == "photo to night"
    words = ["--dataset", "image-folder", "--data-root", lists / "photo", "--query-domain", lists / "night"]
    more = ["--episodes", 12, "--way", 3, "--query", 3, "--methods", "cosine-centroid", "--output", tmp_path / "run"]
    run(lambda: compare.main([str(a) for a in [*words, *more]]))
    said = " ".join(capsys.readouterr().out.split())
    assert "labelled images as they are, queries night; 120 and 120 images" in said
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert str(lists) not in (tmp_path / "run" / "results.json").read_text()
    assert results["protocol"]["data"]["domains"]["query"]["images"] == 120
    assert "queries night" in (tmp_path / "run" / "report.html").read_text()
    kept = load(tmp_path / "run")
    with pytest.raises(UserError, match="queries were of folder 'night'"):
        kept.reopen(lists / "photo")


def test_episodes_of_a_view_have_pictures(lists, network, tmp_path, capsys):
    folder = tmp_path / "run"
    otfew.compare(str(lists / "plain.csv"), **FAST, query_domain="blur:3", output=folder)
    asked = [folder, 0, "--report", tmp_path / "page.html", "--dataset", lists / "plain.csv"]
    run(lambda: episode.main([str(a) for a in asked]))
    assert "[blur:3]" in (tmp_path / "page.html").read_text()
    again = load(folder).reopen(dataset=str(lists / "plain.csv"))
    images = data.load(str(lists / "plain.csv"), "test")
    assert np.array_equal(again.images.read(243), shifted(images, "blur:3").read(3))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--query-domain", "fog:1"], "--query-domain 'fog:1' is no view"),
        (["--query-domain", "blur:9"], "its severity must be 1"),
        (["--query-domain", "night"], "plain.csv has no column domain"),
        (["--query-domain", "blur:1", "--fixed-classes"], "draws from one domain"),
        (["--support-domain", "dark:1", "--query-domain", "dark:1"], "--support-domain and --query-domain are both"),
    ],
)
def test_refused_in_one_line(lists, network, capsys, more, said):
    with pytest.raises(SystemExit) as ended:
        run(lambda: compare.main(["--dataset", str(lists / "plain.csv"), *more]))
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert said in line


def test_features_have_no_views(tmp_path):
    np.savez(tmp_path / "own.npz", features=np.ones((4, 2), np.float32), labels=np.array([0, 0, 1, 1]))
    with pytest.raises(UserError, match="`query_domain` is without effect"):
        otfew.compare(features=tmp_path / "own.npz", query_domain="blur:1")
