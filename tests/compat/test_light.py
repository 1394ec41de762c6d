"""Names of other libraries do without these libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
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
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=300)
    before, after = done.stdout.splitlines()
    assert before == "[]"
    assert "'ot'" not in after
    assert "cv2" not in after


@pytest.mark.parametrize("name", ["emd", "emd2"])
def test_the_top_level_names_are_imported_when_they_are_asked_for(name):
    code = f"import sys, otfew\nprint('torch' in sys.modules)\notfew.{name}\nprint('otfew.compat.pot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.split() == ["False", "True"]
