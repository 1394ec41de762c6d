import hashlib
import pickle

import numpy as np
import pytest

from otfew.data import DataOptions, cifar10, load
from otfew.errors import UserError

OFFLINE = DataOptions(download=False)
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def make(root, seed=0):
    """A small CIFAR-10 in which an image's first pixel tells class and number; rows in random order over five files."""
    base = root / cifar10.FOLDER
    base.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for part, count, files in (("train", 20, list(cifar10.TRAIN)), ("test", 2, list(cifar10.TEST))):
        rows = [(label, k) for label in range(10) for k in range(count)]
        rows = [rows[i] for i in rng.permutation(len(rows))]
        for number, file in enumerate(files):
            chosen = rows[number :: len(files)]
            data = np.zeros((len(chosen), 3, 32, 32), np.uint8)
            data[:, 0, 0, 0] = [label for label, _ in chosen]
            data[:, 1, 0, 0] = [k for _, k in chosen]
            data[:, 2, 0, 0] = len(part)
            record = {
                b"data": data.reshape(len(chosen), -1),
                b"labels": [label for label, _ in chosen],
                b"filenames": [f"{k:04d}.png".encode() for _, k in chosen],
            }
            (base / file).write_bytes(pickle.dumps(record, protocol=2))
    (base / "batches.meta").write_bytes(pickle.dumps({b"label_names": [n.encode() for n in NAMES]}, protocol=2))
    return base


def test_splits_do_not_depend_on_the_order_of_rows(tmp_path):
    for seed in (0, 1):
        make(tmp_path / str(seed), seed)
    for split, count in (("train", 180), ("val", 20), ("test", 20)):
        first, second = (load("cifar10", split, tmp_path / str(seed), OFFLINE) for seed in (0, 1))
        assert len(first) == count
        assert first.digest == second.digest
        assert first.fingerprint == second.fingerprint
        assert np.ptp(np.bincount(first.labels)) == 0
        for i, name in enumerate(first.names):
            part, class_name, stem = name.split("/")
            assert first.read(i)[0, 0].tolist() == [NAMES.index(class_name), int(stem), len(part)]
            assert first.classes[first.labels[i]] == class_name


def test_files_that_are_not_the_publishers_are_announced(tmp_path, monkeypatch):
    make(tmp_path)
    assert cifar10.COPY in load("cifar10", "test", tmp_path, OFFLINE).notes
    original = hashlib.md5((tmp_path / cifar10.FOLDER / "test_batch").read_bytes()).hexdigest()
    monkeypatch.setattr(cifar10, "TEST", {"test_batch": original})
    assert cifar10.COPY not in load("cifar10", "test", tmp_path, OFFLINE).notes


def test_a_sparse_file_is_not_read_for_its_checksum(tmp_path):
    with (tmp_path / "test_batch").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="at most"):
        cifar10.is_copy(tmp_path, cifar10.TEST)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(UserError, match=r"CIFAR-10 is not complete under .*: put the publisher's folder"):
        load("cifar10", "test", tmp_path, OFFLINE)
    base = make(tmp_path)
    (base / "test_batch").write_bytes(pickle.dumps({b"data": np.zeros((2, 7), np.uint8)}, protocol=2))
    with pytest.raises(UserError, match=r"is not the publisher's file \(data is not \(images, 3072\)\).*cifar-10"):
        load("cifar10", "test", tmp_path, OFFLINE)
    (base / "data_batch_3").unlink()
    with pytest.raises(UserError, match="CIFAR-10 is not complete"):
        load("cifar10", "train", tmp_path, OFFLINE)


def test_real_files(otdata):
    if not (otdata / cifar10.FOLDER).is_dir():
        pytest.skip("no CIFAR-10 under OTFEW_DATA")
    images = load("cifar10", "test", otdata, OFFLINE)
    assert images.classes == tuple(NAMES)
    assert np.bincount(images.labels).tolist() == [1000] * 10
