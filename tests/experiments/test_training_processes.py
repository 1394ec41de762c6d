"""Trainings as real processes: killed at any step and gone on with, or several at once."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
SECONDS = 300
DRIVER = """
import os, signal, sys
from otfew.experiments import _training, pretrain, metatrain
from otfew.experiments.common.cli import run

name, at, *arguments = sys.argv[1:]
show, left = _training.Display.on_step, [int(at)]

def on_step(self, step):
    show(self, step)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

_training.Display.on_step = on_step
run(lambda: {"pretrain": pretrain, "metatrain": metatrain}[name].main(arguments))
"""
NEVER = 0
STEPS = 2 * 8


def arguments(command, folder, start, output):
    words = f"--dataset image-folder --data-root {folder} --epochs 2 --val-episodes 10 --accelerator cpu --threads 1 "
    words += f"--no-tensorboard --output {output} --save-every 0 "
    if command == "pretrain":
        words += "--backbone conv4 --no-last-pool --resolution 16 --batch-size 4"
    else:
        words += f"--backbone {start} --method deepemd --way 3 --query 4 --episodes-per-epoch 8 --learning-rate 0.05"
    return words.split()


def environment():
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TORCHELASTIC", "RANK", "WORLD", "LOCAL_"))}
    return {**kept, "OMP_NUM_THREADS": "1"}


def drive(command, at, words):
    """Run a command in a process that kills itself outright after so many steps; 0 lets it end."""
    line = [sys.executable, "-c", DRIVER, command, str(at), *words]
    ended = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False, timeout=SECONDS)
    assert ended.returncode == (0 if at == NEVER else -signal.SIGKILL), ended.stderr
    return ended


@pytest.fixture(scope="module")
def straight(folder, tmp_path_factory):
    """Both trainings without a break; meta-training starts where pre-training ends."""
    outputs = {}
    start = None
    for command in ("pretrain", "metatrain"):
        outputs[command] = tmp_path_factory.mktemp("straight") / command
        drive(command, NEVER, arguments(command, folder, start, outputs[command]))
        start = start or next(outputs[command].glob("*.safetensors"))
    return outputs, start


@pytest.mark.parametrize("command", ["pretrain", "metatrain"])
def test_sigkill_at_three_random_steps(folder, straight, tmp_path, command):
    outputs, start = straight
    steps = random.Random(command).sample(range(1, STEPS), 3)
    words = arguments(command, folder, start, tmp_path / "out")
    for at in [b - a for a, b in zip([0, *sorted(steps)], sorted(steps), strict=False)]:
        # The state of the last step before the kill was not written: it is done again.
        drive(command, at, words)
    drive(command, NEVER, words)
    (expected,) = outputs[command].glob("*.safetensors")
    assert (tmp_path / "out" / expected.name).read_bytes() == expected.read_bytes()
    state, straight_state = (
        torch.load(path / "state.pt", weights_only=True) for path in (tmp_path / "out", outputs[command])
    )
    for name, tensor in straight_state["module"].items():
        assert torch.equal(state["module"][name], tensor), name


@pytest.mark.parametrize("command", ["pretrain", "metatrain"])
def test_two_processes_are_two_parts(folder, straight, tmp_path, command):
    """Parameters are those of one process that accumulates two parts, but for rounding; buffers are process 0's."""
    _, start = straight
    both, alone = (arguments(command, folder, start, tmp_path / name) for name in ("both", "alone"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    line = [*launcher, f"otfew.experiments.{command}", *both]
    ended = subprocess.run(
        line, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("use it with --backbone") == 1
    drive(command, NEVER, [*alone, "--accumulate", "2"])
    states = [torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("both", "alone")]
    for name, tensor in states[1]["module"].items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(states[0]["module"][name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    for one, other in zip(*(state["history"] for state in states), strict=True):
        if one["epoch"]:
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
            assert one["train_accuracy"] == pytest.approx(other["train_accuracy"], abs=3)
    (weights,) = (tmp_path / "both").glob("*.safetensors")
    assert all(bool(torch.isfinite(t).all()) for t in load_file(weights).values())
    assert json.loads(weights.with_suffix(".json").read_text())["protocol"]["processes"] == 2
