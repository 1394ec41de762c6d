"""A data set that says which classes belong together: every command's intervals over classes, and the ledger's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from otfew.data import DataOptions
from otfew.data.halves import load_half
from otfew.experiments import compare, extractors
from otfew.experiments.reproduce.answers import Answers, gather
from otfew.experiments.reproduce.figures import reader_of
from otfew.experiments.retrieve import command as retrieve
from otfew.features import material

pytestmark = pytest.mark.usefixtures("surroundings", "toy_backbone")

TOGETHER = ("a", "a", "b", "b", "c", "c")


@pytest.fixture
def together(monkeypatch):
    """Let pairs of the six test classes belong together."""
    plain = material.load_images

    def load(name, split, *rest):
        images = plain(name, split, *rest)
        return replace(images, units=TOGETHER) if split == "test" else images

    monkeypatch.setattr(material, "load_images", load)


def half_width(values, units_of_rows):
    """Half of the jackknife's interval over a, b and c, in plain arithmetic."""
    theta = [np.mean([v for v, units in zip(values, units_of_rows, strict=True) if u not in units]) for u in "abc"]
    return stats.t.ppf(0.975, 2) * np.sqrt(2 / 3 * ((theta - np.mean(theta)) ** 2).sum())


def kept(command, folder):
    """The ledger's reader of a run, from the bytes that it keeps."""
    path = folder / "kept.npz"
    path.write_bytes(gather(command, folder).to_bytes())
    return reader_of(Answers.read(path), "run")


def rows(reader, panel=""):
    """The units of each episode's classes."""
    return [[TOGETHER[c] for c in row] for row in reader.arrays[reader.about["panels"][panel]["classes"]].tolist()]


def test_intervals_of_compare_and_of_the_ledger(together, toy_pictures, tmp_path, finish, capsys):
    arguments = ["--dataset", "image-folder", "--data-root", toy_pictures, "--way", 2, "--episodes", 400, "--query", 5]
    arguments += ["--methods", "chamfer", "cosine-centroid"]
    results = finish(compare.main, tmp_path / "run", *arguments)
    assert results["class_units"] == list(TOGETHER)
    assert results["protocol"]["data"]["units"] == 3
    assert "(jackknife, 3 units of classes that belong together)" in " ".join(capsys.readouterr().out.split())
    reader = kept("compare", tmp_path / "run")
    accuracy = {name: reader.values(name) for name in ("chamfer", "cosine-centroid")}
    expected = half_width(accuracy["chamfer"], rows(reader))
    assert results["methods"]["chamfer"]["accuracy"]["class_ci"] == pytest.approx(expected, abs=1e-6)
    gain = half_width(accuracy["chamfer"] - accuracy["cosine-centroid"], rows(reader))
    assert results["methods"]["chamfer"]["difference"]["class_ci"] == pytest.approx(gain, abs=1e-6)
    found = reader.difference("chamfer", reader, "cosine-centroid", "")
    assert found.intervals["classes"] == pytest.approx(100 * gain, abs=1e-6)
    assert found.degrees == {"classes": 2}


def test_intervals_of_several_kinds_of_nodes(together, toy_pictures, tmp_path, finish):
    arguments = ["--dataset", "image-folder", "--data-root", toy_pictures, "--way", 2, "--episodes", 400, "--query", 5]
    arguments += ["--nodes", "fcn", "fcn:2", "--methods", "chamfer", "cosine-centroid"]
    results = finish(extractors.main, tmp_path / "run", *arguments)
    reader = kept("extractors", tmp_path / "run")
    one, two = (reader.values(f"all / chamfer [{spec}]") for spec in ("fcn:2", "fcn"))
    found = results["by_method"]["chamfer"]["fcn:2"]["difference"]
    assert found["class_ci"] == pytest.approx(half_width(one - two, rows(reader, "all")), abs=1e-6)


def test_intervals_of_retrieval_and_of_the_ledger(together, toy_pictures, tmp_path, finish):
    arguments = ["--dataset", "image-folder", "--data-root", toy_pictures, "--nodes", "fcn:2,nomap", "--split", "test"]
    results = finish(retrieve.main, tmp_path / "run", *arguments, "--scores", "deepemd", "chamfer")
    assert results["query_classes"] == 6
    reader = kept("retrieve", tmp_path / "run")
    name = "deepemd [fcn:2,nomap]"
    queries = [[TOGETHER[c]] for c in reader.arrays["classes"].tolist()]
    gain = half_width(reader.values(name) - reader.values("global"), queries)
    assert results["methods"][name]["difference"]["map_at_r"]["class_ci"] == pytest.approx(gain, abs=1e-6)
    assert reader.difference(name, reader, "global", "").intervals["classes"] == pytest.approx(100 * gain, abs=1e-5)


def test_all_classes_keep_their_units(together, toy_pictures, monkeypatch):
    from otfew import data

    plain = data.load

    def load(name, split, *rest):
        images = plain(name, split, *rest)
        return replace(images, units=TOGETHER) if split == "test" else images

    monkeypatch.setattr(data, "load", load)
    images = load_half("image-folder", "all", toy_pictures, DataOptions())
    assert dict(zip(images.classes, images.units, strict=True)) == {
        **{f"test-{i}": unit for i, unit in enumerate(TOGETHER)},
        "train-0": "train-0",
        "train-1": "train-1",
    }
    with pytest.raises(ValueError, match="one for each of 8 classes, not 6"):
        replace(images, units=TOGETHER)
