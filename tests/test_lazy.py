"""``import otfew`` costs nothing, and offers all it has offered."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import pickle
import subprocess
import sys

import pytest

import otfew


def loaded(code, packages=("torch", "numpy")):
    """Run code in a fresh process; list which packages it has imported, and what it printed."""
    code += f"\nimport sys\nprint([name for name in {packages!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "code",
    ["import otfew", "import otfew.errors", "import otfew; dir(otfew)", "import otfew; print(otfew.__version__)"],
)
def test_what_costs_nothing(code):
    assert loaded(code)[-1] == "[]"


def test_a_name_is_imported_when_it_is_asked_for():
    assert loaded("import otfew\nprint(otfew.Exact().name)") == ["exact", "['torch', 'numpy']"]


def test_the_three_lists_of_names_say_the_same():
    """One for users and type checkers, one for type checkers, one for the interpreter."""
    tree = ast.parse(inspect.getsource(otfew))
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {alias.name: node.module for node in guarded.body for alias in node.names}
    assert typed == otfew._PLACES
    assert sorted(otfew.__all__) == sorted(otfew._PLACES)
    assert set(otfew.__all__) | set(otfew._MODULES) <= set(dir(otfew))


@pytest.mark.parametrize("name", otfew.__all__)
def test_every_name_is_what_its_module_has(name):
    assert getattr(otfew, name) is getattr(importlib.import_module(otfew._PLACES[name]), name)


def test_modules_are_attributes_as_before():
    said = loaded("import otfew\nprint(otfew.costs.cosine, otfew.node_weights.Uniform, otfew.transport.solve)")
    assert said[-1] == "['torch', 'numpy']"


def test_version_is_that_of_the_installation():
    assert otfew.__version__ == importlib.metadata.version("otfew")


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'Exakt'"):
        otfew.Exakt  # noqa: B018


def test_pickles_name_the_module_that_has_the_class():
    data = pickle.dumps(otfew.Sinkhorn(reg=0.5))
    assert b"otfew.transport.entropic.sinkhorn" in data
    assert pickle.loads(data) == otfew.Sinkhorn(reg=0.5)
