"""What a user sees on the first solve of a fresh installation, and on the second."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SOLVE_TWICE = """
import hashlib, numpy, otfew
for _ in range(2):
    assert float(otfew.solve(numpy.eye(3)).value) == 0.0
rng = numpy.random.default_rng(0)
result = otfew.solve(rng.random((50, 25, 25)), rng.dirichlet(numpy.ones(25), 50), rng.dirichlet(numpy.ones(25), 50))
print(hashlib.sha256(b"".join(x.tobytes() for x in (result.value, result.gap, *result.potentials))).hexdigest())
"""


@pytest.mark.slow
def test_compilation_is_announced_once(tmp_path):
    def run():
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-c", SOLVE_TWICE],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )

    first, second = run(), run()
    assert first.stderr.count("compiling the exact solver") == 1
    assert first.stderr.count("\n") == 1
    assert second.stderr == ""
    # What was compiled in a process and what is loaded are the same machine code.
    assert first.stdout == second.stdout
    assert len(first.stdout.strip()) == 64
