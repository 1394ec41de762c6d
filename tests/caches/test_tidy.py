import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from otfew.caches import kinds, tidy
from otfew.caches.kinds import items
from otfew.data import download
from otfew.errors import UserError
from otfew.features.cache import Entry
from otfew.runs.files import locked
from otfew.transport import kept

DAY = 86_400


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(tmp_path / "home"))
    monkeypatch.setattr(kinds, "_BESIDE", ())
    monkeypatch.setattr(kinds, "__file__", str(tmp_path / "package" / "caches" / "kinds.py"))
    return tmp_path / "cache"


def entry(cache, key, rows=4, days=0.0, finished=True):
    """An entry of features that was used so many days ago."""
    made = Entry(cache / "features", key, rows)
    made.append(np.zeros((rows, 2, 8), np.float32))
    if finished:
        made.finish({"milliseconds": 1.0})
    with locked(made.lock, lambda: None):
        pass
    age(made.part.parent.glob(f"{key}.*"), days)
    return made


def age(paths, days):
    for path in paths:
        then = time.time() - days * DAY
        os.utime(path, (then, then))


def test_an_entry_is_one_item_of_all_its_files(cache):
    made = entry(cache, "a")
    (item,) = items("features")
    assert item.bytes == made.path.stat().st_size + made.record.stat().st_size
    assert set(item.paths) == {made.path, made.record}
    assert item.lock == made.lock
    # A reader looks for the record first: without it there is no entry.
    assert item.paths[0] == made.record
    assert tidy.remove(item) is None
    assert made.read() is None
    assert not items("features")


def test_what_was_not_used_for_long_goes_first(cache):
    for key, days in (("old", 40), ("middle", 20), ("new", 1)):
        entry(cache, key, days=days)
    size = items("features")[0].bytes
    by_age = tidy.limit(["features"], days=30, dry_run=True)
    assert [item.paths[0].stem for item in by_age.removed] == ["old"]
    assert len(items("features")) == 3
    by_size = tidy.limit(["features"], size=size + 1)
    assert [item.paths[0].stem for item in by_size.removed] == ["old", "middle"]
    assert [item.paths[0].stem for item in by_size.kept] == ["new"]
    assert not tidy.limit(["features"], size=size).removed
    assert [item.paths[0].stem for item in tidy.limit(["features"], size=0).removed] == ["new"]


def test_the_size_is_that_of_all_kinds_together(cache):
    entry(cache, "a", days=3)
    (cache / "glyphs").mkdir()
    (cache / "glyphs" / "b.safetensors").write_bytes(bytes(100))
    age([cache / "glyphs" / "b.safetensors"], 5)
    done = tidy.limit(["features", "pictures"], size=items("features")[0].bytes + 50)
    assert [item.kind for item in done.removed] == ["pictures"]


def test_an_entry_that_is_being_written_stays(cache):
    made = entry(cache, "a", finished=False, days=100)
    code = (
        "import sys; from pathlib import Path; from otfew.runs.files import locked\n"
        "with locked(Path(sys.argv[1]), lambda: None):\n print('held', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(made.lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        done = tidy.limit(["features"], days=1)
        assert [why for _, why in done.left] == ["in use"]
        assert made.part.exists()
        other.communicate("\n")
    assert len(tidy.limit(["features"], days=1).removed) == 1
    assert not made.part.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps files that are open")
def test_what_a_process_has_mapped_stays_readable_to_it(cache):
    made = Entry(cache / "features", "a", 4)
    rows = np.random.default_rng(0).random((4, 2, 8), np.float32)
    made.append(rows)
    made.finish({"milliseconds": None})
    nodes, _ = made.read()
    tidy.limit(["features"], 0)
    assert torch.equal(nodes, torch.from_numpy(rows))
    assert made.load(lambda _: None) is None


def test_an_entry_that_goes_while_it_is_read_is_none(cache, monkeypatch):
    made = entry(cache, "a")
    from otfew.features import cache as module

    def vanish(path):
        digest = before(path)
        tidy.limit(["features"], 0)
        return digest

    before = module.sha256_of
    monkeypatch.setattr(module, "sha256_of", vanish)
    assert made.read() is None


def test_files_under_temporary_names_stay_for_a_day(cache):
    entry(cache, "a")
    fresh, old = cache / "features" / ".b.json.1.tmp", cache / "features" / ".c.json.2.tmp"
    for path, days in ((fresh, 0.5), (old, 1.5)):
        path.write_bytes(b"x")
        age([path], days)
    tidy.limit(["features"], 0)
    assert fresh.exists()
    assert not old.exists()


def test_photos_of_the_classifier_are_features(cache):
    (cache / "photos").mkdir(parents=True)
    (cache / "photos" / "k.safetensors").write_bytes(bytes(7))
    assert [item.bytes for item in items("features")] == [7]


def test_compiled_code_is_ours_alone(cache, tmp_path, monkeypatch):
    sources = tmp_path / "package" / "solver"
    ours = [
        tmp_path / "home" / "compiled" / "cuda" / "k.sm_90.nvrtc-12.4",
        sources / "__pycache__" / "kernel.f.0123.nbc",
        tmp_path / "numba" / kept.place(sources) / "kernel.f.0123.nbc",
    ]
    others = [
        sources / "__pycache__" / "kernel.cpython-311.pyc",
        sources / "kernel.py",
        tmp_path / "numba" / "somebody_0123456789abcdef" / "kernel.f.0123.nbc",
    ]
    for path in (*ours, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    assert {item.paths[0] for item in items("kernels")} == set(ours)
    assert len(tidy.limit(["kernels"], 0).removed) == 3
    assert all(path.exists() for path in others)


def test_compiled_code_lies_where_the_solvers_keep_it(tmp_path):
    """Asked of the compiler's own cache, in another process: its folders are the ones that are listed."""
    code = (
        "from pathlib import Path\n"
        "from otfew.caches import kinds\n"
        "from otfew.transport import jit\n"
        "from otfew.transport.simplex import kernel\n"
        "folder = jit.writable_folder(Path(kernel.__file__))\n"
        "assert folder in kinds.places('kernels'), folder\n"
    )
    for numba in ("", str(tmp_path / "numba")):
        environment = {**os.environ, "NUMBA_CACHE_DIR": numba}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_pictures_of_earlier_versions_are_found(tmp_path):
    old = tmp_path / "home" / "data" / "glyphs" / "val-0.safetensors"
    old.parent.mkdir(parents=True)
    old.write_bytes(bytes(5))
    (old.parent.parent / "CUB_200_2011").mkdir()
    assert [item.paths for item in items("pictures")] == [(old,)]


def test_weights_are_no_data_sets(cache, monkeypatch):
    def fetch(url, checksum, into, instead):
        del checksum, instead
        part, whole = into / "net.safetensors.part", into / url.rpartition("/")[2]
        part.write_bytes(bytes(3))
        assert [why for _, why in tidy.limit(["zoo"], 0).left] == ["in use"]
        part.rename(whole)
        return whole

    monkeypatch.setattr(download, "_fetch", fetch)
    download.install_file("https://x/net.safetensors", "sha256:0", cache / "zoo", instead="do")
    assert [item.bytes for item in items("zoo")] == [3]
    assert not items("downloads")
    assert len(tidy.limit(["zoo"], 0).removed) == 1


def test_an_empty_cache_has_nothing(cache):
    assert {kind: items(kind) for kind in kinds.SUMMARIES} == {kind: [] for kind in kinds.SUMMARIES}
    assert not tidy.limit(list(kinds.SUMMARIES), 0).removed
    assert not cache.exists()


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("1.5 mb", 1_500_000), ("20000", 20_000), ("2k", 2000)])
def test_sizes(text, size):
    assert tidy.parse_size(text) == size


@pytest.mark.parametrize(("text", "days"), [("30d", 30), ("12h", 0.5), ("2w", 14), ("7", 7)])
def test_ages(text, days):
    assert tidy.parse_age(text) == days


@pytest.mark.parametrize("text", ["", "GB", "-5GB", "5 apples", "1e9"])
def test_what_is_no_size_or_age(text):
    with pytest.raises(UserError, match="`size`"):
        tidy.parse_size(text)
    with pytest.raises(UserError, match="`age`"):
        tidy.parse_age(text)


def test_limits_that_are_none():
    with pytest.raises(UserError, match="nothing limits the cache"):
        tidy.limit(["features"])
    with pytest.raises(UserError, match="at least 0"):
        tidy.limit(["features"], -1)
