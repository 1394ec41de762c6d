"""Runs of the ledger as processes of their own: what they print, how they end, and who is told."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from otfew.experiments.common.cli import INTERRUPTED
from otfew.experiments.reproduce import process


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Let a script stand in for every command; returns where to write it."""
    path = tmp_path / "script.py"
    popen = subprocess.Popen
    monkeypatch.setattr(process.subprocess, "Popen", lambda _, **options: popen([sys.executable, str(path)], **options))
    return path


def test_a_command_is_a_process_of_its_own_with_all_its_words(capfd):
    assert process.run("compare", ["--help"]) == ""
    assert "usage: compare" in capfd.readouterr().out


def test_a_mistake_comes_back_as_its_sentence(capfd):
    said = process.run("compare", ["--episode", "3"])
    shown = capfd.readouterr().err
    assert said
    assert shown == f"error: {said}\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", ""),
        ("import sys; sys.stderr.write('a warning\\n')", ""),
        ("import sys; sys.stderr.write('a warning\\nerror: too few.\\n'); sys.exit(2)", "too few."),
        ("import sys; sys.stderr.write('odd\\n'); sys.exit(2)", "it ended with exit code 2 (odd)"),
        ("import sys; sys.exit(3)", "it ended with exit code 3"),
        ("raise RuntimeError('broken')", "it ended with exit code 1 (RuntimeError: broken)"),
        ("import sys; sys.stderr.write('error: no\\n'); sys.exit(1)", "it ended with exit code 1 (error: no)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "it was ended by the signal SIGKILL"),
        ("import sys; sys.stderr.buffer.write(b'\\xff\\n'); sys.exit(5)", "it ended with exit code 5 (\ufffd)"),
        ("import sys; sys.stderr.write('no end'); sys.exit(5)", "it ended with exit code 5 (no end)"),
    ],
)
def test_how_a_command_ended_is_said(script, source, reason):
    script.write_text(source)
    assert process.run("compare", []) == reason


def test_what_a_command_says_is_shown_as_it_comes(script, capfd):
    script.write_text("import sys; print('out'); sys.stderr.write('one\\n\\ntwo\\n')")
    assert process.run("compare", []) == ""
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("out\n", "one\n\ntwo\n")


def test_an_interrupted_command_interrupts_the_suite(script):
    script.write_text(f"raise SystemExit({INTERRUPTED})")
    with pytest.raises(KeyboardInterrupt):
        process.run("compare", [])


WAITS = """
import pathlib, signal, sys, time
mark = pathlib.Path(sys.argv[0]).with_name("mark")
def end(number, _):
    mark.write_text(str(number))
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
mark.write_text("ready")
time.sleep(60)
"""


def send(number, mark):
    """Send this process a signal once a command is ready for it."""

    def wait():
        while not mark.exists() or mark.read_text() != "ready":
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=wait, daemon=True).start()


def test_sigterm_is_passed_on_and_waited_for(script):
    """A training saves its state at SIGTERM; it must not go on alone either."""
    script.write_text(WAITS)
    mark = script.with_name("mark")
    before = signal.getsignal(signal.SIGTERM)
    send(signal.SIGTERM, mark)
    with pytest.raises(SystemExit) as ended:
        process.run("pretrain", [])
    assert ended.value.code == 128 + signal.SIGTERM
    assert mark.read_text() == str(int(signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interruption_of_this_process_alone_reaches_the_command(script, monkeypatch, request):
    # Shells start what they run in the background deaf to it.
    request.addfinalizer(functools.partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(process, "GRACE", 0.1)
    script.write_text(WAITS)
    mark = script.with_name("mark")
    send(signal.SIGINT, mark)
    with pytest.raises(KeyboardInterrupt):
        process.run("pretrain", [])
    assert mark.read_text() == str(int(signal.SIGINT))
