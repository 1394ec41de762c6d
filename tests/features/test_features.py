"""Features: right rows, kept on disk, checked, resumed; and a user's own file."""

import errno
import hashlib
import json
import os
import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from otfew import nodes
from otfew.backbones.base import Backbone, Card
from otfew.data.base import ImageSet
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.features.extract import base_mean, batch_size, extract
from otfew.features.file import load_feature_file
from otfew.runs import stored_arrays

SIDE = 256
PREPARATION = Preparation(SIDE)
FCN = nodes.parse("fcn")


class Pool(torch.nn.Module):
    """Means of the four quarters of each channel: (images, 3, 2, 2); counts its images."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return torch.nn.functional.adaptive_avg_pool2d(images, 2)


def make_images(n=40, split="test", read=None):
    pictures = np.random.default_rng(0).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return ImageSet(
        dataset="toy",
        split=split,
        variant="",
        classes=("a", "b"),
        labels=np.arange(n, dtype=np.int64) % 2,
        names=tuple(f"{split}/{i}" for i in range(n)),
        read=read or (lambda i: np.repeat(np.repeat(pictures[i], SIDE // 4, 0), SIDE // 4, 1)),
        fingerprint="1",
        published_classes=2,
    )


def make_backbone():
    return Backbone(Pool(), Card("pool", "pool", mean=(0, 0, 0), std=(1, 1, 1)), "digest")


def expected(images):
    """Quarters' means, image by image, without network."""
    rows = []
    for i in range(len(images)):
        image = images.read(i).astype(float) / 255
        half = SIDE // 2
        rows.append([image[y : y + half, x : x + half].mean((0, 1)) for y in (0, half) for x in (0, half)])
    return np.array(rows)


def files(folder, suffix):
    return sorted(folder.glob(f"*{suffix}"))


def test_nodes_stand_in_the_order_of_the_images(tmp_path):
    images = make_images()
    assert len(images) > 2 * batch_size(FCN, PREPARATION)
    found = extract(images, make_backbone(), FCN, PREPARATION, tmp_path)
    assert found.nodes.dtype == torch.float32
    np.testing.assert_allclose(found.nodes.numpy(), expected(images), atol=1e-3)
    np.testing.assert_array_equal(found.labels, images.labels)
    assert found.milliseconds > 0


def test_the_file_is_a_safetensors_file(tmp_path):
    found = extract(make_images(), make_backbone(), FCN, PREPARATION, tmp_path)
    with safe_open(files(tmp_path, ".safetensors")[0], "pt") as file:
        assert torch.equal(file.get_tensor("nodes"), found.nodes)


def test_a_second_call_computes_nothing(tmp_path):
    backbone = make_backbone()
    first = extract(make_images(), backbone, FCN, PREPARATION, tmp_path)
    unreadable = make_images(read=lambda i: pytest.fail("read an image"))
    second = extract(unreadable, backbone, FCN, PREPARATION, tmp_path)
    assert backbone.module.seen == 40
    assert torch.equal(first.nodes, second.nodes)
    assert first.milliseconds == second.milliseconds


def test_whatever_changes_the_features_changes_the_key(tmp_path):
    images, backbone = make_images(), make_backbone()
    other = Backbone(backbone.module, backbone.card, "another")
    extract(images, backbone, FCN, PREPARATION, tmp_path)
    extract(images, other, FCN, PREPARATION, tmp_path)
    extract(images, backbone, FCN, Preparation(SIDE, "center"), tmp_path)
    extract(images, backbone, FCN, Preparation(SIDE // 2), tmp_path)
    extract(replace(images, fingerprint="2"), backbone, FCN, PREPARATION, tmp_path)
    extract(make_images(39), backbone, FCN, PREPARATION, tmp_path)
    assert len(files(tmp_path, ".safetensors")) == 6


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def test_a_warm_cache_needs_no_lock_and_no_right_to_write(tmp_path, monkeypatch):
    """A folder that is only read can have no lock: what is finished there is read all the same."""
    extract(make_images(), make_backbone(), FCN, PREPARATION, tmp_path)

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "lock")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    backbone = make_backbone()
    extract(make_images(), backbone, FCN, PREPARATION, tmp_path)
    assert backbone.module.seen == 0
    with pytest.raises(UserError, match="permission denied"):
        extract(make_images(39), backbone, FCN, PREPARATION, tmp_path)


def test_a_full_disk_is_said_in_a_sentence_and_gone_on_from(tmp_path, monkeypatch):
    """Wherever it fills up: in the rows, when they are synced, beside them."""
    straight = extract(make_images(), make_backbone(), FCN, PREPARATION, tmp_path / "straight").nodes

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def failing(real, good):
        """Work so many times."""
        calls = iter(range(100))
        return lambda *given, **named: real(*given, **named) if next(calls) < good else full()

    for owner, name, good in ((np, "ascontiguousarray", 1), (os, "fsync", 0), (os, "fsync", 1)):
        folder = tmp_path / f"{name}-{good}"
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, failing(getattr(owner, name), good))
            with pytest.raises(UserError, match="no space left on device"):
                extract(make_images(), make_backbone(), FCN, PREPARATION, folder)
        backbone = make_backbone()
        assert torch.equal(extract(make_images(), backbone, FCN, PREPARATION, folder).nodes, straight)
        assert backbone.module.seen < 40


@pytest.mark.parametrize("suffix", [".safetensors", ".json", ".part", ".lock"])
def test_a_folder_in_the_place_of_a_file_of_the_cache(tmp_path, suffix):
    extract(make_images(), make_backbone(), FCN, PREPARATION, tmp_path)
    (stem,) = {path.stem for path in files(tmp_path, ".safetensors")}
    for path in tmp_path.iterdir():
        path.unlink()
    for other in {".safetensors", ".json"} if suffix in {".safetensors", ".json"} else {suffix}:
        (tmp_path / f"{stem}{other}").mkdir()
    with pytest.raises(UserError, match=stem):
        extract(make_images(), make_backbone(), FCN, PREPARATION, tmp_path)


@pytest.mark.parametrize(
    "damage",
    [flip_a_byte, lambda path: path.write_bytes(path.read_bytes()[:-100]), lambda path: path.write_bytes(b"")],
    ids=["bit", "truncated", "empty"],
)
def test_a_damaged_cache_is_said_in_one_line_and_rebuilt(tmp_path, damage):
    first = extract(make_images(), make_backbone(), FCN, PREPARATION, tmp_path).nodes.clone()
    damage(files(tmp_path, ".safetensors")[0])
    notes = []
    again = extract(make_images(), make_backbone(), FCN, PREPARATION, tmp_path, note=notes.append)
    assert torch.equal(first, again.nodes)
    assert len(notes) == 1
    assert "damaged" in notes[0]


def test_a_damaged_record_is_rebuilt(tmp_path):
    extract(make_images(), make_backbone(), FCN, PREPARATION, tmp_path)
    files(tmp_path, ".json")[0].write_text("{")
    notes = []
    extract(make_images(), make_backbone(), FCN, PREPARATION, tmp_path, note=notes.append)
    assert len(notes) == 1
    assert "sha256" in json.loads(files(tmp_path, ".json")[0].read_text())


@pytest.mark.parametrize("torn", [0, 7], ids=["whole rows", "torn row"])
def test_an_interrupted_extraction_goes_on_where_it_was(tmp_path, torn):
    images = make_images()
    size = batch_size(FCN, PREPARATION)

    def stop(done, total):
        if done >= 2 * size:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(images, make_backbone(), FCN, PREPARATION, tmp_path, progress=stop)
    if torn:
        part = files(tmp_path, ".part")[0]
        part.write_bytes(part.read_bytes()[:-torn])
    backbone = make_backbone()
    found = extract(images, backbone, FCN, PREPARATION, tmp_path)
    assert backbone.module.seen == len(images) - (size if torn else 2 * size)
    np.testing.assert_allclose(found.nodes.numpy(), expected(images), atol=1e-3)
    assert not files(tmp_path, ".part")


@pytest.mark.parametrize("shape", ["[40]", "[39, 4, 3]", "[40, 0, 3]", "7"])
def test_an_interrupted_extraction_with_a_damaged_head_starts_again(tmp_path, shape):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(make_images(), make_backbone(), FCN, PREPARATION, tmp_path, progress=stop)
    head = f'{{"nodes": {{"shape": {shape}}}}}'.encode()
    files(tmp_path, ".part")[0].write_bytes(len(head).to_bytes(8, "little") + head + bytes(1000))
    found = extract(make_images(), make_backbone(), FCN, PREPARATION, tmp_path)
    np.testing.assert_allclose(found.nodes.numpy(), expected(make_images()), atol=1e-3)


def test_two_at_once_wait_for_each_other(tmp_path):
    backbone, results = make_backbone(), []
    threads = [
        threading.Thread(target=lambda: results.append(extract(make_images(), backbone, FCN, PREPARATION, tmp_path)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert backbone.module.seen == 40
    assert torch.equal(results[0].nodes, results[1].nodes)


class Nan(torch.nn.Module):
    def forward(self, images):
        maps = torch.nn.functional.adaptive_avg_pool2d(images, 2)
        return torch.where(maps.amax((1, 2, 3), keepdim=True) > 0.99, torch.nan, maps)


def test_an_image_whose_features_are_not_finite_is_named(tmp_path):
    white = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    images = make_images(read=lambda i: white if i == 21 else white // 2)
    backbone = Backbone(Nan(), Card("nan", "nan", mean=(0, 0, 0), std=(1, 1, 1)), "nan")
    with pytest.raises(UserError, match="test/21"):
        extract(images, backbone, FCN, PREPARATION, tmp_path)


def test_an_unreadable_image_ends_the_extraction(tmp_path):
    def read(i):
        raise UserError("image is damaged.")

    with pytest.raises(UserError, match="damaged"):
        extract(make_images(read=read), make_backbone(), FCN, PREPARATION, tmp_path)


def test_an_empty_split_is_refused(tmp_path):
    with pytest.raises(UserError, match="no images"):
        extract(make_images(0), make_backbone(), FCN, PREPARATION, tmp_path)


def test_a_cache_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="OTFEW_CACHE"):
        extract(make_images(), make_backbone(), FCN, PREPARATION, tmp_path / "file" / "cache")


def test_base_mean_is_the_mean_over_some_images_of_each_class(tmp_path):
    few = make_images(30, "train")
    assert base_mean(few, make_backbone(), FCN, PREPARATION, tmp_path) == pytest.approx(
        expected(few).mean((0, 1)), abs=1e-3
    )
    many, backbone = make_images(100, "train"), make_backbone()
    found = base_mean(many, backbone, FCN, PREPARATION, tmp_path)
    assert backbone.module.seen == 40
    # Twenty of each class, and not the first ones: which, only their names tell, so that it is the same everywhere.
    by_name = sorted(range(100), key=lambda i: hashlib.sha256(f"train/{i}".encode()).digest())
    chosen = [i for c in (0, 1) for i in [i for i in by_name if i % 2 == c][:20]]
    assert set(chosen) != set(range(40))
    assert found == pytest.approx(expected(many)[chosen].mean((0, 1)), abs=1e-5)
    assert found != pytest.approx(expected(many)[:40].mean((0, 1)), abs=1e-3)


ROWS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


def test_own_features_without_nodes_get_one(tmp_path):
    np.savez(tmp_path / "f.npz", features=ROWS, labels=np.array(["b", "a", "b", "a", "c", "c"]))
    found = load_feature_file(tmp_path / "f.npz")
    assert found.classes == ("a", "b", "c")
    assert found.labels.tolist() == [1, 0, 1, 0, 2, 2]
    np.testing.assert_array_equal(found.nodes.numpy(), ROWS[:, None])
    assert found.base_mean is None


def test_own_nodes_from_safetensors(tmp_path):
    nodes_ = np.random.default_rng(0).normal(size=(4, 3, 5))
    tensors = {"nodes": nodes_, "labels": np.array([7, 7, 3, 3]), "base_mean": np.ones(5)}
    save_file(tensors, tmp_path / "f.safetensors")
    found = load_feature_file(tmp_path / "f.safetensors")
    assert found.classes == ("3", "7")
    assert found.labels.tolist() == [1, 1, 0, 0]
    np.testing.assert_array_equal(found.nodes.numpy(), nodes_.astype(np.float32))
    assert found.base_mean.tolist() == [1.0] * 5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_own_features_of_every_floating_type(tmp_path, dtype, monkeypatch):
    """Read by pieces of whatever size, each value is the stored one in float32."""
    monkeypatch.setattr(stored_arrays, "PIECE", 100)
    values = torch.from_numpy(np.random.default_rng(1).normal(size=(50, 2, 5))).to(dtype)
    save_tensors({"nodes": values, "labels": torch.arange(50) // 5}, tmp_path / "f.safetensors")
    found = load_feature_file(tmp_path / "f.safetensors")
    assert torch.equal(found.nodes, values.float())
    if dtype != torch.bfloat16:  # numpy has none
        for order in "CF":
            np.savez(tmp_path / "f.npz", nodes=np.asarray(values.numpy(), order=order), labels=np.arange(50) // 5)
            assert torch.equal(load_feature_file(tmp_path / "f.npz").nodes, values.float())
        np.savez_compressed(tmp_path / "g.npz", features=values.numpy()[:, 0].astype(">f4"), labels=np.arange(50) // 5)
        assert torch.equal(load_feature_file(tmp_path / "g.npz").nodes, values[:, :1].float())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.complex64, torch.bool])
def test_other_types_of_own_features(tmp_path, dtype):
    values = torch.zeros(6, 5).to(dtype)
    try:
        save_tensors({"nodes": values, "labels": torch.arange(6)}, tmp_path / "f.safetensors")
    except KeyError:
        pytest.skip(f"this release of safetensors writes no {dtype}")
    with pytest.raises(UserError, match="float16, bfloat16, float32, float64"):
        load_feature_file(tmp_path / "f.safetensors")
    save_tensors({"nodes": torch.zeros(6, 5), "labels": torch.zeros(6).bfloat16()}, tmp_path / "f.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        load_feature_file(tmp_path / "f.safetensors")


def test_own_features_that_overflow_or_lie_about_their_size(tmp_path):
    np.savez(tmp_path / "f.npz", features=np.full((6, 5), 1e300), labels=LABELS)
    with pytest.raises(UserError, match="infinity at image 0"):
        load_feature_file(tmp_path / "f.npz")
    np.savez(tmp_path / "f.npz", features=ROWS, labels=LABELS)
    data = (tmp_path / "f.npz").read_bytes()
    lie = data.replace(b"'shape': (6, 5), }        ", b"'shape': (6, 500000000), }")
    assert lie != data
    (tmp_path / "f.npz").write_bytes(lie)
    with pytest.raises(UserError, match="cannot be read"):
        load_feature_file(tmp_path / "f.npz")


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_large_own_features_are_held_once(tmp_path, kind, monkeypatch):
    """Python's and numpy's memory while 26 MB are read: once for npz, next to nothing where they are mapped."""
    rows = np.random.default_rng(0).random((40_000, 160), np.float32)
    labels = np.arange(len(rows)) // 100
    path = tmp_path / f"f.{kind}"
    if kind == "npz":
        np.savez(path, features=rows, labels=labels)
    else:
        save_file({"features": rows, "labels": labels}, path)
    size = rows.nbytes
    monkeypatch.setattr(stored_arrays, "PIECE", 1 << 20)
    tracemalloc.start()
    try:
        found = load_feature_file(path)
        assert found.pooled is found
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (1.2 if kind == "npz" else 0.2) * size
    assert np.array_equal(found.nodes[:, 0].numpy(), rows)


def nan_rows():
    rows = ROWS.copy()
    rows[3, 2] = np.nan
    return rows


LABELS = np.arange(6)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"features": nan_rows(), "labels": LABELS}, "image 3"),
        ({"features": ROWS}, "needs"),
        ({"labels": LABELS}, "needs"),
        ({"features": ROWS, "labels": LABELS[:5]}, "labels"),
        ({"features": ROWS, "labels": LABELS.astype(float)}, "labels"),
        ({"features": ROWS[0], "labels": LABELS}, "shape"),
        ({"nodes": np.ones((6, 5, 2, 3), np.float32), "labels": LABELS}, "maps .* become nodes by"),
        ({"features": ROWS.astype(int), "labels": LABELS}, "floating"),
        ({"features": ROWS[:0], "labels": LABELS[:0]}, "empty"),
        ({"features": ROWS, "labels": LABELS, "base_mean": np.ones(4)}, "base_mean"),
    ],
)
def test_wrong_own_features_are_refused_in_one_sentence(tmp_path, arrays, said):
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(UserError, match=said) as caught:
        load_feature_file(tmp_path / "f.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.npz", "text.txt", "broken.npz", "broken.safetensors", "pickle.npz"])
def test_unreadable_files_are_refused(tmp_path, name):
    if name == "pickle.npz":
        np.savez(tmp_path / name, features=np.array([{}]), labels=LABELS, allow_pickle=True)
    elif name != "missing.npz":
        (tmp_path / name).write_text("no features")
    with pytest.raises(UserError, match=name.split(".", maxsplit=1)[0]):
        load_feature_file(tmp_path / name)


def test_labels_that_only_a_pickle_holds_are_to_be_stored_as_text(tmp_path):
    path, labels = tmp_path / "features.npz", np.array(["a", "b"], object)
    np.savez(path, nodes=np.ones((2, 1, 3), np.float32), labels=labels)
    with pytest.raises(UserError, match=r"labels\.npy holds Python objects; store text with astype\(str\)"):
        load_feature_file(path)
    np.savez(path, nodes=np.ones((2, 1, 3), np.float32), labels=labels.astype(str))
    assert load_feature_file(path).classes == ("a", "b")
