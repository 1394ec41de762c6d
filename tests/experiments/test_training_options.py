"""Commands that train say what their options are without importing the library behind them."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = """
import sys
from importlib import import_module
name = sys.argv.pop(1)
module = import_module(f"otfew.experiments.{name}")
try:
    module.main(["--help"])
except SystemExit as ended:
    assert ended.code in (0, None)
heavy = {"torch", "numpy", "scipy", "numba", "cv2", "sklearn", "matplotlib", "kornia", "lightning_fabric"}
print("HEAVY", sorted(heavy & sys.modules.keys()))
"""


@pytest.mark.parametrize("command", ["pretrain", "metatrain", "metric_learning.command", "long_tail.command"])
def test_help_imports_no_library(command):
    line = [sys.executable, "-c", LIGHT, command]
    ended = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "--output" in ended.stdout
    assert "HEAVY []" in ended.stdout
