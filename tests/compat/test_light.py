"""Names of other libraries do without these libraries."""

from __future__ import annotations

import subprocess
import sys

import otfew

CODE = """
import sys
import otfew
print([name for name in ("torch", "otfew.compat.pot") if name in sys.modules])
assert not {"emd", "emd2"} & set(vars(otfew))
otfew.emd
print([name for name in ("torch", "otfew.compat.pot") if name in sys.modules])
assert "emd2" not in vars(otfew)
import otfew.compat.pot as ot, otfew.compat.scipy, otfew.compat.opencv, otfew
heavy = ["ot", "cv2", "scipy", "numba", "sklearn", "matplotlib"]
print([name for name in heavy if name in sys.modules])
import numpy as np
ot.emd2([], [], np.eye(3)), ot.emd([], [], np.eye(3), log=True)
otfew.compat.scipy.linear_sum_assignment(np.eye(3))
otfew.compat.opencv.EMD(np.ones((2, 1), "f"), np.ones((2, 1), "f"), -1, np.eye(2, dtype="f"))
print([name for name in heavy if name in sys.modules])
"""


def test_imports():
    """In one process: the top-level names are imported when they are asked for, other libraries where they are used."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=300)
    alone, asked, before, after = done.stdout.splitlines()
    assert alone == "[]"
    assert asked == "['torch', 'otfew.compat.pot']"
    assert before == "[]"
    assert "'ot'" not in after
    assert "cv2" not in after


def test_either_name_brings_it():
    """``emd2`` is found as ``emd`` is."""
    assert otfew._PLACES["emd"] == otfew._PLACES["emd2"]
    assert otfew.emd2 is otfew.compat.pot.emd2
