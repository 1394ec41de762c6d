"""The layer of DeepEMD's released training code beside ``exact``; runs where qpth is installed (``tox -e beside``)."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import otfew

pytest.importorskip("qpth")


@pytest.mark.parametrize(("size", "n"), [(50, 9), (4, 16)])
def test_forward_and_backward(size, n, race, nodes_batch):
    leaves = [torch.from_numpy(x).requires_grad_() for x in nodes_batch(size, n)]

    def layer(solver):
        return lambda: torch.autograd.grad(otfew.solve(*leaves, solver=solver).value_linear.sum(), leaves)

    race(f"{size} x {n}x{n} forward and backward", {"exact": layer("exact"), "qpth": layer("qpth")}, rounds=3)


SOLVE = r"""
import re, sys
from pathlib import Path
import numpy as np, torch, otfew
torch.set_num_threads(1)
solver, size, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
def leaves(size):
    cost, a, b = rng.random((size, n, n)), rng.random((size, n)) + 0.1, rng.random((size, n)) + 0.1
    b *= a.sum(-1, keepdims=True) / b.sum(-1, keepdims=True)
    return [torch.from_numpy(x).requires_grad_() for x in (cost, a, b)]
def run(leaves):
    torch.autograd.grad(otfew.solve(*leaves, solver=solver).value_linear.sum(), leaves)
def kibibytes(name):
    return int(re.search(name + r":\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
run(leaves(1))
problems = leaves(size)
Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
before = kibibytes("VmRSS")
run(problems)
print((kibibytes("VmHWM") - before) / 1024)
"""


@pytest.mark.parametrize(
    ("solver", "size", "n"), [("exact", 50, 9), ("qpth", 50, 9), ("exact", 375, 25), ("qpth", 4, 25), ("qpth", 16, 25)]
)
def test_memory(solver, size, n, benchmark):
    """Peak memory of forward and backward beyond their input, each in a process of its own (Linux)."""
    line = [sys.executable, "-c", SOLVE, solver, str(size), str(n)]
    ended = benchmark.pedantic(lambda: subprocess.run(line, capture_output=True, text=True, check=True), rounds=1)
    benchmark.extra_info["MiB"] = float(ended.stdout)
    sys.stdout.write(f"{solver}, {size} x {n}x{n}: {float(ended.stdout):.1f} MiB\n")
