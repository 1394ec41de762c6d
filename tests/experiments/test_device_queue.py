"""The queue for a machine that is there for minutes: its plan, its jobs as processes, what it brings back, going on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from itertools import product

import pytest

from otfew.experiments.commands import module_of
from otfew.experiments.common.cli import parse
from otfew.experiments.reproduce.command import main
from otfew.experiments.reproduce.device import bring, child, measure, record, worker
from otfew.experiments.reproduce.device import run as queue
from otfew.experiments.reproduce.device.jobs import Job, Measured, Rates, Work, load
from otfew.experiments.reproduce.device.options import JOBS
from otfew.experiments.reproduce.device.plan import pack

COMMAND = """
import json, pathlib, signal, sys, time
words = sys.argv[1:]
folder = pathlib.Path(words[words.index("--output") + 1])
folder.mkdir(parents=True, exist_ok=True)
behaviour = words[words.index("--behave") + 1]
state = folder / "state.pt"
def end(number, _):
    state.write_text("kept")
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
(folder / "words.json").write_text(json.dumps(words))
if behaviour == "fail":
    sys.exit("error: it is broken.")
if behaviour == "wait" and not state.exists():
    print("epoch 1/3: val % deepemd 50", flush=True)
    (folder / "ready").touch()
    time.sleep(120)
if behaviour == "slow":
    for epoch in range(1, 1000000):
        print(f"epoch {epoch}/1000000: val % deepemd 50", flush=True)
        time.sleep(0.05)
if "--name" in words:
    (folder / f"{words[words.index('--name') + 1]}.safetensors").write_bytes(bytes(range(256)) * 100)
(folder / "results.json").write_text("{}")
(folder / "blocks").mkdir(exist_ok=True)
(folder / "blocks" / "000000.npz").write_text("")
"""
"""Stands in for every command."""


def listed(*jobs):
    """Write a list of jobs."""

    def spelled(value):
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {spelled(each)}" for key, each in value.items()) + "}"
        return json.dumps(value)

    return "".join("[[job]]\n" + "".join(f"{k} = {spelled(v)}\n" for k, v in job.items()) for job in jobs)


def training(name, value=1, behave="end", **more):
    return {"name": name, "value": value, "command": "pretrain", "arguments": ["--behave", behave], **more}


def judging(name, value=1, behave="end", needs="", **more):
    arguments = ["--behave", behave, *(["--backbone", "{needs}"] if needs else [])]
    return {"name": name, "value": value, "command": "compare", "arguments": arguments, "needs": needs, **more}


@pytest.fixture
def begin(tmp_path, monkeypatch, capsys):
    """Return a function that does a call with scripts for commands, and gives exit code, queue.json and what was said.

    A training takes a second, or what ``takes`` says.
    """
    script = tmp_path / "script.py"
    script.write_text(COMMAND)
    popen = subprocess.Popen

    def start(words, **options):
        assert words[:3] == [sys.executable, "-m", worker.CHILD]
        return popen([sys.executable, "-S", str(script), *words[4:]], **options)

    monkeypatch.setattr(worker.subprocess, "Popen", start)
    takes = {}

    def found(jobs, runs, options, accelerator, seconds):
        return measure.Found(
            {}, 0.0, {job.name: Measured(Rates(step=takes.get(job.name, 1.0)), Work(steps=1, epochs=1)) for job in jobs}
        )

    monkeypatch.setattr(measure, "measure", found)

    def call(*jobs, minutes=10, runs="runs", words=(), **seconds):
        takes.update(seconds)
        path = tmp_path / "jobs.toml"
        path.write_text(listed(*jobs))
        place = ["--jobs", str(path), "--runs", str(tmp_path / runs), "--minutes", str(minutes)]
        code = 0
        try:
            main(["--suite", "device", *place, *map(str, words)])
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        written = tmp_path / runs / "queue.json"
        return code, json.loads(written.read_bytes()) if written.exists() else None, said.out

    return call


def states(found):
    return {job["name"]: job["state"] for job in found["jobs"]}


def said_of(found, name):
    (job,) = (job for job in found["jobs"] if job["name"] == name)
    return job["said"]


def unpacked(folder, name=bring.RESULTS):
    return dict(bring.contents(folder, name))


# ------------------------------------------------------------------------------------------------------------- the plan


def best_value(jobs, seconds, budget):
    """Try every choice."""
    best = 0.0
    for taken in product((False, True), repeat=len(jobs)):
        names = {job.name for job, it in zip(jobs, taken, strict=True) if it}
        allowed = all(job.needs in names or not job.needs for job in jobs if job.name in names)
        if allowed and sum(seconds[name] for name in names) <= budget:
            best = max(best, sum(job.value for job in jobs if job.name in names))
    return best


def test_the_choice_is_the_most_valuable_that_ends_in_time():
    draw = random.Random(1)
    for _ in range(12):
        jobs = []
        for number in range(8):
            needs = draw.choice(jobs).name if jobs and draw.random() < 0.6 else ""
            jobs.append(Job(f"j{number}", draw.randint(0, 9), "pretrain", (), needs))
        seconds = {job.name: draw.randint(0, 12) for job in jobs}
        chosen = pack(jobs, seconds, 20)
        names = [job.name for job in chosen]
        assert [job for job in jobs if job.name in names] == chosen
        assert all(job.needs in names or not job.needs for job in chosen)
        assert sum(seconds[name] for name in names) <= 20
        assert sum(job.value for job in chosen) == best_value(jobs, seconds, 20)


def test_no_time_is_no_plan():
    assert pack([Job("a", 1, "pretrain", ())], {"a": 0.0}, 0.0) == []


def h100(jobs):
    """An H100: 11 ms a step of 128 images and 5 s an epoch were measured on one, and all else is taken for as much."""
    rates, found = Rates(step=0.011, read=2e-4, validate=1.7 / 9600, close=1e-3), {}
    for job in jobs:
        closings, epochs = (1, 120) if job.command == "pretrain" else (3, 101)
        work = Work(job.steps, epochs, 9600, 48000, closings) if job.trains else Work(steps=job.steps)
        found[job.name] = Measured(rates, work)
    return measure.Found({}, 8.0, found)


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (("--minutes", 14), "planned"),
        (("--minutes", 6), "dropped: it would take 1"),
        (("--minutes", 6, "--later-minutes", 8), "planned"),
    ],
)
def test_of_the_committed_list_the_first_job_wants_more_than_ten_minutes(
    words, first, begin, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(measure, "measure", lambda jobs, *_: h100(jobs))
    main(["--suite", "device", "--dry-run", "--runs", str(tmp_path / "runs"), *map(str, words)])
    lines = [
        line.split(maxsplit=2)
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(" cifar-fs-resnet12 ")
    ]
    ((name, value, rest),) = lines
    assert (name, value) == ("cifar-fs-resnet12", "1000")
    assert first in rest
    assert not list((tmp_path / "runs").glob("*/"))


def test_the_committed_list_begins_with_what_is_worth_most_and_its_commands_can_be_typed(tmp_path):
    jobs = load(JOBS)
    assert [job.name for job in jobs[:2]] == ["cifar-fs-resnet12", "cifar-fs-resnet12-deepemd"]
    assert jobs[0].value == max(job.value for job in jobs)
    assert jobs[0].steps == 120 * (64 * 600 // 128)
    place = ["--device", "cpu", "--threads", "1", "--no-download", "--data-root", str(tmp_path)]
    for job in jobs:
        module = __import__(module_of(job.command).removesuffix(".command"), fromlist=["config"])
        config = getattr(module, "Config", None) or __import__(f"{module.__name__}.config", fromlist=["Config"]).Config
        parsed = parse(config, job.command, [*job.words(tmp_path), *place])
        assert parsed.output == tmp_path / job.name / "run"
        if job.trains:
            assert parsed.settings.accelerator == "cpu"


# -------------------------------------------------------------------------------------------------------------- running


def test_jobs_run_one_after_another_and_what_each_came_to_is_brought_back(begin, tmp_path):
    jobs = [training("first", 5), judging("second", 2, needs="first"), training("endless", 100)]
    code, found, said = begin(*jobs, endless=7e6)
    assert code == 0
    assert states(found) == {"first": "done", "second": "done", "endless": "not begun"}
    assert said_of(found, "endless") == "dropped: it would take 128333 min"
    assert "dropped: it would take 128333 min" in said
    runs = tmp_path / "runs"
    given = json.loads((runs / "second" / "run" / "words.json").read_bytes())
    assert given[given.index("--backbone") + 1] == str(runs / "first" / "run" / "first.safetensors")
    assert given[-4:] == ["--device", "auto", "--threads", "0"]
    files = unpacked(runs / "back")
    assert files["first/run/first.safetensors"] == (runs / "first" / "run" / "first.safetensors").read_bytes()
    assert set(files) == {
        *(
            f"{job}/{name}"
            for job in ("first", "second")
            for name in ("job.json", "log.txt", "run/results.json", "run/words.json")
        ),
        "first/run/first.safetensors",
    }
    assert json.loads((runs / "back" / "queue.json").read_bytes()) == found
    assert found["files"] == ["results.tar.gz.00"]


def test_each_result_is_there_before_the_next_job_begins(begin, tmp_path, monkeypatch):
    seen = []
    real = worker.Worker

    def start(words, folder):
        seen.append(sorted({name.partition("/")[0] for name in unpacked(tmp_path / "runs" / "back")}))
        return real(words, folder)

    monkeypatch.setattr(queue, "Worker", start)
    begin(training("a", 3), training("b", 2), training("c", 1))
    assert seen == [[], ["a"], ["a", "b"]]


def test_a_job_that_fails_is_named_and_the_rest_goes_on(begin):
    jobs = [training("broken", 9, "fail"), judging("after", 8, needs="broken"), training("sound", 1)]
    code, found, said = begin(*jobs)
    assert code == 1
    assert states(found) == {"broken": "failed", "after": "not begun", "sound": "done"}
    assert said_of(found, "broken") == "failed: it ended with exit code 1 (error: it is broken.)"
    assert said_of(found, "after") == "left out: it needs broken, which failed"
    assert "failed: it ended with exit code 1" in said
    # Another call tries it again, and does nothing else again.
    code, found, _ = begin(*jobs)
    assert code == 1
    assert said_of(found, "sound") == "done before"


def interrupt(mark):
    """Send SIGTERM to this process once a command is ready for it."""

    def wait():
        while not mark.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def test_a_queue_that_was_ended_goes_on_here_and_on_another_machine(begin, tmp_path):
    jobs = [training("first", 5), training("long", 3, "wait"), training("last", 1)]
    interrupt(tmp_path / "runs" / "long" / "run" / "ready")
    before = signal.getsignal(signal.SIGTERM)
    code, found, _ = begin(*jobs)
    assert code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert states(found) == {"first": "done", "long": "unfinished", "last": "not begun"}
    (job,) = (job for job in found["jobs"] if job["name"] == "long")
    assert (job["epochs_done"], job["epochs"]) == (1, 3)
    back = tmp_path / "runs" / "back"
    assert unpacked(back, bring.STATES)["long/run/state.pt"] == b"kept"
    # On another machine, from what was brought back; then here.
    for runs, words in (("elsewhere", ["--brought", back]), ("runs", [])):
        code, found, _ = begin(*jobs, runs=runs, words=words)
        assert code == 0
        assert set(states(found).values()) == {"done"}
        assert said_of(found, "first") == "done before"
        assert said_of(found, "long") == "done"
    assert sum(name == "first/run/results.json" for name, _ in bring.contents(back, bring.RESULTS)) == 1


def test_a_training_that_turns_out_too_slow_gives_its_time_to_another(begin):
    code, found, _ = begin(training("slow", 9, "slow"), training("short", 1), minutes=3)
    assert code == 0
    assert states(found) == {"slow": "unfinished", "short": "done"}
    assert said_of(found, "slow").startswith("stopped after ")
    assert "of 1000000 epochs: it would take" in said_of(found, "slow")


def test_the_end_of_the_time_is_the_end(begin):
    jobs = [training("waits", 9, "wait"), training("next", 1)]
    # In a later call there would be time for the other.
    code, found, _ = begin(*jobs, minutes=0.02, words=["--later-minutes", 5])
    assert code == 0
    assert states(found) == {"waits": "unfinished", "next": "not begun"}


def test_what_there_is_no_room_for_is_left_behind_and_said(begin, tmp_path, monkeypatch):
    monkeypatch.setattr(bring, "MB", 10_000)
    code, found, said = begin(training("big", 2), training("big2", 1), words=["--max-mb", "0.2", "--piece-mb", "0.05"])
    assert code == 0
    back = tmp_path / "runs" / "back"
    sizes = [path.stat().st_size for path in back.glob("results.tar.gz.*")]
    assert sum(sizes) <= 2000
    assert max(sizes) <= 500
    assert len(sizes) > 1
    left = {job["name"]: job["left_behind"] for job in found["jobs"]}
    assert left["big2"]
    assert f"- big2: left behind, beyond --max-mb 0.2: {', '.join(left['big2'])}" in said
    kept = set(unpacked(back))
    assert not {f"{job}/{name}" for job, names in left.items() for name in names} & kept


def test_other_arguments_in_the_same_folder_are_refused(begin, refused, tmp_path):
    begin(training("first"))
    (tmp_path / "jobs.toml").write_text(listed(training("first", behave="wait")))
    words = ["--suite", "device", "--minutes", 1, "--jobs", tmp_path / "jobs.toml", "--runs", tmp_path / "runs"]
    assert "was begun with other arguments than job 'first' has: give other --runs." in refused(main, *words)


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "--suite device wants --minutes: how long the machine is there."),
        (["--minutes", "0"], "--minutes must be positive, not 0.0."),
        (["--minutes", "nan"], "--minutes must be positive, not nan."),
        (["--minutes", "1", "--max-mb", "-1"], "--max-mb must be positive, not -1.0."),
        (["--minutes", "1", "--later-minutes", "-1"], "--later-minutes must be at least 0, not -1.0."),
        (["--minutes", "1", "--jobs", "nowhere.toml"], "--jobs nowhere.toml can't be read"),
        (["--minutes", "1", "--brought", "nowhere"], "--brought nowhere holds no results of a queue."),
        (["--minutes", "1", "--accelerator", "abacus"], "--accelerator"),
    ],
)
def test_mistakes_are_one_sentence(words, sentence, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(main, "--suite", "device", *words).startswith(f"error: {sentence}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nonsense", "can't be read"),
        ("[[jobs]]\n", "it must hold [[job]] tables and nothing else"),
        ("[[job]]\nname = 'a'\nvalue = 1\ncommand = 'compare'\n", "a job lacks 'arguments'"),
        (listed(training("A")), "job 'A' must be named by small letters"),
        (listed(training("a"), training("a")), "job 'a' is there twice"),
        (listed(training("a", colour=1)), "job 'a' has unknown keys: colour"),
        (listed(training("a", value=-1)), "value of job 'a' must be a number from 0 on, not -1"),
        (
            listed({**training("a"), "command": "dance"}),
            "job 'a': 'dance' is no command of otfew that a queue could run",
        ),
        (listed({**training("a"), "arguments": [1]}), "the arguments of job 'a' must be strings"),
        (listed(judging("b", needs="a")), "job 'b' needs 'a', which is not listed before it"),
        (listed(judging("a"), judging("b", needs="a")), "job 'b' needs 'a', which leaves no weights"),
        (listed(training("a"), judging("b") | {"needs": "a"}), "must say {needs} in its arguments if, and only if"),
        (listed(judging("a", steps=5)), "job 'a' has steps, but no step that says how they are measured"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(text, sentence, refused, tmp_path):
    path = tmp_path / "jobs.toml"
    path.write_text(text)
    assert sentence in refused(main, "--suite", "device", "--minutes", 1, "--jobs", path, "--runs", tmp_path / "runs")


# ------------------------------------------------------------------------------------------------------------- archives


def test_pieces_together_are_an_archive_for_tar(tmp_path):
    content = random.Random(0).randbytes(5000)
    archive = bring.Archive(tmp_path, "x.tar.gz", 100_000, 1500)
    assert archive.add("job/deep/er.bin", content)
    archive.write()
    again = bring.Archive(tmp_path, "x.tar.gz", 100_000, 1500)
    assert again.add("job/log.txt", b"a line\n" * 300)
    again.write()
    sizes = [(tmp_path / name).stat().st_size for name in again.files]
    assert sizes[:-1] == [1500] * (len(sizes) - 1)
    assert again.bytes == sum(sizes)
    whole = tmp_path / "whole.tar.gz"
    whole.write_bytes(b"".join((tmp_path / name).read_bytes() for name in again.files))
    with tarfile.open(whole) as found:
        assert found.extractfile("job/deep/er.bin").read() == content
    subprocess.run(["tar", "xzf", whole, "-C", tmp_path], check=True)
    assert (tmp_path / "job" / "log.txt").read_bytes() == b"a line\n" * 300


@pytest.mark.parametrize("name", ["../out", "job/../../out", "/etc/out", "alone"])
def test_an_archive_that_reaches_elsewhere_is_refused(name, tmp_path):
    archive = bring.Archive(tmp_path, bring.RESULTS, 10_000, 10_000)
    archive.add(name, b"")
    archive.write()
    with pytest.raises(ValueError, match="no whole archive of a queue"):
        record.restore(tmp_path, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_piece_that_is_missing_is_told(tmp_path):
    archive = bring.Archive(tmp_path, bring.RESULTS, 100_000, 1000)
    archive.add("job/x.npz", random.Random(0).randbytes(3000))
    archive.write()
    (tmp_path / archive.files[-1]).unlink()
    with pytest.raises(ValueError, match="bring all its pieces"):
        record.restore(tmp_path, tmp_path / "runs")


# ------------------------------------------------------------------------------------------------ measuring and ending

PROBE = """
import json, sys, time
task = json.load(sys.stdin)
print(json.dumps({"machine": {"card": {"name": "a card"}, "host": {"cores": 1}, "versions": {}}}), flush=True)
print("what a library has to say", flush=True)
for request in task["requests"]:
    if request["name"] == "lost":
        sys.exit("no memory")
    if request["name"] == "long":
        time.sleep(60)
    found = {"name": request["name"], "rates": {"step": 2.0}, "work": {"steps": 3}, "reason": ""}
    print(json.dumps(found), flush=True)
"""


@pytest.fixture
def probed(tmp_path, monkeypatch):
    """Let a script measure; returns what measures."""
    script, popen = tmp_path / "probe.py", subprocess.Popen
    script.write_text(PROBE)
    monkeypatch.setattr(
        measure.subprocess, "Popen", lambda _, **options: popen([sys.executable, "-S", str(script)], **options)
    )

    def found(jobs, seconds=60.0):
        tmp_path.joinpath("runs").mkdir(exist_ok=True)
        return measure.measure(jobs, tmp_path / "runs", [], "cpu", seconds)

    return found


def jobs_named(*names):
    return [Job(name, 1, "pretrain", ("--x", name)) for name in names]


def test_what_was_measured_is_kept_for_the_next_call(probed, tmp_path, monkeypatch):
    jobs = jobs_named("a", "b")
    found = probed(jobs)
    assert {name: each.rates.seconds(each.work) for name, each in found.jobs.items()} == {"a": 6.0, "b": 6.0}
    measure.keep(found, tmp_path / "runs", jobs, [], "cpu")
    monkeypatch.setattr(measure, "_answers", None)
    assert probed(jobs) == found
    # What has changed is measured again.
    with pytest.raises(TypeError):
        probed([Job("a", 1, "pretrain", ("--x", "other"))])


def test_what_measuring_took_down_and_what_it_did_not_reach_is_said(probed):
    found = probed(jobs_named("a", "lost", "b"))
    assert found.jobs["a"].reason == ""
    why = "its steps were not measured: the measuring ended with exit code 1 (no memory)"
    assert (found.jobs["lost"].reason, found.jobs["b"].reason) == (why, why)
    found = probed(jobs_named("a", "long"), seconds=1.0)
    assert found.jobs["long"].reason == measure.NOT_REACHED


def test_a_command_ends_with_the_process_that_started_it(monkeypatch):
    sent = []
    monkeypatch.setattr(os, "kill", lambda *what: sent.append(what))
    end, held = os.pipe()
    waiting = threading.Thread(target=child._end_with, args=(end,))
    waiting.start()
    assert sent == []
    os.close(held)
    waiting.join(60)
    os.close(end)
    assert sent == [(os.getpid(), signal.SIGTERM)]


# ---------------------------------------------------------------------------------------- the commands of otfew at last

BRIEF = ["--dataset", "image-folder", "--val-episodes", "4", "--no-tensorboard"]
NETWORK = ["--backbone", "conv4", "--resolution", "16", "--batch-size", "8", "--learning-rate", "0.01"]
REAL = (
    {"name": "first", "value": 9, "command": "pretrain", "arguments": [*BRIEF, *NETWORK, "--epochs", "30"]},
    {
        "name": "second",
        "value": 5,
        "command": "metatrain",
        "needs": "first",
        "arguments": [
            *BRIEF, "--backbone", "{needs}", "--method", "protonet", "--way", "3", "--query", "2", "--epochs", "2",
            "--episodes-per-epoch", "2",
        ],
    },
    {
        "name": "judged",
        "value": 3,
        "command": "compare",
        "needs": "second",
        "arguments": [
            "--dataset", "image-folder", "--backbone", "{needs}", "--query", "3", "--episodes", "20", "--methods",
            "protonet", "cosine-centroid",
        ],
        "images": 40,
    },
    {"name": "endless", "value": 99, "command": "pretrain", "arguments": [*BRIEF, *NETWORK, "--epochs", "100000000"]},
    {"name": "broken", "value": 1, "command": "compare", "arguments": ["--dataset", "image-folder", "--methods", "x"]},
    {
        "name": "tails",
        "value": 1,
        "command": "long-tail",
        "arguments": ["--dataset", "cifar10", "--stage1", "{here}/stage1"],
        "steps": 1000000000,
        "step": {"network": "resnet32", "side": 8, "batch": 2},
    },
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.processes
def test_from_measuring_to_the_records_whatever_ends_the_queue(folder, tmp_path, capsys):
    """Real commands at toy size: a queue that is killed without a word goes on to the same weights."""
    (tmp_path / "jobs.toml").write_text(listed(*REAL))
    place = [
        "--jobs",
        str(tmp_path / "jobs.toml"),
        "--data-root",
        str(folder),
        "--accelerator",
        "cpu",
        "--threads",
        "1",
    ]
    words = ["--suite", "device", "--minutes", "100", "--runs", str(tmp_path / "runs"), *place]
    log = tmp_path / "runs" / "first" / "log.txt"

    def wait_for(text):
        until = time.monotonic() + 300
        while not log.exists() or text not in log.read_text():
            assert time.monotonic() < until
            time.sleep(0.05)

    with subprocess.Popen([sys.executable, "-m", "otfew.experiments", "reproduce", *words]) as started:
        wait_for("epoch 2/30: ")
        started.kill()
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "resuming after" in log.read_text()
    found = json.loads((tmp_path / "runs" / "queue.json").read_bytes())
    assert states(found) == {
        "first": "done", "second": "done", "judged": "done", "endless": "not begun", "broken": "failed",
        "tails": "not begun",
    }  # fmt: skip
    assert said_of(found, "broken").startswith("failed: unknown method 'x'")
    for name in ("endless", "tails"):
        assert said_of(found, name).startswith("dropped: it would take ")
    first = found["jobs"][0]
    assert first["work"] == {
        "steps": 30 * (32 // 8), "epochs": 30, "validated": 40, "images": 72, "closings": 1, "seconds": 0.0
    }  # fmt: skip
    assert all(first["rates"][name] > 0 for name in ("step", "read", "validate", "close"))
    assert found["machine"]["card"]["kind"] == "cpu"
    assert "judged: done" in said
    files = unpacked(tmp_path / "runs" / "back")
    assert {"judged/run/results.json", "judged/run/answers.npz", "judged/run/episodes.csv"} <= files.keys()
    assert {"first/run/first.safetensors", "first/run/first.json", "second/run/history.json"} <= files.keys()
    assert not [name for name in files if "/blocks/" in name or name.endswith("state.pt")]
    # A queue that nothing has ended comes to the same.
    whole = tmp_path / "whole"
    process_words = [
        "pretrain",
        *REAL[0]["arguments"],
        "--data-root",
        str(folder),
        "--name",
        "first",
        "--device",
        "cpu",
    ]
    script = [sys.executable, "-m", "otfew.experiments", *process_words, "--threads", "1", "--output", str(whole)]
    subprocess.run(script, check=True, capture_output=True)
    assert (whole / "first.safetensors").read_bytes() == files["first/run/first.safetensors"]
    # Another machine takes it from there.
    elsewhere = ["--runs", str(tmp_path / "elsewhere"), *place, "--brought", str(tmp_path / "runs" / "back")]
    (tmp_path / "jobs.toml").write_text(listed(*REAL[:3]))
    main(["--suite", "device", "--minutes", "1", *elsewhere])
    said = capsys.readouterr().out
    assert said.count("done before") == 2 * 3  # in the plan, and at the end
    assert "measured" not in said
