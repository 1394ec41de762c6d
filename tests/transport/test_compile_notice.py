"""What a user sees on the first solve of a fresh installation, and on the second."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SOLVE_TWICE = """
import numpy, otfew
for _ in range(2):
    assert float(otfew.solve(numpy.eye(3)).value) == 0.0
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
    assert first.stdout == second.stdout == ""
