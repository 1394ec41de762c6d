"""Imports point one way, from floor to floor of the house that docs/architecture.md draws; no module waits for itself.

Heavy libraries load on use.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

from otfew.evaluation.blocks import CODE
from otfew.experiments.commands import COMMANDS
from otfew.runs.identity import sources

ROOT = Path(__file__).resolve().parents[1]
ABOVE = ("otfew.methods", "otfew.baselines", "otfew.experiments")
BARE = {"methods", "baselines", "experiments", "tests"}
COMPAT = "otfew/compat"
"""Lies in the library's folder and stands above the methods, which it offers in the shapes of other libraries."""
COMMAND = "otfew/__main__.py"
"""``python -m otfew``: the command line, which stands above everything."""
BY_NAME = {"otfew/catalogue.py"}
"""Modules that may look up packages above them by name, when asked."""

FLOORS: tuple[frozenset[str], ...] = tuple(
    frozenset(floor.split())
    for floor in (
        "errors choices",
        "transport random",
        "runs statistics costs slices devices registry checks",
        "method pair_loss scores caches plugins",
        "methods baselines data node_weights catalogue",
        "backbones nodes",
        "features",
        "evaluation retrieval conformance",
        "training reporting retrieval_metrics",
        "classifier compat api",
        "app",
        "otfew",
        "experiments",
        "__main__",
    )
)
"""Rooms, and files beside them, from the ground up: each may use the floors below its own, and itself."""
OF_METHODS = frozenset(
    [
        "errors",
        "choices",
        "transport",
        "random",
        "costs",
        "registry",
        "checks",
        "method",
        "pair_loss",
        "scores",
        "node_weights",
    ]
)
"""What methods and baselines are built on: neither data nor evaluation, so that they work on anybody's node sets."""
MOST_FILES = 20
"""At the top of experiments/."""
USERS_OF_COMMANDS = (
    "tests/experiments/",
    "tests/test_",
    "tests/backbones/test_loading.py",
    "tests/baselines/test_metric_losses.py",
    "tests/classifier/test_prior_study.py",
)
"""Tests that may import commands: theirs, those of the whole house, and some that follow a sentence or a loss up."""

if not (ROOT / "otfew" / "transport").is_dir():
    pytest.skip("runs in a checkout only", allow_module_level=True)


def modules(*folders):
    """List source files by folder."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


def library():
    """List the library's source files, without those for other libraries and the command line."""
    return [path for path in modules("otfew") if ROOT / COMPAT not in path.parents and path != ROOT / COMMAND]


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


@functools.cache
def statements(path):
    """List (module, names or none) of every import in a file, wherever it stands, ``TYPE_CHECKING`` included."""
    return list(read_statements(path))


def read_statements(path):
    name = dotted_name(path)
    package = name if path.name == "__init__.py" else name[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                kept = package[: len(package) - node.level + 1]
                base = ".".join([*kept, *([node.module] if node.module else [])])
            yield base, [alias.name for alias in node.names]


def imported(path):
    """Yield every module that a file imports; ``from x import y`` counts as x and x.y."""
    for base, names in statements(path):
        yield base
        yield from (f"{base}.{name}" for name in names)


@functools.cache
def graph():
    """Map every module of ours to those that it imports; ``from x import y`` counts as x.y where that is a module."""
    files = {".".join(dotted_name(path)): path for path in modules("otfew", "methods", "baselines", "experiments")}
    found = {}
    for module, path in files.items():
        pairs = [(base, name) for base, names in statements(path) for name in names or [""]]
        named = {f"{base}.{name}" if f"{base}.{name}" in files else base for base, name in pairs}
        found[module] = {name for name in named if name in files} - {module}
    return found


def reached(start, edges):
    """List the modules that some modules lead to, themselves included."""
    seen, waiting = set(), list(start)
    while waiting:
        if (module := waiting.pop()) not in seen:
            seen.add(module)
            waiting += edges[module]
    return seen


def circles(edges):
    """Group the modules that wait for each other."""
    leads_to = {module: reached(edges[module], edges) for module in edges}
    groups = {
        tuple(sorted(other for other in found if module in leads_to[other])) for module, found in leads_to.items()
    }
    return {group for group in groups if group}


def room(module):
    """Name the room of a module: the part behind otfew, which is a room of its own."""
    return module.split(".")[1] if "." in module else module


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
    # otfew itself, above all rooms, offers some of its names.
    others = [path for path in library() if path != ROOT / "otfew" / "__init__.py"]
    others += modules("methods", "baselines", "experiments")
    assert offences(others, lambda name: inside(name, own)) == {}
    assert offences(modules(COMPAT), lambda name: inside(name, "otfew.experiments")) == {}


@pytest.mark.parametrize("folder", ["methods", "baselines"])
def test_methods_and_baselines_need_neither_data_nor_evaluation(folder):
    used = {found for module, names in graph().items() if room(module) == folder for found in names}
    assert {room(name) for name in used} <= {folder, *OF_METHODS}


def test_every_room_has_its_floor_and_imports_only_what_lies_below():
    floor = {name: height for height, names in enumerate(FLOORS) for name in names}
    assert {room(module) for module in graph()} <= set(floor)
    upward = [
        f"{module} -> {name}"
        for module, names in graph().items()
        for name in names
        if room(name) != room(module) and floor[room(name)] >= floor[room(module)]
    ]
    assert upward == []


def test_no_module_waits_for_itself():
    assert circles(graph()) == set()


def test_circles_are_found_whatever_hides_them():
    edges = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"e", "f"}, "e": {"f"}, "f": {"d"}, "g": {"a"}}
    assert circles(edges) == {("b", "c"), ("d", "e", "f")}


def test_only_commands_and_their_tests_import_commands():
    tests = [path for path in modules("tests") if not path.relative_to(ROOT).as_posix().startswith(USERS_OF_COMMANDS)]
    assert offences(tests, lambda name: inside(name, "otfew.experiments")) == {}
    assert offences(modules("methods", "baselines"), lambda name: inside(name, "otfew.experiments")) == {}


def test_experiments_are_commands_at_the_top_and_folders_of_large_ones():
    names = {name.replace("-", "_") for name in COMMANDS}
    top = sorted(path for path in (ROOT / "experiments").iterdir() if path.name != "__pycache__")
    files = [path for path in top if path.is_file()]
    folders = {path.name for path in top if path.is_dir()}
    assert len(files) <= MOST_FILES
    flat = {path.stem for path in files if path.suffix == ".py"} - {"__init__", "__main__", "commands"}
    shared = {"common", "analyses"}
    assert flat | folders - shared == names
    assert not flat & folders
    for folder in folders - shared:
        assert {"__main__.py", "command.py"} <= {path.name for path in (ROOT / "experiments" / folder).iterdir()}


def test_a_block_of_episodes_names_all_the_code_that_its_figures_depend_on():
    """But for what makes the features: their digest stands in the block itself."""
    start = [name for name in graph() if room(name) in {"methods", "baselines"}]
    needed = reached([*start, "otfew.evaluation.run"], graph())
    covered = {name for package in (*CODE, "otfew.methods", "otfew.baselines") for name, _ in sources(package)}
    rest = {name for name in needed - covered if room(name) not in {"errors", "runs"}}
    # These refuse or name what methods are given; no figure is another by them.
    rest -= {"otfew.checks", "otfew.choices", "otfew.evaluation.guard", "otfew.plugins", "otfew.registry"}
    made_of = {"otfew.data.base", "otfew.data.parts", "otfew.data.preparation"}
    made_of |= {"otfew.evaluation.blocks", "otfew.pair_loss"}
    assert {name for name in rest if room(name) not in {"features", "nodes", "backbones"}} <= made_of


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
