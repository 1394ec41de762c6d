"""What the library says to its users: it names arguments; options are the commands' affair."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = [
    "methods", "baselines", "otfew/scores", "otfew/nodes", "otfew/backbones", "otfew/data", "otfew/transport",
    "otfew/retrieval", "otfew/runs", "otfew/features",
]  # fmt: skip
PIP = {"--force-reinstall"}

if not (ROOT / "otfew" / "transport").is_dir():
    pytest.skip("runs in a checkout only", allow_module_level=True)


@pytest.mark.parametrize("room", ROOMS)
def test_no_sentence_names_an_option(room):
    found = [
        f"{path.relative_to(ROOT)}: {option}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", node.value)
        if option not in PIP
    ]
    assert found == []
