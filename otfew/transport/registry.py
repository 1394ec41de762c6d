"""Solvers by name: one file with one frozen dataclass, and one line here; its library is imported on first use."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from otfew.transport.importing import find, is_plugin

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from otfew.transport.problem import Potentials, Problem, Solution
    from otfew.transport.result import Parts

SOLVERS: dict[str, str] = {
    "exact": "otfew.transport.simplex.exact:Exact",
    "sinkhorn": "otfew.transport.entropic.sinkhorn:Sinkhorn",
    "pot": "otfew.transport.backends.pot:POT",
    "pot-sinkhorn": "otfew.transport.backends.pot_sinkhorn:POTSinkhorn",
    "opencv": "otfew.transport.backends.opencv:OpenCV",
    "qpth": "otfew.transport.backends.qpth:QPTH",
    "scipy": "otfew.transport.backends.scipy:SciPy",
    "keops": "otfew.transport.backends.keops:KeOps",
    "geomloss": "otfew.transport.backends.geomloss:GeomLoss",
}
"""Name -> ``package.module:Class``, which is imported when it is asked for. A new solver is one file and one line."""


class Solver(ABC):
    """Base of the option dataclasses; a solver derives from one of the three kinds below.

    Attributes:
        name: Key in ``SOLVERS``.
        kind: "exact" solves the linear program, "entropic" and "quadratic" a regularised one.
        requires: Module that must be importable.
        install: What installs it.
        devices: Where the work runs; other inputs are copied.
        gradients: What the result can be differentiated in.
        batch_coupled: True where an answer depends on the other problems of the batch.
        remedy: What to do where it stops before the optimum.
        dtypes: Precisions in which it works; every solver takes float32 and float64.
        forbids: Whether it takes forbidden pairs, costs of +inf; others are given finite costs alone.
        warm: What it can start from: the tree of an exact result, the potentials of any, or nothing.
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["exact", "entropic", "quadratic"]]
    requires: ClassVar[str]
    install: ClassVar[str]
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    gradients: ClassVar[str] = "value in cost, a, b (envelope)"
    batch_coupled: ClassVar[bool] = False
    remedy: ClassVar[str] = "raise max_iter"
    input: ClassVar[Literal["dense cost", "points"]] = "dense cost"
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64")
    forbids: ClassVar[bool] = False
    warm: ClassVar[Literal["tree", "potentials"] | None] = None

    @property
    def equal_totals(self) -> bool:
        """Whether the totals of a and b must agree; if not, b is not rescaled."""
        return True

    def solve_there(
        self, cost: Tensor, a: Tensor | None, b: Tensor | None, batch: torch.Size, looks: bool, rtol: float
    ) -> Parts | None:
        """Solve a batch of dense costs, not on the CPU, by a kernel of their device, where there is one for them.

        Args:
            cost: (*batch, n, m) float32 or float64; its batch, like that of a and b, broadcasts to ``batch``.
            a: (*batch, n) or None, as the caller gave it.
            b: (*batch, m) or None, not rescaled.
            batch: Of all problems.
            looks: Whether to wait for the device to see that all went well; if not, nothing that is made from the
                answer waits either, and a plan whose mass is out of its dtype's range is handed out as it is.
            rtol: How far totals of a and b may differ, relative to the larger; what ``check_values`` refuses is
                refused, but nothing is where this is infinite.

        Returns:
            What a result is made of, as of ``TensorSolver.solve``, or None where there is no such kernel; then
            ``solve`` is called.
        """
        del cost, a, b, batch, looks, rtol
        return None


class ArraySolver(Solver):
    """A solver of dense costs on the CPU in numpy; ``otfew.solve`` adds the envelope gradient of the value."""

    @property
    def checks_values(self) -> bool:
        """Whether ``solve`` itself gives unsound problems the status ``INVALID``, so that the data are read once.

        It leaves that to its caller where the problem says that it is checked.
        """
        return False

    @abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """Solve every problem of the batch.

        Args:
            problem: (problems, n, m), costs and weights on the CPU, checked unless ``checks_values`` is True.

        Returns:
            Plans, potentials and certificates (problems, ...) in float64; ``otfew.transport.dense.solve_each`` makes
            it from a function that solves one problem.
        """


class TensorSolver(Solver):
    """A solver of dense costs in torch, on any device, that brings its own gradients."""

    devices: ClassVar[tuple[str, ...]] = ("any",)

    @abstractmethod
    def solve(self, cost: Tensor, a: Tensor, b: Tensor) -> Parts:
        """Solve a flat batch.

        Gradients in a and b may be those of unrelated arguments: rescaling b to the total of a, missing weights and
        broadcasting are differentiated outside.

        Args:
            cost: (problems, n, m) float32 or float64; may be expanded (strides of zero).
            a: (problems, n) float64 on the device of the cost.
            b: (problems, m) float64, of the same totals as a unless ``equal_totals`` is False.

        Returns:
            What a result is made of: tensors (problems, ...) on the device of the cost.
        """

    def solve_rounded(self, cost: Tensor, a: Tensor, b: Tensor, rounding: float, may_forbid: bool = True) -> Parts:
        """Solve a flat batch; solvers that look at whether forbidden pairs leave a plan ask how exact weights are.

        Args:
            cost: (problems, n, m), as of ``solve``.
            a: (problems, n), as of ``solve``.
            b: (problems, m), as of ``solve``.
            rounding: Largest relative error of one rounding of a weight, as it was given.
            may_forbid: Whether pairs may be forbidden; if not, nobody need look.

        Returns:
            As ``solve``.
        """
        del rounding, may_forbid
        return self.solve(cost, a, b)

    def solve_from(self, start: Potentials, cost: Tensor, a: Tensor, b: Tensor, rounding: float) -> Parts:
        """Solve a flat batch from potentials, where ``warm`` says so.

        Args:
            start: f (problems, n) and g (problems, m) near those of the problems, in any gauge.
            cost: (problems, n, m), as of ``solve``.
            a: (problems, n), as of ``solve``.
            b: (problems, m), as of ``solve``.
            rounding: As of ``solve_rounded``.

        Returns:
            As ``solve``.
        """
        del start, rounding
        return self.solve(cost, a, b)


class PointSolver(Solver):
    """A solver of point clouds that never holds the (n, m) costs, in torch, with its own gradients."""

    input: ClassVar[Literal["dense cost", "points"]] = "points"
    devices: ClassVar[tuple[str, ...]] = ("any",)

    @abstractmethod
    def solve_points(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor, cost: str) -> Parts:
        """Solve a flat batch; as ``TensorSolver.solve``, with the plan as an operator.

        Args:
            x: (problems, n, d) float32 or float64.
            y: (problems, m, d) of the same dtype.
            a: (problems, n) float64 on the device of x.
            b: (problems, m) float64, of the same totals as a.
            cost: Name of the cost between points.

        Returns:
            What a result is made of: tensors (problems, ...) on the device of x, its plan an operator.
        """

    def solve_points_from(self, start: Potentials, x: Tensor, y: Tensor, a: Tensor, b: Tensor, cost: str) -> Parts:
        """Solve a flat batch from potentials, where ``warm`` says so.

        Args:
            start: f (problems, n) and g (problems, m) near those of the problems, in any gauge.
            x: (problems, n, d), as of ``solve_points``.
            y: (problems, m, d), as of ``solve_points``.
            a: (problems, n), as of ``solve_points``.
            b: (problems, m), as of ``solve_points``.
            cost: Name of the cost between points.

        Returns:
            As ``solve_points``.
        """
        del start
        return self.solve_points(x, y, a, b, cost)


def installed(solver: type[Solver]) -> bool:
    """Tell whether the library behind a solver can be imported."""
    try:
        return importlib.util.find_spec(solver.requires) is not None
    except (ModuleNotFoundError, ValueError):  # a package above it is missing, or the name is none
        return False


def lookup(name: str) -> type[Solver]:
    """Return the option class of a solver.

    Args:
        name: Key of ``SOLVERS``, or ``package.module:Name`` of a class of one's own.

    Raises:
        ValueError: No such solver; the message lists the names.
    """
    if is_plugin(name):
        return _of_a_user(name)
    if name not in SOLVERS:
        close = difflib.get_close_matches(name, SOLVERS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(f"unknown solver {name!r}{hint} Solvers: {', '.join(SOLVERS)}, package.module:Name")
    module, _, attribute = SOLVERS[name].partition(":")
    solver: type[Solver] = getattr(importlib.import_module(module), attribute)
    return solver


def _of_a_user(name: str) -> type[Solver]:
    """Import a solver that is in no table, and check that it is one; raises ``ValueError``."""
    try:
        found = find(name, "solver")
    except ValueError as error:
        raise ValueError(str(error).rstrip(".")) from error.__cause__
    if not inspect.isclass(found) or not issubclass(found, ArraySolver | TensorSolver | PointSolver):
        got = found.__name__ if inspect.isclass(found) else f"of type {type(found).__name__}"
        bases = "ArraySolver, TensorSolver or PointSolver of otfew.transport.registry"
        raise ValueError(f"{name!r} is no solver but {got}: name a frozen dataclass that derives from {bases}")
    if inspect.isabstract(found):
        raise ValueError(f"solver {name!r} lacks its method {min(found.__abstractmethods__)!r}: write it")
    for attribute in ("name", "kind", "requires", "install"):
        if not isinstance(getattr(found, attribute, None), str):
            raise ValueError(f"solver {name!r} lacks the attribute {attribute!r}, a word: state it in the class")
    return found


def resolve(solver: str | Solver) -> Solver:
    """Turn a name into a solver with default options and check that its library is there.

    Raises:
        ValueError: Unknown name.
        TypeError: Neither a name nor a solver.
        ImportError: The solver's library is not installed; the message says how to get it.
    """
    if isinstance(solver, str):
        solver = _with_defaults(solver)
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be a name or a solver such as otfew.Exact(), got {solver!r}")
    if solver.requires not in _found:
        if not installed(type(solver)):
            raise ImportError(f"solver {solver.name!r} needs {solver.requires}: {solver.install}")
        _found.add(solver.requires)
    return solver


@functools.cache
def _with_defaults(name: str) -> Solver:
    """Make the solver of a name, once."""
    kind = lookup(name)
    try:
        return kind()
    except TypeError as error:
        raise ValueError(f"solver {name!r} has no default for all of its options ({error}): give them one") from error


_found: set[str] = set()
"""Libraries that are there: asking again costs more than a small problem."""


def solvers() -> list[dict[str, Any]]:
    """Describe every solver that is known by a name.

    Returns:
        For each a dictionary: its ``name``; ``kind``, what it solves; ``input``, "dense cost" or "points"; ``dtypes``
        and ``devices`` that it works in; ``gradients``; ``forbids``, whether it takes forbidden pairs;
        ``batch_coupled``, whether an answer depends on its batch-mates; and ``installed``, whether its library can be
        imported.
    """
    rows = []
    for name in SOLVERS:
        solver = lookup(name)
        rows.append(
            {
                "name": name,
                "kind": solver.kind,
                "input": solver.input,
                "dtypes": solver.dtypes,
                "devices": solver.devices,
                "gradients": solver.gradients,
                "forbids": solver.forbids,
                "batch_coupled": solver.batch_coupled,
                "installed": installed(solver),
            }
        )
    return rows
