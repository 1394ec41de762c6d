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


def _spoilt(value):
    """Yield a value with another type, shape or content."""
    yield 3 if isinstance(value, str) else "x"
    if isinstance(value, torch.Tensor):
        yield torch.zeros(*value.shape, 2, dtype=value.dtype)
    if isinstance(value, dict):
        yield {**value, "more": 1}
        for key, inner in value.items():
            yield {k: v for k, v in value.items() if k != key}
            for wrong in _spoilt(inner):
                yield {**value, key: wrong}
    if isinstance(value, list) and value:
        yield value[:-1]
        yield [*value, value[-1]]
        for wrong in _spoilt(value[0]):
            yield [wrong, *value[1:]]


@pytest.fixture(scope="session")
def spoilt():
    """Take a training state; return states that each differ in one place, spread over all of it."""

    def some(state, count):
        everything = list(_spoilt(state))
        return everything[:: max(1, len(everything) // count)]

    return some
