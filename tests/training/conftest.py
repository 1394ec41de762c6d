import numpy as np
import pytest
import torch

from otfew import catalogue
from otfew.data.base import ImageSet
from otfew.nodes.fcn import FCN
from otfew.training.validation import Validation, make_sampler

SIDE = 16
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def draw(split, classes, each, seed):
    """Noisy fields, one colour a class: easy, so that a few steps already learn something."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(40, 216, (classes, 3))
    labels = np.repeat(np.arange(classes), each)
    pixels = np.clip(colours[labels][:, None, None] + rng.normal(0, 40, (len(labels), SIDE, SIDE, 3)), 0, 255)
    pixels = pixels.astype(np.uint8)
    names = tuple(f"{split}/{i}" for i in range(len(labels)))
    members = tuple(f"{split}{c}" for c in range(classes))
    images = ImageSet("made", split, "", members, labels, names, lambda i: pixels[i], "", classes)
    return images, torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(scope="session")
def made_images():
    return draw


@pytest.fixture(scope="session")
def train_images():
    return draw("train", 4, 20, 0)


@pytest.fixture(scope="session")
def validation():
    images, pixels = draw("val", 6, 8, 1)
    methods = {name: catalogue.build(name) for name in ("cosine-centroid", "protonet")}
    return Validation(pixels[:, None], images, FCN(), make_sampler(images), 20, lambda _: methods, MEAN, STD)


@pytest.fixture
def weights_of():
    return lambda path: torch.load(path, weights_only=True)
