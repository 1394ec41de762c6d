import io
import sys

import pytest

from otfew.data import DataOptions, consent, load
from otfew.data.download import Archive, install
from otfew.errors import UserError
from otfew.runs import processes

BIG = 150_000_000


def ask(missing=BIG, download=None, into="there"):
    consent.ask("a.zip", "https://x/a.zip", missing, into, download=download, instead="put it there")


@pytest.fixture
def terminal(monkeypatch):
    """(answer) -> a terminal at which that is typed; returns what is written to it."""

    def make(answer):
        typed, shown = io.StringIO(answer), io.StringIO()
        typed.isatty = shown.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", typed)
        monkeypatch.setattr(sys, "stderr", shown)
        return shown

    return make


def test_small_things_need_no_word(terminal):
    shown = terminal("n\n")
    ask(consent.LARGE)
    assert shown.getvalue() == ""
    assert consent.LARGE == 100_000_000


@pytest.mark.parametrize(
    ("answer", "yes"), [("y\n", True), (" YES \n", True), ("\n", False), ("no\n", False), ("", False)]
)
def test_somebody_at_a_terminal_is_asked(terminal, answer, yes):
    shown = terminal(answer)
    if yes:
        ask()
    else:
        with pytest.raises(UserError, match=r"a\.zip was not fetched, as you chose: put it there\."):
            ask()
    assert shown.getvalue() == "fetch a.zip, 150 MB, from https://x/a.zip into there? [y/N] "


def test_agreement_needs_no_question(terminal):
    shown = terminal("n\n")
    ask(download=True)
    assert shown.getvalue() == ""
    with pytest.raises(UserError, match=r"is missing, 150 MB at https://x/a\.zip: give `download` to have it fetched"):
        ask(download=False)
    with pytest.raises(UserError, match="is missing"):
        ask(missing=10, download=False)
    assert shown.getvalue() == ""


def test_without_a_terminal_nobody_waits_for_an_answer(terminal, monkeypatch):
    shown = terminal("y\n")
    sys.stdin.isatty = lambda: False
    with pytest.raises(UserError, match="give `download`"):
        ask()
    sys.stdin.isatty = lambda: True
    monkeypatch.setattr(processes, "world", lambda: processes.World(0, 2, 0, 2))
    with pytest.raises(UserError, match="give `download`"):
        ask()
    assert shown.getvalue() == ""


def test_sizes_in_words():
    sizes = {1_150_585_339: "1.15 GB", 170_498_071: "170 MB", 999: "999 bytes", 2_500: "2.5 kB"}
    assert {size: consent.in_words(size) for size in sizes} == sizes


@pytest.mark.parametrize("name", ["cub", "cifar-fs", "fc100", "cifar10"])
def test_large_sets_are_not_fetched_unasked(tmp_path, monkeypatch, name):
    monkeypatch.setattr("requests.get", None)
    for download in (None, False):
        with pytest.raises(UserError, match="put the publisher's folder at"):
            load(name, "test", tmp_path, DataOptions(download=download))
    assert not list(tmp_path.iterdir())


def test_what_is_there_already_counts(tmp_path, monkeypatch):
    """An interrupted download goes on by itself where little is missing."""
    archive = Archive("https://x/a.zip", "0" * 64, "a", size=BIG)
    (tmp_path / "a.zip.part").write_bytes(bytes(10))
    with pytest.raises(UserError, match="150 MB at"):
        install(archive, tmp_path, instead="put it there")
    monkeypatch.setattr(consent, "LARGE", BIG - 10)
    monkeypatch.setattr("requests.get", lambda *_, **__: (_ for _ in ()).throw(SystemExit("asked the server")))
    with pytest.raises(SystemExit, match="asked the server"):
        install(archive, tmp_path, instead="put it there")
