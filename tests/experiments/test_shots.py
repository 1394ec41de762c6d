"""Figure 5: heads at one shot, accuracies by hand, and numbers of shots that there are too few images for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from otfew.evaluation.episodes import Protocol, Sampler
from otfew.experiments import shots
from otfew.features.file import labels_digest, load_feature_file
from otfew.methods import METHODS

pytestmark = pytest.mark.usefixtures("surroundings")
ALIKE = ("mean", "sfc", "nn", "fusion", "merge")


@pytest.fixture
def finished(own_features, tmp_path, finish):
    return finish(
        shots.main, tmp_path / "run", "--features", own_features, "--query", 4, "--episodes", 40,
        "--shots", 1, 3, 99, 16, "--sfc-epochs", 2, "--baselines", "cosine-centroid", "protonet",
    )  # fmt: skip


@pytest.mark.slow
def test_one_shot_and_many(finished, tmp_path, rendered):
    said = (tmp_path / "run" / "report.md").read_text()
    assert "left out: 99 shots, since class '0' has 20 images, of which 4 are queries" in said
    assert "40 episodes of 5-way 1- to 16-shot with 4 queries" in said
    assert list(finished["panels"]) == ["shot-1", "shot-16", "shot-3"]
    one = finished["panels"]["shot-1"]["methods"]
    assert len({one[f"deepemd {head}"]["accuracy"]["mean"] for head in ALIKE}) == 1
    assert all(finished["heads_against_mean"]["shot-1"][f"deepemd {head}"]["mean"] == 0 for head in ALIKE[1:])
    three = finished["panels"]["shot-3"]["methods"]
    gap = three["deepemd nn"]["accuracy"]["mean"] - three["deepemd mean"]["accuracy"]["mean"]
    assert finished["heads_against_mean"]["shot-3"]["deepemd nn"]["mean"] == pytest.approx(gap, abs=1e-7)
    assert (tmp_path / "run" / "shots.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_smaller_support_is_the_start_of_the_larger(finished, own_features):
    features = load_feature_file(own_features)
    digest = labels_digest(features.labels, features.classes)[:16]
    protocol = Protocol("features", digest, "file", seed=1, way=5, shot=16, query=4)
    episodes = Sampler(protocol, features.labels, features.classes)(0, 40)
    right = []
    for support, query in zip(episodes.support[:, :, :3], episodes.query, strict=True):
        logits = METHODS["deepemd"](shot_head="fusion")(
            features.nodes[torch.from_numpy(support)][None], features.nodes[torch.from_numpy(query)].flatten(0, 1)[None]
        )
        right.append((logits[0].argmax(-1).view(5, 4) == torch.arange(5)[:, None]).float().mean().item())
    found = finished["panels"]["shot-3"]["methods"]["deepemd fusion"]["accuracy"]["mean"]
    assert found == pytest.approx(np.mean(right), abs=1e-6)


def test_no_number_of_shots_that_fits_is_refused(own_features, refused):
    said = refused(shots.main, "--features", own_features, "--query", 4, "--shots", 17)
    assert "--shots 17 cannot be had" in said
