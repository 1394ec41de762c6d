"""The command that lists, limits and clears caches."""

import os
import time

import pytest

from otfew.experiments import cache
from otfew.experiments.common.cli import run

pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.fixture
def features(tmp_path, monkeypatch):
    """Two entries, of 2,000 and 3,000 bytes, the first unused for 40 days; no other caches."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(tmp_path / "home"))
    folder = tmp_path / "cache" / "features"
    folder.mkdir(parents=True)
    for name, size, days in (("a", 2000, 40), ("b", 3000, 0)):
        path = folder / f"{name}.safetensors"
        path.write_bytes(bytes(size))
        then = time.time() - 86_400 * days
        os.utime(path, (then, then))
    return folder


def said(capsys, *words):
    run(lambda: cache.main(list(words)))
    return capsys.readouterr().out


def test_the_list(features, capsys):
    text = said(capsys)
    (row,) = (line.split() for line in text.splitlines() if line.strip().startswith("features"))
    assert row[:4] == ["features", "2", "5", "kB"]
    assert row[4:10] == ["0", "h", "ago", "40", "days", "ago"]
    assert f"- features: {features}" in text
    for kind in ("kernels", "pictures", "downloads", "zoo"):
        assert kind in text
    assert "kernels" not in said(capsys, "list", "features")


def test_limits(features, capsys):
    assert said(capsys, "limit", "features", "--age", "30d", "--dry-run") == (
        "features: would go 1 items, 2 kB; would stay 1 items, 3 kB\n"
    )
    assert len(list(features.iterdir())) == 2
    assert (
        said(capsys, "limit", "features", "--size", "3.5kB") == "features: removed 1 items, 2 kB; left 1 items, 3 kB\n"
    )
    assert [path.name for path in features.iterdir()] == ["b.safetensors"]


def test_clearing_leaves_what_has_to_be_fetched(features, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("otfew.caches.kinds._kernel_folders", list)
    weights = tmp_path / "cache" / "zoo" / "net.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(bytes(9))
    text = said(capsys, "clear")
    assert "features: removed 2 items, 5 kB; left 0 items, 0 bytes" in text
    assert "zoo" not in text
    assert weights.exists()
    assert said(capsys, "clear", "zoo") == "zoo: removed 1 items, 9 bytes; left 0 items, 0 bytes\n"
    assert not weights.exists()


def test_what_had_to_stay_is_named(features, capsys, monkeypatch):
    from otfew.caches import tidy

    monkeypatch.setattr(tidy, "remove", lambda item: "in use")
    text = said(capsys, "clear", "features")
    assert "features: removed 0 items, 0 bytes; left 2 items, 5 kB" in text
    assert f"- stays: {features / 'b.safetensors'}: in use" in text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["limit"], "nothing limits the cache: give --size, --age or both."),
        (["limit", "--size", "big"], "--size is 'big': give a number of bytes, such as 5GB or 500MB."),
        (["limit", "--age", "-1"], "--age"),
        (["clear", "--size", "1GB"], "--size and --age are of no use to clear"),
        (["list", "--dry-run"], "--dry-run is of no use to list"),
        (["lists"], "action must be list, limit or clear, not 'lists'"),
        (["clear", "feature"], "kinds must be features, kernels, pictures, downloads or zoo"),
    ],
)
def test_mistakes_are_one_line(features, capsys, words, line):
    with pytest.raises(SystemExit) as ended:
        run(lambda: cache.main(words))
    found = capsys.readouterr().err
    assert ended.value.code == 2
    assert found.startswith(f"error: {line}")
    assert found.count("\n") == 1
    assert len(list(features.iterdir())) == 2
