"""Conformal sets: the promised coverage on exchangeable photos, and the same p as by refitting everything."""

import numpy as np
import pytest
import torch

from otfew import catalogue
from otfew.classifier.conformal import check_alpha, needed, p_values, separable, strangeness
from otfew.classifier.holdouts import Photos, ask
from otfew.errors import UserError


def made(seed, sizes=(4, 3, 5), spread=0.7, more=1):
    """Photos of classes around centres of their own, and new ones drawn as they are, in random proportions."""
    rng = np.random.default_rng(seed)
    total = sum(sizes) + more
    labels = rng.integers(0, len(sizes), total)
    labels[: 2 * len(sizes)] = np.repeat(
        range(len(sizes)), 2
    )  # each class is there twice; exchangeable after shuffling
    centres = 2 + rng.normal(size=(len(sizes), 1, 6))
    nodes = torch.from_numpy(centres[labels] + spread * rng.normal(size=(total, 2, 6))).float()
    order = rng.permutation(total)
    return nodes[order], labels[order]


def photos(nodes, labels, way=3):
    return Photos(nodes, labels, way, np.arange(len(labels)))


@pytest.mark.parametrize("method", ["cosine-centroid", "knn", "chamfer", "deepemd"])
def test_p_values_are_those_of_refitting_everything(method):
    nodes, labels = made(3)
    built = catalogue.build(method)
    known = photos(nodes[:-1], labels[:-1])
    assert set(labels[:-1]) == {0, 1, 2}
    ours = p_values(built, known, nodes[-1:])[0]
    for c in range(3):
        joined = photos(nodes, np.append(labels[:-1], c))
        strange = []
        for i in range(len(nodes)):
            rest = [j for j in range(len(nodes)) if j != i]
            if joined.labels[i] not in joined.labels[rest]:
                strange.append(np.inf)
                continue
            strange.append(strangeness(ask(built, joined, rest, [i]), joined.labels[i : i + 1])[0])
        assert ours[c] == pytest.approx(np.mean(np.array(strange) >= strange[-1] - 1e-6))


@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_coverage_on_exchangeable_photos(alpha):
    built, hits, trials = catalogue.build("cosine-centroid"), 0, 400
    for seed in range(trials):
        nodes, labels = made(1000 + seed, sizes=(4, 4, 4), spread=1.5)
        if set(labels[:-1]) != {0, 1, 2}:
            hits += 1 - alpha  # no classifier of three kinds: counts as promised
            continue
        hits += p_values(built, photos(nodes[:-1], labels[:-1]), nodes[-1:])[0, labels[-1]] > alpha
    assert hits / trials >= 1 - alpha - 3 * np.sqrt(alpha * (1 - alpha) / trials)
    # And not by answering with everything.
    assert hits / trials < 1 - alpha + 0.09


def test_a_photo_alone_in_its_class_is_the_strangest():
    nodes, _ = made(5, sizes=(2, 2, 2))
    labels = np.array([0, 0, 0, 1, 1, 2])
    p = p_values(catalogue.build("cosine-centroid"), photos(nodes[:6], labels), nodes[6:])
    assert ((p > 0) & (p <= 1)).all()


def test_names_of_classes_change_nothing():
    nodes, labels = made(7)
    order = np.array([2, 0, 1])
    built = catalogue.build("cosine-centroid")
    one = p_values(built, photos(nodes[:-1], labels[:-1]), nodes[-1:])
    other = p_values(built, photos(nodes[:-1], order[labels[:-1]]), nodes[-1:])
    np.testing.assert_allclose(other[:, order], one)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("cosine-centroid", True),
        ("knn", True),
        ("deepemd", True),
        ("logistic", False),
        ("fusion", False),
        ("tim", False),
    ],
)
def test_methods_whose_classes_stand_alone_are_found(method, expected):
    nodes, labels = made(9)
    assert separable(catalogue.build(method), photos(nodes[:-1], labels[:-1])) is expected


@pytest.mark.parametrize(("alpha", "count"), [(0.1, 9), (0.05, 19), (0.2, 4)])
def test_too_few_photos_are_refused_with_their_number(alpha, count):
    assert needed(alpha) == count
    assert check_alpha(alpha, count) == alpha
    with pytest.raises(UserError, match=f"needs {count} labelled photos"):
        check_alpha(alpha, count - 1)
    for wrong in (0, 1, "0.1", None, True):
        with pytest.raises(UserError, match="`alpha` is"):
            check_alpha(wrong, 100)
