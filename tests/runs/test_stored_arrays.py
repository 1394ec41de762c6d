"""Arrays in files: what a header claims is checked before anything is made for it."""

import io
import zipfile

import numpy as np
import pytest

from otfew.evaluation import answers
from otfew.runs import blocks, npz, stored_arrays
from otfew.runs.files import DamagedError


def write_npz(path, shape, data, descr="<f4", fortran=False):
    """Write an npz file whose one array has a header of our own."""
    member = io.BytesIO()
    header = {"descr": descr, "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(member, header)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("nodes.npy", member.getvalue() + data)


@pytest.mark.parametrize("shape", [(10**12,), (2**20, 2**20, 2**20), (2**62, 2**62), (400,)])
def test_a_header_that_claims_more_than_there_is_is_refused_at_once(tmp_path, shape):
    write_npz(tmp_path / "x.npz", shape, b"\0" * 64)
    with pytest.raises(ValueError, match="less than it claims"):
        stored_arrays.open_npz(tmp_path / "x.npz")


def test_objects_are_refused_without_being_made(tmp_path):
    np.savez(tmp_path / "x.npz", nodes=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="Python objects"):
        stored_arrays.open_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pieces_make_up_the_array(tmp_path, monkeypatch, dtype, order):
    monkeypatch.setattr(stored_arrays, "PIECE", 64)
    values = np.asarray(np.random.default_rng(0).random((7, 3, 5)), dtype, order=order)
    np.savez(tmp_path / "x.npz", nodes=values)
    stored = stored_arrays.open_npz(tmp_path / "x.npz")["nodes"]
    assert (stored.shape, stored.dtype, stored.floating) == ((7, 3, 5), dtype, True)
    assert (stored.floats().numpy() == values.astype(np.float32)).all()
    assert (stored.array() == values).all()


def test_what_ends_too_early_is_no_array():
    with pytest.raises(ValueError, match="ends too early"):
        stored_arrays._exactly(io.BytesIO(b"abc"), 4)
    assert stored_arrays._exactly(io.BytesIO(b"abc"), 3) == b"abc"


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors"])
def test_only_regular_files_of_a_bounded_size_are_opened(tmp_path, monkeypatch, name):
    from safetensors.numpy import save_file

    path = tmp_path / name
    arrays = {"nodes": np.ones((4, 4), np.float32)}
    if name.endswith("npz"):
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)
    read = stored_arrays.open_npz if name.endswith("npz") else stored_arrays.open_safetensors
    assert list(read(path)) == ["nodes"]
    monkeypatch.setattr(stored_arrays, "LARGEST", path.stat().st_size - 1)
    with pytest.raises(ValueError, match=r"GiB|large|more"):
        read(path)
    with pytest.raises((ValueError, OSError)):
        read(tmp_path)


def test_an_archive_that_unpacks_to_far_more_than_it_holds_is_refused(tmp_path, monkeypatch):
    zeros = {"methods": np.zeros(1 << 20, np.int8)}
    path = tmp_path / "x.npz"
    np.savez_compressed(path, **zeros)
    assert (stored_arrays.open_npz(path)["methods"].array() == 0).all()
    monkeypatch.setattr(npz, "FREE", 1 << 10)
    for read, error in (
        (lambda: stored_arrays.open_npz(path), ValueError),
        (lambda: blocks.opened(path.read_bytes()), DamagedError),
        (lambda: answers.from_bytes(path.read_bytes()), DamagedError),
    ):
        with pytest.raises(error, match="unpack to 1,048"):
            read()
    np.savez(path, **zeros)
    assert "methods" in blocks.opened(path.read_bytes())[0]
