"""The check of a card where there is none: its parts on tiny problems, its record and page, and what goes wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from otfew.errors import UserError
from otfew.experiments.common.cli import parse, run
from otfew.experiments.device_check import bars, command, exact, page, parts, record, report, suite, worker
from otfew.experiments.device_check import run as checking
from otfew.experiments.device_check.bench import CARD, Bench
from otfew.experiments.device_check.command import main
from otfew.experiments.device_check.config import Config
from otfew.transport.cuda import machines

ROOT = Path(__file__).parents[2]
MARK = ".".join(["mark", "cuda"])
"""In one piece, this file would be one of those that are run on a card."""
MEASURED = ["exact", "methods", "metatrain", "sinkhorn", "points", "images"]


def code_of(*words):
    """Run the command; returns its exit code."""
    try:
        run(lambda: main([str(word) for word in words]))
    except SystemExit as ended:
        return ended.code
    return 0


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The record of a trial of all parts that measure."""
    folder = tmp_path_factory.mktemp("toy")
    assert code_of("--toy", "--device", "cpu", "--parts", *MEASURED, "--output", folder) == 0
    (path,) = folder.iterdir()
    return path, json.loads(path.read_bytes())


def test_every_part_runs_and_its_figures_are_in_the_record(toy):
    path, found = toy
    assert path.name.startswith("device-toy-")
    assert found["toy"]
    assert set(found["parts"]) == set(MEASURED)
    for part in found["parts"].values():
        assert part["state"] == "done", part
        assert part["rows"]
        for row in part["rows"]:
            assert "skipped" not in row or row["what"] == "kernel", row
            assert {"what", "size", "count", "by"} <= row.keys()
            assert "skipped" in row or "ratio" in row or 0 < row["least_ms"] <= row["ms"], row
    names = {row["what"] for row in found["parts"]["methods"]["rows"]}
    assert names == {"deepemd, 1-shot", "lst, 1-shot", "tim, 1-shot"}
    assert found["versions"]["torch"] == torch.__version__
    assert found["card"]["kind"] == "cpu"


def test_tiny_sizes_meet_no_bar(toy):
    assert {row["verdict"] for row in toy[1]["bars"]} == {"not measured"}


def test_tiny_figures_stand_on_no_page(toy):
    assert page.figures([toy[1]]).strip() == page.NOTHING


def test_entropic_values_agree_with_those_of_others(toy):
    rows = [row for row in toy[1]["parts"]["sinkhorn"]["rows"] if "value_error" in row]
    assert {row["by"] for row in rows} >= {CARD}
    for row in rows:
        assert row["value_error"] < (1e-2 if row["by"] == "geomloss" else 1e-5), row


def test_without_a_card_it_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert code_of() == 2
    said = capsys.readouterr().err
    assert said == (
        "error: there is no GPU that torch can use here: start on a machine with one, or see with --toy that all "
        "works.\n"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--parts", "kernels"], "--parts must be among tests, exact, methods, metatrain, sinkhorn, points, images"),
        (["--minutes", "0"], "--minutes must be positive, not 0.0."),
        (["--minutes", "nan"], "--minutes must be positive, not nan."),
        (["--toy", "--device", "cuda:99"], "--device 'cuda:99' cannot be used"),
    ],
)
def test_mistakes_are_one_sentence(words, sentence, capsys, tmp_path):
    assert code_of(*words, "--output", tmp_path) == 2
    assert capsys.readouterr().err.startswith(f"error: {sentence}")
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_no_card_is_refused(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert code_of("--device", "cpu", "--output", tmp_path) == 2
    assert capsys.readouterr().err == "error: --device cpu is no GPU: give cuda, or --toy with it.\n"


class Broken:
    """A part that yields a row, then fails."""

    @staticmethod
    def measure(_name, _bench):
        yield {"what": "whole call", "size": "1x1", "count": 1, "by": CARD, "ms": 1.0}
        raise RuntimeError("the card is on fire")


def test_a_part_that_breaks_down_ends_no_other_and_is_told(monkeypatch, tmp_path):
    good = parts.measure
    monkeypatch.setattr(
        checking, "measure", lambda name, bench: (Broken.measure if name == "exact" else good)(name, bench)
    )
    words = ("--toy", "--device", "cpu", "--parts", "exact", "points", "--output", tmp_path)
    assert code_of(*words) == command.WRONG
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_bytes())["parts"]
    assert found["exact"]["state"] == "broke down: RuntimeError: the card is on fire"
    assert len(found["exact"]["rows"]) == 1
    assert found["points"]["state"] == "done"


def test_an_answer_without_certificate_is_told(monkeypatch, tmp_path):
    row = {"what": "whole call", "size": "1x1", "count": 1, "by": CARD, "ms": 1.0, "certified": False}
    monkeypatch.setattr(checking, "measure", lambda name, bench: iter([row]))
    assert code_of("--toy", "--device", "cpu", "--parts", "exact", "--output", tmp_path) == command.WRONG


def test_every_row_is_on_disk_before_the_next_is_measured(monkeypatch, tmp_path):
    seen = []

    def measure(_name, _bench):
        for count in range(3):
            yield {"what": "whole call", "size": "1x1", "count": count, "by": CARD, "ms": 1.0}
            (path,) = tmp_path.glob("device-*.json")
            seen.append([row["count"] for row in json.loads(path.read_bytes())["parts"]["exact"]["rows"]])

    monkeypatch.setattr(checking, "measure", measure)
    assert code_of("--toy", "--device", "cpu", "--parts", "exact", "--output", tmp_path) == 0
    assert seen == [[0], [0, 1], [0, 1, 2]]


def test_what_there_is_no_time_for_is_left_out_and_said(tmp_path, monkeypatch):
    clock = iter([0.0, *[1e9] * 50])
    monkeypatch.setattr(checking.time, "monotonic", lambda: next(clock))
    assert code_of("--toy", "--device", "cpu", "--parts", "exact", "images", "--output", tmp_path) == 0
    (path,) = tmp_path.iterdir()
    for part in json.loads(path.read_bytes())["parts"].values():
        assert part["state"] == "left out: there was no time left for it"
        assert part["rows"] == []


def test_time_goes_to_the_most_valuable_first_and_each_later_part_keeps_what_it_needs():
    everything = list(parts.PARTS)
    left, shares = 240.0 - checking.RESERVE, {}
    for place, part in enumerate(everything):
        shares[part.name] = parts.seconds(part, everything[place + 1 :], left, 4.0)
        left -= shares[part.name]
    assert all(share >= part.least for share, part in zip(shares.values(), everything, strict=True))
    assert shares["tests"] == 130
    assert left >= 0
    assert parts.seconds(everything[1], everything[2:], 10.0, 4.0) == 0
    # A part that ends early leaves the rest to the others, up to what they are for.
    assert parts.seconds(everything[-1], [], 200.0, 4.0) == everything[-1].most


@pytest.mark.slow
def test_a_part_is_a_process_of_its_own():
    rows = list(worker.rows_of("exact", "cpu", 120.0, True))
    assert {row["what"] for row in rows} == {"whole call", "whole call with gradients", "kernel"}


def test_a_process_that_fails_or_takes_too_long_says_so():
    with pytest.raises(worker.BrokenError, match=r"broke down with exit code 1: (.|\n)*No module named"):
        list(worker.rows_of("nonsense", "cpu", 60.0, True))
    with pytest.raises(worker.BrokenError, match=r"cut off: its 0 s were over"):
        list(worker.rows_of("exact", "cpu", 0.0, True))


def test_rows_until_the_end_of_the_time_are_kept(monkeypatch):
    """The process is ended in the middle of its second row."""
    code = "import time; print('{\"count\": 1}', flush=True); time.sleep(60)"
    start = subprocess.Popen
    monkeypatch.setattr(
        worker.subprocess, "Popen", lambda words, **options: start([sys.executable, "-c", code], **options)
    )
    monkeypatch.setattr(worker, "GRACE", 0.5)
    rows = []
    began = time.monotonic()
    with pytest.raises(worker.BrokenError, match="cut off"):
        rows.extend([row] for row in worker.rows_of("exact", "cpu", 1.5, True))
    assert time.monotonic() - began < 30


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with a folder of tests."""
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "conftest.py").write_text("")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\nmarkers = ["cuda: x"]\naddopts = "--nonsense"\n'
    )
    monkeypatch.chdir(tmp_path)
    # Plug-ins of pytest, of which none is needed, are most of what a process of it takes.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def write(name, text):
        path = folder / f"test_{name}.py"
        path.write_text(f"import os, sys, time, types, pytest\npytestmark = pytest.{MARK}\n{text}")
        return path

    return write


def test_every_test_that_speaks_of_the_marker_is_run(checkout):
    checkout("one", "def test_good(): pass\ndef test_bad(): assert 1 == 2\ndef test_none(): pytest.skip('no card')\n")
    checkout("two", "@pytest.mark.parametrize('x', range(3))\ndef test_good(x): pass\n")
    Path("tests/test_other.py").write_text("this is no Python")
    found = suite.run(120.0)
    assert (found["count"], found["passed"], found["failed"], found["skipped"]) == (6, 4, 1, 1)
    assert found["not_reached"] == 0
    ((name, text),) = found["failures"].items()
    assert name.endswith("test_one.py::test_bad")
    assert "assert 1 == 2" in text
    assert found["skips"] == {"Skipped: no card": 1}
    assert found["errors"] == found["under_way"] == found["not_begun"] == []
    said = report.failures([found])
    assert said[0] == "tests: 4 passed, 1 failed, 1 skipped, 0 not reached, of 6"
    assert said[1].startswith(f"FAILED {name}\n")


def test_a_file_that_cannot_be_imported_is_told(checkout):
    checkout("one", "def test_good(): pass\n")
    checkout("two", "import a_library_that_is_not_there\n")
    found = suite.run(120.0)
    assert found["passed"] == 1
    assert "a_library_that_is_not_there" in found["errors"][0]


def test_a_test_that_takes_its_process_along_fails_and_the_others_are_run(checkout):
    checkout("one", "def test_a(): pass\ndef test_dies(): os.kill(os.getpid(), 9)\ndef test_b(): pass\n")
    found = suite.run(120.0)
    assert (found["count"], found["passed"], found["failed"]) == (3, 2, 1)
    ((name, text),) = found["failures"].items()
    assert name.endswith("test_dies")
    assert text == "its process was ended by the signal 9"


LOST = """
fake = types.ModuleType("torch")
fake.lost = False
def synchronize():
    if fake.lost:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
fake.cuda = types.SimpleNamespace(is_initialized=lambda: True, synchronize=synchronize)
sys.modules["torch"] = fake
def test_a(): pass
def test_breaks_the_card():
    fake.lost = True
    assert False, "CUDA error"
def test_b(): assert not fake.lost
"""


def test_a_card_that_is_lost_is_taken_again_by_another_process(checkout):
    checkout("one", LOST)
    found = suite.run(120.0)
    assert (found["count"], found["passed"], found["failed"]) == (3, 2, 1)
    assert next(iter(found["failures"])).endswith("test_breaks_the_card")


@pytest.mark.slow
def test_what_ran_before_the_time_was_over_is_kept(checkout):
    checkout("one", "def test_a(): pass\ndef test_hangs(): time.sleep(100)\ndef test_b(): pass\n")
    found = suite.run(6.0)
    assert (found["count"], found["passed"], found["failed"], found["not_reached"]) == (3, 1, 0, 2)
    (name,) = found["under_way"]
    assert name.endswith("test_hangs")


@pytest.mark.slow
def test_what_a_test_has_started_ends_with_it(checkout, tmp_path):
    """Else a tool that is still at work would share the card with the parts that measure."""
    told = tmp_path / "pid"
    child = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    checkout("one", f"import subprocess\ndef test_starts(): subprocess.run([sys.executable, '-c', {child!r}])\n")
    suite.run(15.0)
    pid = int(told.read_text())
    for _ in range(50):
        status = Path(f"/proc/{pid}/status")
        if not status.is_file() or "State:\tZ" in status.read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail("it goes on")


def test_no_test_at_all_is_said(checkout):
    checkout("one", "").write_text(f"# {MARK}\ndef test_unmarked(): pass\n")
    with pytest.raises(UserError, match=r"pytest found no test marked cuda: .*deselected"):
        suite.run(60.0)


def test_without_the_tests_the_rest_is_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--toy", "--device", "cpu", "--parts", "tests", "points", "--output", tmp_path)
    assert code_of(*words) == 0
    (path,) = tmp_path.iterdir()
    states = {name: part["state"] for name, part in json.loads(path.read_bytes())["parts"].items()}
    assert states == {"tests": "left out: there is no folder tests here: start in a checkout", "points": "done"}


def made(**changed):
    """The record of a card that met some bars."""

    def row(what, size, count, **figures):
        return {"what": what, "size": size, "count": count, "by": CARD, **figures}

    rows = {
        "exact": [
            row("whole call", "25x25", 375, ms=0.2, least_ms=0.19, repeats=30, per_second=1.9e6),
            row("kernel", "25x25", 100_000, ms=9.5, least_ms=9.0, repeats=30, per_second=1.1e7),
            {**row("whole call", "25x25", 375, ms=1.5, least_ms=1.4, repeats=3), "by": "CPU, 1 thread"},
        ],
        "methods": [
            row("deepemd, 1-shot", "25x640", 64, ms=16.0, least_ms=15.0, repeats=30, per_second=4000.0, right=0.8),
            row("lst, 1-shot", "1x640", 2000, ms=500.0, least_ms=500.0, repeats=5, per_second=4000.0, seconds=2.5,
                episodes=10_000),
        ],
    }  # fmt: skip
    found = {
        "command": "device-check",
        "format": record.FORMAT,
        "line": "python -m experiments.device_check",
        "toy": False,
        "card": {"name": "ACME X1", "kind": "cuda", "capability": "9.0", "memory_gib": 80.0},
        "host": {"processor": "ACME P", "cores": 16, "system": "Linux"},
        "versions": {"python": "3.12.1", "torch": "2.11.0"},
        "started": "2026-01-02T03:04:05+00:00",
        "parts": {name: {"state": "done", "seconds": 3.0, "rows": each} for name, each in rows.items()},
    }
    return {**found, "bars": bars.judged(found["parts"]), **changed}


def test_bars_are_met_and_missed():
    verdicts = {row["bar"].split(",")[0] + row["bar"][-11:]: row["verdict"] for row in made()["bars"]}
    assert list(verdicts.values()) == ["missed", "met", "met", "met", "not measured"]


def test_the_bars_are_about_rows_that_the_parts_yield():
    """A row that is called otherwise would leave its bar unmeasured for good."""
    sizes = {f"{n}x{n}" for n in exact.NODES}
    for bar in bars.BARS:
        if bar.part == "exact":
            assert bar.row["size"] in sizes
            assert bar.row["count"] in exact.COUNTS
            assert bar.row["what"] in {"kernel", "whole call"}
        if bar.part == "methods":
            from otfew.experiments.device_check.methods import CASES

            assert (bar.row["what"], bar.row["size"]) in {
                (f"{case.method}, {case.shot}-shot", f"{case.nodes}x{case.channels}") for case in CASES
            }
        if bar.part == "metatrain":
            from otfew.experiments.device_check.metatrain import SETTING

            assert bar.row["size"] == f"{SETTING.architecture}, {SETTING.side} px"


@pytest.fixture
def docs(tmp_path):
    """A folder of docs with an empty page."""
    (tmp_path / "results").mkdir()
    (tmp_path / "gpu.md").write_text(f"before\n\n{page.BEGIN}\n{page.END}\n\nafter\n")
    return tmp_path


def test_the_page_is_written_from_the_records(docs):
    assert code_of("--page", "--docs", docs) == 0
    assert page.NOTHING in (docs / "gpu.md").read_text()
    (docs / "results" / "device-acme-x1.json").write_text(json.dumps(made()))
    assert code_of("--page", "--docs", docs) == 0
    text = (docs / "gpu.md").read_text()
    assert page.NOTHING not in text
    assert text.startswith("before\n\n")
    assert text.endswith("\n\nafter\n")
    assert "### ACME X1" in text
    assert "| 25x25 | 100,000 | - | 9.5 | - |" in text
    assert "`python -m experiments.device_check`, 2026-01-02." in text
    assert "10,000 episodes in 2.5 s" in text
    again = text
    assert code_of("--page", "--docs", docs) == 0
    assert (docs / "gpu.md").read_text() == again


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda docs: (docs / "gpu.md").unlink(), "gpu.md is not there"),
        (lambda docs: (docs / "gpu.md").write_text("nothing"), "lacks its marks"),
        (lambda docs: (docs / "results" / "device-x.json").write_text("{"), "cannot be read"),
        (lambda docs: (docs / "results" / "device-x.json").write_text("{}"), "is no record of device-check"),
    ],
)
def test_a_page_that_cannot_be_written_is_one_sentence(docs, spoil, sentence, capsys):
    spoil(docs)
    assert code_of("--page", "--docs", docs) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_the_figures_of_the_docs_are_those_of_the_records():
    """Written by ``python -m experiments.device_check --page``; no figure where no card has been measured."""
    text = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    records = [record.load(path) for path in sorted((ROOT / "docs" / "results").glob("device-*.json"))]
    written = text.partition(page.BEGIN)[2].partition(page.END)[0]
    assert written.strip() == page.figures(records).strip()


def test_commands_on_the_pages_can_be_typed():
    found = []
    for name in ("docs/gpu.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        found += re.findall(r"(?:-m experiments\.device_check|make device-check ARGS=\")([^`#\n\"]*)", text)
    assert len(found) >= 4
    for words in found:
        parse(Config, "device-check", words.split())


def test_the_line_can_be_typed_again():
    assert record.typed(Config()) == "python -m experiments.device_check"
    config = Config(minutes=2.5, parts=("exact", "points"), device="cuda:1", output=Path("/somewhere"))
    line = "python -m experiments.device_check --minutes 2.5 --parts exact points --device cuda:1"
    assert record.typed(config) == line


def test_names_of_cards_become_names_of_files():
    assert record.slug("NVIDIA GeForce RTX 4090") == "nvidia-geforce-rtx-4090"
    assert record.slug("../../etc") == "etc"
    assert record.slug("卡") == "unnamed"


class Event:
    """An event of a stream whose clock counts calls."""

    now = 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        Event.now += 1.0
        self.at = Event.now

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return 1e3 * (other.at - self.at)


class Launcher:
    """A machine that does nothing."""

    def __init__(self):
        self.launched = []

    def address(self, tensor):
        return tensor.data_ptr()

    def launch(self, kernel, problems, arguments):
        Event.now += 5.0
        self.launched.append((kernel, problems, arguments))


def test_the_stopwatch_times_launches_alone_and_takes_itself_away(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    device, inner = torch.device("xpu", 0), Launcher()
    machines.register("xpu", lambda _: inner)
    try:
        with exact.stopwatch(device) as watch:
            machine = machines.machine_for(device)
            assert machine is watch
            Event.now += 100
            machine.launch("kernel", 3, "arguments")
            Event.now += 100
            machine.launch("kernel", 4, "arguments")
            assert watch.seconds() == pytest.approx(12.0)
            assert watch.seconds() == 0.0
        assert machines.machine_for(device) is inner
        assert [problems for _, problems, _ in inner.launched] == [3, 4]
    finally:
        machines.register("xpu", None)


def test_kernels_are_timed_through_the_stopwatch(monkeypatch, pretended):
    """Rows of kernels appear where kernels run: here on the pretended device, by a clock of its own."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    with pretended() as machine:
        if machines.machine_for(machine.device) is None:
            pytest.skip("there is no C++ compiler: kernels cannot run on the CPU")
        bench = Bench(machine.device, True, time.monotonic() + 100)
        rows = list(exact._card(bench, exact.Batch(*machine.away(tuple(vars(exact._problems(5, 4)).values())))))
    found = {row["what"]: row for row in rows}
    assert found["kernel"]["ms"] == found["kernel"]["least_ms"] == 1e3
    assert found["kernels with gradients"]["ms"] == 2e3
    assert found["whole call"]["certified"]


def test_the_makefile_names_the_command_and_its_folder():
    make = {**os.environ, "OUT": "", "ARGS": ""}
    shown = subprocess.run(
        ["make", "-n", "device-check", "DEVICE_PYTHON=python9", "OUT=there", "ARGS=--minutes 2"],
        cwd=ROOT, env=make, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert 'python="python9"' in shown
    assert '-m otfew.experiments.device_check --output "there" --minutes 2' in shown
