"""Who runs: names, options, objects, presets, references, and what the catalogue knows of them."""

from __future__ import annotations

import numpy as np
import pytest

from otfew.errors import UserError
from otfew.evaluation.contrasts import contrasts
from otfew.evaluation.lineup import Entry, choose, pick_reference
from otfew.features.material import FileMaterial
from otfew.transport import Sinkhorn


class Learned(FileMaterial):
    """Own features whose backbone was meta-trained for DeepEMD."""

    def learned(self, method):
        return {"temperature": 7.5} if method == "deepemd" else {}


@pytest.fixture
def material(tmp_path):
    rows = np.abs(np.random.default_rng(0).normal(size=(20, 3, 4))).astype(np.float32)
    np.savez(tmp_path / "own.npz", nodes=rows, labels=np.arange(20) % 4)
    return Learned(tmp_path / "own.npz")


def options(material, *given, solver="exact"):
    entries, not_run = choose(given, material, solver, "cpu")
    assert not_run == {}
    return {entry.name: dict(entry.options) for entry in entries}


def test_options_come_from_the_run_then_the_backbone_then_the_user(material):
    found = options(material, "deepemd", "protonet", ("deepemd", {"temperature": 1.0, "solver": "scipy"}))
    assert found["deepemd"] == {"solver": "exact", "temperature": 7.5}
    assert found["protonet"] == {}
    assert found["deepemd temperature=1.0 solver=scipy"] == {"solver": "scipy", "temperature": 1.0}
    assert options(material, "deepemd", solver="sinkhorn")["deepemd"]["solver"] == "sinkhorn"


def test_a_name_given_twice_runs_once(material):
    entries, _ = choose(["knn", "protonet", "knn"], material, "exact", "cpu")
    assert [entry.name for entry in entries] == ["knn", "protonet"]


def test_presets_run_where_they_are_named_and_not_beside_their_method_in_all(material):
    entries, not_run = choose(["all"], material, "exact", "cpu")
    names = {entry.name for entry in entries}
    assert "deepemd" in names
    assert not_run["deepemd-grid"] == "a preset of deepemd, which ran on the same nodes"
    assert not names & set(not_run)
    assert "simpleshot" in not_run  # there is no base mean
    named, _ = choose(["deepemd", "deepemd-grid"], material, "exact", "cpu")
    assert [entry.name for entry in named] == ["deepemd", "deepemd-grid"]


def test_all_may_stand_beside_others_that_are_named(material):
    """The control that a report calls missing can be added to all, and what is named must run."""
    everything, left_out = choose(["all"], material, "exact", "cpu")
    entries, not_run = choose(["all", "sot:plan=softmax", "deepemd-grid"], material, "exact", "cpu")
    assert {e.name for e in entries} - {e.name for e in everything} == {"sot plan=softmax", "deepemd-grid"}
    assert not_run == {name: why for name, why in left_out.items() if name != "deepemd-grid"}
    assert contrasts(entries, 1)["sot"].found == {"sot:plan=softmax": "sot plan=softmax"}
    with pytest.raises(UserError, match="'simpleshot' needs the mean of the base classes"):
        choose(["all", "simpleshot"], material, "exact", "cpu")


@pytest.mark.parametrize(
    ("names", "given", "reference"),
    [
        (["knn", "cosine-centroid"], "", "cosine-centroid"),
        (["knn", "cosine-centroid"], "knn", "knn"),
        (["lst", "knn", "protonet"], "", "knn"),
        (["lst", "pt-map"], "", "lst"),
    ],
)
def test_the_reference_is_the_given_one_the_centroid_or_the_first_inductive_one(names, given, reference):
    assert pick_reference(given, [Entry(name, name, "fcn") for name in names]) == reference


def test_a_reference_must_run():
    with pytest.raises(UserError, match=r"^`reference` 'protonet' is not among the methods of this run: knn\.$"):
        pick_reference("protonet", [Entry("knn", "knn", "fcn")])
    with pytest.raises(UserError, match="no method applies here"):
        pick_reference("", [])


def test_an_entry_describes_itself_in_json():
    assert Entry("a", "deepemd", "fcn", {"solver": Sinkhorn(reg=0.5), "temperature": 2}, "true").describe() == {
        "method": "deepemd",
        "nodes": "fcn",
        "options": {"solver": repr(Sinkhorn(reg=0.5)), "temperature": 2},
        "class_prior": "true",
    }
    assert Entry("a", "knn", "fcn").describe() == {"method": "knn", "nodes": "fcn", "options": {}}


def test_transport_is_known_by_the_method_whatever_the_entry_is_called():
    transport = {"deepemd": True, "sot": True, "chamfer": False, "tim": False}
    for method, wanted in transport.items():
        assert Entry("x", method, "fcn").transport is wanted
        assert Entry("x", Entry("x", method, "fcn").build(), "fcn").transport is wanted


def test_known_options_cannot_be_given_to_an_object():
    with pytest.raises(UserError, match="is an object already: give its constructor base_mean"):
        Entry("x", Entry("x", "knn", "fcn").build(), "fcn").build(base_mean=1)
