"""CPU seconds from nothing to the first answer: in a fresh installation, and when what it compiled is loaded."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

import pytest

TURNS = 5

SOLVE = """
import time
import numpy as np
import torch
start = time.process_time()
import otfew
rng = np.random.default_rng(0)
cost, (a, b) = rng.random(({n}, {n})), rng.dirichlet(np.ones({n}), 2)
for dtype in (np.float64, np.float32):
    float(otfew.solve(cost.astype(dtype), a, b, solver=otfew.{solver}).value)
    print(time.process_time() - start)
    start = time.process_time()
"""

TO_FIRST_ANSWER = """
import time
{imports}
print(time.process_time())
"""


def seconds(code, folder):
    """Run code in a process of its own, one thread, that keeps compiled code in a folder; return what it prints."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return [float(line) for line in run.stdout.split()]


@pytest.mark.parametrize(
    ("solver", "n"), [("Exact(threads=1)", 5), ("Exact(threads=1)", 200), ("Sinkhorn()", 5)], ids=str
)
def test_first_call_in_a_fresh_installation(solver, n, tmp_path, summarise, benchmark):
    first, second = seconds(SOLVE.format(solver=solver, n=n), tmp_path)
    loaded, _ = seconds(SOLVE.format(solver=solver, n=n), tmp_path)
    title = f"first {solver} of {n}x{n}, CPU seconds after import torch"
    summarise(title, {"float64": first, "then float32": second, "float64, loaded": loaded})
    benchmark.pedantic(lambda: None)


@pytest.mark.parametrize("solver", ["exact", "sinkhorn"])
def test_first_answer_of_a_warm_process(solver, tmp_path, summarise, benchmark):
    solve = f"import otfew, numpy as np; otfew.solve(np.eye(5), solver={solver!r}).value"
    codes = {"import torch": "import torch", "first answer": solve}
    codes = {name: TO_FIRST_ANSWER.format(imports=imports) for name, imports in codes.items()}
    seconds(codes["first answer"], tmp_path)
    turns = [{name: seconds(code, tmp_path)[0] for name, code in codes.items()} for _ in range(TURNS)]
    medians = {name: statistics.median(turn[name] for turn in turns) for name in codes}
    summarise(f"process start to the first answer of {solver}, CPU", medians)
    benchmark.pedantic(lambda: None)
