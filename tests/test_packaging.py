"""The wheel: everything under one namespace, with its data files, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("otfew", "methods", "baselines", "experiments")

pytest.importorskip("setuptools", minversion="77", reason="setuptools builds the wheel")
if not (ROOT / "pyproject.toml").is_file():
    pytest.skip("runs in a checkout only", allow_module_level=True)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Build a wheel from a copy of the sources and list what it holds."""
    source = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_other_environments_get_one_package(names):
    assert {name.split("/")[0].split("-")[0] for name in names} == {"otfew"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_module_is_in(folder, names):
    prefix = "" if folder == "otfew" else "otfew/"
    modules = {prefix + path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}
    assert modules <= set(names)


def test_the_licence_is_in(names):
    assert [name.rpartition("/")[2] for name in names if "/licenses/" in name] == ["LICENSE"]


def test_data_files_are_in(names):
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "otfew/data/splits").glob("*.json")}
    expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "otfew/transport/cuda").glob("*.[hc]*")}
    zoo = "otfew/backbones/zoo/glyphs-resnet12-quarter"
    assert expected | {f"{zoo}.safetensors", f"{zoo}.json", "otfew/py.typed"} <= set(names)
    # Every card, so that a wheel knows what it lacks, and the weights of the glyphs alone.
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "otfew/backbones/zoo").glob("*.json")} <= set(names)
    assert {name for name in names if name.endswith(".safetensors")} == {f"{zoo}.safetensors"}
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "otfew/reporting/templates").iterdir()}
    assert len(templates) >= 6
    assert templates | {"otfew/classifier/prior.json"} <= set(names)
    assert {f"otfew/app/page/page.{kind}" for kind in ("html", "css", "js")} <= set(names)
    assert {"otfew/experiments/claims.toml", "otfew/experiments/claims.lock"} <= set(names)
    assert "otfew/experiments/reproduce/device/jobs.toml" in names
