"""Pictures of long tails: figures by plain loops, titles that say them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from otfew.errors import UserError
from otfew.experiments.common import drawing
from otfew.experiments.long_tail import plots
from otfew.experiments.long_tail.arms import COSTS, Weights
from otfew.experiments.long_tail.config import OTOptions
from otfew.runs.directory import to_json

COUNTS = (5, 40, 12, 2)


@pytest.fixture(scope="module", params=["prototypes", "whole"])
def weights(request):
    draw = torch.Generator().manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))
    centres = torch.rand(4, 6, generator=draw)
    features = SimpleNamespace(
        train=centres[labels] + 0.4 * torch.rand(len(labels), 6, generator=draw),
        train_labels=labels,
        counts=torch.tensor(COUNTS),
        meta=centres.repeat_interleave(3, 0) + 0.1 * torch.rand(12, 6, generator=draw),
        meta_labels=torch.arange(4).repeat_interleave(3),
    )
    return Weights(SimpleNamespace(features=features), OTOptions(meta=request.param))


@pytest.fixture(scope="module")
def found(weights):
    return plots.figures(weights)


def test_figures_by_loops(weights, found):
    labels = weights.cached.features.train_labels.numpy()
    ranked = [1, 2, 0, 3]
    assert found["sizes"] == [40, 12, 5, 2]
    assert found["shown"] == [0, 1, 2, 3]
    rows = plots.meta_classes(weights).tolist()
    for cost in COSTS:
        solved = weights.ot(cost)
        plan = solved.plan().numpy()
        for r, meta in enumerate(ranked):
            mass = {label: 0.0 for label in ranked}
            costs = {label: [] for label in ranked}
            for i, own in enumerate(rows):
                if own == meta:
                    for j, label in enumerate(labels):
                        mass[label] += plan[i, j]
                        costs[label].append(float(solved.cost[i, j]))
            total = sum(mass.values())
            wanted = [100 * mass[label] / total for label in ranked]
            np.testing.assert_allclose(found["plans"][cost]["learned"][r], wanted, atol=1e-3)
            np.testing.assert_allclose(
                found["plans"][cost]["cost"][r], [np.mean(costs[label]) for label in ranked], atol=1e-4
            )
            assert sum(found["plans"][cost]["uniform"][r]) == pytest.approx(100, abs=0.01)
        own = np.mean(np.diag(found["plans"][cost]["learned"]))
        assert found["plans"][cost]["learned_own"] == pytest.approx(own, abs=1e-2)
        factors = solved.weights.numpy() * len(labels)
        middles = [np.median(factors[labels == label]) for label in ranked]
        np.testing.assert_allclose([q[1] for q in found["weights"][cost]["quantiles"]], middles, atol=1e-6)


def test_explained_is_the_share_that_a_line_explains():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=500), rng.normal(size=500)
    y = 2 * x + noise
    slope, level = np.polyfit(x, y, 1)
    assert plots.explained(y, x) == pytest.approx(1 - np.var(y - slope * x - level) / np.var(y), abs=1e-6)
    assert plots.explained(3 - x, x) == 1
    assert plots.explained(np.ones(5), np.arange(5.0)) == 0


def words(figure):
    parts = [*figure.texts, *(axes._left_title for axes in figure.axes)]
    return " ".join(text.get_text() for text in parts)


def test_titles_say_what_is_drawn(found):
    figure = plots.draw_weights(found, "data-LT")
    said = words(figure)
    for cost in COSTS:
        assert f"{100 * found['weights'][cost]['explained']:.0f} % with" in said
    ticks = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert ticks == ["40", "12", "5", "2"]
    figure = plots.draw_plans(found, "data-LT")
    said = words(figure)
    for cost in COSTS:
        assert f"{found['plans'][cost]['learned_own']:.0f} % with" in said
    images = [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()]
    wanted = [found["plans"][cost][name] for cost in COSTS for name in ("cost", "uniform", "learned")]
    for image, matrix in zip(images, wanted, strict=True):
        np.testing.assert_allclose(image, matrix)


def test_a_run_is_drawn_again_from_its_figures(found, tmp_path, unrendered):
    record = {"command": "long-tail", "setting": {"dataset": "d", "factor": 10.0, "backbone": "b"}, "picture": found}
    (tmp_path / "results.json").write_bytes(to_json(record))
    assert [path.name for path in drawing.draw([tmp_path])] == ["weights.png", "plans.png"]
    del record["picture"]
    (tmp_path / "results.json").write_bytes(to_json(record))
    with pytest.raises(UserError, match="kept no figures"):
        drawing.draw([tmp_path])
