"""The examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("otfew", "methods", "baselines")

if not (ROOT / "otfew" / "transport").is_dir():
    pytest.skip("runs in a checkout only", allow_module_level=True)


def examples():
    """Name every module that has an example."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            lines = path.read_text(encoding="utf-8").splitlines()
            if any(">>> " in line and "+SKIP" not in line for line in lines):
                parts = path.relative_to(ROOT).with_suffix("").parts
                yield ".".join(parts if parts[0] == "otfew" else ("otfew", *parts)).removesuffix(".__init__")


MODULES = [*examples()]


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
    with warnings.catch_warnings():
        # A name that will go is no example.
        warnings.simplefilter("error", DeprecationWarning)
        found = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_public_classes_have_one():
    methods = {"deepemd", "lst", "batchwise_ot", "ot_reweighting", "self_optimal_transport", "latent_space_transform"}
    wanted = {f"otfew.methods.{name}" for name in methods} | {"otfew.transport.api", "otfew.transport.points"}
    assert wanted <= {*MODULES}
