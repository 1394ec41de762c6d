"""Imports point one way: compat, experiments -> methods, baselines -> otfew -> otfew.transport.

Heavy libraries load on use.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ABOVE = ("otfew.methods", "otfew.baselines", "otfew.experiments")
BARE = {"methods", "baselines", "experiments", "tests"}
COMPAT = "otfew/compat"
"""Lies in the library's folder and stands above the methods, which it offers in the shapes of other libraries."""
BY_NAME = {"otfew/catalogue.py"}
"""Modules that may look up packages above them by name, when asked."""

if not (ROOT / "otfew" / "transport").is_dir():
    pytest.skip("runs in a checkout only", allow_module_level=True)


def modules(*folders):
    """List source files by folder."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


def library():
    """List the library's source files, without those for other libraries."""
    return [path for path in modules("otfew") if ROOT / COMPAT not in path.parents]


def offences(paths, wrong):
    """Map each file, by its path from the root, to the imports that a rule forbids it."""
    found = {path.relative_to(ROOT).as_posix(): sorted(filter(wrong, set(imported(path)))) for path in paths}
    return {path: names for path, names in found.items() if names}


def dotted_name(path):
    """Name a module as it is imported: the top-level folders live under otfew."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] != "otfew":
        parts.insert(0, "otfew")
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(path):
    """Yield every module that a file imports, wherever in the file; ``from x import y`` counts as x and x.y."""
    name = dotted_name(path)
    package = name if path.name == "__init__.py" else name[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                kept = package[: len(package) - node.level + 1]
                base = ".".join([*kept, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def strings(path):
    """Yield string constants outside docstrings: what a dynamic import could name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node.value


def inside(name, package):
    return name == package or name.startswith(f"{package}.")


def above(name):
    """Tell whether a module, or an attribute given as module:name, belongs to a package above the library."""
    return any(inside(name.partition(":")[0], package) for package in ABOVE)


def test_the_ot_core_imports_nothing_else_of_otfew():
    def wrong(name):
        return inside(name, "otfew") and not inside(name, "otfew.transport")

    assert offences(modules("otfew/transport"), wrong) == {}


def test_the_library_imports_nothing_above_it():
    assert offences(library(), above) == {}


def test_the_library_names_nothing_above_it():
    """A dynamic import needs the name as a string; one documented module has it."""
    found = {p.relative_to(ROOT).as_posix() for p in library() if any(above(text) for text in strings(p))}
    assert found == BY_NAME


def test_compat_stands_above_methods_and_below_nothing():
    own = COMPAT.replace("/", ".")
    others = [*library(), *modules("methods", "baselines", "experiments")]
    assert offences(others, lambda name: inside(name, own)) == {}
    assert offences(modules(COMPAT), lambda name: inside(name, "otfew.experiments")) == {}


@pytest.mark.parametrize("folder", ["methods", "baselines"])
def test_methods_and_baselines_import_only_the_library_and_their_own_folder(folder):
    def wrong(name):
        return above(name) and not inside(name, f"otfew.{folder}")

    assert offences(modules(folder), wrong) == {}


def test_no_module_is_imported_under_a_bare_name():
    """Otherwise a module would exist twice, and a wheel would need packages of these names."""
    folders = modules("otfew", "methods", "baselines", "experiments", "tests")
    assert offences(folders, lambda name: name.partition(".")[0] in BARE) == {}


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("otfew/transport/x.py", "import otfew.costs", ["otfew.costs"]),
        ("otfew/transport/x.py", "from ..costs import f", ["otfew.costs", "otfew.costs.f"]),
        ("otfew/transport/__init__.py", "from .api import f", ["otfew.transport.api", "otfew.transport.api.f"]),
        ("otfew/x.py", "from . import transport", ["otfew", "otfew.transport"]),
        ("methods/x.py", "from .deepemd import f", ["otfew.methods.deepemd", "otfew.methods.deepemd.f"]),
        ("methods/x.py", "def f():\n    from methods import y", ["methods", "methods.y"]),
    ],
)
def test_the_reader_of_imports_itself(file, line, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert sorted(imported(path)) == expected


def test_backends_and_heavy_libraries_are_imported_on_first_use():
    code = """
import sys, numpy
import otfew, otfew.transport, otfew.methods, otfew.baselines
otfew.solvers()
classes = [*otfew.methods.METHODS.values(), *otfew.baselines.BASELINES.values()]
heavy = {"numba", "ot", "cv2", "sklearn", "matplotlib", "scipy", "kornia", "lightning_fabric", "pooch"}
heavy |= {"pykeops", "keopscore", "geomloss", "pytorch_metric_learning"}
print(*sorted({name.partition(".")[0] for name in sys.modules} & heavy))
otfew.solve(numpy.eye(2))
print("numba" in sys.modules, "ot" in sys.modules, "cv2" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert found.stdout.splitlines() == ["", "True False False"]
