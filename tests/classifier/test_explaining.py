"""Explanations: what counted is found where it was put, and nothing is said that does not hold."""

import base64
import hashlib
import io
import itertools
import re
import xml.dom.minidom
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError

from otfew import FewShotClassifier, catalogue
from otfew.classifier import explaining
from otfew.classifier.answering import Judge
from otfew.classifier.explanation import Explanation
from otfew.classifier.explanation_figure import panels
from otfew.classifier.reasons import Deletion
from otfew.data.decoding.image import read_image
from otfew.errors import UserError
from otfew.method import MethodBase

SIDE = 64


def scene(colour, place, seed=0, side=SIDE, share=4):
    """Grey noise with a coloured square in one of 4 x 4 cells."""
    pixels = np.random.default_rng(seed).integers(90, 140, (side, side, 3)).astype(np.uint8)
    row, column = place
    cell = side // share
    pixels[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = colour
    return pixels


RED, BLUE, GREEN = (220, 20, 20), (20, 20, 220), (20, 220, 20)


@pytest.fixture(scope="module")
def backbone(pools):
    """Each of 4 x 4 cells is a node: how red, green and blue it is beyond grey, and one that is always there."""
    made = pools.network(4, SIDE)
    colours = torch.nn.Conv2d(3, 4, 1)
    with torch.no_grad():
        colours.weight.copy_(torch.cat([1.5 * torch.eye(3) - 0.5, torch.zeros(1, 3)])[:, :, None, None])
        colours.bias.copy_(torch.tensor([0, 0, 0, 0.3]))
    made.module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), colours, torch.nn.ReLU()).requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def fitted(backbone):
    images = [scene(colour, (k, k), k) for colour in (RED, BLUE, GREEN) for k in range(3)]
    labels = [name for name in ("red", "blue", "green") for _ in range(3)]
    return FewShotClassifier(backbone, method="cosine-centroid").fit(images, labels)


def cell_of(box):
    x0, y0, *_ = box
    return round(y0 / (SIDE / 4)), round(x0 / (SIDE / 4))


@pytest.mark.parametrize("method", ["cosine-centroid", "chamfer", "deepemd-fcn", "logistic"])
def test_the_region_that_counts_is_found(backbone, fitted, method):
    known = fitted.labelled_
    images, labels = [photo.picture() for photo in known.photos], known.classes[known.labels]
    classifier = FewShotClassifier(backbone, method=method).fit(images, labels)
    told = classifier.explain(scene(RED, (2, 1), 50))
    assert told.answer == "red"
    assert told.boxes.shape == (16, 4)
    strongest = int((told.for_answer - told.for_runner_up).argmax())
    assert cell_of(told.boxes[strongest]) == (2, 1)
    assert told.deletion.after < told.deletion.before
    assert cell_of(told.deletion.regions[0]) == (2, 1)
    assert told.deletion.tells == (told.deletion.p <= 0.05)
    assert told.name == "image 0"


def test_scores_are_those_of_the_classifier(fitted):
    image = scene(BLUE, (0, 2), 51)
    told = fitted.explain(image)
    shares = fitted.predict_proba([image])[0]
    order = np.argsort(-shares)
    assert [told.answer, told.runner_up] == fitted.classes_[order[:2]].tolist()
    assert [told.confidence, told.runner_up_confidence] == pytest.approx(shares[order[:2]])
    logits = fitted.decision_function([image])[0]
    assert told.deletion.before == pytest.approx(logits[order[0]] - logits[order[1]], rel=1e-5)
    assert told.method == "cosine-centroid"
    assert not told.refused


def test_what_a_region_counts_is_what_the_score_loses(fitted):
    """Against a classifier that is asked about the other nodes alone."""
    image = scene(GREEN, (1, 1), 52)
    told = fitted.explain(image)
    nodes = next(fitted.embedder_(explaining_shown(image), 1, None, lambda shown: shown))[1][0]
    first = fitted.classes_.tolist().index("green")
    whole = fitted._judge(nodes[None])[0, first]
    for i in (0, 5, 15):
        left = torch.cat([nodes[:i], nodes[i + 1 :]])
        assert told.for_answer[i] == pytest.approx(float(whole - fitted._judge(left[None])[0, first]), abs=1e-6)


def explaining_shown(image):
    from otfew.classifier.door import Door

    return Door().read([image])


def test_labelled_photos_count_what_leaving_them_out_changes(fitted):
    image = scene(RED, (3, 0), 53)
    told = fitted.explain(image)
    known = fitted.labelled_
    classes = known.classes.tolist()
    pair = [classes.index(told.answer), classes.index(told.runner_up)]
    logits = fitted.decision_function([image])[0]
    assert [one.label for one in told.evidence] == [told.answer] * 3 + [told.runner_up] * 3
    nodes = next(fitted.embedder_(explaining_shown(image), 1, None, lambda shown: shown))[1]
    for one in told.evidence:
        kept = [i for i in range(len(known)) if i != one.place]
        without = Judge.of(fitted.method_, *known.keep(kept).episode())(nodes)[0]
        lead, left = (values[pair[0]] - values[pair[1]] for values in (logits, without.tolist()))
        assert one.effect == pytest.approx(lead - left, abs=1e-5)
        assert known.photos[one.place].name == one.name
    effects = [one.effect for one in told.evidence]
    assert effects[:3] == sorted(effects[:3], reverse=True)
    assert effects[3:] == sorted(effects[3:])
    assert told.best(told.answer) is told.evidence[0]
    assert told.best(told.runner_up) is told.evidence[3]
    assert [one.picture is not None for one in told.evidence] == [True, False, False, True, False, False]


def test_the_only_photo_of_a_class_cannot_be_left_out(backbone):
    classifier = FewShotClassifier(backbone, method="protonet")
    classifier.fit([scene(RED, (0, 0)), scene(BLUE, (1, 1))], ["red", "blue"])
    told = classifier.explain(scene(RED, (2, 2), 9))
    assert [one.effect for one in told.evidence] == [None, None]
    assert "image 0, its only photo, for red" in str(told)
    assert "the only one of its class" in told.to_html()


def test_flows_lead_from_like_to_like(backbone):
    images = [scene(RED, (1, 2), 1), scene(BLUE, (3, 3), 2)]
    classifier = FewShotClassifier(backbone, method="deepemd-fcn").fit(images, ["red", "blue"])
    told = classifier.explain(scene(RED, (0, 3), 3))
    assert told.answer == "red"
    first = told.flows[0]
    # Colours of noise match anything; the square matches the square.
    by_cell = {cell_of(flow.here): flow for flow in told.flows}
    assert by_cell[0, 3].similarity > 0.9
    assert cell_of(by_cell[0, 3].there) == (1, 2)
    assert by_cell[0, 3].rival_similarity < by_cell[0, 3].similarity
    assert [flow.number for flow in told.flows] == list(range(1, len(told.flows) + 1))
    assert sum(flow.share for flow in told.flows) <= 1 + 1e-9
    values = [flow.share * flow.similarity for flow in told.flows]
    assert values == sorted(values, reverse=True)
    assert first.share > 0


def test_transports_move_all_mass_and_hold_the_flows(backbone):
    images = [scene(RED, (1, 2), 1), scene(BLUE, (3, 3), 2)]
    told = FewShotClassifier(backbone, method="deepemd-fcn").fit(images, ["red", "blue"]).explain(scene(RED, (0, 3), 3))
    best, rival = told.transports
    assert [best.place, rival.place] == [told.best(label).place for label in (told.answer, told.runner_up)] == [0, 1]
    for transport in told.transports:
        assert transport.plan.shape == transport.similarity.shape == (16, 16)
        assert transport.plan.min() >= 0
        assert transport.plan.sum() == pytest.approx(1)
        np.testing.assert_array_equal(transport.there, told.boxes)  # photos of one size and one grid
        # An optimum: no two regions would gain by exchanging what they send.
        used = np.argwhere(transport.plan > 1e-9)
        for (i, j), (k, m) in itertools.product(used, used):
            now = transport.similarity[i, j] + transport.similarity[k, m]
            assert transport.similarity[i, m] + transport.similarity[k, j] <= now + 1e-5
    for flow in told.flows:
        i, j = (np.flatnonzero((told.boxes == box).all(1))[0] for box in (flow.here, flow.there))
        assert flow.share == pytest.approx(best.plan[i, j])
        assert flow.similarity == pytest.approx(best.similarity[i, j])


def test_deepemd_is_the_first_opinion_where_it_decides(backbone, fitted):
    known = fitted.labelled_
    images, labels = [photo.picture() for photo in known.photos], known.classes[known.labels]
    image = scene(RED, (2, 1), 50)
    own = FewShotClassifier(backbone, method="deepemd-fcn", options={"solver": "scipy"}).fit(images, labels)
    told = own.explain(image)
    assert told.opinion.decided
    assert told.opinion.agrees
    assert "the numbered flows are DeepEMD's, which decided" in str(told)
    second = fitted.explain(image)
    assert not second.opinion.decided
    answer = own.predict([image])[0]
    assert second.opinion.answer == answer
    assert second.opinion.agrees == (answer == second.answer)
    assert "a second opinion, DeepEMD's, which" in str(second)


class Contrary(MethodBase):
    """Says the opposite of the nearest mean, and takes sixteen nodes only."""

    name = "contrary"

    def __call__(self, support, query, *, support_mask=None, class_prior=None):
        assert query.shape[2] == 16
        mean = support.sum(2) / (support.shape[2] if support_mask is None else support_mask.sum(-1)[..., None, None])
        return (query.mean(2)[:, :, None] - mean.mean(2)[:, None]).square().sum(-1)


def test_a_method_of_ones_own_is_explained_too(backbone, fitted):
    known = fitted.labelled_
    images, labels = [photo.picture() for photo in known.photos], known.classes[known.labels]
    told = FewShotClassifier(backbone, method=Contrary()).fit(images, labels).explain(scene(RED, (2, 1), 50))
    assert told.method == "contrary"
    assert told.answer != "red"
    assert told.opinion.answer == "red"
    assert "DeepEMD's, which says red instead; contrary decided" in str(told)


@pytest.mark.parametrize("method", ["tim", "simpleshot", "fusion"])
@pytest.mark.parametrize("nodes", ["fcn", "fcn:2,1", "fcn:2,1,nomap", "grid:2", "sampling:5"])
def test_any_method_on_any_nodes(backbone, fitted, method, nodes):
    known = fitted.labelled_
    images, labels = [photo.picture() for photo in known.photos], known.classes[known.labels]
    options = {"base_mean": torch.full((4,), 0.3)} if catalogue.find(method).needs_base_mean else {}
    classifier = FewShotClassifier(backbone, method=method, nodes=nodes, options=options).fit(images, labels)
    told = classifier.explain(scene(BLUE, (1, 1), 7, 80))
    assert np.isfinite(told.for_answer).all()
    assert told.boxes.shape == (len(told.for_answer), 4)
    assert (told.boxes >= 0).all()
    assert (told.boxes <= 80).all()
    assert told.deletion.random.shape == (explaining.REMOVALS,)
    logits = classifier.decision_function([scene(BLUE, (1, 1), 7, 80)])[0]
    top = np.sort(logits)[::-1]
    assert told.deletion.before == pytest.approx(top[0] - top[1], rel=1e-4, abs=1e-5)


def test_random_removals_are_seeded(fitted):
    image = scene(RED, (0, 1), 54)
    once, again, other = fitted.explain(image), fitted.explain(image), fitted.explain(image, seed=1)
    np.testing.assert_array_equal(once.deletion.random, again.deletion.random)
    assert not np.array_equal(once.deletion.random, other.deletion.random)
    np.testing.assert_array_equal(once.for_answer, other.for_answer)


def test_random_crops_stay_where_they_were(backbone, fitted, monkeypatch):
    known = fitted.labelled_
    images, labels = [photo.picture() for photo in known.photos], known.classes[known.labels]
    classifier = FewShotClassifier(backbone, method="cosine-centroid", nodes="sampling:5").fit(images, labels)

    def hardly(pixels, _):
        changed = pixels.copy()
        changed[0, 0] += 1
        return changed

    monkeypatch.setattr(explaining, "_painted_over", hardly)
    told = classifier.explain(scene(RED, (2, 1), 55))
    np.testing.assert_allclose(told.deletion.random, told.deletion.before, atol=0.02)
    assert told.deletion.after == pytest.approx(told.deletion.before, abs=0.02)


def test_the_deletion_test_counts_what_it_says():
    boxes = np.zeros((2, 4))
    low = Deletion(boxes, 1.0, 0.2, np.linspace(0.3, 1, 19))
    assert low.p == pytest.approx(1 / 20)
    assert low.tells
    one_lower = Deletion(boxes, 1.0, 0.2, np.array([0.2, *np.linspace(0.3, 1, 18)]))
    assert one_lower.p == pytest.approx(2 / 20)
    assert not one_lower.tells
    assert not Deletion(boxes, 0.1, 0.2, np.full(19, 0.9)).tells  # the lead grew


def test_one_node_has_no_regions_to_compare(pools):
    images = [scene(colour, (0, 0)) for colour in (RED, BLUE)]
    classifier = FewShotClassifier(pools.network(1), method="cosine-centroid").fit(images, ["red", "blue"])
    told = classifier.explain(scene(RED, (0, 0), 5))
    assert told.deletion is None
    assert "painting over" not in str(told)
    assert told.boxes.tolist() == [[0, 0, SIDE, SIDE]]
    assert told.figure() is not None


def test_photos_are_shown_whole_and_boxes_fit_them(backbone, tmp_path):
    paths = []
    for i, colour in enumerate((RED, BLUE)):
        wide = np.ascontiguousarray(np.repeat(np.repeat(scene(colour, (0, 3), i), 12, 0), 16, 1))
        paths.append(tmp_path / f"{i}.png")
        cv2.imwrite(str(paths[-1]), wide[:, :, ::-1])
    classifier = FewShotClassifier(backbone, method="deepemd-fcn", crop="center").fit(paths, ["red", "blue"])
    told = classifier.explain(paths[0])
    assert told.name == f"{tmp_path.name}/0.png"
    assert told.picture.shape == told.best("red").picture.shape == (768, 1024, 3)
    np.testing.assert_array_equal(told.best("red").picture, read_image(paths[0]))
    assert told.boxes.min() >= 0
    assert told.boxes[:, 2].max() <= 1024
    assert told.boxes[:, 3].max() <= 768
    # The margin that the crop cuts off, 4 of 92 parts, is in no box.
    np.testing.assert_allclose(told.boxes[0, :2], [1024 * 3 / 70, 768 * 3 / 70], rtol=1e-6)
    for flow in told.flows:
        assert flow.there == pytest.approx(tuple(flow.here))
    paths[0].unlink()
    gone = classifier.explain(paths[1]).best("red")
    assert gone.picture.shape == (192, 256, 3)
    shown = {cell_of(np.array(flow.rival) / [4, 3, 4, 3]) for flow in classifier.explain(paths[1]).flows}
    assert all(0 <= row < 4 and 0 <= column < 4 for row, column in shown)


def test_a_loaded_classifier_explains_by_its_thumbnails(fitted, tmp_path):
    image = scene(RED, (2, 1), 50)
    for thumbnails in (True, False):
        path = fitted.save(tmp_path / "a.otfew", thumbnails=thumbnails)
        told = FewShotClassifier.load(path, backbone=fitted.backbone).explain(image)
        assert str(told) == str(fitted.explain(image))
        assert (told.best("red").picture is not None) == thumbnails
        assert ("its picture is not at hand" in told.to_html()) == (not thumbnails)
        told.figure()


def test_what_is_refused_is_said(pools):
    rng = np.random.default_rng(0)

    def tinted(colour):
        tint = np.array(colour) + rng.normal(0, 45, 3)
        return np.clip(tint + rng.integers(-60, 61, (12, 10, 3)), 0, 255).astype(np.uint8)

    images = [tinted(colour) for colour in (RED, BLUE, GREEN) for _ in range(8)]
    labels = [name for name in ("red", "blue", "green") for _ in range(8)]
    classifier = FewShotClassifier(pools.network(), method="cosine-centroid", reject=0.2).fit(images, labels)
    grey, red = np.full((12, 10, 3), 127, np.uint8), np.full((12, 10, 3), RED, np.uint8)
    assert classifier.predict([grey, red]).tolist() == ["unknown", "red"]
    assert classifier.explain(grey).refused
    assert "that is not sure enough for an answer: unknown" in str(classifier.explain(grey))
    assert not classifier.explain(red).refused
    assert "unknown" not in str(classifier.explain(red))


@pytest.mark.parametrize("image", [None, np.zeros((4, 4, 7), np.uint8), "missing.png", b"", [scene(RED, (0, 0))]])
def test_what_is_no_photo_is_refused(fitted, image):
    with pytest.raises(UserError, match=r"image 0|missing\.png") as caught:
        fitted.explain(image)
    assert "\n" not in str(caught.value)


def test_not_before_fit(backbone):
    with pytest.raises(NotFittedError):
        FewShotClassifier(backbone).explain(scene(RED, (0, 0)))


def test_nodes_of_unknown_places_are_refused(fitted, backbone):
    class Odd:
        spec = "odd"
        n_views = 1
        draws = False

        def views(self, image, preparation, name):
            return preparation(image)[None]

        def nodes(self, maps):
            return maps[:, 0].flatten(2).transpose(1, 2)[:, :3]

    from dataclasses import replace

    import sklearn.base

    classifier = sklearn.base.clone(fitted).fit([scene(RED, (0, 0)), scene(BLUE, (1, 1))], ["red", "blue"])
    classifier.embedder_ = replace(classifier.embedder_, extractor=Odd())
    with pytest.raises(UserError, match="where nodes 'odd' are in an image is unknown"):
        classifier.explain(scene(RED, (0, 0)))


class Reader(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.tags, self.links, self.words, self.policy = [], [], [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attributes)
        self.policy += "".join(value for name, value in attributes if name == "content" and "default-src" in value)

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_and_harmless(backbone):
    nasty = ['<script>alert("x")</script>', "a & b\u202e\n<img src=x onerror=alert(1)>"]
    images = [scene(colour, (1, 1), i) for i, colour in enumerate((RED, BLUE))]
    told = FewShotClassifier(backbone, method="protonet").fit(images, nasty).explain(scene(RED, (2, 2), 8))
    page = told.to_html()
    reader = Reader()
    reader.feed(page)
    # One script, which sorts tables: what it is stands in the policy, and no other runs.
    assert reader.tags.count("script") == 1
    (script,) = (word for word in reader.words if "aria-sort" in word and "querySelector" in word)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        reader.policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    assert "img" not in reader.tags
    assert any(nasty[0] in text for text in reader.words)
    assert "\u202e" not in page
    assert reader.links
    assert all(link.startswith("data:image/jpeg;base64,") for link in reader.links)
    for link in reader.links:
        Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2]))).load()
    assert "http" not in re.sub('base64,[^"]*', "", page).replace("http-equiv", "")
    drawings = re.findall("<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 6
    for drawing in drawings:
        xml.dom.minidom.parseString(drawing)
    assert page.startswith("<!DOCTYPE html>\n<!-- otfew explanation -->")
    words = "".join(reader.words)
    for sentence in told.sentences()[2:]:
        assert sentence in words
    for one in told.evidence:
        assert one.name in words
    for flow in told.flows:
        assert f"{flow.similarity:.3f}" in words


def test_the_figure_has_maps_numbered_flows_and_the_sentences(fitted, tmp_path):
    told = fitted.explain(scene(RED, (2, 1), 50))
    assert isinstance(told, Explanation)
    figure = told.figure()
    *maps, row = figure.axes
    assert [len(axes.get_images()) for axes in figure.axes] == [1, 1, 1, 3]
    assert "red" in maps[0].get_title()
    written = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert "second opinion" in written
    assert "second opinion" in " ".join(text.get_text() for text in row.texts)
    for label in (told.answer, told.runner_up):
        assert any(text.get_text().startswith(f"{label}: the ") for text in row.texts)
    # Each number stands twice in the photo, once in the answer's and once in the runner-up's.
    badges = [text for text in row.texts if text.get_bbox_patch() is not None]
    assert sorted(text.get_text() for text in badges) == sorted(
        str(flow.number) for flow in told.flows for _ in range(4)
    )
    figure.savefig(tmp_path / "a.png", dpi=20)


def test_outlines_are_as_wide_as_flows_are_large(fitted):
    told = fitted.explain(scene(RED, (2, 1), 50))
    *_, here, there, rival = panels(told)
    best, elsewhere = told.transports
    shares = [flow.share for flow in told.flows]
    for _, _, marks in (here, there):
        np.testing.assert_allclose([mark.weight for mark in marks], np.array(shares) / max(shares))
    places = [[np.flatnonzero((told.boxes == box).all(1))[0] for box in (flow.here, flow.rival)] for flow in told.flows]
    rather = np.array([elsewhere.plan[i, k] for i, k in places])
    np.testing.assert_allclose([mark.weight for mark in rival[2]], rather / rather.max())
    for k, (flow, mass) in enumerate(zip(told.flows, rather, strict=True), 1):
        assert f"{k}: {100 * flow.share:.1f} at {flow.similarity:.2f}" in there[0]
        assert f"{k}: {100 * mass:.1f} at {flow.rival_similarity:.2f}" in rival[0]
    assert best.plan.sum() == pytest.approx(1)


def test_a_real_photo(on_photos, photos):
    told = on_photos.explain(photos / "new" / "Red-Beet-2.jpg")
    assert told.name == "new/Red-Beet-2.jpg"
    assert told.picture.shape == (348, 348, 3)
    assert len(told.flows) == explaining.FLOWS
    assert told.best(told.answer).picture is not None
    assert all(0 <= side <= 400 for flow in told.flows for side in (*flow.here, *flow.there, *flow.rival))
