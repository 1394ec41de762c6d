import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from otfew import data
from otfew.data import DATASETS, DataOptions, default_root, load
from otfew.errors import UserError

OFFLINE = DataOptions(download=False)


def test_the_table():
    """Every file that defines a data set is in it, under the data set's own name."""
    defined = {
        path.stem for path in Path(data.__file__).parent.glob("*.py") if "\nDATASET = " in path.read_text("utf-8")
    }
    assert {DATASETS.place(name) for name in DATASETS} == {f"otfew.data.{stem}:DATASET" for stem in defined}
    assert len(defined) == len(DATASETS)
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        assert dataset.summary
        assert dataset.resolution > 0
    assert not DATASETS["glyphs"].needs_root
    assert DATASETS["cub"].needs_root


def test_what_the_room_offers():
    assert {*data.__all__} <= {*dir(data)}
    for name in data.__all__:
        assert getattr(data, name) is not None
    assert data.ImageSet is data.base.ImageSet
    with pytest.raises(AttributeError, match="no attribute 'Nobody'"):
        _ = data.Nobody


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
    heavy = {"numpy", "torch", "cv2", "pooch", "requests", "rich", "matplotlib", "sklearn"}
    code = (
        f"import sys, otfew; before = set(sys.modules); import otfew.data; print({heavy} & set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
