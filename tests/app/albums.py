"""Pictures, a classifier of them, and a browser that shows its page: what tests of the page share."""

from __future__ import annotations

import csv
import io
import struct
import zlib
from urllib.parse import quote

import cv2
import numpy as np
import pytest
import torch

from otfew import FewShotClassifier
from otfew.backbones.base import Backbone, Card

pytest.importorskip("starlette", reason='no starlette: pip install "otfew[app]"')
testclient = pytest.importorskip("starlette.testclient", reason='no httpx: pip install "otfew[dev]"')
web = pytest.importorskip("otfew.app.web")


COLOURS = {"brick": (180, 60, 50), "grass": (60, 170, 60), "lake": (50, 70, 180), "sand": (190, 180, 120)}


PORT, TOKEN = 8420, "a-token"

HOST = f"127.0.0.1:{PORT}"


def pixels(colour, seed, spread=40):
    """A picture of noise about a colour: (20, 24, 3) uint8."""
    noise = np.random.default_rng(seed).normal(0, spread, (20, 24, 3))
    return np.clip(np.array(COLOURS.get(colour, colour)) + noise, 0, 255).astype(np.uint8)


def png(colour, seed, spread=40):
    """The same as a file's bytes."""
    return cv2.imencode(".png", pixels(colour, seed, spread)[:, :, ::-1])[1].tobytes()


def bomb(width, height):
    """A PNG of few bytes that says it holds many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(100_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def fit(method="cosine-centroid", labels=None, each=6, **settings):
    """A classifier of averages of 2 x 2 parts that knows some pictures of each colour."""
    card = Card("parts", "parts", resolution=8, mean=(0, 0, 0), std=(1, 1, 1))
    network = Backbone(torch.nn.AdaptiveAvgPool2d(2), card, "parts")
    names = [name for name in COLOURS for _ in range(each)]
    pictures = [pixels(name, 1000 * i) for i, name in enumerate(names)]
    return FewShotClassifier(network, method, **settings).fit(pictures, labels or names)


def connect(session, **headers):
    """A browser that shows the page."""
    given = {"x-otfew-token": TOKEN, "sec-fetch-site": "same-origin", "origin": f"http://{HOST}", **headers}
    app = web.application(session, PORT, TOKEN)
    return testclient.TestClient(
        app, base_url=f"http://{HOST}", headers={k: v for k, v in given.items() if v is not None}
    )


def drop(client, data, name="photo.png", **headers):
    return client.post("/api/photos", content=data, headers={"x-name": quote(name, safe=""), **headers})


def rows_of(client):
    return list(csv.DictReader(io.StringIO(client.get("/api/answers.csv").text)))
