"""The digest of the code: what it notices, what it doesn't, and that nothing is imported for it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from otfew.runs import identity
from otfew.runs.identity import code_digest, short_hash, sources, versions

SOURCE = '''"""What it is for."""

LIMIT = 3
"""What it means."""


def f(x: float, *, y: int = 2) -> float:
    """Add."""
    # Because.
    return x + y
'''
SAME = [
    SOURCE.replace("# Because.", "# For another reason."),
    SOURCE.replace('"""Add."""', '"""Add, with more words."""'),
    SOURCE.replace('"""What it means."""', ""),
    SOURCE.replace("x + y", "(\n        x\n        + y\n    )").replace("\n\n\n", "\n"),
    SOURCE.replace("float, *, y: int = 2", "float,\n    *,\n    y: int = 2,\n"),
]
OTHER = [
    SOURCE.replace("x + y", "x - y"),
    SOURCE.replace("= 2", "= 2.0"),
    SOURCE.replace("= 2", "= True + 1"),
    SOURCE.replace("LIMIT = 3", "LIMIT = 4"),
    SOURCE.replace("LIMIT = 3", 'LIMIT = "3"'),
    SOURCE.replace("x + y", "y + x"),
    SOURCE.replace("*, ", ""),
    SOURCE + "\nf = None\n",
    SOURCE + "\nasync def g(): pass\n",
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(identity, "_known", {})


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that must not be imported: it says so."""
    root = tmp_path / "given"
    (root / "parcel" / "inner").mkdir(parents=True)
    (root / "parcel" / "__init__.py").write_text("raise RuntimeError('imported')")
    (root / "parcel" / "inner" / "__init__.py").write_text("")
    (root / "parcel" / "inner" / "part.py").write_text(SOURCE)
    (root / "parcel" / "other.py").write_text("x = 1")
    monkeypatch.syspath_prepend(str(root))
    return root / "parcel"


@pytest.mark.parametrize("source", SAME)
def test_comments_docstrings_and_formatting_change_nothing(package, source):
    before = code_digest("parcel")
    assert source != SOURCE
    (package / "inner" / "part.py").write_text(source)
    assert code_digest("parcel") == before


@pytest.mark.parametrize("source", OTHER)
def test_what_the_code_says_changes_it(package, source):
    before = code_digest("parcel")
    assert source != SOURCE
    (package / "inner" / "part.py").write_text(source)
    assert code_digest("parcel") != before


def test_modules_count_by_their_names_and_only_those_that_are_named(package):
    before, inner, part = code_digest("parcel"), code_digest("parcel.inner"), code_digest("parcel.inner.part")
    assert len({before, inner, part}) == 3
    (package / "other.py").rename(package / "another.py")
    assert code_digest("parcel") != before
    assert (code_digest("parcel.inner"), code_digest("parcel.inner.part")) == (inner, part)


def test_order_and_repetition_change_nothing(package):
    assert code_digest("parcel.inner", "parcel") == code_digest("parcel") == code_digest("parcel", "parcel.other")


def test_two_trees_side_by_side_do_not_look_like_one(package):
    """Words are hashed with what divides them."""
    part = package / "inner" / "part.py"
    digests = set()
    for source in ("f(1, 2)", "f(12)", "f(1)(2)", "f((1, 2))", "f([1, 2])", "f(1)\nf(2)", "f('1', '2')", "f(1, *2)"):
        part.write_text(source)
        digests.add(code_digest("parcel"))
    assert len(digests) == 8


def test_a_file_that_is_no_python_counts_by_its_bytes(package):
    part = package / "inner" / "part.py"
    part.write_bytes(b"def f(:")
    before = code_digest("parcel")
    part.write_bytes(b"def g(:")
    assert code_digest("parcel") != before


def test_sources_of_kernels_count_by_their_bytes(package):
    digests = [code_digest("parcel")]
    for text in ("#pragma once", "#pragma twice", "# a line of Python's"):
        (package / "inner" / "kernel.h").write_text(text)
        digests.append(code_digest("parcel"))
    assert len(set(digests)) == 4
    assert ("parcel.inner.kernel.h", package / "inner" / "kernel.h") in sources("parcel")
    assert any(name == "otfew.transport.cuda.warp.h" for name, _ in sources("otfew.transport"))


@pytest.mark.parametrize("name", ["no_such_package_here", "parcel.no_such_module", "json.decoder.nothing", "zlib"])
def test_what_has_no_source_counts_by_its_name(package, name):
    assert sources(name) == [(name, None)]
    assert code_digest(name) == code_digest(name)
    assert code_digest("parcel", name) not in {code_digest("parcel"), code_digest(name)}


def test_the_library_itself_is_without_what_stands_above_it():
    """A wheel has them in one folder, a checkout side by side: both must agree."""
    modules = dict(sources("otfew"))
    assert modules["otfew.runs.identity"].name == "identity.py"
    assert modules["otfew"].name == "__init__.py"
    assert not any(name.startswith(("otfew.methods", "otfew.baselines", "otfew.experiments")) for name in modules)
    assert "otfew.methods.deepemd" in dict(sources("otfew.methods"))
    assert "otfew.experiments.compare" in dict(sources("otfew.experiments"))


def test_in_a_wheel_the_packages_above_lie_inside(tmp_path, monkeypatch):
    root = tmp_path / "site" / "otfew"
    for folder in ("", "methods", "baselines", "experiments", "runs"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "__init__.py").write_text("")
    spec = type("Spec", (), {"origin": str(root / "__init__.py"), "submodule_search_locations": [str(root)]})
    monkeypatch.setattr(identity, "_spec", lambda _: spec)
    assert [name for name, _ in sources("otfew")] == ["otfew", "otfew.runs"]


def test_nothing_is_imported_for_it(tmp_path):
    code = """
import sys
from otfew.runs.identity import code_digest
before = set(sys.modules)
code_digest("otfew.methods", "otfew.baselines", "otfew.evaluation", "otfew.training")
print(*sorted(name for name in set(sys.modules) - before if name.startswith(("otfew", "torch"))))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert found.stdout.split() == []


def test_a_second_process_reads_only_what_has_changed(package, tmp_path, monkeypatch):
    first = code_digest("parcel")
    monkeypatch.setattr(identity, "_known", {})
    read = []
    digest = identity._digest
    monkeypatch.setattr(identity, "_digest", lambda path: read.append(path.name) or digest(path))
    assert code_digest("parcel") == first
    assert read == []
    (package / "other.py").write_text("x = 22")
    assert code_digest("parcel") != first
    assert read == ["other.py"]


def test_the_kept_digests_lose_files_that_are_gone(package, tmp_path):
    code_digest("parcel")
    (package / "other.py").unlink()
    (package / "inner" / "part.py").write_text("x = 22")
    code_digest("parcel")
    names = [row[0].rpartition("/")[2] for row in json.loads((tmp_path / "cache" / "code.json").read_bytes())]
    assert sorted(names) == ["__init__.py", "__init__.py", "part.py"]


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"{}", b"[[1]]", b"[1]", b"\xff", b'[["a", "b", 1, 2, "c"]]', b"[" * 9999]
)
def test_kept_digests_that_cannot_be_read_are_made_again(package, tmp_path, monkeypatch, damage):
    first = code_digest("parcel")
    (tmp_path / "cache" / "code.json").write_bytes(damage)
    monkeypatch.setattr(identity, "_known", {})
    assert code_digest("parcel") == first


def test_without_a_cache_folder_it_goes_on(package, tmp_path, monkeypatch):
    first = code_digest("parcel")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(identity, "_known", {})
    assert code_digest("parcel") == first


def test_runs_are_told_apart_by_what_they_are():
    assert short_hash({"a": 1, "b": 2}) == short_hash({"b": 2, "a": 1}) != short_hash({"a": 1, "b": 3})
    assert len(short_hash({})) == 8
    assert {"otfew", "torch", "numpy", "numba"} <= versions().keys()
