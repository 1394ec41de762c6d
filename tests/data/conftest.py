import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from otfew.data.decoding import heic


@pytest.fixture
def picture():
    """(seed, height, width) -> smooth random RGB, so that lossy formats stay close to it."""

    def make(seed=0, height=12, width=16):
        noise = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        return cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)

    return make


@pytest.fixture
def write(picture):
    """(path, RGB array or None) -> writes the file and the folders above it, returns the path."""

    def make(path: Path, rgb=None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rgb = picture() if rgb is None else rgb
        done, data = cv2.imencode(path.suffix.lower(), rgb if rgb.ndim == 2 else rgb[:, :, ::-1])
        assert done
        path.write_bytes(data.tobytes())
        return path

    return make


@pytest.fixture
def class_folders(write):
    """(folder, names, images) -> folders of tiny png images."""

    def make(folder: Path, names, images=2):
        for name in names:
            for i in range(images):
                write(folder / name / f"{i}.png")
        return folder

    return make


@pytest.fixture
def without_heic(monkeypatch):
    """As if pillow-heif were not installed."""
    monkeypatch.setattr(heic, "installed", lambda: False)


@pytest.fixture
def otdata():
    """Real data, where there are any."""
    root = os.environ.get("OTFEW_DATA")
    if not root:
        pytest.skip("OTFEW_DATA is not set: no real data here")
    return Path(root)
