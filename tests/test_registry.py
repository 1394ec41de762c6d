"""Methods and baselines by name and by import, and what that costs."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import otfew
from otfew.baselines import BASELINES
from otfew.methods import METHODS
from otfew.registry import Registry

PACKAGES = ["otfew.methods", "otfew.baselines"]


@pytest.mark.parametrize("package", PACKAGES)
def test_names_and_exports_cost_no_import(package):
    """Even ``otfew`` itself stays unread here, so that only what the package does counts."""
    code = f"""
import importlib, sys, types
otfew = types.ModuleType("otfew")
otfew.__path__ = {list(otfew.__path__)!r}
sys.modules["otfew"] = otfew
package = importlib.import_module({package!r})
table = getattr(package, {package.rpartition(".")[2].upper()!r})
print(len(list(table)), "nobody" in table, len(dir(package)) > len(table), repr(table)[:9])
print(*sorted({{name.partition(".")[0] for name in sys.modules}} & {{"torch", "numpy", "scipy", "numba", "sklearn"}}))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    table = getattr(importlib.import_module(package), package.rpartition(".")[2].upper())
    assert found.stdout.splitlines() == [f"{len(table)} False True Registry(", ""]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_export_is_the_class_of_its_name(package):
    module = importlib.import_module(package)
    names = [name for name in module.__all__ if not name.isupper() or name in {"CORAL", "LST", "FRN", "KNN", "TIM"}]
    assert {kind.__name__ for kind in {**METHODS, **BASELINES}.values() if kind.__module__.startswith(package)} <= set(
        names
    )
    for name in names:
        kind = getattr(module, name)
        assert inspect.isclass(kind)
        assert kind.__name__ == name
        assert name in dir(module)
    with pytest.raises(AttributeError, match="no attribute 'Nobody'"):
        _ = module.Nobody


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_what_is_exported(package):
    module = importlib.import_module(package)
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {a.asname: f"{n.module}" for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert seen == {name: getattr(module, name).__module__ for name in module.__all__ if name in seen}
    assert set(module.__all__) - set(seen) == {package.rpartition(".")[2].upper()}


def test_a_registry_is_a_mapping():
    table = Registry({"b": "collections:OrderedDict", "a": "collections:Counter"})
    assert list(table) == ["b", "a"]
    assert len(table) == 2
    assert dict(table)["a"].__name__ == "Counter"
    assert table.get("c") is None
    with pytest.raises(KeyError):
        _ = table["c"]
    table["c"] = dict
    assert table["c"] is dict
    del table["b"]
    assert [*table.values()][1] is dict
