"""What all tests share."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from otfew.transport.registry import SOLVERS, Solver, installed, lookup

if TYPE_CHECKING:
    from .devices.pretended import Machine


TESTS = Path(__file__).parent
SPEAKS_OF_OPTIONAL_LIBRARIES = re.compile(r"importorskip|\binstalled\b|\bfind_spec\b|\botfew\[")


OF_PAGES = {"test_commands_in_docs.py", "test_docs.py", "test_docstrings.py", "test_method_pages.py", "test_release.py"}
"""What they read is the same whatever is installed."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let an environment without the optional libraries run what they may change."""
    parser.addoption(
        "--without-optional",
        action="store_true",
        help="only test files that speak of libraries that may be missing, and those at the top of tests but of pages",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files that need not be run again where the optional libraries are missing.

    Code outside the adapters of optional libraries cannot tell whether they are there: ``test_dependencies.py`` proves
    that it imports none.
    """
    if not config.getoption("--without-optional") or not collection_path.name.startswith("test_"):
        return None
    if collection_path.name in OF_PAGES:
        return True
    at_the_top = collection_path.parent == TESTS
    return None if at_the_top or SPEAKS_OF_OPTIONAL_LIBRARIES.search(collection_path.read_text("utf-8")) else True


@pytest.fixture
def pretended() -> Callable[..., AbstractContextManager[Machine]]:
    """Give what runs a pretended accelerator: ``with pretended() as machine: x = machine.away(x)``.

    Kernels of ours are emulated there where there is a C++ compiler, but for ``pretended(kernels=False)``; an emulator
    of one's own may be given instead, and options of ours.
    """
    from .devices.pretended import pretended as run
    from .transport.cuda.emulator import Emulator, compiler

    def start(kernels: bool | Emulator = True, **options: bool) -> AbstractContextManager[Machine]:
        if isinstance(kernels, bool):
            kernels = Emulator(**options) if kernels and compiler() else None
        return run(kernels)

    return start


@pytest.fixture
def unrendered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose pictures without rendering them, which would take most of many a small run's time.

    A test that looks at pictures asks for ``rendered``.
    """
    if "rendered" in request.fixturenames:
        return
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **options: file.write(b"not rendered"))


@pytest.fixture
def rendered() -> None:
    """Render pictures, whatever other fixtures say."""


def solver_class(value: object) -> type[Solver] | None:
    """Recognise a solver by its name, options or class."""
    if isinstance(value, str):
        return lookup(value) if value in SOLVERS else None
    kind = value if inspect.isclass(value) else type(value)
    return kind if issubclass(kind, Solver) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, saying so, the cases of a solver whose library is not installed, and tests for GPUs where none is."""
    marked = [item for item in items if item.get_closest_marker("cuda") is not None]
    if marked and not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU, and torch finds none here"))
    for item in items:
        parameters = getattr(item, "callspec", None)
        for value in parameters.params.values() if parameters else ():
            solver = solver_class(value)
            if solver is not None and not installed(solver):
                item.add_marker(pytest.mark.skip(reason=f"{solver.requires} is not installed: {solver.install}"))
