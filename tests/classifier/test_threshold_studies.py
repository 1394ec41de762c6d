"""What refusals and near-duplicates go by: scores against plain loops, copies that each threshold finds."""

import math

import numpy as np
import pytest
import torch

from otfew.backbones.base import Backbone, Card
from otfew.classifier import duplicate_study, duplicates, refusal_study
from otfew.classifier.refusal_study import CHOSEN, METHODS, SCORES, Size
from otfew.data.base import ImageSet


def images(name, split, classes=24, each=13, side=16):
    rng = np.random.default_rng(len(name))
    labels = np.repeat(np.arange(classes), each)
    tints = rng.integers(60, 180, (classes, 3))[labels] + rng.integers(-30, 31, (len(labels), 3))
    coarse = rng.integers(-40, 41, (len(labels), 8, 8, 3)).repeat(side // 8, 1).repeat(side // 8, 2)
    pixels = np.clip(tints[:, None, None] + coarse, 0, 255).astype(np.uint8)
    return ImageSet(
        dataset=name, split=split, variant="", classes=tuple(f"c{i}" for i in range(classes)), labels=labels,
        names=tuple(f"{name}/{i}" for i in range(len(labels))), read=lambda i: pixels[i],
        fingerprint=name, published_classes=classes,
    )  # fmt: skip


@pytest.fixture
def stand_ins(monkeypatch, tmp_path):
    card = Card("net", "pool", resolution=16, mean=(0, 0, 0), std=(1, 1, 1))
    network = Backbone(torch.nn.AdaptiveAvgPool2d(2), card, "net")
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path))
    for module in (refusal_study, duplicate_study):
        monkeypatch.setattr(module, "load_backbone", lambda _: network)
    monkeypatch.setattr(refusal_study, "load_images", lambda name, split, *_: images(name, split))
    monkeypatch.setattr(duplicate_study, "load_images", lambda name, split, *_: images(name, split, side=64))


def test_scores_are_what_they_are_called():
    logits = np.array([[2.0, 1.0, -1.0], [0.5, 0.5, 0.5]])
    for row, shown in enumerate(logits.tolist()):
        powers = [math.exp(value / 0.5) for value in shown]
        shares = [power / sum(powers) for power in powers]
        expected = {
            CHOSEN: max(shown) - sum(shown) / 3,
            "largest probability": max(shares),
            "less entropy": sum(share * math.log(share) for share in shares),
            "best logit less the second": sorted(shown)[-1] - sorted(shown)[-2],
            "best logit": max(shown),
        }
        assert set(expected) == set(SCORES)
        for name, value in expected.items():
            assert SCORES[name](logits, 0.5)[row] == pytest.approx(value)


def test_the_record_of_scores_is_of_all_and_of_no_test_class(stand_ins):
    record = refusal_study.study("net", size=Size(episodes=2))
    assert len(record["rows"]) == 2 * len(METHODS) * 2
    for row in record["rows"]:
        assert all(0 <= value <= 1 for value in row["auroc"].values())
    assert record["mean"][CHOSEN] == pytest.approx(np.mean([row["auroc"][CHOSEN] for row in record["rows"]]), abs=1e-4)
    for name, behind in record["behind"].items():
        assert behind["mean"] == pytest.approx(record["mean"][CHOSEN] - record["mean"][name], abs=2e-4)
    assert all("(test)" not in source for source in record["sources"])
    assert refusal_study.study("net", size=Size(episodes=2)) == record


def test_the_record_of_thresholds_holds_what_each_finds(stand_ins, monkeypatch):
    monkeypatch.setattr(duplicate_study, "BIRDS", ("cub", "train", 10, 3))
    monkeypatch.setattr(duplicate_study, "OTHERS", (("cifar-fs", "train", 5, 4),))
    monkeypatch.setattr(duplicate_study, "COPIED", 6)
    record = duplicate_study.study("net")
    assert record["pictures"] == {"cub (train)": 30, "cifar-fs (train)": 20}
    assert [row["bits"] for row in record["hash"]] == list(duplicate_study.BITS)
    assert duplicates.BITS in duplicate_study.BITS
    for name in duplicate_study.SEEN_BY_HASH:
        shares = [row["found"][name] for row in record["hash"]]
        assert shares == sorted(shares)
        assert shares[-1] > 0.5
    assert record["hash"][2]["wrong"] == {"cub (train)": 0, "cifar-fs (train)": 0}
    used = [row for row in record["features"] if (row["tolerance"], row["margin"]) == (2.0, 0.6)]
    assert len(used) == 1
    assert len(record["features"]) == 9


def test_pairs_are_counted_once():
    rng = np.random.default_rng(0)
    prints = [rng.integers(0, 256, 20, dtype=np.uint8).tobytes() for _ in range(700)]
    flat = bytes(20)
    assert duplicate_study._pairs([*prints, prints[3], prints[600], prints[600], flat, flat], 10) == 4
