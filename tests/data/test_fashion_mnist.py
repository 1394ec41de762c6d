import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from otfew.data import DataOptions, fashion_mnist, load
from otfew.data import idx as idx_files
from otfew.errors import UserError

OFFLINE = DataOptions(download=False)
COUNTS = {"train": 20, "t10k": 3}


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def make(folder, zipped=True):
    """A small Fashion-MNIST: a pixel of an image tells its class, another its number."""
    folder.mkdir(parents=True)
    for part, count in COUNTS.items():
        labels = np.tile(np.arange(10, dtype=np.uint8), count)
        pixels = np.zeros((len(labels), 28, 28), np.uint8)
        pixels[:, 0, 0], pixels[:, 0, 1] = labels, np.arange(len(labels))
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            name = f"{part}-{kind}-ubyte"
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (folder / name).write_bytes(idx(array))
    return folder


@pytest.mark.parametrize("zipped", [True, False])
def test_splits_are_disjoint_and_keep_labels_and_pixels(tmp_path, zipped):
    folder = make(tmp_path / "FashionMNIST" / "raw", zipped)
    train, val, test = (load("fashion-mnist", split, tmp_path if zipped else folder, OFFLINE)
                        for split in ("train", "val", "test"))  # fmt: skip
    assert [len(images) for images in (train, val, test)] == [180, 20, 30]
    assert not set(train.names) & set(val.names)
    assert len(set(train.names) | set(val.names)) == 200
    for images in (train, val, test):
        assert images.classes == fashion_mnist.CLASSES
        assert np.ptp(np.bincount(images.labels)) == 0
        assert "train, val and test share all classes" in images.notes
        assert images.notes[0].startswith("partial: 10 of 10 classes")
        for i, name in enumerate(images.names):
            image = images.read(i)
            assert image.shape == (28, 28, 3)
            assert image[0, 0].tolist() == [images.labels[i]] * 3
            assert image[0, 1].tolist() == [int(name.partition("/")[2])] * 3


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(
        UserError,
        match=r"is not complete under .*, train-images.* is missing: put the publisher's four files in .*raw\.",
    ):
        load("fashion-mnist", "test", tmp_path, OFFLINE)
    folder = make(tmp_path / "FashionMNIST" / "raw")
    images = folder / "t10k-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte\.gz is damaged"):
        load("fashion-mnist", "test", tmp_path, OFFLINE)
    images.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    with pytest.raises(UserError, match="is not a complete idx file of 3 dimensions"):
        load("fashion-mnist", "test", tmp_path, OFFLINE)
    images.write_bytes(gzip.compress(idx(np.zeros((5, 28, 28), np.uint8))))
    with pytest.raises(UserError, match="do not fit together"):
        load("fashion-mnist", "test", tmp_path, OFFLINE)
    images.unlink()
    with pytest.raises(UserError, match=r"is not complete .*t10k-images-idx3-ubyte\.gz is missing"):
        load("fashion-mnist", "test", tmp_path, OFFLINE)


def test_what_is_missing_is_downloaded_and_checked(tmp_path, monkeypatch):
    offered = make(tmp_path / "publisher")
    asked = []

    def download(url, checksum, into, *, instead):
        name = url.rpartition("/")[2]
        asked.append((name, checksum))
        into.mkdir(parents=True, exist_ok=True)
        (into / name).write_bytes((offered / name).read_bytes())

    monkeypatch.setattr(idx_files, "install_file", download)
    root = tmp_path / "root"
    root.mkdir()
    assert len(load("fashion-mnist", "test", root)) == 30
    assert asked == [(name, f"md5:{digest}") for name, digest in fashion_mnist.FILES.md5.items()]
    load("fashion-mnist", "train", root)
    assert len(asked) == 4
    (root / "FashionMNIST" / "raw" / asked[2][0]).unlink()
    load("fashion-mnist", "train", root)
    assert asked[4:] == [asked[2]]


def test_real_files(otdata):
    if not (otdata / "FashionMNIST").is_dir():
        pytest.skip("no Fashion-MNIST under OTFEW_DATA")
    images = load("fashion-mnist", "test", otdata, OFFLINE)
    assert np.bincount(images.labels).tolist() == [1000] * 10
    assert images.notes == ("train, val and test share all classes",)
    # Of the images as torchvision's users know them: the first is an ankle boot.
    assert images.classes[images.labels[0]] == "ankle boot"


def test_a_file_that_unpacks_to_far_more_is_refused(tmp_path):
    # 400 MiB of zeros behind a sound header: no more than the limit is unpacked.
    part = gzip.compress(bytes(2**20))
    (tmp_path / "a.gz").write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, 4)) + part * 400)
    tracemalloc.start()
    with pytest.raises(UserError, match="not a complete idx file"):
        idx_files.read_idx(tmp_path / "a.gz", 1, "https://there")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**28 * 1.6
