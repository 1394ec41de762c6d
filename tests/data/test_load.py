import subprocess
import sys

import platformdirs
import pytest

from otfew.data import DATASETS, DataOptions, default_root, load
from otfew.errors import UserError

OFFLINE = DataOptions(download=False)


def test_the_table():
    assert list(DATASETS) == [
        "glyphs",
        "cub",
        "cifar-fs",
        "fc100",
        "omniglot",
        "miniimagenet",
        "tieredimagenet",
        "fashion-mnist",
        "cifar10",
        "image-folder",
    ]
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        assert dataset.summary
        assert dataset.resolution > 0
    assert [name for name, dataset in DATASETS.items() if not dataset.needs_root] == ["glyphs"]


def test_unknown_names_list_the_known_and_guess():
    with pytest.raises(
        UserError, match=r"unknown data set 'cifarfs' \(did you mean cifar-fs\?\); there are .*omniglot"
    ):
        load("cifarfs", "test")
    with pytest.raises(UserError, match=r"unknown split 'tset' \(did you mean test\?\); there are train, val, test\."):
        load("cub", "tset")


def test_default_root(monkeypatch, tmp_path):
    monkeypatch.setenv("OTFEW_DATA", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.setenv("OTFEW_DATA", "")
    assert default_root().is_relative_to(platformdirs.user_cache_dir("otfew", appauthor=False))


@pytest.mark.parametrize("name", [name for name, dataset in DATASETS.items() if dataset.needs_root])
def test_a_missing_root_is_never_made(monkeypatch, tmp_path, name):
    with pytest.raises(UserError, match="`data_root`"):
        load(name, "test", tmp_path / "typo")
    monkeypatch.setenv("OTFEW_DATA", str(tmp_path / "typo"))
    with pytest.raises(UserError, match="OTFEW_DATA"):
        load(name, "test")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name, dataset in DATASETS.items() if dataset.needs_root])
def test_an_empty_root(tmp_path, name):
    with pytest.raises(UserError) as error:
        load(name, "test", tmp_path, OFFLINE)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_cache_folder_is_made_where_nobody_chose_a_root(monkeypatch, tmp_path):
    monkeypatch.delenv("OTFEW_DATA", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))
    with pytest.raises(UserError, match="CUB is not complete"):
        load("cub", "test", options=OFFLINE)
    assert (tmp_path / "cache" / "data").is_dir()


def test_importing_the_table_loads_nothing_heavy():
    heavy = {"cv2", "pooch", "requests", "rich", "matplotlib", "sklearn"}
    code = (
        f"import sys, otfew; before = set(sys.modules); import otfew.data; print({heavy} & set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
