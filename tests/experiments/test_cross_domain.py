"""Table 5: every data set's column is what compare gives, and the report says what the backbone has seen."""

from __future__ import annotations

import numpy as np
import pytest

from otfew import backbones
from otfew.data.base import ImageSet
from otfew.experiments import compare, cross_domain
from otfew.features import material

pytestmark = pytest.mark.usefixtures("surroundings")
METHODS = ["deepemd", "cosine-centroid", "chamfer"]


@pytest.fixture
def two_sets(monkeypatch):
    """Stand in for two data sets of one-coloured noisy pictures."""

    def load(name, split, root, options):
        rng = np.random.default_rng(len(name))
        labels = np.repeat(np.arange(7), 10)
        colours = rng.integers(40, 216, (7, 3))
        images = np.clip(colours[labels][:, None, None] + rng.normal(0, 60, (70, 16, 16, 3)), 0, 255).astype(np.uint8)
        names = tuple(f"{split}/{i}" for i in range(70))
        classes = tuple(f"{name} {c}" for c in range(7))
        return ImageSet(name, split, "", classes, labels, names, lambda i: images[i], name, 7)

    monkeypatch.setattr(material, "load_images", load)


def test_every_column_is_that_of_compare(two_sets, toy_backbone, tmp_path, finish, capsys):
    arguments = ["--query", 4, "--episodes", 60, "--methods", *METHODS]
    results = finish(cross_domain.main, tmp_path / "both", *arguments, "--datasets", "glyphs", "omniglot")
    said = " ".join(capsys.readouterr().out.split())
    assert "parts on glyphs, omniglot" in said
    assert "glyphs: data: glyphs" in said
    assert "omniglot: data: omniglot" in said
    assert "what transport adds to controls without it" in said
    assert "deepemd, glyphs" in said
    assert "backbone: parts, trained on toys" in said
    for dataset in ("glyphs", "omniglot"):
        alone = finish(compare.main, tmp_path / dataset, *arguments, "--dataset", dataset, "--nodes", "fcn")
        assert results["panels"][dataset]["methods"] == alone["methods"]
        assert results["panels"][dataset]["transport_adds"] == alone["transport_adds"]


def test_classes_seen_in_training_are_refused(two_sets, tmp_path, monkeypatch, refused, toy_backbone):
    card = backbones.Card("own", "own", resolution=16, training_data="x", training_classes=("omniglot 3",))
    network = backbones.Backbone(toy_backbone.module, card, "own")
    monkeypatch.setattr(material, "load_backbone", lambda spec, dataset=None, trained_on=None: network)
    arguments = ["--query", 4, "--episodes", 60, "--methods", *METHODS, "--output", tmp_path / "run"]
    said = refused(cross_domain.main, *arguments, "--datasets", "glyphs", "omniglot")
    assert "was trained on 1 of the 7 classes" in said
    assert not (tmp_path / "run").exists()


def test_all_data_sets_get_the_same_backbone(two_sets, toy_backbone, tmp_path, finish, monkeypatch):
    asked = []

    def found(spec, dataset=None, trained_on=None):
        asked.append(spec)
        return toy_backbone

    monkeypatch.setattr(material, "load_backbone", found)
    arguments = ["--query", 4, "--episodes", 4, "--methods", *METHODS]
    finish(cross_domain.main, tmp_path / "run", *arguments, "--datasets", "omniglot", "glyphs")
    # Ours for glyphs is not taken for glyphs alone.
    assert len(set(asked)) == 1
    assert asked[0] is not None
