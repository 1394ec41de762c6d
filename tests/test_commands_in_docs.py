"""Every command that a page shows is one that its command's options take: parsed in this process, none is run."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import tyro

from otfew.experiments.commands import COMMANDS, module_of

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MADE = re.compile(r"^make ([\w-]+)")
COMMAND = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:torchrun (?:--[\w-]+[ =]\S+ )*-m |python -m )experiments\.(?P<module>\w+)(?= |$)"
    r"|otfew (?P<name>[a-z][a-z-]*)(?= |$)"
)
NUMBERS = {"N", "M", "K", "SEED"}
"""Stand for a number where a page leaves it open."""


class ParsedError(Exception):
    """Raised in the place of a command's work."""


def lines_of(page):
    """The lines of the blocks of code, those that a backslash continues joined, without what follows a hash."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(?:bash|sh|console|)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    blocks = "\n".join([*fenced, *(line for line in rest.splitlines() if line.startswith("    "))])
    return [line.strip().removeprefix("$ ") for line in re.sub(r"\\\n\s*", " ", blocks).splitlines()]


def commands():
    """(page, words of the command) of each command of otfew that the pages show."""
    found = []
    for page in PAGES:
        for line in lines_of(page):
            match = COMMAND.match(line)
            if match is None:
                continue
            words = shlex.split(line[match.end() :], comments=True)
            words = [(match["module"] or match["name"]).replace("_", "-"), *words]
            stop = next((place for place, word in enumerate(words) if word in {"|", "&&", ">", ";"}), None)
            found.append(pytest.param(words[:stop], id=f"{page.relative_to(ROOT).as_posix()}: {' '.join(words)[:90]}"))
    return found


@pytest.mark.parametrize("words", commands())
def test_a_command_on_a_page_is_understood(words, monkeypatch):
    real = tyro.cli

    def only_parse(*args, **options):
        raise ParsedError(real(*args, **options))

    monkeypatch.setattr(tyro, "cli", only_parse)
    assert words[0] in COMMANDS
    arguments = ["1" if word in NUMBERS else word for word in words[1:] if word not in {"...", "--help"}]
    with pytest.raises(ParsedError):
        importlib.import_module(module_of(words[0])).main(arguments)


def test_targets_of_make_on_pages_are_there():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    shown = {match.group(1) for page in PAGES for line in lines_of(page) if (match := MADE.match(line))}
    assert shown <= targets


def test_there_are_commands_to_look_at():
    assert len(commands()) > 120
