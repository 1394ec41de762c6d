"""What held-out photos say of new ones that come evenly from the classes, however many are labelled of each."""

import numpy as np
import pytest
import torch

from otfew import catalogue
from otfew.classifier import kept_trust
from otfew.classifier.by_class import Evenly
from otfew.classifier.calibration import HeldOut, calibrate, quality, settle
from otfew.classifier.evidence import gather, wilson
from otfew.classifier.holdouts import Photos, rounds
from otfew.classifier.trust import Trust
from otfew.statistics.temperature import Expected, softmax, unit_means


def held(right, labels, way, units=None):
    """Photos that were held out, each sure of its class or of the next one."""
    labels = np.asarray(labels)
    taken = np.where(right, labels, (labels + 1) % way)
    logits = 4.0 * np.eye(way)[taken]
    units = np.arange(len(labels)) if units is None else np.asarray(units)
    return HeldOut(np.arange(len(labels)), logits, softmax(logits, 1.0), labels, units)


def told(found, way, labels=None):
    labels = found.labels if labels is None else labels
    units = np.concatenate([found.units, found.units.max() + 1 + np.arange(len(labels) - len(found.units))])
    photos = Photos(torch.zeros(len(labels), 1, 2), labels, way, units)
    calibration = settle(found, 1.0, Expected(0.0, 0.3), None)
    return gather(
        photos, np.arange(way), np.arange(len(labels)), judged=found, held=found, rounds=8, nested=False,
        calibration=calibration, detection=None, choice=None,
    )  # fmt: skip


def test_classes_weigh_alike():
    found = held([True] * 12 + [True, False], [0] * 12 + [1, 1], 2)
    report = told(found, 2)
    assert report.accuracy.mean == pytest.approx((1 + 0.5) / 2)  # 13 of 14 photos are right
    assert report.accuracy.units == 14
    # Of 24 / 7 photos of equal weight an average would vary as much: variances 1 / 4 (1 / 12 + 1 / 2).
    effective = 1 / (0.25 * (1 / 12 + 1 / 2))
    assert (report.accuracy.low, report.accuracy.high) == pytest.approx(wilson(0.75 * effective, effective))
    assert "75.0 % right" in report.lines()[0]
    assert report.lines()[0].endswith("as if new photos came evenly from the classes")
    loss = [-np.log(softmax(found.logits, 1.0)[i, found.labels[i]]) for i in (0, 13)]
    assert quality(found).log_loss[0] == pytest.approx(0.75 * loss[0] + 0.25 * loss[1])


def test_classes_of_as_many_photos_are_averaged_as_units_are():
    rng = np.random.default_rng(0)
    labels, units = np.repeat([0, 1, 2], 5), np.array([0, 0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 11, 11])
    values = rng.random(15)
    weights = Evenly.of(labels, units)
    assert weights.even
    assert weights.effective == pytest.approx(12)
    assert weights.mean(values) == pytest.approx(unit_means(values, units)[0].mean())
    assert "evenly" not in told(held([True] * 15, labels, 3, units), 3).lines()[0]


def test_a_group_across_classes_counts_in_each():
    weights = Evenly.of(np.array([0, 0, 1]), np.array([0, 1, 1]))
    assert weights.rows.tolist() == [0.25, 0.25, 0.5]
    assert not weights.even


def test_classes_of_which_none_could_be_held_out_are_left_out_and_named():
    report = told(held([True, False, True, True], [0, 0, 1, 1], 3), 3, np.array([0, 0, 1, 1, 2]))
    assert report.accuracy.mean == pytest.approx(0.75)
    assert "from the 2 classes of which one could be held out" in report.lines()[0]


@pytest.mark.parametrize(
    "share", [(0.5, 0.95), (0.95, 0.6)], ids=["small classes are worse", "small classes are better"]
)
def test_the_interval_holds_the_right_value_at_its_rate(share):
    counts = np.repeat([3, 16], 5)
    labels, truth = np.repeat(np.arange(10), counts), np.repeat(share, 5)
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(400):
        weights = Evenly.of(labels, np.arange(len(labels)))
        mean = weights.mean((rng.random(len(labels)) < truth[labels]).astype(float))
        low, high = wilson(mean * weights.effective, weights.effective)
        hits.append(low <= truth.mean() <= high)
    assert 0.92 <= np.mean(hits) <= 1


def test_what_is_told_is_what_new_photos_of_all_classes_find():
    """Classes of 16 photos and harder ones of 6, 40 draws: an average over photos would be too high."""
    counts, spread, way = np.repeat([16, 6], 4), np.repeat([0.8, 2.0], 4), 8
    labels = np.repeat(np.arange(way), counts)
    method = catalogue.build("cosine-centroid")
    figures = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(way, 16))

        def drawn(of, rng=rng, centres=centres):
            nodes = centres[of] + spread[of, None] * rng.normal(size=(len(of), 16))
            return torch.from_numpy(nodes).float()[:, None]

        photos = Photos(drawn(labels), labels, way, np.arange(len(labels)))
        _, found = calibrate(method, photos, Expected(-2.0, 0.3), None)
        report = gather(
            photos, np.arange(way), np.arange(len(labels)), judged=found, held=found,
            rounds=len(rounds(labels, photos.units)), nested=False,
            calibration=settle(found, 1.0, Expected(0.0, 0.3), None), detection=None, choice=None,
        )  # fmt: skip
        fresh = np.repeat(np.arange(way), 100)
        support = torch.stack([photos.nodes[labels == c].mean(0) for c in range(way)])[None, :, None]
        new = (method(support, drawn(fresh)[None])[0].argmax(1).numpy() == fresh).mean()
        which, shares = found.by_photo()
        plain = (shares.argmax(1) == labels[which]).mean()
        figures.append((report.accuracy.mean, plain, new))
    macro, plain, new = 100 * np.mean(figures, 0)
    assert abs(macro - new) < 2
    assert plain - new > 4


def test_files_of_before_are_read_as_they_were_meant():
    found = held([True] * 3 + [True, False], [0, 0, 0, 1, 1], 2)
    known = Trust(settle(found, 1.0, Expected(0.0, 0.3), None), found, told(found, 2))
    record, arrays = kept_trust.to_record(known, np.arange(2))
    again = kept_trust.from_record(record, arrays, np.arange(2), known.calibration, None)
    assert again.evidence.accuracy == known.evidence.accuracy
    for name in ("classes", "even"):
        del record["accuracy"][name]
    earlier = kept_trust.from_record(record, arrays, np.arange(2), known.calibration, None)
    assert "evenly" not in earlier.evidence.lines()[0]
