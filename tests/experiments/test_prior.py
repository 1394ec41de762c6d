"""The command that makes the prior's table, on a stand-in for its data sets and networks."""

import json

import numpy as np
import pytest
import torch

from otfew import catalogue
from otfew.backbones.base import Backbone, Card
from otfew.classifier import prior_study
from otfew.classifier.candidates import Candidate, View, candidates
from otfew.classifier.prior import from_json
from otfew.classifier.prior_study import CLASSES, IMAGES, SOURCES, Size, part, study
from otfew.data.base import ImageSet
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.experiments import prior as command
from otfew.statistics.temperature import Expected, cross_fit


def images(name, split, classes=24, each=13):
    rng = np.random.default_rng(len(name))
    labels = np.repeat(np.arange(classes), each)
    tints = rng.integers(60, 180, (classes, 3))[labels] + rng.integers(-30, 31, (len(labels), 3))
    pixels = np.clip(tints[:, None, None] + rng.integers(-40, 41, (len(labels), 16, 16, 3)), 0, 255)
    return ImageSet(
        dataset=name, split=split, variant="", classes=tuple(f"c{i}" for i in range(classes)), labels=labels,
        names=tuple(f"{name}/{i}" for i in range(len(labels))), read=lambda i: pixels[i].astype(np.uint8),
        fingerprint=name, published_classes=classes,
    )  # fmt: skip


@pytest.fixture
def small(monkeypatch, tmp_path):
    def network(name):
        card = Card(name, "pool", resolution=16, mean=(0, 0, 0), std=(1, 1, 1))
        return Backbone(torch.nn.AdaptiveAvgPool2d(2), card, name)

    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prior_study, "load_images", lambda name, split, root, options: images(name, split))
    monkeypatch.setattr(prior_study, "load_backbone", network)
    monkeypatch.setattr(prior_study, "WAYS", (3, 5))
    monkeypatch.setattr(prior_study, "SHOTS", (1, 2))
    return network


def test_the_table_holds_every_candidate_and_its_figures_are_those_of_episodes(small):
    sources = (("one", "val"), ("other", "train"))
    table = study(["net"], sources=sources, size=Size(episodes=3), command="x")
    prior = from_json(json.loads(json.dumps(table)))
    tried = candidates([("net", 16)])
    assert set(prior.cells) == set(tried)
    assert [(c.way, c.shot) for c in prior.cells[tried[0]]] == [(3, 1), (3, 2), (5, 1), (5, 2)]
    assert prior.sources[0].startswith("one (val): 20 classes, 220 images")

    # One cell by hand: centroids of global vectors, on the same episodes.
    chosen = Candidate("cosine-centroid", View("net", 16, "fcn"))
    logs, rights = [], []
    for name, split in sources:
        own = part(images(name, split), CLASSES, IMAGES)
        pixels = np.stack([own.read(i) for i in range(len(own))]).astype(np.float32) / 255
        vectors = torch.from_numpy(pixels.mean((1, 2)))[:, None]
        used, labels = np.unique(own.labels, return_inverse=True)
        episodes = Sampler(Protocol(name, "", split, 1, 5, 2, 4), labels, list(map(str, used)))(0, 3)
        method = catalogue.build("cosine-centroid")
        logits = [method(vectors[s][None], vectors[q].flatten(0, 1)[None])[0].double().numpy()
                  for s, q in zip(episodes.support, episodes.query, strict=True)]  # fmt: skip
        answers = episodes.answers.reshape(-1)
        logits = np.concatenate(logits)
        rights.append((logits.argmax(1) == answers).mean())
        logs.append(np.log(cross_fit(logits, answers, np.arange(len(answers)), Expected(-3.0, 3.0)).temperature))
    cell = prior.cells[chosen][3]
    assert cell.accuracy == pytest.approx(np.mean(rights), abs=1e-5)
    assert cell.log_temperature == pytest.approx(np.mean(logs), abs=0.1)


def test_no_part_of_a_source_is_a_test_split():
    assert {split for _, split in SOURCES} <= {"train", "val"}


def test_parts_do_not_depend_on_the_order_of_files():
    whole = images("one", "val")
    chosen = part(whole, 6, 4)
    assert len(chosen) == 24
    assert (np.bincount(chosen.labels)[np.unique(chosen.labels)] == 4).all()
    order = np.random.default_rng(0).permutation(len(whole))
    shuffled = ImageSet(**{**vars(whole), "labels": whole.labels[order], "names": tuple(whole.names[i] for i in order)})
    assert sorted(part(shuffled, 6, 4).names) == sorted(chosen.names)


def test_the_command_writes_a_table(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prior_study, "SOURCES", (("one", "val"),))
    monkeypatch.setattr(prior_study, "candidates", lambda networks: candidates(networks)[:2])
    monkeypatch.setattr(prior_study.study, "__kwdefaults__", {**study.__kwdefaults__, "sources": (("one", "val"),)})
    command.main(["--backbones", "net", "--episodes", "2", "--output", str(tmp_path / "prior.json")])
    table = json.loads((tmp_path / "prior.json").read_text())
    assert table["command"] == "python -m experiments.prior --backbones net --episodes 2 --seed 1"
    assert len(from_json(table).cells) == 2
