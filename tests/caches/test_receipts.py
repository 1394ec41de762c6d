import os
import subprocess
import sys
import zipfile

import pytest

from otfew.caches import receipts, tidy
from otfew.caches.kinds import items
from otfew.data import DataOptions, download, load
from otfew.data.download import Archive, install, install_file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def publisher(monkeypatch, tmp_path):
    """An archive of two files that pooch "fetches" from a folder."""
    archive = tmp_path / "birds.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("birds/one.txt", "one")
        opened.writestr("birds/two/two.txt", "two two")

    def fetch(url, checksum, into, instead):
        del checksum, instead
        target = into / url.rpartition("/")[2]
        target.write_bytes(archive.read_bytes())
        return target

    monkeypatch.setattr(download, "_fetch", fetch)
    return Archive("https://x/birds.zip", "0", "birds")


def test_what_was_fetched_is_listed_and_removed_and_nothing_else(publisher, tmp_path):
    root = tmp_path / "data"
    (root / "own").mkdir(parents=True)
    (root / "own" / "photo.txt").write_text("mine")
    folder = install(publisher, root, instead="do")
    single = install_file("https://x/list.txt", "md5:0", root / "set", instead="do")
    found = {item.paths[0]: item.bytes for item in items("downloads")}
    assert found == {folder: len("one") + len("two two"), single: single.stat().st_size}
    done = tidy.limit(["downloads"], 0)
    assert {item.paths[0] for item in done.removed} == set(found)
    assert not done.left
    assert not folder.exists()
    assert not single.exists()
    assert (root / "own" / "photo.txt").read_text() == "mine"
    assert not items("downloads")
    # It can be fetched again.
    assert install(publisher, root, instead="do").is_dir()
    assert len(items("downloads")) == 1


def test_what_the_user_has_changed_stays(publisher, tmp_path):
    folder = install(publisher, tmp_path / "data", instead="do")
    (folder / "two" / "mine.txt").write_text("mine")
    done = tidy.limit(["downloads"], 0)
    assert [why for _, why in done.left] == ["changed since it was fetched: remove it yourself"]
    assert (folder / "one.txt").exists()


def test_a_partial_file_goes_unless_it_is_being_fetched(tmp_path):
    part, lock = tmp_path / "data" / "a.zip.part", tmp_path / "data" / ".a.zip.lock"
    part.parent.mkdir()
    part.write_bytes(bytes(10))
    receipts.write(part, lock, complete=False)
    part.write_bytes(bytes(20))
    with receipts.locked(lock, lambda: None):
        done = tidy.limit(["downloads"], 0)
        assert [(item.bytes, why) for item, why in done.left] == [(20, "in use")]
    assert [item.bytes for item in tidy.limit(["downloads"], 0).removed] == [20]
    assert not part.exists()


HOLDER = """
import sys
from pathlib import Path
from otfew.caches import receipts
receipts.hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


def test_what_another_process_reads_stays_until_it_ends(publisher, tmp_path, cache):
    root = tmp_path / "data"
    folder = install(publisher, root, instead="do")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        done = tidy.limit(["downloads"], 0)
        assert [why for _, why in done.left] == ["in use"]
        assert folder.is_dir()
        other.kill()  # locks of a process go with it, however it ends
    done = tidy.limit(["downloads"], 0)
    assert not done.left
    assert not folder.exists()
    assert not list((cache / "downloads").glob("*.use"))


def test_a_root_without_downloads_is_not_held(tmp_path, cache):
    (tmp_path / "data").mkdir()
    receipts.hold(tmp_path / "data")
    assert not cache.exists()


def test_loading_holds_the_root(tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr(receipts, "hold", held.append)
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="no class folders"):
        load("image-folder", "test", tmp_path, DataOptions())
    assert held == [tmp_path]


def test_receipts_that_are_damaged_count_for_nothing(publisher, tmp_path, cache):
    install(publisher, tmp_path / "data", instead="do")
    (cache / "downloads" / "x.json").write_text("{")
    (cache / "downloads" / "y.json").write_text('{"path": "/etc"}')
    (cache / "downloads" / "z.json").write_text("[]")
    assert len(items("downloads")) == 1


def test_where_no_receipt_can_be_written_data_are_fetched_all_the_same(publisher, tmp_path, cache):
    cache.write_text("a file in the way")
    assert install(publisher, tmp_path / "data", instead="do").is_dir()
    assert os.listdir(tmp_path / "data") != []
