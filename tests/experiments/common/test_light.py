"""Help, version and lists in a blink: none of them imports what only the work needs."""

from __future__ import annotations

import json
import subprocess
import sys

from otfew.experiments.commands import COMMANDS

HEAVY = ["torch", "scipy", "numba", "cv2", "sklearn", "matplotlib", "kornia", "lightning_fabric"]
CODE = """
import contextlib, io, json, sys
from otfew.experiments.__main__ import main
heavy, lines = map(json.loads, sys.argv[1:])
for words in lines:
    said = io.StringIO()
    sys.argv = ["otfew", *words]
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main()
    print(json.dumps([[name for name in heavy if name in sys.modules], said.getvalue()]))
"""


def loaded(*lines, also=()):
    """Run otfew in a fresh process, once with each line of words.

    Returns:
        For each line: which heavy packages, or others, were imported by then, and what was printed.
    """
    words = [json.dumps([*HEAVY, *also]), json.dumps(lines)]
    done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_otfew_says_of_itself():
    for heavy, said in loaded((), ("--help",), ("--version",), ("list",)):
        assert heavy == []
        assert said


def test_not_even_numpy_for_the_names():
    ((heavy, _),) = loaded(("list",), also=["numpy"])
    assert heavy == []


def test_help_of_every_command():
    """One process for all: where nothing heavy has been imported after the last, none imports it."""
    for command, (heavy, said) in zip(COMMANDS, loaded(*((name, "--help") for name in COMMANDS)), strict=True):
        assert heavy == [], command
        assert "show this help message" in said
        assert said.startswith(f"usage: {command} ")


def test_help_of_trainings_costs_not_even_numpy():
    lines = ((name, "--help") for name in ("pretrain", "metatrain", "metric-learning", "long-tail"))
    for heavy, said in loaded(*lines, also=["numpy"]):
        assert heavy == []
        assert "--output" in said


def test_a_mistake_on_the_command_line_costs_no_more_than_help():
    ((heavy, _),) = loaded(("retrieve", "--rernk", "3"))
    assert heavy == []
