"""Compiled code is kept where it can be, and its absence, damage or age stops nobody."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import types
import warnings
from pathlib import Path

import numba
import pytest

from otfew.transport import jit as jit_module

SOURCE = """
{before}
from otfew.transport.jit import jit

@jit({signature}nogil=True)
def add(x, y):
    return x + y + {constant}
"""


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Import a compiled function anew from a file of one's own; ``kept`` lists what is kept of it."""
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "package"
    folder.mkdir()

    def load(constant=0, signature="", before=""):
        path = folder / "kernel.py"
        path.write_text(SOURCE.format(constant=constant, signature=signature, before=before))
        spec = importlib.util.spec_from_file_location("kernel", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "kernel", module)
        jit_module.writable_folder.cache_clear()
        jit_module._say_that_nothing_is_kept.cache_clear()
        # Bytecode of the same second would be taken for current.
        for stale in (folder / "__pycache__").glob("*.pyc"):
            stale.unlink()
        spec.loader.exec_module(module)
        return module.add

    load.folder = folder
    load.kept = lambda: sorted(tmp_path.rglob("*.nbc"))
    return load


def loaded(function):
    """Tell whether all compiled forms came from what is kept."""
    stats = function.stats
    return sum(stats.cache_hits.values()) > 0 and sum(stats.cache_misses.values()) == 0


def no_folders(_file):
    return iter(())


def test_a_second_process_loads(kernel):
    assert kernel()(1, 2) == 3
    again = kernel()
    assert again(1, 2) == 3
    assert loaded(again)
    assert [path.parent.name for path in kernel.kept()] == ["__pycache__"]


def test_each_kind_of_arguments_is_kept_by_itself(kernel):
    function = kernel()
    assert function(1, 2) == 3
    assert function(1.5, 2.0) == 3.5
    assert len(kernel.kept()) == 2
    again = kernel()
    assert again(1.5, 2.0) == 3.5
    assert loaded(again)


def test_explicit_types_are_compiled_at_once_and_no_others(kernel):
    function = kernel(signature="'int64(int64, int64)', ")
    assert len(kernel.kept()) == 1
    assert function(1, 2) == 3
    assert loaded(kernel(signature="'int64(int64, int64)', "))


def test_changed_source_is_compiled_anew_and_takes_the_place(kernel):
    assert kernel(0)(1, 2) == 3
    changed = kernel(10)
    assert changed(1, 2) == 13
    assert not loaded(changed)
    assert len(kernel.kept()) == 1
    assert kernel(10)(1, 2) == 13


def test_a_changed_constant_of_another_file_is_compiled_anew(kernel, monkeypatch):
    settings = types.ModuleType("settings_of_the_kernel")
    monkeypatch.setitem(sys.modules, settings.__name__, settings)
    imported = {"constant": "EXTRA", "before": f"from {settings.__name__} import EXTRA"}
    for extra in (0, 10):
        settings.EXTRA = extra
        assert kernel(**imported)(1, 2) == 3 + extra
    again = kernel(**imported)
    assert again(1, 2) == 13
    assert loaded(again)


def flip(content, at):
    damaged = bytearray(content)
    damaged[at] ^= 1
    return bytes(damaged)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda content: content[:10],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: b"not a cache" * 100,
        lambda content: bytes(len(content)),
        lambda content: flip(content, 0),
        lambda content: flip(content, 40),
        lambda content: flip(content, len(content) // 2),
        lambda content: flip(content, -1),
    ],
    ids=["empty", "cut to the seal", "cut by one", "longer", "text", "zeros", "seal", "stamp", "middle", "last bit"],
)
def test_a_damaged_file_is_compiled_anew_and_mended(damage, kernel):
    assert kernel()(1, 2) == 3
    (path,) = kernel.kept()
    path.write_bytes(damage(path.read_bytes()))
    mended = kernel()
    assert mended(1, 2) == 3
    assert not loaded(mended)
    again = kernel()
    assert again(1, 2) == 3
    assert loaded(again)


def test_a_folder_in_a_file_s_place(kernel):
    assert kernel()(1, 2) == 3
    (path,) = kernel.kept()
    path.unlink()
    path.mkdir()
    with pytest.warns(RuntimeWarning, match="keeps no compiled code"):
        assert kernel()(1, 2) == 3
    assert not [partial for partial in path.parent.iterdir() if partial.suffix not in (".nbc", ".pyc")]


def test_files_of_numba_s_own_cache_are_no_matter(kernel):
    (kernel.folder / "__pycache__").mkdir()
    for name in ("kernel.add-4.py311.nbi", "kernel.add-4.py311.1.nbc"):
        (kernel.folder / "__pycache__" / name).write_bytes(b"")
    assert kernel()(1, 2) == 3


def test_beside_a_package_that_cannot_be_written_the_home_serves(kernel, monkeypatch):
    (kernel.folder / "__pycache__").write_text("in the way, for root too")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert kernel()(1, 2) == 3
    (path,) = kernel.kept()
    assert "home" in path.parts
    again = kernel()
    assert again(1, 2) == 3
    assert loaded(again)


def test_what_was_kept_before_the_folder_became_read_only_is_used(kernel, monkeypatch):
    assert kernel()(1, 2) == 3
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    again = kernel()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert again(1, 2) == 3
    assert loaded(again)


def refuse(*_args, **_options):
    raise PermissionError("read-only")


def test_without_any_folder_each_process_compiles_and_it_is_said_once(kernel, monkeypatch):
    monkeypatch.setattr(jit_module, "_folders", no_folders)
    function = kernel()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert function(1, 2) == 3
        assert function(1.5, 2.0) == 3.5
    assert len(caught) == 1
    assert "NUMBA_CACHE_DIR" in str(caught[0].message)
    assert "\n" not in str(caught[0].message)
    assert kernel.kept() == []


def test_a_disk_that_fills_up_leaves_no_half_file(kernel, monkeypatch):
    function = kernel()

    def write_half(path, content):
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.warns(RuntimeWarning, match="keeps no compiled code"):
        assert function(1, 2) == 3
    left = [path for path in (kernel.folder / "__pycache__").iterdir() if path.suffix != ".pyc"]
    assert left == []


def test_numba_cache_dir_is_where_it_says(kernel, tmp_path, monkeypatch):
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path / "chosen"))
    assert kernel()(1, 2) == 3
    (path,) = kernel.kept()
    assert "chosen" in path.parts


def test_a_user_without_a_home_gets_no_folder_called_tilde(kernel, monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_args, **_options: "~/.cache/otfew")
    assert all(folder.is_absolute() for folder in jit_module._folders(kernel.folder / "kernel.py"))


def test_loading_numba_leaves_its_linear_algebra_as_it_was():
    """It is loaded without SciPy's, which users' own compiled functions still find."""
    code = """
import sys
import tempfile
import numpy as np
import otfew.transport.jit
from numba import njit
assert "scipy.linalg" not in sys.modules
print(njit(lambda x, y: np.dot(x, y))(np.eye(2), np.eye(2)).trace())
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    assert run.stdout.strip() == "2.0"
