"""Several processes: the same bytes, one report, one line for a mistake, and no one left waiting."""

import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from otfew import catalogue
from otfew.errors import UserError
from otfew.experiments import compare
from otfew.experiments.common import setup
from otfew.experiments.does_ot_matter import command as does_ot_matter
from otfew.runs import processes

ROOT = Path(__file__).parents[2]
SECONDS = 600
FAST = ("--methods", "protonet", "cosine-centroid", "deepemd", "--episodes", "230")


@pytest.fixture
def environment(tmp_path):
    """Of a child: its own cache, one thread for libraries, and no traces of a launcher."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TORCHELASTIC", "RANK", "WORLD", "LOCAL_"))}
    return {**kept, "OTFEW_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def torchrun(environment):
    """Return a function that runs a module on two processes as its users do."""

    def launch(module, *arguments):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", module]
        command += map(str, arguments)
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
        )

    return launch


@pytest.fixture
def meet(environment):
    """Return a function that starts one process for each given environment and gives (code, stdout, stderr) of each."""

    def launch(command, *each):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        children = []
        for rank, own in enumerate(each):
            place = {"RANK": str(rank), "WORLD_SIZE": str(len(each)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            folder = own.pop("cwd", ROOT)
            children.append(
                subprocess.Popen(
                    [sys.executable, *map(str, command)],
                    cwd=folder,
                    env={**environment, **place, **own},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        try:
            said = [child.communicate(timeout=SECONDS) for child in children]
        finally:
            for child in children:
                child.kill()
        return [(child.returncode, *texts) for child, texts in zip(children, said, strict=True)]

    return launch


def same_report(one, other):
    names = {"results.json", "episodes.csv", "protocol.json"}
    for name in names | {file.name for file in one.iterdir() if file.name in {"answers.npz", "table.csv", "table.tex"}}:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def run_by(folder, panel=None):
    times = json.loads((folder / "timings.json").read_text())
    setups = (times[panel] if panel else times)["episodes_run_by"]
    return {(s["processes"], s["threads"]): s["episodes"] for s in setups}


def drop(folder, *blocks):
    """Leave a folder as a kill would: some blocks, no report."""
    (folder / "results.json").unlink()
    for index in blocks:
        next(folder.rglob(f"{index:06d}.npz")).unlink()


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(torchrun, own_features, surroundings, tmp_path):
    arguments = ["--features", own_features, *FAST, "--output"]
    compare.main([str(a) for a in (*arguments, tmp_path / "one")])
    done = torchrun("experiments.compare", *arguments, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    same_report(tmp_path / "one", tmp_path / "two")
    assert done.stdout.count("accuracy on features") == 1
    assert done.stdout.count("report: ") == 1
    times = json.loads((tmp_path / "two" / "timings.json").read_text())
    share = max(1, processes.cores() // 2)
    assert (times["processes"], times["threads"]) == (2, share)
    assert run_by(tmp_path / "two") == {(2, share): 230}
    assert "times are those of one process" in (tmp_path / "two" / "report.md").read_text()
    # What two have begun, one goes on with.
    drop(tmp_path / "two", 1, 4)
    compare.main([str(a) for a in (*arguments, tmp_path / "two")])
    same_report(tmp_path / "one", tmp_path / "two")
    assert run_by(tmp_path / "two") == {(1, torch.get_num_threads()): 80, (2, share): 150}


@pytest.mark.slow
def test_two_processes_go_on_with_what_one_has_begun(torchrun, own_features, surroundings, tmp_path):
    arguments = ["--features", own_features, "--episodes", 150, "--regs", 1, "--entropy-episodes", 1, "--output"]
    does_ot_matter.main([str(a) for a in (*arguments, tmp_path / "one")])
    shutil.copytree(tmp_path / "one", tmp_path / "cut")
    drop(tmp_path / "cut", 0, 2)
    kept = next((tmp_path / "cut").rglob("000001.npz"))
    before = kept.read_bytes()
    done = torchrun("otfew.experiments", "does-ot-matter", *arguments, tmp_path / "cut")
    assert done.returncode == 0, done.stderr
    same_report(tmp_path / "one", tmp_path / "cut")
    assert kept.read_bytes() == before
    assert sorted(run_by(tmp_path / "cut", "all").values()) == [50, 100]


@pytest.mark.slow
def test_a_mistake_of_all_processes_is_one_line(torchrun):
    done = torchrun("otfew.experiments", "compare", "--shot", 0)
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert lines == ["error: --shot must be at least 1, not 0."]
    # What follows is torchrun's own account; it names our exit code and ends with 1 itself.
    assert done.returncode == 1
    first = done.stderr.partition("Root Cause")[2]
    assert "exitcode  : 2 " in first
    assert "Traceback" not in done.stderr.partition("error: ")[0]


FACTORY = """
import torch
from otfew import backbones
def quarters():
    card = backbones.Card("quarters", "quarters", resolution=16, training_data="toys", training_classes=("toy",))
    return backbones.Backbone(torch.nn.AdaptiveAvgPool2d(2), card, "quarters")
"""


@pytest.mark.slow
def test_machines_need_not_share_a_disk(meet, toy_pictures, surroundings, tmp_path, monkeypatch):
    (tmp_path / "quartered.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = ["--dataset", "image-folder", "--data-root", toy_pictures, "--backbone", "quartered:quarters"]
    arguments += ["--query", 5, "--episodes", 120, "--methods", "protonet", "simpleshot"]
    compare.main([str(a) for a in (*arguments, "--output", tmp_path / "one")])
    machines = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        machines.append({"cwd": tmp_path / name, "OTFEW_CACHE": str(tmp_path / name / "cache"), "PYTHONPATH": path})
    command = ["-m", "otfew.experiments", "compare", *arguments, "--output", "run"]
    (code, said, complaint), (other_code, nothing, other_complaint) = meet(command, *machines)
    assert (code, other_code) == (0, 0), complaint + other_complaint
    same_report(tmp_path / "one", tmp_path / "first" / "run")
    assert "report: run" in said
    assert nothing == ""
    assert [entry.name for entry in (tmp_path / "second").iterdir()] == ["cache"]
    features = [
        sorted(f.name for f in (tmp_path / name / "cache").rglob("*.safetensors")) for name in ("first", "second")
    ]
    assert features[0] == features[1] != []


SCRIPT = """
import os, signal, sys, time
import numpy as np, torch
from pathlib import Path
from otfew.runs import processes
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.evaluation.run import Ready, evaluate
from otfew.experiments.common.cli import run
from otfew.features.extract import FeatureSet
from otfew.method import MethodBase
from otfew.runs.directory import RunDirectory

class Nearest(MethodBase):
    calls = 0
    def __call__(self, support, query, **_):
        self.calls += 1
        if os.environ.get("DIES") and self.calls == 3:  # after the warm-up and its first block
            os.kill(os.getpid(), signal.SIGKILL)
        return -torch.cdist(query.mean(2), support.mean((2, 3)))

def main():
    found = Path(os.environ["FOLDER"]) / "found"
    torch.set_num_threads(1)
    with processes.leaders_first():
        if processes.world().local_rank == 0:
            time.sleep(1)
            found.write_text(str(torch.get_num_threads()))
        assert found.read_text() == "2"
    assert torch.get_num_threads() == 1
    labels = np.repeat(np.arange(6), 8)
    rows = np.random.default_rng(0).normal(size=(48, 2, 3)).astype(np.float32)
    features = FeatureSet(torch.from_numpy(rows), labels, tuple("abcdef"))
    sampler = Sampler(Protocol("toy", "", "test", way=3, query=2), labels, tuple("abcdef"))
    directory = RunDirectory(Path(os.environ["FOLDER"]) / "run", {"seed": int(os.environ.get("SEED", 1))})
    evaluate([Ready("nearest", Nearest(), features)], sampler, 300, directory=directory)

run(main)
"""


@pytest.fixture
def pair(meet, tmp_path):
    """Return a function that runs the script as two processes of one machine, the second with more environment."""
    (tmp_path / "script.py").write_text(SCRIPT)

    def launch(**more):
        own = [{"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2", "FOLDER": str(tmp_path)} for rank in (0, 1)]
        return meet([tmp_path / "script.py"], own[0], {**own[1], **more})

    return launch


@pytest.mark.slow
def test_no_one_waits_for_a_process_that_was_killed(pair, tmp_path):
    (code, _, said), (killed, _, nothing) = pair(DIES="1")
    assert (code, killed, nothing) == (1, -9, "")
    assert said.startswith("error: another process of this run has ended (")
    assert said.endswith("; the same command resumes\n")
    assert said.count("\n") == 1
    # The round before is kept, of both.
    assert sorted(f.name for f in (tmp_path / "run" / "blocks").iterdir()) == ["000000.npz", "000001.npz"]


@pytest.mark.slow
def test_a_process_that_would_run_something_else_says_so(pair, tmp_path):
    (code, _, nothing), (other_code, _, said) = pair(SEED="2")
    assert said == (
        "error: process 1 differs from process 0: run.seed is 1 there and 2 here; "
        "give all processes the same command, data, backbone and versions.\n"
    )
    assert (other_code, code, nothing) == (2, 1, "")
    assert not list((tmp_path / "run" / "blocks").iterdir())


@pytest.fixture
def as_one_of_four(monkeypatch):
    """Set the environment of the second process of two on this machine, of four in all."""
    values = {"RANK": 3, "WORLD_SIZE": 4, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "x", "MASTER_PORT": 1}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))


def test_each_process_takes_its_share_of_the_cores(as_one_of_four, monkeypatch):
    monkeypatch.setattr(processes, "cores", lambda: 7)
    before = torch.get_num_threads()
    try:
        assert setup.set_threads(0) == 3
        assert torch.get_num_threads() == 3
        assert setup.set_threads(5) == 5
        monkeypatch.setattr(processes, "cores", lambda: 1)
        assert setup.set_threads(0) == 1
    finally:
        torch.set_num_threads(before)


def test_only_the_main_process_speaks(as_one_of_four, capsys):
    assert processes.world() == processes.World(3, 4, 1, 2)
    setup.make_console().print("hello")
    assert capsys.readouterr().out == ""


def test_half_an_environment_is_no_company(monkeypatch):
    # Schedulers set WORLD_SIZE for programs that are none of theirs.
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert processes.world() == processes.World()
    assert processes.gather("x") == ["x"]


def test_commands_that_do_not_share_their_work_refuse_company(as_one_of_four):
    with pytest.raises(UserError, match="solver-timings does not share its work, but 4 processes"):
        setup.need_one_process("solver-timings")


@pytest.mark.parametrize("name", [name for name, kind in catalogue.methods().items() if not kind.preset_of])
def test_bits_do_not_depend_on_the_number_of_threads(name):
    # One process has all cores and each of several has some: shapes at which parts of LAPACK give other bits.
    kind = catalogue.find(name)
    rng = np.random.default_rng(0)
    support = torch.from_numpy(np.maximum(0, rng.normal(0.4, 1, (2, 5, 5, 9, 64))).astype(np.float32))
    query = torch.from_numpy(np.maximum(0, rng.normal(0.4, 1, (2, 20, 9, 64))).astype(np.float32))
    options = {"base_mean": torch.full((64,), 0.5)} if kind.needs_base_mean else {}
    options |= {"epochs": 3} if "epochs" in inspect.signature(kind).parameters else {}
    method = catalogue.build(name, **options)
    before, answers = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            answers.append(method(support, query))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])
