"""What a release says of itself in several places is the same, and all that a release needs is there."""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .lowest import constraints

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "pyproject.toml").is_file():
    pytest.skip("runs in a checkout only", allow_module_level=True)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
PAPERS = {"arXiv:2003.06777", "arXiv:2102.05176", "arXiv:1903.08923", "arXiv:2208.02951"}


def releases() -> list[tuple[str, str]]:
    """(version, date) of the changelog, the newest first."""
    return re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", CHANGELOG, flags=re.MULTILINE)


def test_the_version_stands_in_one_place_and_the_others_agree():
    assert releases()[0][0] == PROJECT["version"]
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", cited, flags=re.MULTILINE) == [PROJECT["version"]]
    assert re.findall(r"^date-released: (.+)$", cited, flags=re.MULTILINE) == [releases()[0][1]]


def test_the_version_is_written_in_no_source():
    for folder in ("otfew", "methods", "baselines", "experiments"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not re.search(r"""\b(__version__|VERSION)\s*=\s*["']\d""", path.read_text(encoding="utf-8")), path


def test_the_changelog_keeps_its_form():
    heads = re.findall(r"^## .+$", CHANGELOG, flags=re.MULTILINE)
    assert heads[0] == "## [Unreleased]"
    assert len(heads) == 1 + len(releases())
    for part in re.split(r"^## .+$", CHANGELOG, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.+)$", part, flags=re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]
    assert [datetime.date.fromisoformat(date) for _, date in releases()]


def test_the_citation_has_what_its_format_requires():
    yaml = pytest.importorskip("yaml", reason="no PyYAML to read it with")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "date-released", "license"} <= cited.keys()
    assert cited["cff-version"] == "1.2.0"
    assert cited["license"] == PROJECT["license"]
    assert cited["authors"] == [{"name": "The otfew developers"}]
    kinds = {"article", "conference-paper"}
    for paper in cited["references"]:
        assert {"type", "title", "authors", "year"} <= paper.keys()
        assert paper["type"] in kinds
        assert all({"family-names", "given-names"} <= author.keys() for author in paper["authors"])
    assert {each["value"] for paper in cited["references"] for each in paper["identifiers"]} == PAPERS


def test_the_oldest_releases_are_those_of_the_lower_bounds():
    assert constraints(["torch>=2.6", "tomli>=2; python_version < '3.11'"]) == [
        "torch==2.6",
        "tomli==2; python_version < '3.11'",
    ]
    assert len(constraints(PROJECT["dependencies"])) == len(PROJECT["dependencies"])
    with pytest.raises(ValueError, match="no lower bound alone"):
        constraints(["torch>=2.6,<3"])


def test_every_python_that_is_named_has_an_environment():
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), flags=re.MULTILINE)
    config = (ROOT / "tox.ini").read_text(encoding="utf-8")
    (matrix,) = re.findall(r"^    matrix = (.+)$", config, flags=re.MULTILINE)
    assert {f"py{each.replace('.', '')}" for each in named} <= set(matrix.split(", "))
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_the_command_says_the_version():
    code = "import sys; sys.argv = ['otfew', '--version']; from otfew.experiments.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == f"otfew {PROJECT['version']}\n"
