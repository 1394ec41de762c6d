"""Who is compared with whom to learn what transport adds: fixed by classes and options, never by what came out."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from otfew.evaluation.contrasts import contrasts
from otfew.evaluation.figures import compare
from otfew.evaluation.lineup import Entry
from otfew.evaluation.run import Scores
from otfew.method import MethodBase
from otfew.methods import LST, DeepEMD
from otfew.methods.shot_heads import FusionHead, MeanHead
from otfew.node_weights import KMeans
from otfew.transport import Sinkhorn

USUAL = {"chamfer": "chamfer", "product-coupling": "product-coupling"}


def entry(name, method="", nodes="fcn", **options):
    return Entry(name, method or name, nodes, options)


CONTROLS = [entry("chamfer"), entry("product-coupling")]


def found(own, *others, shot=1):
    """The controls of an entry beside the usual ones and some others, and what is missing."""
    planned = contrasts([own, *others, *CONTROLS], shot)[own.name]
    return planned.found, planned.missing


@pytest.mark.parametrize(
    "own",
    [
        entry("deepemd"),
        entry("deepemd", solver="exact", temperature=3.0),
        entry("entropic", "deepemd", solver=Sinkhorn(reg=0.1)),
        entry("deepemd-fcn"),
        entry("deepemd", "deepemd:temperature=3"),
        Entry("object", DeepEMD(temperature=1.0), "fcn"),
        entry("deepemd", weights="cross_reference", weight_gradient=True),
    ],
    ids=lambda own: f"{own.name} {own.options}",
)
def test_a_method_that_matches_nodes_has_the_usual_controls(own):
    assert found(own, entry("cr-pooled"), entry("cosine-centroid")) == (USUAL, "")
    assert found(own, shot=5) == (USUAL, "")


def test_others_transport_nothing_and_are_compared_with_nobody():
    entries = [*CONTROLS, entry("cr-pooled"), entry("simpleshot"), entry("prototype", "deepemd", shot_head="prototype")]
    assert contrasts(entries, 1) == {}


def test_other_nodes_are_no_control():
    assert found(entry("deepemd-grid", nodes="grid:2,3")) == (
        {},
        "chamfer and product-coupling did not run on nodes grid:2,3",
    )
    own = entry("deepemd", nodes="grid:2")
    missing = "product-coupling did not run on nodes grid:2"
    assert found(own, entry("c", "chamfer", "grid:2")) == ({"chamfer": "c"}, missing)


@pytest.mark.parametrize("weights", ["uniform", "kmeans", KMeans(n_clusters=2)])
def test_weights_must_be_the_same(weights):
    own = entry("other", "deepemd", weights=weights)
    assert found(own) == ({}, "chamfer and product-coupling ran with other weights")
    same = entry("same", "chamfer", weights=weights)
    assert found(own, same) == ({"chamfer": "same"}, "product-coupling ran with other weights")
    # The other way round as well: the usual weights find the usual ones, wherever they stand.
    assert found(entry("deepemd"), same) == (USUAL, "")


def test_names_and_objects_of_weights_are_the_same():
    own = Entry("object", DeepEMD(weights="kmeans"), "fcn")
    same = [entry("c", "chamfer", weights=KMeans()), entry("p", "product-coupling:weights=kmeans")]
    assert found(own, *same) == ({"chamfer": "c", "product-coupling": "p"}, "")


@pytest.mark.parametrize("head", ["sfc", "nn", "fusion", "merge", FusionHead("sum")])
def test_at_several_shots_the_controls_take_the_mean(head):
    own = entry("own", "deepemd", shot_head=head)
    assert found(own) == (USUAL, "")
    assert found(own, shot=5) == ({}, "no method without transport does the same with 5 shots")
    assert found(entry("own", "deepemd", shot_head=MeanHead()), shot=5) == (USUAL, "")


@pytest.mark.parametrize("name", ["lst", "pt-map"])
def test_heads_that_move_centres_without_transport(name):
    own = entry(name)
    gmm, kmeans = (entry(head, name, head=head) for head in ("gmm", "kmeans"))
    assert found(own, gmm, kmeans) == ({f"{name}:head=gmm": "gmm", f"{name}:head=kmeans": "kmeans"}, "")
    assert found(own, gmm)[1] == f"{name}:head=kmeans did not run on nodes fcn"
    assert found(own)[1] == f"{name}:head=gmm and {name}:head=kmeans did not run on nodes fcn"
    assert list(contrasts([own, gmm, kmeans], 1)) == [name]
    # With other steps, or told other shares of the classes, it is no control.
    assert found(own, entry("gmm", name, head="gmm", n_steps=3))[0] == {}
    told = Entry(name, name, "fcn", class_prior="true")
    assert found(told, gmm, kmeans)[1] == f"{name}:head=gmm and {name}:head=kmeans ran with other class prior"
    assert list(contrasts([Entry("object", LST(head="gmm"), "fcn"), own], 1)) == [name]


def test_self_transport_has_its_features_without_marginals():
    assert found(entry("sot"), entry("softmax", "sot", plan="softmax")) == ({"sot:plan=softmax": "softmax"}, "")
    assert found(entry("sot", reg=0.2), entry("softmax", "sot", plan="softmax"))[1].endswith("ran with other reg")


class Own(MethodBase):
    """Somebody's own, which names its controls."""

    contrasts: ClassVar[tuple[str, ...]] = ("protonet", "no-such-method")

    def __call__(self, support, query, *, support_mask=None, class_prior=None):
        raise AssertionError


class Plain:
    """Follows the contract without ``MethodBase``, and so names nobody."""

    name, nodes, preset_of = "plain", "fcn", ""
    transductive = needs_base_mean = pools = needs_nonnegative = False
    learned = ()

    def __call__(self, support, query, *, support_mask=None, class_prior=None):
        raise AssertionError


class Pooled(DeepEMD):
    """DeepEMD whose control takes no weights, and so has the usual ones."""

    contrasts: ClassVar[tuple[str, ...]] = ("cr-pooled",)


def test_a_control_that_takes_no_weights_has_the_usual_ones():
    pooled = entry("cr-pooled")
    assert found(Entry("own", Pooled(), "fcn"), pooled) == ({"cr-pooled": "cr-pooled"}, "")
    assert found(Entry("own", Pooled(weights="uniform"), "fcn"), pooled) == ({}, "cr-pooled ran with other weights")


def test_methods_of_ones_own():
    own = Entry("own", Own(), "fcn")
    assert own.transport
    assert found(own, entry("protonet")) == ({"protonet": "protonet"}, "no-such-method did not run on nodes fcn")
    assert contrasts([Entry("plain", Plain(), "fcn"), *CONTROLS], 1) == {}


def test_of_several_controls_the_first_is_taken_whatever_came_out():
    """The contrast is a function of the entries alone: figures can be dealt out in any way."""
    entries = [entry("deepemd"), entry("first", "chamfer"), entry("second", "chamfer", temperature=2.0), CONTROLS[1]]
    rng = np.random.default_rng(0)
    classes = np.array([rng.permutation(8)[:5] for _ in range(60)])
    given = [Scores(rng.integers(0, 16, (60, 5)), 15, 1.0) for _ in entries]
    for turn in range(len(entries)):
        scores = dict(zip((e.name for e in entries), given[turn:] + given[:turn], strict=True))
        adds = compare(entries, scores, classes, [f"c{i}" for i in range(8)], "first")["transport_adds"]["deepemd"]
        chosen = {name: record["control"] for name, record in adds["contrasts"].items()}
        assert chosen == {"chamfer": "first", "product-coupling": "product-coupling"}
        for control, record in adds["contrasts"].items():
            gain = scores["deepemd"].accuracy.mean() - scores[chosen[control]].accuracy.mean()
            assert record["mean"] == pytest.approx(gain, abs=1e-8)
