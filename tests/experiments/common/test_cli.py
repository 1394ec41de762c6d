"""What stands on the command line: read, refused in one sentence, and named in the sentences of the library."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro
from rich.console import Console
from tyro import _errors

from otfew.errors import UserError
from otfew.experiments import metatrain, pretrain
from otfew.experiments.__main__ import main as otfew_command
from otfew.experiments.commands import COMMANDS
from otfew.experiments.common import cli, wording
from otfew.experiments.common.watch import ConsoleWatch
from otfew.experiments.long_tail.config import Config as LongTail
from otfew.transport.errors import ConvergenceError


@dataclass
class Head:
    """A nested part."""

    epochs: int = 3
    """Passes."""
    batch_size: int = 8
    """Images at a time."""

    def __post_init__(self):
        if self.epochs < 1:
            raise UserError(f"`epochs` must be at least 1, not {self.epochs}.")


@dataclass
class Recipe:
    """A part whose options stand at the root."""

    momentum: float = 0.9
    """Of SGD."""

    def __post_init__(self):
        if not 0 <= self.momentum < 1:
            raise UserError(f"`momentum` must lie from 0 to 1, not {self.momentum}.")


@dataclass
class Config:
    """A command."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Files."""
    shot: int = 1
    """Labelled images."""
    data_root: Path | None = None
    """A folder."""
    maybe: float | None = None
    """A number or nothing."""
    mode: Literal["fcn", "grid", "sampling"] | None = None
    """One of three."""
    kinds: tuple[Literal["a", "b"], ...] = ("a",)
    """Some of two."""
    sides: tuple[int, int] = (1, 2)
    """Two numbers."""
    many: tuple[int, ...] = (1,)
    """Numbers."""
    download: bool = True
    """Whether."""
    listed: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Renamed."""
    head: Head = field(default_factory=Head)
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)

    def __post_init__(self):
        if self.shot < 1:
            raise UserError(f"`shot` must be at least 1, not {self.shot}.")


@dataclass
class Needy:
    """A command with options that must be given."""

    goal: str
    """Which."""
    times: int
    """How often."""


OPTIONS = {
    "shot": "--shot",
    "data_root": "--data-root",
    "maybe": "--maybe",
    "mode": "--mode",
    "kinds": "--kinds",
    "sides": "--sides",
    "many": "--many",
    "download": "--download",
    "listed": "--list",
    "head.epochs": "--head.epochs",
    "head.batch_size": "--head.batch-size",
    "recipe.momentum": "--momentum",
}


def refused(words, config=Config):
    """Return the sentence."""
    with pytest.raises(UserError) as caught:
        cli.parse(config, "thing", words)
    return str(caught.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--shoot", "2"], "unknown option --shoot (did you mean --shot?): see thing --help."),
        (["--shoot=2"], "unknown option --shoot (did you mean --shot?): see thing --help."),
        (["--data", "x"], "unknown option --data (did you mean --data-root?): see thing --help."),
        (["--batch-size", "2"], "unknown option --batch-size (did you mean --head.batch-size?): see thing --help."),
        (["--batch_size", "2"], "unknown option --batch_size (did you mean --head.batch-size?): see thing --help."),
        (["--no-downlod"], "unknown option --no-downlod (did you mean --no-download?): see thing --help."),
        (["--hlep"], "unknown option --hlep (did you mean --help?): see thing --help."),
        (["--qqq", "--shoot"], "unknown options --qqq, --shoot (did you mean --shot?): see thing --help."),
        (["--q\x1b[31m"], "unknown option '--q\\x1b[31m': see thing --help."),
        (["--shot", "x"], "--shot must be a whole number, not 'x': see thing --help."),
        (["--shot=x"], "--shot must be a whole number, not 'x': see thing --help."),
        (["--shot", "3", "--shot", "x"], "--shot must be a whole number, not 'x': see thing --help."),
        (["--many", "1", "x"], "--many must be whole numbers, not '1' 'x': see thing --help."),
        (["--sides", "1", "x"], "--sides must be whole numbers, not '1' 'x': see thing --help."),
        (["--maybe", "x"], "--maybe must be a number, not 'x': see thing --help."),
        (["--head.epochs", "1.5"], "--head.epochs must be a whole number, not '1.5': see thing --help."),
        (["--shot"], "--shot needs a value: see thing --help."),
        (["--shot", "--mode", "grid"], "--shot needs a value: see thing --help."),
        (["--sides", "1"], "--sides needs 2 values: see thing --help."),
        (["--mode", "x"], "--mode must be fcn, grid or sampling, not 'x': see thing --help."),
        (["--kinds", "a", "c"], "--kinds must be a or b, not 'c': see thing --help."),
        # What a dataclass has against its values: at the root, in a nested one, in one whose options stand at the root.
        (["--shot", "0"], "--shot must be at least 1, not 0."),
        (["--head.epochs", "0"], "--head.epochs must be at least 1, not 0."),
        (["--momentum", "7"], "--momentum must lie from 0 to 1, not 7.0."),
    ],
)
def test_mistakes_are_one_sentence(words, sentence):
    assert refused(words) == sentence


def test_what_must_be_given_and_what_nothing_takes():
    assert refused([], Needy) == "--goal, --times must be given: see thing --help."
    assert refused(["--goal", "x", "--times", "2", "y"], Needy) == "nothing takes the argument 'y': see thing --help."
    assert refused(["--goal", "a\0b"], Needy).startswith("the argument 'a\\x00b' holds a NUL byte")


def test_a_mistake_behind_another_error_is_still_its_own():
    """A command may parse while it handles an error whose sentence is not about this command line."""
    try:
        raise UserError("something else.")
    except UserError:
        assert refused(["--shot", "x"]) == "--shot must be a whole number, not 'x': see thing --help."


def test_nothing_is_drawn(capsys):
    refused(["--shoot", "2"])
    assert capsys.readouterr() == ("", "")


def test_every_kind_of_error_of_the_parser_is_known():
    """Where an upgrade of tyro adds a kind or renames one, this fails, and users read the sentence of the next test."""
    kinds = {kind.__name__ for kind in _errors.ParseErrorEvent.__subclasses__()}
    written = {"UnrecognizedArgs", "MissingArgs", "InvalidChoice", "BadValue", "InstantiationFailure"}
    needless = {"MissingMutexGroup", "MutexConflict", "MissingSubcommand", "SubcommandConflict"}  # no command has such
    assert kinds == written | needless


def test_without_tyros_hook_its_own_words_are_shown(monkeypatch, capsys):
    monkeypatch.delattr(_errors, "on_parse_error")
    assert refused(["--shoot", "2"]) == "the arguments cannot be read: see thing --help."
    assert "--shoot" in capsys.readouterr().err
    assert refused(["--head.epochs", "0"]) == "--head.epochs must be at least 1, not 0."
    assert refused(["--shot", "0"]) == "--shot must be at least 1, not 0."


def test_options_of_a_dataclass():
    assert wording.options_of(Config) == OPTIONS


def test_every_option_of_the_parser_is_known_and_no_other(capsys):
    with pytest.raises(SystemExit):
        cli.parse(Config, "thing", ["--help"])
    shown = set(re.findall(r"--[a-z][a-z.-]*", capsys.readouterr().out))
    assert {option for option in shown if not option.startswith("--no-")} == {*OPTIONS.values(), "--help"}


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("`shot` must be at least 1.", "--shot must be at least 1."),
        ("`data_root` and `listed` are given.", "--data-root and --list are given."),
        ("`batch_size` is too large; (`head.epochs`)", "--head.batch-size is too large; (--head.epochs)"),
        ("`momentum` alone.", "--momentum alone."),
        ("`images` hold nothing.", "images hold nothing."),
        ("give `base_mean`, or run `pip install otfew`.", "give base_mean, or run 'pip install otfew'."),
        ("--shot stays, and so does a`shot`b.npz.", "--shot stays, and so does a`shot`b.npz."),
        ("``shot`` is code.", "``shot`` is code."),
    ],
)
def test_names_of_arguments_become_options(said, read):
    assert wording.translate(said, OPTIONS) == read


def test_a_name_that_two_parts_have_is_no_option_of_either():
    options = {"one.epochs": "--one.epochs", "two.epochs": "--two.epochs"}
    assert wording.translate("`epochs`", options) == "epochs"
    assert wording.translate("`epochs`", options, "two") == "--two.epochs"
    assert wording.translate("`epochs`", {**options, "epochs": "--epochs"}) == "--epochs"


def test_a_sentence_of_the_library_names_the_options_of_the_command_that_runs(capsys):
    def work():
        cli.parse(Config, "thing", [])
        raise UserError("`data_root` is no\nfolder, and `alpha` is none of ours.")

    with pytest.raises(SystemExit) as ended:
        cli.run(work)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: --data-root is no folder, and alpha is none of ours.\n"
    ConsoleWatch(Console()).note("a lower `shot` is quicker than `alpha`, [red]")  # what is said in passing
    assert capsys.readouterr().out == "a lower --shot is quicker than alpha, [red]\n"


@pytest.mark.parametrize("module", ["otfew", "otfew.experiments"])
def test_otfew_runs_as_a_module(module):
    ran = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"otfew \d+\.\d+\S*\n", ran.stdout)


@pytest.mark.parametrize(
    ("word", "said"),
    [("compar", "(did you mean compare?)"), ("ablate", "(did you mean ablate-weights?)"), ("xyzzy", "'xyzzy': choose")],
)
def test_an_unknown_command(word, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["otfew", word])
    with pytest.raises(SystemExit) as ended:
        otfew_command()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_help_lists_the_commands(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["otfew"])
    otfew_command()
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)
    assert "--version" in out


@pytest.mark.parametrize("words", [["--device", "cuda"], ["--device=cuda"], ["--accelerator", "cuda"]])
def test_trainings_take_the_device_as_all_commands_do(words):
    assert cli.parse(pretrain.Config, "pretrain", words).settings.accelerator == "cuda"
    assert cli.parse(metatrain.Config, "metatrain", words).settings.accelerator == "cuda"
    assert cli.parse(LongTail, "long-tail", words).recipe.accelerator == "cuda"


def test_a_device_that_no_training_knows_is_refused():
    with pytest.raises(UserError, match="--accelerator must be auto, cpu, cuda, gpu or mps, not 'tpu'"):
        cli.parse(pretrain.Config, "pretrain", ["--device", "tpu"])


def test_a_problem_that_a_solver_cannot_end_is_one_line(capsys):
    """The library says what to do; a command has nothing to add but its exit code."""

    def work():
        raise ConvergenceError("opencv did not reach the optimum of 1 of 9 problems; take solver='exact'")

    with pytest.raises(SystemExit) as ended:
        cli.run(work)
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: opencv did not reach the optimum of 1 of 9 problems; take solver='exact'\n"
    )
