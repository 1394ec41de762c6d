"""Trainings as real processes: killed or told to stop at any step and gone on with, or several at once."""

import json
import os
import random
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from otfew.backbones.base import Card
from otfew.backbones.conv4 import Conv4
from otfew.backbones.weights import save

ROOT = Path(__file__).parents[2]
SECONDS = 300
STRAIGHT, KILLED, TOLD = "straight", "killed", "told"
DRIVER = """
PRELOADED = '''
    lightning_fabric lightning_fabric.strategies otfew.methods.deepemd otfew.baselines.cosine_centroid
    otfew.training.s2m2 otfew.training.metatrain otfew.backbones.architectures otfew.transport.simplex.kernel
    otfew.experiments.metric_learning.outcome otfew.experiments.long_tail.stage2
    sklearn.linear_model matplotlib.backends.backend_agg torch.utils.data torch._dynamo
'''
import importlib, json, os, signal, sys
from dataclasses import replace
from otfew.experiments.common import training
from otfew.experiments.common.cli import run
from otfew.training import loop, validation
from otfew.training.augmentation import Augment, Augmentation

module, jobs = sys.argv[1], json.loads(sys.argv[2])
main = importlib.import_module(module).main
Augment(Augmentation(), 8)
for name in PRELOADED.split():
    importlib.import_module(name)
step, train = loop._Run._step, loop.run

def one_after_another(output, how, at, arguments):
    left = [at]

    def counted(self, *place):
        step(self, *place)
        with open(f"{output}.steps", "a") as file:
            file.write("x")
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), how)

    loop._Run._step = counted
    loop.run = lambda build, settings, duties, watcher: train(build, settings, replace(duties, save_every=-1), watcher)
    try:
        run(lambda: main(arguments))
    except SystemExit as ended:
        return ended.code
    return 0

codes = []
for job in jobs:
    child = os.fork()
    if child == 0:
        code = one_after_another(*job)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""
"""Starts once, since imports take longest; then every attempt is a process of its own."""


def environment():
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TORCHELASTIC", "RANK", "WORLD", "LOCAL_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    """Noisy one-coloured pictures, a train and a test part with the same classes."""
    root = tmp_path_factory.mktemp("alike")
    rng = np.random.default_rng(0)
    for part, each in (("train", 30), ("test", 6)):
        for name, colour in zip("abc", rng.integers(60, 196, (3, 3)), strict=True):
            place = root / part / name
            place.mkdir(parents=True)
            for i in range(each):
                noisy = np.clip(colour + rng.normal(0, 60, (16, 16, 3)), 0, 255)
                cv2.imwrite(str(place / f"{i}.png"), noisy.astype(np.uint8))
    return root


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A backbone to meta-train."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    options = {"last_pool": False}
    classes = tuple(f"train-{i}" for i in range(4))
    card = Card("start", "conv4", options, resolution=16, mean=(0.5,) * 3, std=(0.25,) * 3, dataset="image-folder",
                training_classes=classes)  # fmt: skip
    save(path, Conv4(**options), card, half=False)
    return path


def few_shot(command, folder, start, output, *more):
    words = f"--dataset image-folder --data-root {folder} --epochs 2 --val-episodes 10 --accelerator cpu --threads 1 "
    words += f"--no-tensorboard --output {output} "
    if command == "pretrain":
        words += "--backbone conv4 --no-last-pool --resolution 16 --batch-size 4"
    else:
        words += f"--backbone {start} --method deepemd --way 3 --query 4 --episodes-per-epoch 8 --learning-rate 0.05"
    return [*words.split(), *more]


def metric(folder, output):
    words = f"--dataset image-folder --data-root {folder} --resolution 12 --head 8 4 --epochs 2 --batch-size 8 "
    words += f"--losses all-pairs batchwise-ot --seeds 1 --threads 1 --device cpu --momentum 0.5 --output {output}"
    return words.split()


def long_tail(folder, output):
    words = f"--dataset image-folder --data-root {folder} --factor 4 --backbone conv4 --resolution 16 --epochs 2 "
    words += "--batch-size 4 --accelerator cpu --validation 3 --meta 3 --seeds 1 --threads 1 --stage2 all "
    words += "--all-layers.epochs 2 --arms ce inverse-frequency+meta-ce --no-figures "
    return [*words.split(), "--stage1", f"{output}-stage1", "--output", str(output)]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["pretrain", "metatrain", "metric_learning", "long_tail"])
def test_killed_or_told_to_stop_at_three_random_steps(folder, alike, start, tmp_path, command):
    """The files are those of a run without a break, to the byte, and no step but the killed ones is done twice."""
    steps = {"pretrain": 16, "metatrain": 16, "metric_learning": 2 * 2 * 5}.get(command, 60)
    arguments = {
        "metric_learning": lambda output: metric(alike, output),
        "long_tail": lambda output: long_tail(alike, output),
    }.get(command, lambda output: few_shot(command, folder, start, output))
    jobs = [(str(tmp_path / STRAIGHT), 0, 0, arguments(tmp_path / STRAIGHT))]
    for name, how in ((KILLED, signal.SIGKILL), (TOLD, signal.SIGTERM)):
        stops = [0, *sorted(random.Random(f"{command} {name}").sample(range(1, steps), 3))]
        output = tmp_path / name
        jobs += [(str(output), int(how), b - a, arguments(output)) for a, b in pairwise(stops)]
        jobs.append((str(output), 0, 0, arguments(output)))
    module = f"otfew.experiments.{command}{'.command' if command in {'metric_learning', 'long_tail'} else ''}"
    line = [sys.executable, "-c", DRIVER, module, json.dumps(jobs)]
    ended = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False, timeout=SECONDS)
    assert ended.returncode == 0, ended.stderr
    codes = json.loads(ended.stdout.splitlines()[-1])
    assert codes == [0, *[-signal.SIGKILL] * 3, 0, *[128 + signal.SIGTERM] * 3, 0], ended.stderr
    assert ended.stderr.count("terminated; the state is saved and the same command resumes") == 3
    done = {name: (tmp_path / f"{name}.steps").stat().st_size for name in (STRAIGHT, KILLED, TOLD)}
    assert done == {STRAIGHT: steps, KILLED: steps + 3, TOLD: steps}
    compared = 0
    for expected in sorted(p for p in tmp_path.rglob("*") if p.suffix in {".safetensors", ".pt"} or p.name in FINAL):
        name = str(expected.relative_to(tmp_path))
        if not name.startswith(STRAIGHT):
            continue
        compared += 1
        for other in (KILLED, TOLD):
            found = tmp_path / name.replace(STRAIGHT, other, 1)
            if expected.suffix == ".pt":
                same_weights(found, expected)
            else:
                assert found.read_bytes() == expected.read_bytes(), found
    assert compared >= {"metric_learning": 1, "long_tail": 5}.get(command, 2)


FINAL = ("results.json", "gain.json")


def same_weights(found, expected):
    """States and caches tell times, too: tensors and histories are compared, without times."""
    one, other = (torch.load(path, weights_only=True) for path in (found, expected))
    for group in ("module", "best"):
        for name, tensor in other.get(group, {}).items():
            assert torch.equal(one[group][name], tensor), (found, group, name)
    timeless = [
        [{k: v for k, v in record.items() if not k.endswith("seconds")} for record in state.get("history", [])]
        for state in (one, other)
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["pretrain", "metatrain"])
def test_two_processes_are_two_parts(folder, start, tmp_path, command):
    """Parameters are those of one process that accumulates two parts, but for rounding; buffers are process 0's."""
    both, alone = (few_shot(command, folder, start, tmp_path / name) for name in ("both", "alone"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    ended = {}
    for name, line in (
        ("both", [*launcher, f"otfew.experiments.{command}", *both]),
        ("alone", [sys.executable, "-m", f"otfew.experiments.{command}", *alone, "--accumulate", "2"]),
    ):
        ended[name] = subprocess.run(
            line, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS
        )
        assert ended[name].returncode == 0, ended[name].stderr
    assert ended["both"].stdout.count("use it with --backbone") == 1
    states = [torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("both", "alone")]
    for name, tensor in states[1]["module"].items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(states[0]["module"][name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    for one, other in zip(*(state["history"] for state in states), strict=True):
        if one["epoch"]:
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
            # Rounding moves no answer across a boundary here.
            assert one["train_accuracy"] == pytest.approx(other["train_accuracy"], abs=1e-9)
    (weights,) = (tmp_path / "both").glob("*.safetensors")
    assert all(bool(torch.isfinite(t).all()) for t in load_file(weights).values())
    assert json.loads(weights.with_suffix(".json").read_text())["protocol"]["processes"] == 2


@pytest.mark.parametrize("command", ["metric_learning", "long_tail"])
def test_work_that_is_not_shared_refuses_several_processes(alike, tmp_path, command, refused, monkeypatch):
    from importlib import import_module

    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("otfew.runs.processes.first_to_fail", lambda: True)
    monkeypatch.setattr("otfew.runs.processes.leave", lambda: None)
    main = import_module(f"otfew.experiments.{command}.command").main
    words = (metric if command == "metric_learning" else long_tail)(alike, tmp_path / "out")
    assert f"{command} does not share its work, but 2 processes were started" in refused(main, *words)
    assert not (tmp_path / "out").exists()
