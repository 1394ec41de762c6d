"""Table 2: clusterings remembered and counted against loops; ends of both sweeps meet what they must equal."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from otfew.experiments import ablate_weights
from otfew.experiments.analyses.ablate_weights import make_clusterings
from otfew.scores.clusters import Remembered, mean_count, median_distance, pick
from otfew.scores.node_weights import KMeans, MeanShift


def test_an_image_is_clustered_once():
    calls = []

    class Counting(KMeans):
        def labels(self, nodes):
            calls.append(nodes.copy())
            return super().labels(nodes)

    torch.manual_seed(0)
    support, query = torch.rand(2, 3, 5, 4), torch.rand(2, 4, 5, 4)
    once = Remembered(Counting(n_clusters=2))
    first = once.weigh(support, query)
    assert len(calls) == 2 * (3 + 4)
    second = once.weigh(support, query)
    assert len(calls) == 2 * (3 + 4)
    plain = KMeans(n_clusters=2).weigh(support, query)
    for ours, again, theirs in zip(first, second, plain, strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(again, theirs)
    assert repr(once) == repr(once.inner)


def test_distances_and_counts_against_loops():
    torch.manual_seed(1)
    images = pick(torch.rand(7, 5, 3), 4)
    assert images.shape == (4, 5, 3)
    pairs = [math.dist(image[i], image[j]) for image in images.tolist() for i, j in itertools.combinations(range(5), 2)]
    # torch takes the lower of the two middle values.
    assert median_distance(images) == pytest.approx(sorted(pairs)[(len(pairs) - 1) // 2])
    assert median_distance(images[:, :1]) == 0
    assert mean_count(KMeans(n_clusters=3), images) == 3
    assert mean_count(MeanShift(bandwidth=0.0), images) == 5
    assert mean_count(MeanShift(bandwidth=math.inf), images) == 1


def test_clusterings_by_name():
    made = make_clusterings((9, 3, 3, 1), {"0": 0.0, "2": 2.0, "inf": math.inf, "auto": None}, 5, 0.5)
    assert list(made) == ["k-means 3", "k-means 1", "mean-shift 0", "mean-shift 2", "mean-shift inf", "mean-shift auto"]
    assert [made[f"mean-shift {x}"].bandwidth for x in ("0", "2", "inf", "auto")] == [0, 1, math.inf, None]


@pytest.mark.slow
@pytest.mark.usefixtures("surroundings")
def test_ends_of_the_sweeps_meet(own_features, tmp_path, finish, capsys):
    results = finish(
        ablate_weights.main, tmp_path / "run", "--features", own_features, "--query", 4, "--episodes", 100,
        "--clusters", 6, 2, 1, "--bandwidths", "0", "0.5", "inf",
    )  # fmt: skip
    said = capsys.readouterr().out
    for word in (
        "dense, average",
        "EMD, equal",
        "EMD, k-means 2",
        "EMD, mean-shift inf",
        "EMD, cross-reference",
        "61.13",
    ):
        assert word in said
    with (tmp_path / "run" / "episodes.csv").open() as file:
        rows = [line.strip().split(",") for line in file][1:]
    episodes = {
        name: [float(r[3]) for r in rows if r[1] == name] for name in results["panels"]["all"]["protocol"]["order"]
    }
    # As many clusters as nodes are equal weights, as is a bandwidth of 0; one cluster is the mean, as is no bound.
    np.testing.assert_allclose(episodes["k-means 6"], episodes["deepemd uniform"])
    np.testing.assert_allclose(episodes["mean-shift 0"], episodes["deepemd uniform"])
    np.testing.assert_allclose(episodes["mean-shift inf"], episodes["k-means 1"])
    assert results["clusters"]["k-means 2"] == 2
    assert results["clusters"]["mean-shift 0"] == 6
