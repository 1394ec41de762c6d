"""Every sentence of docs/promises.md names the tests that prove it, and those tests are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import otfew

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "promises.md"
NAMED = re.compile(r"`([\w/]+)::(test_\w+)`")
PROMISES = re.findall(r"^- .*?(?=^- |^#|\Z)", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def names_in(name):
    """The names of the tests in a file below tests."""
    path = ROOT / "tests" / f"{name}.py" if "/" in name else ROOT / "tests" / "transport" / f"{name}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_there_are_promises():
    assert len(PROMISES) > 25


@pytest.mark.parametrize("promise", PROMISES, ids=lambda text: " ".join(text.split())[2:60])
def test_every_promise_is_proven_by_tests_that_exist(promise):
    named = NAMED.findall(promise)
    assert named, "no test is named"
    for file, test in named:
        assert test in names_in(file)


def test_the_proof_on_the_page_is_a_proof():
    """Its lines run as they are, and bound what can be saved."""
    rng = np.random.default_rng(3)
    cost, a, b = rng.random((4, 6, 5)), rng.random((4, 6)), rng.random((4, 5))
    a, b = a / a.sum(-1, keepdims=True), b / b.sum(-1, keepdims=True)
    result = otfew.solve(cost, a, b)
    names = {"plan": result.plan, "cost": cost, "a": a, "b": b, "f": result.potentials[0], "g": result.potentials[1]}
    lines = re.findall(r"^ {6,8}(\w+ = .*?)\s+#", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    exec("\n".join(lines), names)
    assert (names["f"][..., None] + names["g"][..., None, :] - cost).max() < 1e-12
    assert np.abs(names["value"] - names["lower"]).max() < 1e-12
    assert np.allclose(names["value"], result.value, rtol=0, atol=1e-12)
