"""Nodes, and DeepEMD on them, against the published mathematics in plain loops: one patch, one pair at a time."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from otfew import nodes
from otfew.backbones.base import Backbone, Card
from otfew.data.base import ImageSet
from otfew.data.preparation import Preparation
from otfew.features.extract import extract
from otfew.methods import METHODS

SIDE = 20
WAY, QUERIES = 3, 4
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SPECS = ["fcn", "fcn:2,1", "fcn:3,2,1", "grid:2,3", "grid:5,1", "sampling:9", "sampling:16,seed=3,noflip"]


@pytest.fixture(scope="module")
def images():
    """Pictures of several sizes, some larger and some smaller than what the network sees."""
    rng = np.random.default_rng(0)
    n = WAY * (1 + QUERIES)
    pictures = []
    for _ in range(n):
        height, width = rng.integers(12, 70, 2)
        coarse = rng.integers(0, 256, (5, 6, 3)).astype(np.float32)
        pictures.append(cv2.resize(coarse, (int(width), int(height))).round().clip(0, 255).astype(np.uint8))
    return ImageSet(
        dataset="toy",
        split="test",
        variant="",
        classes=tuple("abc"),
        labels=np.arange(n, dtype=np.int64) % WAY,
        names=tuple(f"test/{i}" for i in range(n)),
        read=lambda i: pictures[i],
        fingerprint="1",
        published_classes=WAY,
    )


@pytest.fixture(scope="module")
def backbone():
    """A network whose maps are 5 x 5 for what it sees here."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(16, 48, 3, padding=1),
            torch.nn.LeakyReLU(0.1),
            torch.nn.MaxPool2d(2),
        )
    return Backbone(module, Card("toy", "toy", mean=MEAN, std=STD), "toy")


def resized(patch):
    """Make a patch square: areas where it shrinks, else linear interpolation."""
    shrinks = patch.shape[0] * patch.shape[1] > SIDE * SIDE
    return cv2.resize(patch, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


@torch.no_grad()
def plain_map(module, square):
    """Send one square through the network by itself: (channels, h, w)."""
    pixels = (square.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    return module(torch.from_numpy(pixels.transpose(2, 0, 1))[None].contiguous())[0].double().numpy()


def plain_grid(image, sizes):
    """Cut the published boxes, row by row, and resize them."""
    height, width = image.shape[:2]
    for size in sizes:
        for r, c in itertools.product(range(size), range(size)):
            y, x = height // size // 2 + r * (height // size), width // size // 2 + c * (width // size)
            tall, broad = math.floor(2 * height / size) // 2, math.floor(2 * width / size) // 2
            yield resized(image[max(0, y - tall) : y + tall, max(0, x - broad) : x + broad])


def plain_crops(image, spec, name):
    """Crop where the extractor says, resize, mirror; the draws have tests of their own."""
    for top, bottom, left, right, flip in nodes.parse(spec).patches(*image.shape[:2], name):
        square = resized(image[top:bottom, left:right])
        yield square[:, ::-1] if flip else square


def plain_nodes(module, image, spec, name):
    """Embed one image: (nodes, channels)."""
    kind, _, arguments = spec.partition(":")
    if kind == "fcn":
        whole = plain_map(module, resized(image))
        levels = [int(level) for level in arguments.split(",")] if arguments else []
        found = []
        for level in levels:
            parts = [(math.floor(5 * k / level), math.ceil(5 * (k + 1) / level)) for k in range(level)]
            found += [whole[:, a:b, c:d].mean((1, 2)) for (a, b), (c, d) in itertools.product(parts, parts)]
        return np.array(found + [whole[:, y, x] for y in range(5) for x in range(5)])
    if kind == "grid":
        squares = plain_grid(image, [int(size) for size in arguments.split(",")])
    else:
        squares = plain_crops(image, spec, name)
    return np.array([plain_map(module, square).mean((1, 2)) for square in squares])


def published_logit(query, support):
    """Score one pair as the released code does: centred cosines, weights scaled to the number of nodes, cv2.EMD."""
    n = len(query)
    s = np.array([max(float(u @ support.mean(0)), 0.0) + 1e-3 for u in query])
    d = np.array([max(float(v @ query.mean(0)), 0.0) + 1e-3 for v in support])
    # The solver's own function adds another epsilon before it normalises.
    s, d = ((w + 1e-5) * n / (w + 1e-5).sum() for w in (s, d))
    sim = np.empty((n, n))
    for i, j in itertools.product(range(n), range(n)):
        u, v = query[i] - query[i].mean(), support[j] - support[j].mean()
        sim[i, j] = u @ v / (np.linalg.norm(u) * np.linalg.norm(v))
    columns = [w.astype(np.float32)[:, None] for w in (s, d)]
    flow = cv2.EMD(*columns, cv2.DIST_USER, (1 - sim).astype(np.float32))[2]
    return 12.5 / n * float((sim * flow).sum())


@pytest.mark.parametrize(
    "spec", [pytest.param(spec, marks=pytest.mark.slow) if spec == "fcn:3,2,1" else spec for spec in SPECS]
)
def test_nodes_and_logits_are_those_of_plain_loops(images, backbone, spec, tmp_path):
    features = extract(images, backbone, nodes.parse(spec), Preparation(SIDE), tmp_path).nodes
    plain = [
        plain_nodes(backbone.module, images.read(i), spec, name).astype(np.float32)
        for i, name in enumerate(images.names)
    ]
    np.testing.assert_allclose(features.numpy(), np.stack(plain), rtol=0, atol=1e-5)
    # The first image of each class is its support.
    support, query = features[:WAY].view(1, WAY, 1, *features.shape[1:]), features[WAY:][None]
    logits = METHODS["deepemd"]()(support, query)[0]
    expected = [[published_logit(q.astype(float), s.astype(float)) for s in plain[:WAY]] for q in plain[WAY:]]
    np.testing.assert_allclose(logits.numpy(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("spec", ["grid:2,3", "sampling:25"])
def test_the_network_takes_some_views_at_a_time_to_the_same_nodes(images, backbone, spec, tmp_path, monkeypatch):
    extractor = nodes.parse(spec)
    whole = extract(images, backbone, extractor, Preparation(SIDE), tmp_path / "a").nodes
    seen = []
    maps = backbone.maps
    monkeypatch.setattr(backbone, "maps", lambda pixels: seen.append(len(pixels)) or maps(pixels))
    monkeypatch.setattr("otfew.features.extract.PIXELS", 7 * SIDE**2)
    parts = extract(images, backbone, extractor, Preparation(SIDE), tmp_path / "b").nodes
    assert max(seen) == 7
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)


def test_another_order_of_the_images_gives_the_same_crops(images, backbone, tmp_path):
    order = np.random.default_rng(1).permutation(len(images))
    shuffled = replace(
        images,
        labels=images.labels[order],
        names=tuple(images.names[i] for i in order),
        read=lambda i: images.read(int(order[i])),
    )
    extractor = nodes.parse("sampling:9")
    straight = extract(images, backbone, extractor, Preparation(SIDE), tmp_path).nodes
    mixed = extract(shuffled, backbone, extractor, Preparation(SIDE), tmp_path).nodes
    torch.testing.assert_close(mixed, straight[torch.from_numpy(order)], rtol=0, atol=1e-5)
