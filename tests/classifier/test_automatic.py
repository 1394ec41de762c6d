"""The choice of a candidate from end to end, and that its judgement never saw the photos that it is judged by."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from otfew import catalogue
from otfew.classifier import automatic
from otfew.classifier.automatic import examine, ranked, shots
from otfew.classifier.calibration import calibrate, detection, hold_out, quality, settle
from otfew.classifier.candidates import Candidate, View
from otfew.classifier.evidence import gather, wilson
from otfew.classifier.holdouts import Answers, Photos, nested, rounds, single
from otfew.classifier.prior import TABLE, Cell, Prior, from_json
from otfew.classifier.prior import load as load_prior
from otfew.classifier.selection import better, reason_of, table_of
from otfew.statistics.temperature import Expected, cross_fit, softmax

GOOD, POOR = View("net", 8, "fcn"), View("net", 11, "fcn")
METHODS = ("cosine-centroid", "matchingnet", "knn")
TRIED = [Candidate(method, view) for view in (POOR, GOOD) for method in METHODS]
EMPTY = Prior({})


def made(seed=0, way=4, each=6, noise=(0.5, 3.0), units=None):
    """The same photos in a view that shows the classes and in one that hides them."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(way), each)
    units = np.arange(len(labels)) if units is None else units
    centres = np.abs(rng.normal(size=(way, 1, 12)))
    found = {}
    for view, strength in zip((GOOD, POOR), noise, strict=True):
        nodes = centres[labels] + strength * rng.normal(size=(len(labels), 3, 12))
        found[view] = Photos(torch.from_numpy(nodes).float(), labels, way, units)
    return found


def order(tried=TRIED, prior=EMPTY):
    return ranked(tried, {"net": 8}, prior, 4, 6)


def tampered(views, photo):
    changed = {}
    for view, photos in views.items():
        nodes = photos.nodes.clone()
        nodes[photo] = 50 * torch.rand(nodes.shape[1:], generator=torch.Generator().manual_seed(1))
        changed[view] = replace(photos, nodes=nodes)
    return changed


def test_it_moves_to_the_view_that_shows_the_classes():
    found = examine(order(), made(), EMPTY)
    assert found.choice.moved
    assert found.choice.candidate.view == GOOD
    assert found.rounds == 6
    assert (found.judged.probabilities.argmax(1) == found.judged.labels).mean() > 0.8
    assert sorted(found.judged.photos) == list(range(24))


def test_it_stays_where_nothing_speaks_against_the_prior():
    found = examine(order(), made(noise=(1.0, 1.0)), EMPTY)
    assert not found.choice.moved
    assert found.choice.candidate == TRIED[0]


@pytest.mark.parametrize("photo", [0, 9, 23])
def test_a_held_out_photo_has_no_part_in_the_choice_that_it_is_judged_by(photo, monkeypatch):
    views = made(noise=(0.8, 1.1))
    seen = []
    plain = automatic._choose

    def watched(order, answers, questions, photos, expected):
        choice = plain(order, answers, questions, photos, expected)
        seen.append((frozenset(i for q in questions for i in q.asked), choice, questions))
        return choice

    monkeypatch.setattr(automatic, "_choose", watched)
    examine(order(), views, EMPTY)
    before, seen[:] = list(seen), []
    examine(order(), tampered(views, photo), EMPTY)
    outer = [k for k, (asked, _, questions) in enumerate(before) if photo not in asked and k > 0]
    assert outer
    for k in outer:
        assert all(photo not in {*q.known, *q.asked} for q in before[k][2])
        assert seen[k][1].chosen == before[k][1].chosen
        assert [j.loss for j in seen[k][1].judged] == pytest.approx([j.loss for j in before[k][1].judged])
    # And it does have a part in the others.
    others = [k for k in range(1, len(before)) if k not in outer]
    assert any([j.loss for j in seen[k][1].judged] != [j.loss for j in before[k][1].judged] for k in others)


def test_the_judgement_against_a_plain_loop():
    views = made(2, noise=(0.9, 1.0))
    found = examine(order(), views, EMPTY)
    labels, units = views[GOOD].labels, views[GOOD].units
    outer = rounds(labels, units, passes=1)
    shares = {}
    for out in outer:
        losses = {}
        for candidate in [j.candidate for j in order()]:
            photos = views[candidate.view]
            method = catalogue.build(candidate.method)
            photos = photos.pooled() if method.pools else photos
            answers = Answers(method, photos)
            questions = nested(labels, out, [o for o in outer if o is not out])
            logits = np.concatenate([answers(q) for q in questions])
            asked = [i for q in questions for i in q.asked]
            fitted = cross_fit(logits, labels[asked], units[asked], None)
            own = softmax(logits, fitted.each)[np.arange(len(asked)), labels[asked]]
            losses[candidate] = (-np.log(own), fitted.temperature, answers, asked)
        table = np.stack([x[0][np.argsort(x[3])] for x in losses.values()])
        p = better(table)
        passing = [k for k in range(1, len(table)) if p[k - 1] <= 0.05]
        winner = list(losses)[min(passing, key=lambda k: table[k].mean(), default=0)]
        _, temperature, answers, _ = losses[winner]
        (question,) = (q for q in single(labels, outer) if list(q.asked) == out)
        shares |= dict(zip(out, softmax(answers(question), temperature), strict=True))
    for i, row in zip(found.judged.photos, found.judged.probabilities, strict=True):
        np.testing.assert_allclose(row, shares[i], atol=1e-6)


def test_one_shot_leaves_the_prior_and_says_so():
    views = made(each=1)
    prior = Prior({TRIED[4]: (Cell(4, 1, 0.3, 0.9, 0.0, 0.2),), TRIED[0]: (Cell(4, 1, 0.9, 0.5, 0.5, 0.2),)})
    found = examine(order(prior=prior), views, prior)
    assert found.choice.candidate.method == "matchingnet"
    assert (found.choice.units, found.temperature) == (
        0,
        pytest.approx(1.0 if found.choice.candidate == TRIED[4] else found.temperature),
    )
    assert "by prior alone" in reason_of(found.choice)
    photos = views[GOOD]
    calibration = settle(found.held, found.temperature, found.expected, None)
    told = evidence(photos, found, calibration, reason="each class has one photo")
    assert told.accuracy is None
    assert any("nothing could be held out: each class has one photo" in line for line in told.lines())


def evidence(photos, found, calibration, **more):
    classes = np.array([f"kind {c}" for c in range(photos.way)])
    return gather(
        photos, classes, np.arange(len(photos.labels)), judged=found.judged, held=found.held, rounds=found.rounds,
        nested=True, calibration=calibration, detection=None, choice=found.choice, **more,
    )  # fmt: skip


def test_a_wrong_label_is_found_with_what_it_looks_like():
    views = {
        view: replace(photos, labels=photos.labels.copy()) for view, photos in made(each=8, noise=(0.3, 0.4)).items()
    }
    for photos in views.values():
        photos.labels[0] = 2
    found = examine(order(), views, EMPTY)
    told = evidence(views[GOOD], found, settle(found.held, found.temperature, found.expected, 0.1))
    assert (told.suspects[0].photo, told.suspects[0].label, told.suspects[0].looks_like) == (0, "kind 2", "kind 0")
    assert told.confusions[0].label, told.confusions[0].other == ("kind 0", "kind 2")
    assert told.accuracy.low <= told.accuracy.mean <= told.accuracy.high
    assert any("photo 0 (labelled kind 2, looks kind 0" in line for line in told.lines())
    assert any("a.jpg (labelled" in line for line in told.lines(["a.jpg", *map(str, range(40))]))
    json.dumps(told.to_record(), default=str)


def test_groups_count_once_and_are_listed():
    units = np.arange(24)
    units[1] = 0
    views = made(units=units)
    found = examine(order(), views, EMPTY)
    told = evidence(views[GOOD], found, settle(found.held, found.temperature, found.expected, None))
    assert told.duplicates == ((0, 1),)
    assert told.accuracy.units == 23
    assert shots(views[GOOD].labels, units) == pytest.approx(4 / (1 / 5 + 3 / 6))


def test_candidates_that_fail_are_listed_with_the_reason():
    bad = [Candidate("simpleshot", GOOD), *TRIED[:2]]  # needs base classes
    found = examine(order(bad), made(), EMPTY)
    assert "base_mean" in found.choice.judged[0].reason
    assert found.choice.candidate in TRIED
    head, rows = table_of(found.choice)
    assert all(len(row) == len(head) for row in rows)


def test_calibration_beats_a_wrong_scale():
    photos = made(each=10)[GOOD].pooled()
    method = catalogue.build("cosine-centroid", temperature=0.5)
    calibration, held = calibrate(method, photos, None, 0.1)
    found = quality(held)
    assert found.log_loss[1] < found.log_loss[0]
    assert found.brier[1] < found.brier[0]
    assert calibration.threshold == pytest.approx(np.sort(held.sureness())[int(0.1 * 41) - 1])
    assert calibration.photos == 40


def test_detection_is_an_estimate_with_four_classes_at_least():
    photos = made(each=6)[GOOD].pooled()
    method = catalogue.build("cosine-centroid")
    calibration, held = calibrate(method, photos, None, 0.1)
    found = detection(method, photos, held, calibration)
    assert found.classes == 4
    # By hand: a class left out, asked about, and compared with known photos.
    sure = []
    for c in range(4):
        rest, out = photos.labels != c, photos.labels == c
        support = photos.nodes[rest].view(1, 3, 6, 1, 12)
        logits = method(support, photos.nodes[out][None])[0].double().numpy()
        sure += (logits.max(1) - logits.mean(1)).tolist()
    known = held.sureness()
    expect = np.mean([[(k > u) + 0.5 * (k == u) for u in sure] for k in known])
    assert found.auroc == pytest.approx(expect)
    assert found.found == pytest.approx(np.mean(np.array(sure) < calibration.threshold))
    assert "estimate" in str(found)
    three = made(way=3)[GOOD].pooled()
    assert detection(method, three, held, calibration) is None


def test_wilson_against_the_equation():
    low, high = wilson(92, 96)
    for bound in (low, high):
        assert abs(92 / 96 - bound) == pytest.approx(1.96 * np.sqrt(bound * (1 - bound) / 96))
    assert (round(100 * low, 1), round(100 * high, 1)) == (89.8, 98.4)
    assert wilson(0, 5)[0] == 0
    assert wilson(5, 5)[1] == pytest.approx(1)


def test_the_table_that_comes_with_the_package_covers_the_candidates():
    from otfew.classifier.candidates import candidates

    prior = load_prior()
    for candidate in candidates([("efficientnet-lite0", 224)]):
        for way, shot in ((2, 1), (5, 3), (12, 8), (50, 30)):
            assert 0 < prior.loss(candidate, way, shot) < 4
            assert 0 < prior.expected(candidate, way, shot).spread < 2
    record = json.loads(TABLE.read_text())
    assert record["command"].startswith("python -m experiments.prior")
    assert not any("(test)" in source for source in record["sources"])


def test_the_table_is_interpolated_and_never_left():
    cells = tuple(Cell(way, shot, way + shot, 0.5, 0.1 * shot, 0.2) for way in (5, 20) for shot in (1, 8))
    prior = Prior({TRIED[0]: cells})
    assert prior.loss(TRIED[0], 5, 8) == 13
    assert prior.loss(TRIED[0], 10, 8) == pytest.approx(20.5)
    assert prior.loss(TRIED[0], 2, 100) == 13
    assert prior.expected(TRIED[0], 5, 8) == Expected(
        pytest.approx(0.8), pytest.approx(0.2), "validation classes of other data"
    )
    # Of a method on another view, the temperature is less sure.
    assert prior.expected(TRIED[3], 5, 8).spread == pytest.approx(0.4)
    assert prior.expected(TRIED[1], 5, 8) is None
    assert [c for c, _ in prior.rank(TRIED[:3], 5, 8)] == TRIED[:3]
    with pytest.raises(ValueError, match="format"):
        from_json({"format": 0})


def test_hold_out_without_photos_is_the_expectation():
    photos = made(each=1)[GOOD].pooled()
    held, temperature, _ = hold_out(Answers(catalogue.build("knn"), photos), [], Expected(0.5, 0.1))
    assert temperature == pytest.approx(np.exp(0.5))
    assert quality(held) is None
