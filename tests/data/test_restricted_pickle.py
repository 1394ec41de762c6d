import contextlib
import datetime
import os
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otfew.data import pickle_scan, restricted_pickle
from otfew.data.pickle_scan import scan
from otfew.data.restricted_pickle import load_pickle
from otfew.errors import UserError

# What Python 2 with an old numpy wrote: string opcodes, numpy.core, and strings that are bytes.
PYTHON2 = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
    b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    b"\x89U\x06\x01\x02\x03\xf0\xf1\xf2tbU\x0bfine_labelsq\x08]q\x09(K\x07K\x08eu."
)


class Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def load(tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    return load_pickle(tmp_path / "file")


def test_reads_what_python_2_wrote(tmp_path):
    record = load(tmp_path, PYTHON2)
    assert record["data"].tolist() == [[1, 2, 3], [240, 241, 242]]
    assert record["data"].dtype == np.uint8
    assert record["fine_labels"] == [7, 8]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_reads_what_python_3_writes(tmp_path, protocol, order):
    data = np.asarray(np.random.default_rng(0).integers(0, 256, (5, 4), dtype=np.uint8), order=order)
    record = {b"data": data, b"labels": [1, 2], b"names": [b"a", b"\xe9"], b"batch": b"x"}
    found = load(tmp_path, pickle.dumps(record, protocol=protocol))
    assert np.array_equal(found.pop("data"), data)
    assert found == {"labels": [1, 2], "names": [b"a", b"\xe9"], "batch": b"x"}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {}",)),
        (eval, ("open({!r}, 'w')",)),
        (exec, ("open({!r}, 'w')",)),
        (getattr, (1, "real")),
        (np.load, ("{}",)),
        (np.fromfile, ("{}",)),
        (datetime.date, (2000, 1, 1)),
        (type, ("x", (), {})),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_refuses_to_call_anything_else(tmp_path, function, arguments, protocol):
    target = str(tmp_path / "made")
    evil = Evil(function, *(a.format(target) if isinstance(a, str) else a for a in arguments))
    with pytest.raises(UserError, match="asks for") as error:
        load(tmp_path, pickle.dumps({b"data": evil}, protocol=protocol))
    assert str(tmp_path / "file") in str(error.value)
    assert not os.path.exists(target)


@pytest.mark.parametrize(
    "array", [np.zeros(3), np.zeros(3, np.int32), np.array([{}], object), np.zeros(3, "u1,u1")], ids=str
)
def test_refuses_arrays_of_anything_but_bytes(tmp_path, array):
    with pytest.raises(UserError, match=r"another type|asks for"):
        load(tmp_path, pickle.dumps({b"data": array}, protocol=2))


def test_refuses_a_shape_that_does_not_fit_its_bytes(tmp_path):
    assert PYTHON2.count(b"K\x02K\x03\x86") == 1
    with pytest.raises(UserError):
        load(tmp_path, PYTHON2.replace(b"K\x02K\x03\x86", b"K\x02K\x7f\x86"))


def test_a_pickle_cannot_change_how_later_ones_are_read(tmp_path):
    # BUILD with a slot state sets attributes on whatever is on the stack, here on what find_class returned.
    tampering = b"\x80\x02cnumpy\ndtype\nN}U\x04codeU\x02f8s\x86b."
    with pytest.raises(UserError):
        load(tmp_path, tampering)
    assert load(tmp_path, PYTHON2)["data"].shape == (2, 3)


def test_every_truncation_is_a_user_error(tmp_path):
    for length in range(len(PYTHON2)):
        with pytest.raises(UserError):
            load(tmp_path, PYTHON2[:length])


def test_flipped_bytes_never_escape_as_another_error(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(PYTHON2)
        data[rng.integers(len(data))] = rng.integers(256)
        try:
            load(tmp_path, bytes(data))
        except UserError:
            continue


def test_not_a_dictionary_and_no_file(tmp_path):
    with pytest.raises(UserError, match="not a dictionary"):
        load(tmp_path, pickle.dumps([1, 2]))
    with pytest.raises(UserError, match="cannot read"):
        load_pickle(tmp_path / "nothing")


def doubled(depth):
    """A tuple of twice the same tuple, and so on: a few bytes whose hash and text take 2 ** depth steps."""
    return b"(" + b"K\x01" + b"t" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(depth))


HOSTILE = {
    "a nested key": b"\x80\x02}" + doubled(60) + b"K\x01s.",
    "a nested key made by DUP": b"\x80\x02}K\x01\x85" + b"2\x86" * 60 + b"K\x01s.",
    "a nested key among several": b"\x80\x02}(U\x01a" + doubled(60)[:0] + b"K\x01" + doubled(60) + b"K\x01u.",
    "a nested name": b"\x80\x02}U\x09filenames]" + doubled(60) + b"as.",
    "a number as key": b"\x80\x02}K\x01K\x01s.",
    "a far slot of the memo": b"\x80\x02}r\xff\xff\xff\x1f.",
    "a far slot in digits": b"(dp999999999\n.",
    "a long string cut short": b"\x80\x04\x8e" + (2**33).to_bytes(8, "little") + b"x.",
    "a long frame": b"\x80\x04\x95" + (2**33).to_bytes(8, "little") + b"}.",
    "a long unicode": b"\x80\x04\x8d" + (2**33).to_bytes(8, "little") + b"x.",
    "a long number": b"\x80\x02}U\x01a\x8a\xff" + b"\x7f" * 255 + b"s.",
    "many digits": b"(dU\x01aL" + b"9" * 5000 + b"L\ns.",
    "a persistent id": b"\x80\x02}U\x01aK\x01Qs.",
    "an extension": b"\x80\x02}U\x01a\x82\x01s.",
    "an instance": b"(dU\x01a(icollections\nOrderedDict\ns.",
    "a new object": b"\x80\x02}U\x01accollections\nOrderedDict\n)\x81s.",
    "a set": b"\x80\x04}U\x01a\x8fs.",
    "a buffer": b"\x80\x05}U\x01a\x97s.",
    "the dictionary in itself": b"\x80\x02}q\x00U\x01ah\x00s.",
    "a shape of many sides": PYTHON2.replace(b"K\x02K\x03\x86", b"(" + b"K\x01" * 40 + b"K\x06t"),
    "the same bytes again and again": (
        b"\x80\x02}U\x01a](c_codecs\nencode\nq\x01X\x64\x00\x00\x00" + b"x" * 100
        + b"q\x02X\x06\x00\x00\x00latin1q\x03\x86R"
        + b"h\x01h\x02h\x03\x86R" * 30 + b"es."
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_refuses_what_would_take_time_or_memory(tmp_path, name):
    """A few hundred bytes must neither hang nor take gigabytes; measured by how little is ever allocated."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="damaged or not"):
            load(tmp_path, HOSTILE[name])
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_refuses_large_files_and_what_is_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(restricted_pickle, "LARGEST", 100)
    with pytest.raises(UserError, match="at most 100"):
        load(tmp_path, PYTHON2)
    with pytest.raises(UserError, match="folder"):
        load_pickle(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe"):
        load_pickle(tmp_path / "pipe")


TUPLE = b"K\x01\x85"
SCANNED = {
    "a key of a dictionary made at once": (b"\x80\x02(" + TUPLE + b"K\x01d.", "DICT of tuple"),
    "a second key": (b"\x80\x02}(U\x01aK\x01" + TUPLE + b"K\x01u.", "SETITEMS of text, plain, tuple"),
    "an item for a dictionary": (b"\x80\x02}K\x01a.", "APPEND on a dict"),
    "entries for a list": (b"\x80\x02](U\x01aK\x01u.", "SETITEMS on a list"),
    "a state for a list": (b"\x80\x02]K\x01b.", "BUILD on a list"),
    "a call of text": (b"\x80\x02U\x01a)R.", "REDUCE of text, tuple"),
    "a call with a list": (b"\x80\x02cnumpy\ndtype\n]R.", "REDUCE of global, list"),
    "a name that is a number": (b"\x80\x04K\x01K\x02\x93.", "STACK_GLOBAL of plain, plain"),
    "a list in two places": (b"\x80\x02]q\x00h\x00\x86.", "the same list in two places"),
}


@pytest.mark.parametrize("name", SCANNED)
def test_the_look_through_alone_refuses(name):
    """Whatever the unpickler would have made of it."""
    data, said = SCANNED[name]
    with pytest.raises(pickle.UnpicklingError, match=said):
        scan(data)


def test_a_pickle_of_too_many_operations_is_refused(monkeypatch):
    monkeypatch.setattr(pickle_scan, "MOST_OPERATIONS", 10)
    scan(b"\x80\x02]" + b"K\x01a" * 3 + b".")
    with pytest.raises(pickle.UnpicklingError, match="more than 10 operations"):
        scan(b"\x80\x02]" + b"K\x01a" * 4 + b".")


def test_names_are_those_of_numpy_alone(tmp_path):
    with pytest.raises(UserError, match=r"asks for evil\._reconstruct"):
        load(tmp_path, PYTHON2.replace(b"cnumpy.core.multiarray\n", b"cevil\n"))


def test_bytes_in_another_encoding_are_refused(tmp_path):
    text = b"X\x01\x00\x00\x00a"
    data = b"\x80\x02}U\x01ac_codecs\nencode\n" + text + b"X\x06\x00\x00\x00%b\x86Rs."
    assert load(tmp_path, data % b"latin1") == {"a": b"a"}
    with pytest.raises(UserError, match="in the encoding utf-16"):
        load(tmp_path, data % b"utf-16")


OPERATIONS = [*(bytes([o]) for o in range(128)), b"K\x01", b"U\x01a", b"q\x01", b"h\x01", b"\x86", b"("]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(OPERATIONS), max_size=40))
def test_any_operations_pass_or_are_refused(tmp_path_factory, pieces):
    path = tmp_path_factory.getbasetemp() / "any.pickle"
    path.write_bytes(b"\x80\x02}" + b"".join(pieces) + b".")
    with contextlib.suppress(UserError):
        assert isinstance(load_pickle(path), dict)
