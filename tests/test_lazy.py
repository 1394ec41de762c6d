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
import otfew.backbones


def loaded(code, packages=("torch", "numpy")):
    """Run code in a fresh process; list which packages it has imported, and what it printed."""
    code += f"\nimport sys\nprint([name for name in {packages!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "code",
    [
        "import otfew",
        "import otfew.errors",
        "import otfew; dir(otfew)",
        "import otfew.transport.registry",
        "import otfew.backbones.loading",
        "import otfew.nodes",
        "import otfew.methods, otfew.baselines",
        "import otfew; print(otfew.__version__)",
    ],
)
def test_what_costs_nothing(code):
    assert loaded(code)[-1] == "[]"


def test_a_name_is_imported_when_it_is_asked_for():
    assert loaded("import otfew\nprint(otfew.Exact().name)") == ["exact", "['torch', 'numpy']"]


@pytest.mark.parametrize("package", [otfew, otfew.transport, otfew.backbones])
def test_the_three_lists_of_names_say_the_same(package):
    """One for users and type checkers, one for type checkers, one for the interpreter."""
    tree = ast.parse(inspect.getsource(package))
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {alias.name: node.module for node in guarded.body for alias in node.names}
    assert typed == {name: place.partition(":")[0] for name, place in package._PLACES.items()}
    assert sorted(package.__all__) == sorted(package._PLACES)
    assert {*package.__all__} <= {*dir(package)}


@pytest.mark.parametrize("package", [otfew, otfew.transport, otfew.backbones])
def test_every_name_is_what_its_module_has(package):
    for name in package.__all__:
        assert getattr(package, name) is getattr(importlib.import_module(package._PLACES[name].partition(":")[0]), name)
    with pytest.raises(AttributeError, match="no attribute 'Exakt'"):
        package.Exakt  # noqa: B018


def test_modules_are_attributes_as_before():
    said = loaded("import otfew\nprint(otfew.costs.cosine, otfew.node_weights.Uniform, otfew.transport.solve)")
    assert said[-1] == "['torch', 'numpy']"


def test_version_is_that_of_the_installation():
    assert otfew.__version__ == importlib.metadata.version("otfew")


def test_without_an_installation_there_is_a_version_too():
    code = """
import importlib.metadata
found = importlib.metadata.version
def version(name):
    if name == "otfew":
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.version = version
import otfew
from otfew.runs.identity import versions
print(otfew.__version__, versions()["otfew"], versions()["numpy"] == found("numpy"))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["0.0+uninstalled", "0.0+uninstalled", "True"]


def test_pickles_name_the_module_that_has_the_class():
    data = pickle.dumps(otfew.Sinkhorn(reg=0.5))
    assert b"otfew.transport.entropic.sinkhorn" in data
    assert pickle.loads(data) == otfew.Sinkhorn(reg=0.5)
