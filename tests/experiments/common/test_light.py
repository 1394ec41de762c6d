"""Help, version and lists in a blink: none of them imports what only the work needs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from otfew.experiments.commands import COMMANDS

HEAVY = ["torch", "scipy", "numba", "cv2", "sklearn", "matplotlib", "kornia", "lightning_fabric"]
CODE = f"""
import contextlib, io, json, sys
from otfew.experiments.__main__ import main
said = io.StringIO()
sys.argv = ["otfew", *sys.argv[1:]]
with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
    main()
print(json.dumps([[name for name in {HEAVY!r} if name in sys.modules], said.getvalue()]))
"""


def loaded(*words, also=()):
    """Run otfew in a fresh process; return which heavy packages, or others, it imported and what it printed."""
    code = CODE.replace(repr(HEAVY), repr([*HEAVY, *also]))
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("words", [(), ("--help",), ("--version",), ("list",)], ids=" ".join)
def test_what_otfew_says_of_itself(words):
    heavy, said = loaded(*words)
    assert heavy == []
    assert said


def test_not_even_numpy_for_the_names():
    assert loaded("list", also=["numpy"])[0] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command):
    heavy, said = loaded(command, "--help")
    assert heavy == []
    assert "show this help message" in said
    assert said.startswith(f"usage: {command} ")


def test_a_mistake_on_the_command_line_costs_no_more_than_help():
    assert loaded("retrieve", "--rernk", "3")[0] == []
