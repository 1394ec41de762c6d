"""The cache of features: what may remove a file that took hours, and what may not."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from otfew.backbones.base import Backbone, Card
from otfew.data.base import ImageSet
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.features import cache
from otfew.features import extract as extraction
from otfew.features.cache import Entry
from otfew.features.extract import extract
from otfew.features.file import load_feature_file
from otfew.nodes import parse
from otfew.runs.files import sha256_of

NODES = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)


@pytest.fixture
def finished(tmp_path):
    entry = Entry(tmp_path, "key", len(NODES))
    entry.append(NODES)
    entry.finish({"milliseconds": 1.5})
    return entry


@pytest.fixture
def half(tmp_path):
    entry = Entry(tmp_path, "key", len(NODES))
    entry.append(NODES[:4])
    return entry


def contents(entry):
    return {path.name: path.read_bytes() for path in sorted(entry.path.parent.iterdir()) if path.suffix != ".lock"}


def failing(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number), "some file")

    return fail


def both_ways(entry):
    """Read without the lock and under it; nothing may be said."""
    return [entry.read, lambda: entry.load(pytest.fail)]


def test_what_is_finished_is_read(finished):
    for read in both_ways(finished):
        nodes, record = read()
        assert (nodes.numpy() == NODES).all()
        assert record["milliseconds"] == 1.5


SYSTEM = [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO, errno.ENOMEM, errno.ESTALE]


@pytest.mark.parametrize("number", SYSTEM, ids=[errno.errorcode[number] for number in SYSTEM])
@pytest.mark.parametrize("part", ["record", "checksum", "map"])
def test_what_the_system_refuses_to_read_stays(finished, monkeypatch, number, part):
    """Today's cache is removed for any of these; a day of extraction goes with it."""
    before = contents(finished)
    target = {"record": (Path, "read_bytes"), "checksum": (cache, "sha256_of"), "map": (cache, "safe_open")}[part]
    for read in both_ways(finished):
        with monkeypatch.context() as patch:
            patch.setattr(*target, failing(number))
            with pytest.raises(UserError, match="left as it is") as caught:
                read()
        assert os.strerror(number).lower() in str(caught.value).lower()
        assert contents(finished) == before
        assert (read()[0].numpy() == NODES).all()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("unable to mmap 96 bytes: Cannot allocate memory (12)"),
        FileNotFoundError("No such file"),
        OSError(),
    ],
    ids=["torch", "safetensors", "bare"],
)
def test_the_words_of_torch_and_safetensors_for_it(finished, monkeypatch, error):
    """safetensors calls a file that it can't open one that isn't there: here it was read a moment before."""
    before = contents(finished)

    def fail(*_, **__):
        raise error

    for read in both_ways(finished):
        with monkeypatch.context() as patch:
            patch.setattr(cache, "safe_open", fail)
            with pytest.raises(UserError, match="left as it is"):
                read()
    assert contents(finished) == before


def test_without_memory_for_it_the_cache_stays(finished, monkeypatch):
    before = contents(finished)

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(cache, "sha256_of", fail)
    for read in both_ways(finished):
        with pytest.raises(MemoryError):
            read()
    assert contents(finished) == before


@pytest.mark.parametrize("kind", ["finished", "half"])
def test_with_no_handle_left_for_real(kind, request):
    entry = request.getfixturevalue(kind)
    before = contents(entry)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        with contextlib.suppress(OSError):
            for handle in iter(lambda: os.open(os.devnull, os.O_RDONLY), None):
                taken.append(handle)  # noqa: PERF402
        said = None
        try:
            entry.load(pytest.fail) if kind == "finished" else entry.rows(2)
        except UserError as error:  # pytest itself needs handles to say more
            said = str(error)
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "too many open files" in said
    assert contents(entry) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user whom permissions stop")
def test_a_cache_that_may_not_be_read_stays(finished):
    finished.path.chmod(0)
    with pytest.raises(UserError, match="permission denied"):
        finished.load(pytest.fail)
    assert finished.path.exists()


def rewrite(entry, tensors):
    """Put another file with its right checksum in the place of a finished one."""
    save_file(tensors, entry.path)
    record = json.loads(entry.record.read_bytes())
    entry.record.write_text(json.dumps({**record, "sha256": sha256_of(entry.path)}))


def lose_bytes(entry):
    entry.path.write_bytes(entry.path.read_bytes()[:-8])


def turn_a_bit(entry):
    data = bytearray(entry.path.read_bytes())
    data[-3] ^= 4
    entry.path.write_bytes(data)


def not_safetensors(entry):
    entry.path.write_bytes(b"something else")
    entry.record.write_text(json.dumps({"sha256": sha256_of(entry.path)}))


DAMAGE = {
    "truncated": lose_bytes,
    "bit": turn_a_bit,
    "empty": lambda entry: entry.path.write_bytes(b""),
    "another kind of file": not_safetensors,
    "another name": lambda entry: rewrite(entry, {"other": torch.zeros(6, 2, 3)}),
    "fewer images": lambda entry: rewrite(entry, {"nodes": torch.zeros(5, 2, 3)}),
    "flat": lambda entry: rewrite(entry, {"nodes": torch.zeros(6, 6)}),
    "double": lambda entry: rewrite(entry, {"nodes": torch.zeros(6, 2, 3, dtype=torch.float64)}),
    **{
        f"record {text[:12]!r}": lambda entry, text=text: entry.record.write_text(text)
        for text in ("", "{", "[]", "{}", '{"sha256": 3}', "[" * 9999, '{"sha256": "0"}')
    },
    "time": lambda entry: entry.record.write_text(json.dumps({"sha256": sha256_of(entry.path), "milliseconds": "1"})),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_removed_with_one_line(finished, damage):
    DAMAGE[damage](finished)
    assert finished.read() is None
    assert finished.path.exists()  # without the lock nothing is changed
    notes = []
    assert finished.load(notes.append) is None
    assert len(notes) == 1
    assert "damaged" in notes[0]
    assert not finished.path.exists()
    assert not finished.record.exists()


def test_damage_found_by_safetensors_alone(finished, monkeypatch):
    def fail(*_, **__):
        raise SafetensorError("header too small")

    monkeypatch.setattr(cache, "safe_open", fail)
    notes = []
    assert finished.load(notes.append) is None
    assert "header too small" in notes[0]


@pytest.mark.parametrize("missing", ["path", "record"])
def test_half_of_an_entry_is_none(finished, missing):
    """The record comes first, so that another process may see it alone."""
    getattr(finished, missing).unlink()
    for read in both_ways(finished):
        assert read() is None


@pytest.mark.parametrize("number", SYSTEM, ids=[errno.errorcode[number] for number in SYSTEM])
def test_rows_of_an_interrupted_extraction_stay_too(half, monkeypatch, number):
    before = contents(half)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing(number))
        with pytest.raises(UserError, match="left as it is"):
            half.rows(2)
    assert contents(half) == before
    assert half.rows(2) == 4


def test_rows_are_cut_back_to_whole_batches(half):
    assert half.rows(3) == 3
    half.append(NODES[3:])
    half.finish({})
    assert (half.read()[0].numpy() == NODES).all()


def head(text):
    return struct.pack("<Q", len(text)) + text


DAMAGED_HEADS = [
    b"",
    b"1234567",
    struct.pack("<Q", 0),
    struct.pack("<Q", 1 << 62),
    struct.pack("<Q", 80) + b"{",
    head(b"[]"),
    head(b'{"nodes": 3}'),
    head(b'{"nodes": {"shape": [6, 2]}}'),
    head(b'{"nodes": {"shape": [6, 2, -3]}}'),
    head(b'{"nodes": {"shape": [6, 0, 3]}}'),
    head(b'{"nodes": {"shape": [6, 2, "x"]}}'),
    head(b'{"nodes": {"shape": [6, 2, 1.5]}}'),
    head(b'{"nodes": {"shape": [7, 2, 3]}}'),
    head(b"[" * 5000),
]


@pytest.mark.parametrize("data", DAMAGED_HEADS)
def test_rows_under_a_damaged_head_are_none(half, data):
    half.part.write_bytes(data + bytes(48))
    assert half.rows(2) == 0
    assert not half.part.exists()


def test_no_rows_are_none(tmp_path):
    assert Entry(tmp_path, "key", 6).rows(2) == 0


def test_nodes_and_versions_are_part_of_the_key(tmp_path, monkeypatch):
    """Other kinds of nodes, another torch or OpenCV or another format: other features, in another file."""
    pictures = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    images = ImageSet(
        dataset="toy", split="test", variant="", classes=("a", "b"), labels=np.array([0, 1, 0, 1]),
        names=("0", "1", "2", "3"), read=lambda i: pictures[i], fingerprint="1", published_classes=2,
    )  # fmt: skip
    network = Backbone(torch.nn.AdaptiveAvgPool2d(2), Card("pool", "pool", mean=(0, 0, 0), std=(1, 1, 1)), "digest")

    def files_after(kind="fcn"):
        extract(images, network, parse(kind), Preparation(16), tmp_path)
        return len(list(tmp_path.glob("*.safetensors")))

    assert [files_after(), files_after(), files_after("fcn:2,1")] == [1, 1, 2]
    for count, (module, name, value) in enumerate(
        ((torch, "__version__", "2.99.0"), (cv2, "__version__", "9.9.9"), (extraction, "FORMAT", 0)), start=3
    ):
        monkeypatch.setattr(module, name, value)
        assert files_after() == count


def test_a_file_of_ones_own_that_cannot_be_read_now_is_not_called_damaged(tmp_path, monkeypatch):
    np.savez(tmp_path / "f.npz", nodes=NODES, labels=np.arange(6) % 2)
    monkeypatch.setattr("otfew.runs.stored_arrays.open_regular", failing(errno.EMFILE))
    with pytest.raises(UserError, match="too many open files") as caught:
        load_feature_file(tmp_path / "f.npz")
    assert "again" not in str(caught.value)
