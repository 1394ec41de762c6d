"""What MNIST adds to Fashion-MNIST, whose files have the same names."""

import gzip
import struct

import numpy as np
import pytest

from otfew.data import DATASETS, DataOptions, idx, load, mnist
from otfew.errors import UserError

OFFLINE = DataOptions(download=False)


def write(folder, shift=0):
    """Three images a class and part; label k's images are all k + shift."""
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        labels = np.tile(np.arange(10, dtype=np.uint8), 3)
        pixels = np.broadcast_to((labels + shift)[:, None, None], (30, 28, 28)).astype(np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return folder


def test_digits_by_their_names(tmp_path):
    write(tmp_path / "MNIST" / "raw")
    images = load("mnist", "test", tmp_path, OFFLINE)
    assert (images.dataset, images.classes) == ("mnist", tuple("0123456789"))
    assert [images.read(i)[3, 4].tolist() for i in range(30)] == [[k % 10] * 3 for k in range(30)]
    assert DATASETS["mnist"].drawn


def test_each_set_reads_its_own_files(tmp_path):
    write(tmp_path / "MNIST" / "raw", shift=100)
    fashion = write(tmp_path / "FashionMNIST" / "raw", shift=200)
    assert load("mnist", "test", tmp_path, OFFLINE).read(0)[0, 0, 0] == 100
    assert load("fashion-mnist", "test", tmp_path, OFFLINE).read(0)[0, 0, 0] == 200
    for root in (fashion, fashion.parent):
        assert load("fashion-mnist", "test", root, OFFLINE).read(0)[0, 0, 0] == 200
        with pytest.raises(UserError, match="MNIST is not complete"):
            load("mnist", "test", root, OFFLINE)


def test_missing_files_are_fetched_from_the_copy(tmp_path, monkeypatch):
    offered, asked = write(tmp_path / "publisher"), []

    def download(url, checksum, into, *, instead):
        asked.append((url, checksum))
        into.mkdir(parents=True, exist_ok=True)
        name = url.rpartition("/")[2]
        (into / name).write_bytes((offered / name).read_bytes())

    monkeypatch.setattr(idx, "install_file", download)
    (tmp_path / "root").mkdir()
    assert len(load("mnist", "test", tmp_path / "root")) == 30
    assert asked == [(mnist.FILES.url + name, f"md5:{md5}") for name, md5 in mnist.FILES.md5.items()]
    assert (tmp_path / "root" / "MNIST" / "raw").is_dir()
