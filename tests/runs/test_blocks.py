"""Finished blocks: what is believed, what is computed again and why, and what must not be taken for damage."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

from otfew.errors import UserError
from otfew.runs.blocks import SEAL, Column, Form, opened, sealed
from otfew.runs.directory import RunDirectory
from otfew.runs.files import DamagedError

ARRAYS = {
    "a.correct": np.array([[3, 0], [1, 2], [0, 0]]),
    "a.seconds": np.array(0.5),
    "a.material": np.array("f00d"),
    "map": np.array([0.25, np.nan, 1.0]),
}
FORM = Form(
    {
        "a.correct": Column((3, 2), "i", 0, 3),
        "a.seconds": Column(least=0),
        "a.material": Column(kind="U"),
        "map": Column((3,), least=0, most=1, gaps=True),
    },
    code="c0de",
)


@pytest.fixture
def folder(tmp_path):
    directory = RunDirectory(tmp_path / "run", {"a": 1})
    directory.save_block(0, ARRAYS, FORM)
    return directory


def block_file(directory, index=0):
    return directory.path / "blocks" / f"{index:06d}.npz"


def write(directory, arrays, code="c0de", index=0):
    """Write a block whose seal is right, whatever it holds."""
    block_file(directory, index).write_bytes(sealed(arrays, code))


def load(directory, form=FORM, index=0):
    notes = []
    return directory.load_block(index, form, notes.append), notes


def test_what_was_kept_is_read(folder):
    found, notes = load(folder)
    assert notes == []
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_a_block_stays_an_npz_file_that_anybody_reads(folder):
    with np.load(block_file(folder)) as file:
        assert file["a.correct"].tolist() == [[3, 0], [1, 2], [0, 0]]


def test_no_block_is_none(folder):
    assert load(folder, index=1) == (None, [])


WRONG = {
    "too many right": ({"a.correct": np.full((3, 2), 999)}, "goes from 999 to 999; possible is 0 to 3"),
    "one too many": ({"a.correct": np.array([[3, 0], [1, 4], [0, 0]])}, "from 0 to 4; possible is 0 to 3"),
    "fewer than none": ({"a.correct": np.array([[3, 0], [1, -1], [0, 0]])}, "from -1 to 3"),
    "fewer episodes": ({"a.correct": np.zeros((2, 2), int)}, r"has shape (2, 2), not (3, 2)"),
    "turned": ({"a.correct": np.zeros((2, 3), int)}, r"has shape (2, 3), not (3, 2)"),
    "flat": ({"a.correct": np.zeros(6, int)}, "has shape"),
    "floating": ({"a.correct": np.zeros((3, 2))}, "is of type float64"),
    "truth values": ({"a.correct": np.zeros((3, 2), bool)}, "is of type bool"),
    "unsigned": ({"a.correct": np.zeros((3, 2), np.uint8)}, "is of type uint8"),
    "bytes": ({"a.material": np.array(b"f00d")}, "is of type |S4"),
    "negative time": ({"a.seconds": np.array(-0.1)}, "from -0.1 to -0.1"),
    "endless time": ({"a.seconds": np.array(np.inf)}, "holds what is no number"),
    "no time": ({"a.seconds": np.array(np.nan)}, "holds what is no number"),
    "times": ({"a.seconds": np.array([0.5])}, "has shape (1,), not ()"),
    "more than all": ({"map": np.array([0.0, 1.5, np.nan])}, "from 0 to 1.5; possible is 0 to 1"),
    "an infinite share": ({"map": np.array([0.0, np.inf, np.nan])}, "holds what is no number"),
    "another array": ({"b.correct": np.zeros((3, 2), int)}, "'b.correct' is none of its arrays"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_right_is_computed_again_though_its_checksum_is(folder, case):
    changes, why = WRONG[case]
    write(folder, {**ARRAYS, **changes})
    found, notes = load(folder)
    assert found is None
    assert len(notes) == 1
    assert "000000.npz" in notes[0]
    assert why in notes[0]


@pytest.mark.parametrize("name", ARRAYS)
def test_a_missing_array_is_no_traceback(folder, name):
    write(folder, {key: array for key, array in ARRAYS.items() if key != name})
    found, notes = load(folder)
    assert found is None
    assert len(notes) == 1
    assert f"{name!r} is missing" in notes[0]


def test_shares_without_any_value_are_right(folder):
    write(folder, {**ARRAYS, "map": np.full(3, np.nan)})
    assert load(folder)[1] == []


def altered(directory, **changes):
    """Change arrays in the file, as somebody with numpy would, and leave the seal as it is."""
    with np.load(block_file(directory)) as file:
        arrays = {name: file[name] for name in file.files} | changes
    np.savez(block_file(directory), **arrays)


@pytest.mark.parametrize(
    "changes",
    [
        {"a.correct": np.array([[3, 1], [1, 2], [0, 0]])},
        {"a.correct": ARRAYS["a.correct"].astype(np.int32)},
        {"a.correct": ARRAYS["a.correct"].reshape(2, 3)},
        {"a.correct": ARRAYS["a.correct"].view(np.uint64)},
        {"a.seconds": np.array(0.4)},
        {"a.material": np.array("f00e")},
        {"map": np.array([0.25, 0.0, 1.0])},
        {SEAL: np.array("")},
        {SEAL: np.array("[]")},
        {SEAL: np.array('{"code": "c0de"}')},
        {SEAL: np.array('{"code": 3, "sha256": ""}')},
        {SEAL: np.zeros(3)},
    ],
)
def test_what_was_altered_within_its_range_is_computed_again(folder, changes):
    altered(folder, **changes)
    found, notes = load(folder)
    assert found is None
    assert len(notes) == 1
    assert "damaged" in notes[0]


def test_the_code_of_a_seal_cannot_be_altered_alone(folder):
    """Otherwise a block of old code would be believed by whoever edits a line."""
    write(folder, ARRAYS, code="old")
    with np.load(block_file(folder)) as file:
        seal = json.loads(str(file[SEAL]))
    altered(folder, **{SEAL: np.array(json.dumps({**seal, "code": "c0de"}))})
    found, notes = load(folder)
    assert found is None
    assert "checksum" in notes[0]


@pytest.mark.parametrize("data", [b"", b"?", b"PK\x03\x04", b"\x93NUMPY\x01\x00", sealed(ARRAYS, "c0de")[:-40]])
def test_what_is_no_block_is_computed_again(folder, data):
    block_file(folder).write_bytes(data)
    found, notes = load(folder)
    assert found is None
    assert len(notes) == 1
    assert "damaged" in notes[0]


def test_any_turned_bit_is_noticed(folder):
    """In the values, in the checksums of the zip file, in its names: wherever it lies, it is none or harmless."""
    data = block_file(folder).read_bytes()
    believed = 0
    for place in range(0, len(data), 7):
        turned = bytearray(data)
        turned[place] ^= 1 << place % 8
        try:
            arrays, code = opened(bytes(turned))
        except DamagedError:
            continue
        believed += code is not None
        if code is not None:
            assert code == "c0de"
            assert all(
                np.array_equal(arrays[name], array, equal_nan=array.dtype.kind == "f") for name, array in ARRAYS.items()
            )
    assert believed < len(data) // 7 / 2


def test_an_array_that_needs_a_pickle_is_none(folder):
    buffer = io.BytesIO()
    np.savez(buffer, **{"a.correct": np.array([{}, {}], dtype=object)})
    block_file(folder).write_bytes(buffer.getvalue())
    assert load(folder)[0] is None


def test_blocks_of_other_code_are_computed_again_and_that_is_said_once(folder):
    for index in range(3):
        folder.save_block(index, ARRAYS, FORM)
    notes = []
    other = Form(FORM.columns, "another")
    assert [folder.load_block(index, other, notes.append) for index in range(3)] == [None] * 3
    assert len(notes) == 1
    assert "other code" in notes[0]
    folder.save_block(0, ARRAYS, other)
    assert folder.load_block(0, other, notes.append) is not None
    assert RunDirectory(folder.path, {"a": 1}).load_block(1, other, notes.append) is None
    assert len(notes) == 2  # the next run says it again


def test_blocks_of_old_are_computed_again_and_that_is_said_once(folder):
    for index in range(3):
        np.savez(block_file(folder, index), **ARRAYS)
    notes = []
    assert [folder.load_block(index, FORM, notes.append) for index in range(3)] == [None] * 3
    assert len(notes) == 1
    assert "earlier version" in notes[0]


SYSTEM = [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO, errno.ENOMEM]


@pytest.mark.parametrize("number", SYSTEM, ids=[errno.errorcode[number] for number in SYSTEM])
def test_what_the_system_refuses_to_read_is_not_taken_for_damaged(folder, monkeypatch, number):
    before = block_file(folder).read_bytes()

    def fail(*_, **__):
        raise OSError(number, os.strerror(number), "some file")

    with monkeypatch.context() as patch:
        for name in ("open", "read_bytes"):
            patch.setattr(Path, name, fail)
        with pytest.raises(UserError, match=os.strerror(number).lower()):
            folder.load_block(0, FORM, pytest.fail)
    assert block_file(folder).read_bytes() == before
    assert load(folder)[1] == []


def test_a_folder_in_the_place_of_a_block(folder):
    block_file(folder, 1).mkdir()
    with pytest.raises(UserError, match=r"000001\.npz"):
        folder.load_block(1, FORM, pytest.fail)


def test_a_block_that_would_not_be_believed_is_not_kept(folder):
    """Its maker has a fault, which must not be hidden by computing it for ever."""
    with pytest.raises(ValueError, match="goes from 999"):
        folder.save_block(1, {**ARRAYS, "a.correct": np.full((3, 2), 999)}, FORM)
    assert not block_file(folder, 1).exists()
    with pytest.raises(ValueError, match="seal"):
        sealed({SEAL: np.zeros(1)}, "c0de")


def test_a_form_of_other_columns_objects_to_the_block():
    assert Form({"x": Column((1,))}, "").objection({"x": np.zeros(1)}) == ""
    assert "missing" in Form({"x": Column((1,)), "y": Column()}, "").objection({"x": np.zeros(1)})
    assert Form({"x": Column((0,), most=-1)}, "").objection({"x": np.zeros(0)}) == ""


def test_files_are_kept_with_a_seal_beside_them(folder):
    folder.save_file("runs/a.json", b'{"x": 1}', "c0de")
    assert (folder.path / "runs" / "a.json").read_bytes() == b'{"x": 1}'
    assert folder.load_file("runs/a.json", "c0de", pytest.fail) == b'{"x": 1}'
    assert folder.load_file("runs/b.json", "c0de", pytest.fail) is None


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("a.json", b'{"x": 2}', "checksum"),
        ("a.json.seal", b'{"x": 2}', "seal"),
        ("a.json.seal", b"\xff", "seal"),
        ("a.json.seal", None, "earlier version"),
    ],
)
def test_an_altered_file_is_computed_again(folder, file, content, why):
    folder.save_file("runs/a.json", b'{"x": 1}', "c0de")
    path = folder.path / "runs" / file
    path.unlink() if content is None else path.write_bytes(content)
    notes = []
    assert folder.load_file("runs/a.json", "c0de", notes.append) is None
    assert len(notes) == 1
    assert why in notes[0]


def test_a_file_of_other_code_is_computed_again(folder):
    notes = []
    for name in ("a", "b"):
        folder.save_file(f"runs/{name}.json", b"{}", "old")
        assert folder.load_file(f"runs/{name}.json", "c0de", notes.append) is None
    assert len(notes) == 1
    assert "other code" in notes[0]
