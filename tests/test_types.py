"""Type checkers read all four packages, under the names by which they are imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

if not (ROOT / "pyproject.toml").is_file():
    pytest.skip("runs in a checkout only", allow_module_level=True)
if sys.version_info < (3, 11):
    pytest.skip("tomllib reads pyproject.toml", allow_module_level=True)


def test_mypy_is_strict_on_every_folder_that_is_a_package_of_otfew():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    settings, folders = project["tool"]["mypy"], project["tool"]["setuptools"]["package-dir"]
    assert settings["strict"] is True
    assert settings["files"] == ["otfew", ".mypy/otfew", "tests/transport/typed"]
    links = {f"otfew.{link.name}": link.resolve() for link in (ROOT / settings["mypy_path"] / "otfew").iterdir()}
    assert links == {package: ROOT / folder for package, folder in folders.items() if package != "otfew"}


def test_no_package_of_ours_is_left_out():
    import tomllib

    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["overrides"]
    ignored = {name for rule in overrides if rule.get("ignore_missing_imports") for name in rule["module"]}
    assert not [name for name in ignored if name.startswith("otfew")]


def test_results_are_typed_as_what_was_given():
    """``assert_type`` fails where mypy infers another type, Any included; mypy reads the files of this folder too."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "tests/transport/typed" in project["tool"]["mypy"]["files"]
    (file,) = (ROOT / "tests" / "transport" / "typed").glob("*.py")
    assert file.read_text(encoding="utf-8").count("assert_type(") >= 10
