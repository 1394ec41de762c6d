import pickle

import numpy as np
import pytest

from otfew.data import DataOptions, load
from otfew.data.class_lists import class_lists
from otfew.errors import UserError

OFFLINE = DataOptions(download=False)
NAMES = sorted(sum(class_lists("cifar-fs").classes.values(), ()))
PER_PART = {"train": 3, "test": 2}


def make(root, shuffle=0):
    """A small CIFAR-100 in which an image's first pixel tells its class, part and number; rows in random order."""
    base = root / "cifar-100-python"
    base.mkdir(parents=True)
    rng = np.random.default_rng(shuffle)
    for part, count in PER_PART.items():
        rows = [(label, k) for label in range(100) for k in range(count)]
        rows = [rows[i] for i in rng.permutation(len(rows))]
        data = np.zeros((len(rows), 3, 32, 32), np.uint8)
        data[:, 0, 0, 0] = [label for label, _ in rows]
        data[:, 1, 0, 0] = len(part)
        data[:, 2, 0, 0] = [k for _, k in rows]
        data[:, 0, 0, 1] = 201
        data[:, 0, 1, 0] = 202
        record = {
            b"data": data.reshape(len(rows), -1),
            b"fine_labels": [label for label, _ in rows],
            b"filenames": [f"{NAMES[label]}_s_{k:06d}.png".encode() for label, k in rows],
        }
        (base / part).write_bytes(pickle.dumps(record, protocol=2))
    (base / "meta").write_bytes(pickle.dumps({b"fine_label_names": [name.encode() for name in NAMES]}, protocol=2))
    return base


@pytest.mark.parametrize("dataset", ["cifar-fs", "fc100"])
def test_merges_the_parts_and_keeps_planes_and_labels(tmp_path, dataset):
    make(tmp_path)
    seen = []
    for split in ("train", "val", "test"):
        images = load(dataset, split, tmp_path, OFFLINE)
        published = class_lists(dataset).classes[split]
        assert images.classes == published
        assert np.bincount(images.labels).tolist() == [5] * len(published)
        assert images.notes == (
            f"partial: {len(published)} of {len(published)} classes, {5 * len(published)} of "
            f"{600 * len(published):,} images",
        )
        for i, name in enumerate(images.names):
            image = images.read(i)
            part, class_name, file = name.split("/")
            assert image[0, 0].tolist() == [NAMES.index(class_name), len(part), int(file[-6:])]
            assert class_name == images.classes[images.labels[i]]
            assert (image[0, 1, 0], image[1, 0, 0]) == (201, 202)  # column 1, then row 1
        seen += images.names
    assert len(set(seen)) == 500


def test_the_order_of_rows_does_not_matter(tmp_path):
    make(tmp_path / "a", shuffle=0)
    make(tmp_path / "b", shuffle=1)
    first, second = (load("cifar-fs", "val", tmp_path / folder, OFFLINE) for folder in "ab")
    assert first.names == second.names
    assert first.digest == second.digest
    assert first.fingerprint == second.fingerprint
    assert all(np.array_equal(first.read(i), second.read(i)) for i in range(len(first)))


def test_fingerprint_follows_the_pixels(tmp_path):
    base = make(tmp_path)
    before = load("fc100", "test", tmp_path, OFFLINE).fingerprint
    record = pickle.loads((base / "test").read_bytes())
    record[b"data"][record[b"fine_labels"].index(NAMES.index("baby"))] += 1
    (base / "test").write_bytes(pickle.dumps(record, protocol=2))
    assert load("fc100", "test", base, OFFLINE).fingerprint != before


@pytest.mark.parametrize("file", ["train", "test", "meta"])
def test_missing_or_damaged_files(tmp_path, file):
    base = make(tmp_path)
    path = base / file
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=f"{file} is damaged"):
        load("cifar-fs", "test", tmp_path, OFFLINE)
    path.unlink()
    with pytest.raises(UserError, match="not complete"):
        load("cifar-fs", "test", tmp_path)  # never downloads over what is there


@pytest.mark.parametrize(
    "change",
    [
        {b"data": np.zeros((200, 10), np.uint8)},
        {b"data": [1, 2]},
        {b"fine_labels": [0]},
        {b"fine_labels": [100] * 200},
        {b"filenames": []},
    ],
)
def test_contents_that_do_not_fit(tmp_path, change):
    base = make(tmp_path)
    record = pickle.loads((base / "test").read_bytes()) | change
    (base / "test").write_bytes(pickle.dumps(record, protocol=2))
    with pytest.raises(UserError, match="not the publisher's file"):
        load("cifar-fs", "test", tmp_path, OFFLINE)


@pytest.mark.parametrize(("dataset", "split", "size"), [("cifar-fs", "val", 16), ("fc100", "test", 20)])
def test_real_images(otdata, dataset, split, size):
    images = load(dataset, split, otdata, OFFLINE)
    assert np.bincount(images.labels).tolist() == [600] * size
    assert images.notes == ()
    assert len(set(images.names)) == 600 * size
    assert images.read(17).shape == (32, 32, 3)
