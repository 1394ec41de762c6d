"""Shares against plain arithmetic and a jackknife by hand, entropies against closed forms, the command on toys."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from otfew.evaluation.estimates import ratio, shown
from otfew.evaluation.shares import effects
from otfew.experiments.does_ot_matter import command as does_ot_matter
from otfew.scores.spread import entropy, mean_partners, partners
from otfew.statistics.intervals import estimate
from otfew.transport import Sinkhorn

NAMES = [f"c{i}" for i in range(10)]


def draw(rng, episodes=400, way=3):
    """Classes of episodes, and four accuracies with class effects: neither, weights, matching, both."""
    classes = np.stack([rng.choice(len(NAMES), way, replace=False) for _ in range(episodes)])
    level = rng.normal(size=len(NAMES))[classes].mean(1) / 20
    cells = [
        0.5 + level * (1 + k / 4) + gain + rng.normal(size=episodes) / 30 for k, gain in enumerate((0, 0.06, 0.02, 0.1))
    ]
    return classes, cells


def test_effects_add_up_to_the_gain():
    classes, cells = draw(np.random.default_rng(0))
    a, b, c, d = (cell.mean() for cell in cells)
    found = effects((*cells, cells[0]), classes, NAMES)
    assert found["gain"]["mean"] == pytest.approx(d - a, abs=1e-8)
    # The Shapley value: over both orders, what a factor adds when its turn comes.
    assert found["weights"]["mean"] == pytest.approx(np.mean([b - a, d - c]), abs=1e-8)
    assert found["matching"]["mean"] == pytest.approx(np.mean([d - b, c - a]), abs=1e-8)
    assert found["interaction"]["mean"] == pytest.approx(d - c - b + a, abs=1e-8)
    assert found["weights"]["mean"] + found["matching"]["mean"] == pytest.approx(found["gain"]["mean"], abs=1e-7)
    share = found["share_of_weights"]
    assert share["mean"] == pytest.approx(found["weights"]["mean"] / found["gain"]["mean"], abs=1e-6)
    assert "share_undefined" not in found


def test_what_comes_before_is_counted_apart():
    classes, (a, b, c, d) = draw(np.random.default_rng(6))
    start = a - 0.03
    plain, apart = effects((a, b, c, d, a), classes, NAMES), effects((a, b, c, d, start), classes, NAMES)
    assert plain["before"]["mean"] == 0
    assert apart["before"]["mean"] == pytest.approx(0.03)
    for part in ("weights", "matching", "interaction"):
        assert apart[part] == plain[part]
    parts = sum(apart[part]["mean"] for part in ("before", "weights", "matching"))
    assert apart["gain"]["mean"] == pytest.approx(parts, abs=1e-7)
    total = apart["gain"]["mean"]
    assert apart["share_of_matching"]["mean"] == pytest.approx(apart["matching"]["mean"] / total, abs=1e-6)


def test_swapping_weights_and_matching_swaps_their_parts():
    classes, (a, b, c, d) = draw(np.random.default_rng(1))
    one, other = effects((a, b, c, d, a), classes, NAMES), effects((a, c, b, d, a), classes, NAMES)
    assert one["weights"] == other["matching"]
    assert one["share_of_weights"]["mean"] + other["share_of_weights"]["mean"] == pytest.approx(1)


@pytest.mark.parametrize("sign", [0, -1])
def test_no_gain_has_no_shares(sign):
    classes, (a, b, c, _) = draw(np.random.default_rng(2))
    end = a + sign * 0.1 + np.random.default_rng(3).normal(size=len(a)) / 50
    found = effects((a, b, c, end, a), classes, NAMES)
    assert found["share_of_weights"] is None
    assert "no gain is shown" in found["share_undefined"]


def test_the_interval_of_a_ratio_is_a_jackknife_over_classes():
    classes, (a, b, _, d) = draw(np.random.default_rng(4))
    part, whole = b - a, d - a
    found = ratio(part, whole, classes, NAMES)
    assert found.mean == pytest.approx(part.mean() / whole.mean())
    theta = []
    for c in range(len(NAMES)):
        keep = [i for i, episode in enumerate(classes) if c not in episode]
        theta.append(sum(part[i] for i in keep) / sum(whole[i] for i in keep))
    spread = math.sqrt((len(NAMES) - 1) / len(NAMES) * sum((t - np.mean(theta)) ** 2 for t in theta))
    # To first order the same: the ratio itself instead of its slope.
    assert found.jackknife.standard_error == pytest.approx(spread, rel=0.1)


def test_shown_asks_the_wider_interval():
    classes, (a, _, _, d) = draw(np.random.default_rng(5))
    assert shown(estimate(d - a, classes, NAMES))
    assert not shown(estimate((d - a) - (d - a).mean(), classes, NAMES))
    assert not shown(estimate((d - a)[:20], classes[:20], NAMES))


def test_partners_of_plans_that_are_known():
    n, m = 4, 6
    assert partners(torch.full((n, m), 3.0)).item() == pytest.approx(m)
    assert partners(torch.eye(n)).item() == pytest.approx(1)
    two = torch.zeros(n, m)
    two[:, :2] = 0.5
    assert partners(two[None].expand(3, -1, -1)).tolist() == pytest.approx([2, 2, 2])
    assert entropy(torch.tensor([0.5, 0.5, 0.0])).item() == pytest.approx(math.log(2))


def test_plans_spread_out_with_reg():
    torch.manual_seed(0)
    support, query = torch.rand(1, 3, 5, 8), torch.rand(1, 4, 5, 8)
    solvers = ["exact", *(Sinkhorn(reg=reg) for reg in (0.03, 0.3, 30.0)), None]
    found = [mean_partners(support, query, solver) for solver in solvers]
    assert [e for e, _ in found] == sorted(e for e, _ in found)
    assert [p for _, p in found] == sorted(p for _, p in found)
    assert found[-2] == pytest.approx(found[-1], rel=1e-3)
    # A basic solution has at most n + m - 1 arcs.
    assert found[0][0] <= math.log(9)


@pytest.mark.usefixtures("surroundings")
def test_the_line_runs_from_the_lp_to_the_product(own_features, tmp_path, finish, capsys, rendered):
    results = finish(
        does_ot_matter.main, tmp_path / "run", "--features", own_features, "--query", 4, "--episodes", 120,
        "--regs", "1e-2", "1000", "--entropy-episodes", 1,
    )  # fmt: skip
    said = capsys.readouterr().out
    for word in ("does transport matter", "node by node", "partners", "over cosine-centroid", "conditional on"):
        assert word in said
    methods = results["panels"]["all"]["methods"]
    product = methods["product-coupling"]["accuracy"]["mean"]
    assert methods["sinkhorn reg=1000"]["accuracy"]["mean"] == pytest.approx(product, abs=2e-3)
    assert methods["sinkhorn reg=0.01"]["difference"]["to"] == "deepemd"
    assert abs(methods["sinkhorn reg=0.01"]["difference"]["mean"]) < 0.02
    plans = results["plans"]
    assert plans["deepemd"]["entropy"] < plans["sinkhorn reg=0.01"]["entropy"] < plans["product-coupling"]["entropy"]
    shares = results["shares"]["over cosine-centroid"]
    gain = methods["deepemd"]["accuracy"]["mean"] - methods["cosine-centroid"]["accuracy"]["mean"]
    assert shares["gain"]["mean"] == pytest.approx(gain, abs=1e-7)
    assert (tmp_path / "run" / "does-ot-matter.png").read_bytes().startswith(b"\x89PNG")
    times = json.loads((tmp_path / "run" / "timings.json").read_text())["all"]["methods"]
    assert set(times) == set(methods)
