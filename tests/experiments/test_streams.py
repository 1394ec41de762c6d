"""What commands print: in any encoding, into full devices and closed pipes, and never at the cost of the work."""

import io
import os
import pty
import re
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otfew.experiments import compare
from otfew.experiments.common.cli import run
from otfew.reporting.streams import SPELLINGS, Stream, spelled

ENCODINGS = ("ascii", "cp932", "cp437", "cp1252", "utf-8")


@pytest.fixture
def command(surroundings, own_features, tmp_path):
    """Run a small comparison as a command, into a folder by its name."""

    def call(name, *more):
        words = [
            "--features",
            str(own_features),
            "--methods",
            "cosine-centroid",
            "protonet",
            "--way",
            "3",
            "--query",
            "2",
        ]
        words += ["--episodes", "8", "--output", str(tmp_path / name), *more]
        run(lambda: compare.main(words))

    return call


def stdout_to(monkeypatch, encoding, raw=None):
    inner = io.BytesIO() if raw is None else raw
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(inner, encoding=encoding, write_through=True))
    return inner


def full():
    return os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb", buffering=0)


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(st.characters(codec=None)))
def test_any_text_can_be_written(encoding, text):
    inner = io.BytesIO()
    stream = Stream(io.TextIOWrapper(inner, encoding=encoding))
    stream.write(text)
    stream.flush()
    assert stream.failure is None
    if encoding == "utf-8" and not any(0xD800 <= ord(c) < 0xE000 for c in text):
        assert inner.getvalue().decode().replace(os.linesep, "\n") == text.replace(os.linesep, "\n")


def test_spellings_are_ascii(monkeypatch):
    assert all(text.isascii() and text for text in SPELLINGS.values())
    stdout_to(monkeypatch, "cp437")
    assert spelled("1 ± 2 – é 鳥") == "1 ± 2 - é \\u9ce5"  # cp437 has ± and é, no dash
    stdout_to(monkeypatch, "utf-8")
    assert spelled("1 ± 2 – é 鳥") == "1 ± 2 – é 鳥"


@pytest.mark.parametrize("encoding", ["ascii", "cp932"])
def test_a_table_in_any_encoding_and_files_in_utf8(command, monkeypatch, tmp_path, encoding):
    screen = stdout_to(monkeypatch, encoding)
    command("there")
    text = screen.getvalue().decode(encoding)
    assert ("+/-" in text) == (encoding == "ascii")
    lines = text.splitlines()
    table = lines[: next(i for i, line in enumerate(lines) if line.startswith("- data"))]
    assert len({len(line.rstrip()) for line in table if line.startswith("|")}) <= 1  # columns are in line
    stdout_to(monkeypatch, "utf-8")
    command("here")
    for name in ("results.json", "classes.csv", "episodes.csv"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    assert "±" in (tmp_path / "there" / "report.md").read_bytes().decode("utf-8")


def test_progress_is_shown_on_a_terminal_without_unicode(command, monkeypatch, tmp_path):
    monkeypatch.setenv("TERM", "xterm")
    main, side = pty.openpty()
    seen = []

    def drain():
        while True:
            try:
                piece = os.read(main, 1 << 16)
            except OSError:  # Linux's way to say that the other side is closed
                return
            if not piece:
                return
            seen.append(piece)

    reader = threading.Thread(target=drain)
    reader.start()
    stdout_to(monkeypatch, "ascii", os.fdopen(side, "wb", buffering=0))
    command("run")
    sys.stdout.close()
    reader.join()
    os.close(main)
    text = b"".join(seen).decode("ascii")
    assert "episodes: protonet" in text
    assert "+/-" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert (tmp_path / "run" / "results.json").is_file()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_stdout_costs_the_exit_code_alone(command, monkeypatch, tmp_path, capsys):
    stdout_to(monkeypatch, "utf-8", full())
    with pytest.raises(SystemExit) as ended:
        command("run")
    assert ended.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "run" / "report.md").is_file()
    stdout_to(monkeypatch, "utf-8", full())
    with pytest.raises(SystemExit) as ended:
        command("other", "--way", "999")  # a mistake of the user's goes first
    assert ended.value.code == 2


def test_a_reader_that_left_stops_nothing(command, monkeypatch, tmp_path, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    stdout_to(monkeypatch, "utf-8", os.fdopen(writer, "wb", buffering=0))
    command("run")
    assert (tmp_path / "run" / "report.md").is_file()
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("redirect", "code"), [(">&-", 0), ("| head -0", 0)])
def test_the_list_of_commands(redirect, code):
    line = f"set -o pipefail; {sys.executable} -m otfew.experiments --help {redirect}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)


def test_help_of_a_command_into_a_full_device(monkeypatch, capsys):
    stdout_to(monkeypatch, "utf-8", full())
    with pytest.raises(SystemExit) as ended:
        run(lambda: compare.main(["--help"]))
    assert ended.value.code == 1
    assert "stdout" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--output", "a\0b"], "NUL byte"),
        (["--output", "x" * 5000], "too long"),
        (["--features", "x" * 5000], "x"),
        (["--backbone", "x" * 5000], "x"),
        (["--dataset", "image-folder", "--data-root", "/" + "x/" * 5000], "x"),
        (["--device", "meta"], "meta"),
        (["--device", "cpu:x"], "cpu:x"),
    ],
)
def test_arguments_that_no_file_or_device_has(surroundings, own_features, capsys, words, said):
    given_features = ["--features", str(own_features)] if words[0] in {"--output", "--device"} else []
    with pytest.raises(SystemExit) as ended:
        run(lambda: compare.main([*given_features, "--episodes", "2", "--way", "3", "--query", "2", *words]))
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
