"""What a method is wrong about, asked again: the counts of the run itself, and the flows of a plan known by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otfew import catalogue
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.evaluation.run import Ready, evaluate
from otfew.evaluation.worst import EPISODES, find_worst, strongest
from otfew.features.extract import FeatureSet


@pytest.fixture(scope="module")
def ran():
    """A run of 60 episodes on nodes that are hard to tell apart."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(8), 14)
    nodes = rng.normal(size=(8, 1, 6))[labels] * 0.5 + rng.normal(size=(112, 3, 6))
    names = tuple(f"class {c}" for c in range(8))
    features = FeatureSet(torch.from_numpy(nodes).float().abs(), labels, names, "file")
    sampler = Sampler(Protocol("toy", "", "test", 1, 4, 2, 5), labels, names)
    ready = Ready("cosine-centroid", catalogue.build("cosine-centroid"), features.pooled)
    return features, sampler, ready, evaluate([ready], sampler, 60)["cosine-centroid"]


def test_counts_are_those_of_the_run(ran):
    features, sampler, ready, scores = ran
    worst = find_worst(ready, features, sampler, scores.accuracy, "cpu")
    chosen = np.argsort(scores.accuracy, kind="stable")[:EPISODES]
    assert worst.episodes == EPISODES
    assert worst.queries == EPISODES * 4 * 5
    classes = sampler(0, 60).classes
    for c in range(8):
        right = scores.correct[chosen][classes[chosen] == c]
        missed = sum(n for (label, _), n in worst.confusions.items() if label == c)
        assert missed == 5 * len(right) - right.sum()
    assert list(worst.confusions.values()) == sorted(worst.confusions.values(), reverse=True)


def test_queries_are_the_surest_mistakes_each_once(ran):
    features, sampler, ready, scores = ran
    worst = find_worst(ready, features, sampler, scores.accuracy, "cpu")
    margins = [query.margin for query in worst.looked_at]
    assert margins == sorted(margins, reverse=True)
    assert len({query.image for query in worst.looked_at}) == len(margins) > 1
    for query in worst.looked_at:
        episode = sampler(query.episode, query.episode + 1)
        assert query.image in episode.query[0]
        assert features.labels[query.image] == query.label != query.taken
        for match, label in ((query.wrong, query.taken), (query.right, query.label)):
            (place,) = np.flatnonzero(episode.classes[0] == label)
            own = episode.support[0][place]
            assert match.image in own
            means = torch.nn.functional.normalize(features.nodes.mean(1), dim=1)
            near = [float(means[query.image] @ means[i]) for i in own]
            assert match.image == own[int(np.argmax(near))]


def test_flows_of_equal_nodes_go_to_themselves():
    nodes = torch.eye(4)[:, :4] + 0.05
    order = [2, 0, 3, 1]
    flows = strongest(nodes, nodes[order])
    assert {(flow.here, order[flow.there]) for flow in flows} == {(i, i) for i in range(4)}
    assert all(flow.share == pytest.approx(0.25, abs=1e-5) for flow in flows)
    assert all(flow.similarity == pytest.approx(1, abs=1e-5) for flow in flows)
