"""From an entry to what is evaluated: features, base mean, what it is told, and the guard against seen classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from otfew import backbones
from otfew.data.base import ImageSet
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.evaluation.lineup import Entry
from otfew.evaluation.run import Ready, evaluate
from otfew.evaluation.running import get_ready
from otfew.evaluation.study import Panel, Study, Terms, sample
from otfew.evaluation.tuning import tune
from otfew.features.material import FileMaterial, ImageMaterial
from otfew.methods.presets import published
from otfew.reporting.comparison import protocol_lines

LABELS = np.repeat(np.arange(6), 8)


@pytest.fixture
def own(tmp_path):
    """Return a function that writes own features with a base mean and opens them."""

    def write(base, seed=0):
        rows = np.abs(np.random.default_rng(seed).normal(size=(48, 3, 4))).astype(np.float32)
        path = tmp_path / f"{base}-{seed}.npz"
        np.savez(path, nodes=rows, labels=LABELS, base_mean=np.full(4, base, np.float32))
        return FileMaterial(path)

    return write


@pytest.fixture
def material(tmp_path, monkeypatch):
    """Images of six classes, of which the backbone has seen as many as are named."""
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    pictures = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)

    def make(*seen, external=False):
        names = tuple("abcdef")
        images = ImageSet(
            dataset="toy", split="test", variant="", classes=names, labels=LABELS.astype(np.int64),
            names=tuple(f"{i}" for i in range(48)), read=lambda i: pictures[i], fingerprint="1", published_classes=6,
        )  # fmt: skip
        card = backbones.Card("quarters", "quarters", resolution=8, training_data="toys", external=external)
        backbone = backbones.Backbone(torch.nn.AdaptiveAvgPool2d(2), card, "quarters")
        return ImageMaterial(images, backbone, Preparation(8), lambda: images, len(seen))

    return make


def test_the_base_mean_is_part_of_what_blocks_ran_on(own):
    """Blocks of episodes that were centred otherwise must not be gone on with; who does not centre does not care."""
    centred, plain = Entry("simpleshot", "simpleshot", "file"), Entry("protonet", "protonet", "file")
    one, same, other = own(0.5), own(0.5), own(0.25)
    assert get_ready(centred, one, "cpu").material == get_ready(centred, same, "cpu").material
    assert get_ready(centred, one, "cpu").material != get_ready(plain, one, "cpu").material
    # Two backbones may give the same features here and another mean of the base classes.
    features = one.features("file", "cpu")
    other._features = replace(features, base_mean=torch.full((4,), 0.25))
    assert other.features("file", "cpu").source == one.features("file", "cpu").source
    assert get_ready(centred, one, "cpu").material != get_ready(centred, other, "cpu").material
    assert get_ready(plain, one, "cpu").material == get_ready(plain, other, "cpu").material


def test_other_features_are_other_material(own):
    plain = Entry("protonet", "protonet", "file")
    assert get_ready(plain, own(0.5), "cpu").material != get_ready(plain, own(0.5, seed=1), "cpu").material


@pytest.mark.parametrize(
    ("own_prior", "of_entry", "of_run", "told"),
    [
        (None, None, "uniform", "uniform"),
        (None, None, "true", "true"),
        (None, None, "estimated", "estimated"),
        (None, "estimated", "uniform", "estimated"),
        (None, "true", "estimated", "true"),
        ("estimated", None, "true", "estimated"),
    ],
)
def test_what_goes_before_what_when_a_method_is_told_the_shares(own, own_prior, of_entry, of_run, told):
    options = {} if own_prior is None else {"class_prior": own_prior}
    ready = get_ready(Entry("lst", "lst", "file", options, of_entry), own(0.5), "cpu", of_run)
    assert ready.class_prior == told


SEEN = "backbone 'quarters' was trained on 2 of the 6 classes of split 'test' of 'toy': give another backbone"


def study(material, allow=False):
    """Open a study of one method."""
    sampler = sample(material, way=3, shot=1, query=2)
    panel = Panel("all", material, (Entry("protonet", "protonet", "fcn"),), sampler, "protonet")
    return Study([panel], Terms(4, allow_overlap=allow), {"a": 1}, None)


def test_seen_classes_are_refused_on_every_way_to_an_evaluation(material):
    """From Python too, at each door: a study, one entry, tuning, and features that came from a material."""
    seen = material("a", "d")
    entry, sampler = Entry("protonet", "protonet", "fcn"), sample(seen, way=3, shot=1, query=2)
    method = entry.build()
    features = seen.features("fcn", "cpu")
    start = {("lst", "ncm"): published("lst", "cub", 1)}
    doors = [
        lambda: study(seen),
        lambda: get_ready(entry, seen, "cpu"),
        lambda: tune(seen, "fcn", sampler, Terms(2), start),
        lambda: evaluate([Ready("protonet", method, features)], sampler, 2),
        lambda: evaluate([Ready("protonet", method, features.pooled)], sampler, 2),
    ]
    for door in doors:
        with pytest.raises(UserError, match=SEEN):
            door()


def test_seen_classes_are_evaluated_where_that_is_allowed_and_said(material):
    finished = study(material("a", "d"), allow=True).evaluate()["all"]
    assert finished.record["protocol"]["allow_overlap"] is True
    assert any("LEAK" in line and "2 of 6 test classes" in line for line in protocol_lines(finished.record))
    features = material("a", "d").features("fcn", "cpu")
    sampler = Sampler(Protocol("toy", "", "test", way=3, query=2), LABELS, tuple("abcdef"))
    ready = [Ready("protonet", Entry("protonet", "protonet", "fcn").build(), features)]
    assert len(evaluate(ready, sampler, 2, allow_overlap=True)["protonet"].accuracy) == 2


def test_unseen_and_external_are_no_leak(material):
    for harmless in (material(), material("a", "d", external=True)):
        assert harmless.overlap == ""
        assert len(study(harmless).evaluate()["all"].scores["protonet"].accuracy) == 4
