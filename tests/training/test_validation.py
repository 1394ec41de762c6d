from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from otfew import catalogue
from otfew.errors import UserError
from otfew.nodes.fcn import FCN
from otfew.nodes.sampling import Sampling
from otfew.training import validation as module
from otfew.training.validation import Validation, make_sampler

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

CPU = torch.device("cpu")


def test_accuracy_against_a_loop(made_images):
    images, pixels = made_images("val", 7, 9, 3)
    torch.manual_seed(0)
    backbone = nn.Conv2d(3, 4, 8, 8)
    methods = {"cosine-centroid": catalogue.build("cosine-centroid")}
    scored = Validation(pixels[:, None], images, FCN(), make_sampler(images), 12, lambda _: methods, MEAN, STD)
    assert scored.sampler.protocol.query == 8
    vectors = torch.stack([backbone((p.float() / 255 - 0.5)[None] / 0.25)[0].mean((1, 2)) for p in pixels]).detach()
    episodes = scored.sampler(0, 12)
    each = []
    for i in range(12):
        right = []
        for c in range(5):
            for q in episodes.query[i, c]:
                scores = [
                    float(vectors[q] @ vectors[s] / vectors[q].norm() / vectors[s].norm())
                    for s in episodes.support[i, :, 0]
                ]
                right.append(int(np.argmax(scores)) == c)
        each.append(100 * np.mean(right))
    accuracy = scored(backbone, CPU)["cosine-centroid"]
    assert accuracy.mean == pytest.approx(np.mean(each))
    assert accuracy.interval == pytest.approx(1.96 * np.std(each, ddof=1) / np.sqrt(12))


def test_batches_do_not_matter(validation, monkeypatch):
    backbone = nn.Conv2d(3, 4, 8, 8)
    whole = validation(backbone, CPU)
    monkeypatch.setattr(module, "BATCH", 7)
    assert validation(backbone, CPU) == whole


def test_patches_are_views(validation):
    """Three equal views of an image are worth one."""
    backbone = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.AdaptiveAvgPool2d(1))
    thrice = replace(validation, pixels=validation.pixels.expand(-1, 3, -1, -1, -1), extractor=Sampling(3))
    assert thrice(backbone, CPU) == validation(backbone, CPU)


def test_small_splits_shrink_the_episode(made_images):
    images, _ = made_images("val", 3, 3, 0)
    protocol = make_sampler(images).protocol
    assert (protocol.way, protocol.query) == (3, 2)


@pytest.mark.parametrize(("classes", "each"), [(1, 20), (5, 1)])
def test_too_small_to_validate(made_images, classes, each):
    with pytest.raises(UserError):
        make_sampler(made_images("val", classes, each, 0)[0])
