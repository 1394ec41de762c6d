"""Whatever is no regular file of bounded size is refused at once, in one sentence."""

import os
import socket
import threading

import pytest

from otfew.errors import UserError
from otfew.runs import regular_file
from otfew.runs.regular_file import open_regular, read_regular, regular_size

OPENERS = [
    lambda path: open_regular(path, 1000),
    lambda path: read_regular(path, 1000),
    lambda p: regular_size(p, 1000),
]


def prompt(opener, path):
    """Run in a thread of its own, so that an opener that hangs fails one test instead of stopping all."""
    raised = []

    def attempt():
        try:
            opener(path)
        except (UserError, OSError) as error:
            raised.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(20)
    assert raised, "it hangs, or opened what it should not"
    return raised[0]


def test_a_regular_file_is_read(tmp_path):
    path = tmp_path / "ümlaut ✓.bin"
    path.write_bytes(bytes(range(256)))
    link = tmp_path / "link"
    link.symlink_to(path)
    for given in (path, str(path), link):
        assert read_regular(given, 256) == bytes(range(256))
        assert regular_size(given, 256) == 256
        with open_regular(given, 256) as file:
            assert file.read(3) == b"\0\1\2"
            assert file.seek(-1, os.SEEK_END) == 255


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "socket"])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch, opener, kind, linked):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    path = tmp_path / "a.jpg"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("a.jpg")
    else:
        path.symlink_to("/dev/zero")
    if linked:
        (tmp_path / "link").symlink_to(path)
        path = tmp_path / "link"
    error = prompt(opener, path)
    said = {"fifo": "pipe", "folder": "folder", "device": "device", "socket": "socket"}[kind]
    assert isinstance(error, UserError)
    assert f"{path} is a {said}, not a regular file" in str(error)


@pytest.mark.parametrize("opener", OPENERS)
def test_a_sparse_giant_is_refused(tmp_path, opener):
    path = tmp_path / "a.jpg"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="1,099,511,627,776 bytes or more, and at most 1,000"):
        opener(path)


@pytest.mark.parametrize("opener", OPENERS)
def test_a_name_that_no_file_can_have(opener):
    with pytest.raises(UserError, match="null") as error:
        opener("a\0.jpg")
    assert "\0" not in str(error.value)


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("name", ["missing", "x" * 5000])
def test_a_missing_file_is_an_os_error(tmp_path, opener, name):
    with pytest.raises(OSError, match=r"No such file|too long"):
        opener(tmp_path / name)


def test_what_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes(11))
    monkeypatch.setattr(regular_file, "_check", lambda *_: None)
    with pytest.raises(UserError, match="11 bytes or more, and at most 10"):
        read_regular(path, 10)


def test_a_pipe_that_comes_after_the_look_does_not_block(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    os.mkfifo(path)
    monkeypatch.setattr(regular_file, "regular_size", lambda *_: 0)
    assert "is a pipe" in str(prompt(lambda p: open_regular(p, 10), path))
