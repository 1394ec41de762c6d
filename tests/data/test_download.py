import contextlib
import hashlib
import http.server
import io
import shutil
import stat
import tarfile
import threading
import time
import zipfile

import cv2
import numpy as np
import pytest
import requests

from otfew.data import DataOptions, load, omniglot
from otfew.data.class_lists import class_lists
from otfew.data.download import Archive, install, install_file
from otfew.data.unpack import unpack
from otfew.errors import UserError

INSTEAD = "put the folder there"


class Server:
    """An HTTP server on this machine that can break off, with or without support for ranges."""

    def __init__(self):
        self.files = {}
        self.stop_after = None
        self.ranges = True
        self.requested = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"

    def answer(self, handler):
        wanted = handler.headers.get("Range")
        self.requested.append(wanted)
        data = self.files.get(handler.path)
        if data is None:
            handler.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(data):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(data)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if wanted and self.ranges else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        body = data[start:]
        with contextlib.suppress(OSError):
            handler.wfile.write(body if self.stop_after is None else body[: self.stop_after])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.httpd.shutdown()
    server.httpd.server_close()
    thread.join()


def tar_of(members, mode="w:gz"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as opened:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                opened.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                opened.addfile(info)
    return stream.getvalue()


def zip_of(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            if isinstance(content, bytes):
                opened.writestr(info, content)
            else:
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                opened.writestr(info, content[1])
    return stream.getvalue()


MAKERS = {"set.tar.gz": tar_of, "set.zip": zip_of}
NOISE = np.random.default_rng(0).bytes(700_000)
MEMBERS = [("birds/list.txt", b"one\n"), ("birds/images/0.bin", NOISE), ("other/readme.txt", b"not wanted")]


@pytest.fixture(params=MAKERS)
def offer(request, server):
    """Put an archive on the server and describe it."""

    def make(members=MEMBERS, creates="birds"):
        data = MAKERS[request.param](members)
        server.files[f"/{request.param}"] = data
        return Archive(f"{server.url}/{request.param}", hashlib.sha256(data).hexdigest(), creates)

    return make


def listing(folder):
    """What lies there, without the locks."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix != ".lock")


COMPLETE = ["birds", "birds/images", "birds/images/0.bin", "birds/list.txt"]


def test_fetches_and_unpacks_once(tmp_path, server, offer):
    archive = offer()
    root = tmp_path / "new" / "root"
    assert install(archive, root, instead=INSTEAD) == root / "birds"
    assert listing(root) == COMPLETE
    assert (root / "birds" / "images" / "0.bin").read_bytes() == NOISE
    install(archive, root, instead=INSTEAD)
    assert server.requested == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_goes_on_where_it_was_interrupted(tmp_path, server, offer, ranges):
    archive = offer()
    server.stop_after, server.ranges = 600_000, ranges
    with pytest.raises(UserError, match="failed") as error:
        install(archive, tmp_path, instead=INSTEAD)
    assert archive.url in str(error.value)
    assert INSTEAD in str(error.value)
    assert listing(tmp_path) == [f"{archive.filename}.part"]
    arrived = (tmp_path / f"{archive.filename}.part").stat().st_size
    assert 300_000 < arrived <= 600_000
    server.stop_after = None
    install(archive, tmp_path, instead=INSTEAD)
    assert server.requested == [None, f"bytes={arrived}-"]
    assert listing(tmp_path) == COMPLETE


def test_a_partial_file_that_is_complete_is_used(tmp_path, server, offer):
    archive = offer()
    (tmp_path / f"{archive.filename}.part").write_bytes(server.files[f"/{archive.filename}"])
    install(archive, tmp_path, instead=INSTEAD)
    assert len(server.requested) == 1
    assert listing(tmp_path) == COMPLETE


def test_a_partial_file_that_is_too_long_is_dropped(tmp_path, server, offer):
    archive = offer()
    (tmp_path / f"{archive.filename}.part").write_bytes(server.files[f"/{archive.filename}"] + b"more")
    install(archive, tmp_path, instead=INSTEAD)
    assert len(server.requested) == 2
    assert listing(tmp_path) == COMPLETE


def test_a_complete_archive_is_not_fetched_again(tmp_path, server, offer):
    archive = offer()
    (tmp_path / archive.filename).write_bytes(server.files[f"/{archive.filename}"])
    install(archive, tmp_path, instead=INSTEAD)
    assert server.requested == []
    assert listing(tmp_path) == COMPLETE


def test_a_wrong_checksum_is_refused_and_nothing_kept(tmp_path, offer):
    archive = offer()
    wrong = Archive(archive.url, "0" * 64, "birds")
    with pytest.raises(UserError, match="sha256") as error:
        install(wrong, tmp_path, instead=INSTEAD)
    assert archive.url in str(error.value)
    assert listing(tmp_path) == []
    install(archive, tmp_path, instead=INSTEAD)


def test_a_single_file_is_fetched_and_checked_by_whatever_sum_there_is(tmp_path, server):
    server.files["/grey.gz"] = b"pixels"
    url, good = f"{server.url}/grey.gz", hashlib.md5(b"pixels").hexdigest()
    with pytest.raises(UserError, match="its md5 is not 0000000000000000"):
        install_file(url, f"md5:{'0' * 32}", tmp_path / "raw", instead=INSTEAD)
    assert listing(tmp_path / "raw") == []
    path = install_file(url, f"md5:{good}", tmp_path / "raw", instead=INSTEAD)
    assert path == tmp_path / "raw" / "grey.gz"
    assert path.read_bytes() == b"pixels"
    with pytest.raises(UserError, match=r"downloading .*/missing\.gz failed"):
        install_file(f"{server.url}/missing.gz", f"md5:{good}", tmp_path / "raw", instead=INSTEAD)


def test_a_damaged_partial_file_is_refused_once(tmp_path, offer):
    archive = offer()
    (tmp_path / f"{archive.filename}.part").write_bytes(b"\0" * 50)
    with pytest.raises(UserError, match="sha256"):
        install(archive, tmp_path, instead=INSTEAD)
    install(archive, tmp_path, instead=INSTEAD)
    assert listing(tmp_path) == COMPLETE


@pytest.mark.parametrize(
    "member",
    [
        ("../outside.txt", b"x"),
        ("birds/../../outside.txt", b"x"),
        ("/tmp/outside.txt", b"x"),
        ("C:/outside.txt", b"x"),
        ("..\\outside.txt", b"x"),
        ("birds/link", (tarfile.SYMTYPE, "/etc")),
    ],
    ids=lambda member: member[0],
)
def test_an_archive_that_reaches_outside_is_refused(tmp_path, offer, member):
    archive = offer([*MEMBERS, member])
    root = tmp_path / "a" / "root"
    with pytest.raises(UserError, match="refused"):
        install(archive, root, instead=INSTEAD)
    assert listing(root) == [archive.filename]
    assert listing(tmp_path) == ["a", "a/root", f"a/root/{archive.filename}"]


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_hard_links_and_devices_are_refused(tmp_path, server, kind):
    data = tar_of([*MEMBERS, ("birds/x", (kind, "birds/list.txt"))])
    server.files["/set.tgz"] = data
    with pytest.raises(UserError, match="neither a file nor a folder"):
        install(Archive(f"{server.url}/set.tgz", hashlib.sha256(data).hexdigest(), "birds"), tmp_path, instead=INSTEAD)


@pytest.mark.parametrize("name", ["set.zip", "set.tgz"])
def test_what_is_no_archive(tmp_path, server, name):
    server.files[f"/{name}"] = b"<html>not an archive</html>"
    archive = Archive(f"{server.url}/{name}", hashlib.sha256(server.files[f"/{name}"]).hexdigest(), "birds")
    with pytest.raises(UserError, match="damaged"):
        install(archive, tmp_path, instead=INSTEAD)


def encrypted(data):
    """Set the flag of encryption in a zip file's local headers and in its directory."""
    marked = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(signature)
        while start >= 0:
            marked[start + offset] |= 1
            start = data.find(signature, start + 1)
    return bytes(marked)


def with_method(data, method):
    """Name another way of compression in a zip file."""
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        pieces = data.split(signature)
        pieces[1:] = [p[: offset - 4] + method.to_bytes(2, "little") + p[offset - 2 :] for p in pieces[1:]]
        data = signature.join(pieces)
    return data


SMALL = [("birds/list.txt", b"one\n" * 100)]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("set.zip", encrypted(zip_of(SMALL)), "encrypted"),
        ("set.zip", with_method(zip_of(SMALL), 14), "damaged"),  # LZMA, but the data are not
        ("set.zip", with_method(zip_of(SMALL), 12), "damaged"),  # bzip2
        ("set.zip", with_method(zip_of(SMALL), 97), "damaged"),  # none that Python knows
        ("set.tar.xz", tar_of(MEMBERS, "w:xz")[:-1000], "damaged"),
        ("set.tar.bz2", tar_of(MEMBERS, "w:bz2")[:300_000] + b"0" * 1000, "damaged"),
        ("set.tar.gz", tar_of(MEMBERS)[:300_000] + b"0" * 1000, "damaged"),
        ("set.tar.xz", tar_of(SMALL, "w:xz")[:30] + b"0" * 200, "damaged"),
    ],
)
def test_archives_that_cannot_be_read(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=said):
        unpack(tmp_path / name, "birds", tmp_path)
    assert listing(tmp_path) == [name]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_files_of_every_compression(tmp_path, mode):
    (tmp_path / "set.tar").write_bytes(tar_of(MEMBERS, mode))
    unpack(tmp_path / "set.tar", "birds", tmp_path)
    assert (tmp_path / "birds" / "images" / "0.bin").read_bytes() == NOISE


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_damaged_archives_are_never_another_error(tmp_path, make):
    rng, data = np.random.default_rng(0), make(SMALL)
    for i in range(150):
        changed = bytearray(data[: len(data) - rng.integers(2) * rng.integers(len(data))] or data)
        changed[rng.integers(len(changed))] = rng.integers(256)
        (tmp_path / "set.zip").write_bytes(changed)
        with contextlib.suppress(UserError, OSError):
            unpack(tmp_path / "set.zip" if make is zip_of else (tmp_path / "set.zip").rename(tmp_path / "set.tar"),
                   "birds", tmp_path)  # fmt: skip
        if (tmp_path / "birds").exists():
            (tmp_path / "birds").rename(tmp_path / f"kept-{i}")


def test_two_that_want_the_same_archive(tmp_path, server, offer, capsys):
    """One waits for the other, then finds what it wanted: a partial file has one writer."""
    archive = offer()
    gate, asked = threading.Event(), threading.Event()
    answer = server.answer

    def slow(handler):
        asked.set()
        gate.wait(20)
        answer(handler)

    server.answer = slow
    found = []
    first = threading.Thread(target=lambda: found.append(install(archive, tmp_path, instead=INSTEAD)))
    second = threading.Thread(target=lambda: found.append(install(archive, tmp_path, instead=INSTEAD)))
    first.start()
    assert asked.wait(20)
    second.start()
    while "waiting" not in capsys.readouterr().err:
        time.sleep(0.01)
    gate.set()
    first.join()
    second.join()
    assert found == [tmp_path / "birds"] * 2
    assert server.requested == [None]
    assert listing(tmp_path) == COMPLETE


@pytest.mark.parametrize("place", ["set.zip", "set.zip.part", "birds", ".set.zip.lock"])
def test_a_folder_or_a_file_in_the_place_of_another(tmp_path, server, place):
    server.files["/set.zip"] = data = zip_of(MEMBERS)
    archive = Archive(f"{server.url}/set.zip", hashlib.sha256(data).hexdigest(), "birds")
    if place == "birds":
        (tmp_path / place).write_bytes(b"")
    else:
        (tmp_path / place).mkdir()
    with pytest.raises(UserError, match=place.removesuffix(".part")):
        install(archive, tmp_path, instead=INSTEAD)


def test_an_archive_without_the_folder(tmp_path, offer):
    archive = offer([("fish/list.txt", b"one")])
    with pytest.raises(UserError, match="no folder birds"):
        install(archive, tmp_path, instead=INSTEAD)


def test_no_such_file_on_the_server(tmp_path, server):
    with pytest.raises(UserError, match="the server answered 404"):
        install(Archive(f"{server.url}/no.zip", "0" * 64, "birds"), tmp_path, instead=INSTEAD)


def test_no_connection_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UserError) as error:
        install(Archive("http://127.0.0.1:9/set.zip", "0" * 64, "birds"), tmp_path, instead=INSTEAD)
    assert "http://127.0.0.1:9/set.zip" in str(error.value)
    assert str(error.value).endswith(f"{INSTEAD}.")


def test_nowhere_to_write(tmp_path, offer):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot store"):
        install(offer(), tmp_path / "file", instead=INSTEAD)


@pytest.fixture
def drawings(server, monkeypatch, picture):
    """Both archives of a tiny Omniglot on the server."""
    data = cv2.imencode(".png", picture())[1].tobytes()
    lists = class_lists("omniglot-vinyals").classes
    archives = []
    for part, name in (("background", lists["train"][0]), ("evaluation", lists["test"][0])):
        content = zip_of([(f"images_{name}/1_{k:02d}.png", data) for k in range(20)])
        server.files[f"/images_{part}.zip"] = content
        url = f"{server.url}/images_{part}.zip"
        archives.append(Archive(url, hashlib.sha256(content).hexdigest(), f"images_{part}"))
    monkeypatch.setattr(omniglot, "ARCHIVES", tuple(archives))


@pytest.mark.usefixtures("drawings")
def test_loading_fetches_what_is_missing_and_no_more(tmp_path, server):
    assert len(load("omniglot", "test", tmp_path)) == 20
    assert len(load("omniglot", "train", tmp_path)) == 20
    assert len(server.requested) == 2
    shutil.rmtree(tmp_path / "omniglot-py" / "images_evaluation")
    with pytest.raises(UserError, match="not complete"):
        load("omniglot", "test", tmp_path, DataOptions(download=False))
    assert len(load("omniglot", "test", tmp_path)) == 20
    assert len(server.requested) == 3


@pytest.mark.parametrize("name", ["cub", "cifar-fs", "fc100", "omniglot"])
def test_publishers_that_cannot_be_reached(tmp_path, monkeypatch, name):
    def refuse(*_, **__):
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(UserError, match=r"downloading https://.* failed \(ConnectionError\)") as error:
        load(name, "test", tmp_path, DataOptions(download=True))
    assert str(tmp_path) in str(error.value)
    assert "or put the publisher's folder" in str(error.value)
