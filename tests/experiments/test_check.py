"""The command check: a table, what to mend, and an exit code for each outcome."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from otfew.experiments import check
from otfew.experiments.common.cli import run

EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"
BROKEN = """
from my_method_for_checks import BestMatches

class Scaled(BestMatches):
    def __call__(self, support, query, **more):
        logits = super().__call__(support, query, **more)
        return logits / logits.std()
"""


@pytest.fixture(autouse=True)
def here(surroundings, tmp_path, monkeypatch):
    """A folder with a sound method and a broken one, the current one."""
    (tmp_path / "my_method_for_checks.py").write_text((EXAMPLES / "my_method.py").read_text())
    (tmp_path / "my_broken_for_checks.py").write_text(BROKEN)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield
    for name in ("my_method_for_checks", "my_broken_for_checks"):
        sys.modules.pop(name, None)


def test_a_table_and_what_to_mend(capsys):
    run(lambda: check.main(["my_method_for_checks:BestMatches"]))
    assert "20 of 20 laws hold, 0 fail" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        run(lambda: check.main(["my_method_for_checks:BestMatches", "my_broken_for_checks:Scaled"]))
    said = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 1
    assert "method my_broken_for_checks:Scaled" in said
    assert "- fails: an episode does not depend on its batch-mates: an episode is answered otherwise" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["my_method_for_checks:Nothing"], "has no 'Nothing'"),
        (["my_method_for_checks:Tensor"], "none of these: a method"),
        (["my_method_for_checks:BestMatches:heat=1"], "has no option 'heat'"),
        (["my_method_for_checks:BestMatches", "--kind", "solver"], "is no solver but BestMatches"),
        (["nowhere_for_checks:Name"], "run where nowhere_for_checks lies"),
        ([], "name what to check"),
    ],
)
def test_what_cannot_be_checked_is_one_line_and_two(refused, words, said):
    assert said in refused(check.main, *words)
