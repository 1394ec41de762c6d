"""Names of the form package.module:Name: what is imported, what is refused in a sentence, and what its source is."""

from __future__ import annotations

import sys
from textwrap import dedent

import numpy as np
import pytest
import torch

import otfew
from otfew import catalogue, plugins
from otfew.errors import UserError
from otfew.transport import importing
from otfew.transport.registry import lookup, resolve

FLIPPED = """
from otfew.method import MethodBase


class Flipped(MethodBase):
    name = "flipped"

    def __call__(self, support, query, *, support_mask=None, class_prior=None):
        return query.new_zeros(len(query), support.shape[1], query.shape[1])


class Empty(MethodBase):
    name = "empty"

    def __call__(self, support, query, *, support_mask=None, class_prior=None):
        return query.new_full((len(query), query.shape[1], support.shape[1]), float("nan"))
"""

METHODS = """
import torch
from otfew.method import MethodBase, shot_mean

class Mean(MethodBase):
    \"\"\"Negative distance of means.\"\"\"
    name = "mean"
    def __init__(self, temperature=1.0):
        if temperature <= 0:
            raise ValueError("temperature must be positive")
        self.temperature = temperature
    def __call__(self, support, query, *, support_mask=None, class_prior=None):
        centres = shot_mean(support, support_mask).mean(-2)
        return -self.temperature * torch.cdist(query.mean(-2), centres)

class Bare:
    def __call__(self, support, query):
        return support

class Silent(MethodBase):
    name = "silent"

def function(support, query):
    return support

made = Mean()
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes modules into the current folder, which is on no path yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    known = set(sys.modules)

    def put(**files):
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/', 1)}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(dedent(text))

    yield put
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in sys.modules[name].__file__:
            del sys.modules[name]


def said(function, *arguments, error=UserError, **options):
    with pytest.raises(error) as caught:
        function(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_module_of_the_current_folder_is_found_and_hides_nothing_installed(write):
    write(my_own_methods=METHODS, numpy="raise SystemExit")
    assert plugins.load("my_own_methods:Mean", "method").name == "mean"
    assert plugins.load("numpy:ndarray", "method") is np.ndarray
    assert plugins.load("my_own_methods:Mean.name", "method") == "mean"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise RuntimeError('no\\nlicence')", "RuntimeError: no licence ("),
        ("import sys\nsys.exit(3)", "SystemExit: code 3"),
        ("def f(:", "SyntaxError"),
        ("import not_there_at_all", "No module named 'not_there_at_all'"),
        ("class Nmae: pass", "has no 'Name': did you mean Nmae?"),
        ("", "has no 'Name'."),
    ],
)
def test_what_cannot_be_imported_is_told_in_a_sentence_with_its_place(write, text, told):
    write(my_broken=text)
    message = said(plugins.load, "my_broken:Name", "data set")
    assert message.startswith("data set 'my_broken:Name': ")
    assert told in message
    assert "has no" in message or "my_broken.py, line " in message


def test_a_module_that_is_nowhere_says_where_it_is_looked_for(write):
    assert "run where nowhere_to_be_found lies" in said(plugins.load, "nowhere_to_be_found.a:B", "method")
    write(my_here="import nowhere_to_be_found")
    assert "run where" not in said(plugins.load, "my_here:B", "method")


@pytest.mark.parametrize("name", ["", "x", "x:", ":x", ".x:y", "x:y:z", "x y:z", "x:1", "x.:y"])
def test_other_forms_are_no_plugins(name):
    assert not plugins.is_plugin(name)
    assert "package.module:Name" in said(plugins.load, name, "nodes")


def test_ctrl_c_while_importing_is_still_ctrl_c(write):
    write(my_interrupted="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        plugins.load("my_interrupted:x", "method")


def test_a_file_cannot_have_code_imported(write):
    write(my_evil="import pathlib\npathlib.Path('ran').touch()\nSolver = 1", my_own_methods=METHODS)
    with plugins.only_imported("classifier x.otfew"):
        assert "classifier x.otfew names the method 'my_evil:Solver'" in said(catalogue.find, "my_evil:Solver")
        assert "import my_evil first" in said(lookup, "my_evil:Solver", error=ValueError)
    assert "my_evil" not in sys.modules
    plugins.load("my_own_methods:Mean", "method")
    with plugins.only_imported("classifier x.otfew"):
        assert catalogue.find("my_own_methods:Mean").name == "mean"


def test_digest_is_of_the_source_its_neighbours_and_nothing_installed(write):
    write(my_plug="import torch\nfrom my_help import f\nA = 1", my_help="f = 1", my_other="f = 1")
    first = plugins.digest("my_plug:A")
    assert len(first) == 64
    assert "my_plug" not in sys.modules
    write(my_plug="# a comment\nimport torch\nfrom my_help import f\n\nA = 1", my_other="f = 2")
    assert plugins.digest("my_plug:A") == first
    write(my_help="f = 2")
    second = plugins.digest("my_plug:A")
    write(my_plug="import torch\nfrom my_help import f\nA = 2")
    assert len({first, second, plugins.digest("my_plug:A")}) == 3


def test_digest_of_a_package_follows_relative_imports_and_circles(write):
    write(
        my_pack____init__="",
        my_pack__a="from . import b\nfrom .b import x\nimport my_side",
        my_pack__b="from . import a\nx = 1",
        my_side="import my_pack.a\ny = 1",
    )
    first = plugins.digest("my_pack.a:x")
    write(my_side="import my_pack.a\ny = 2")
    second = plugins.digest("my_pack.a:x")
    write(my_pack__b="from . import a\nx = 2")
    assert len({first, second, plugins.digest("my_pack.a:x")}) == 3


@pytest.mark.usefixtures("write")
def test_digest_of_what_is_not_there_goes_by_the_name():
    assert plugins.digest("no_such:A") == plugins.digest("no_such:B") != plugins.digest("no_such_either:A")


def test_digests_are_of_plugins_alone(write):
    write(my_plug="A = 1")
    names = ["deepemd", "fcn:2,1", "timm:resnet18", None, 3, "my_plug:A:3,1", "my_plug:Net@a/b.safetensors", "C:/x"]
    assert plugins.digests(names) == {name: plugins.digest(name) for name in ("my_plug:A", "my_plug:Net")}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("deepemd", ("deepemd", {})),
        ("deepemd:shot_head=sfc,solver=sinkhorn", ("deepemd", {"shot_head": "sfc", "solver": "sinkhorn"})),
        ("deepemd:solver=mine:Solver", ("deepemd", {"solver": "mine:Solver"})),
        ("mine.a:M", ("mine.a:M", {})),
        ("mine.a:M:t=0.5,flag=true,n=None,w='3',v=1,2,s-t=-1e-3", ("mine.a:M", {
            "t": 0.5, "flag": True, "n": None, "w": "3", "v": "1,2", "s_t": -0.001,
        })),
        ("mine.a:M:solver=mine:S,t= 3 ", ("mine.a:M", {"solver": "mine:S", "t": 3})),
        ("lst:beta=__import__('os')", ("lst", {"beta": "__import__('os')"})),
    ],
)  # fmt: skip
def test_methods_with_options_as_command_lines_write_them(spec, expected):
    assert catalogue.parse(spec) == expected


@pytest.mark.parametrize("spec", ["deepemd:", "deepemd:sfc", "deepemd:=1", "mine:M:", "mine:M:a b=1"])
def test_options_that_are_none_are_refused(spec):
    assert "options are written NAME=VALUE" in said(catalogue.parse, spec)


def test_an_option_stands_once():
    assert "'a' twice" in said(catalogue.parse, "deepemd:a=1,a=2")


def test_options_behind_a_name_are_those_of_the_constructor():
    assert catalogue.find("deepemd:temperature=3") is catalogue.find("deepemd")
    assert catalogue.build("deepemd:temperature=3").temperature == 3
    assert catalogue.build("deepemd:temperature=3", temperature=4).temperature == 4


def test_methods_of_ones_own_are_found_and_built(write):
    write(my_own_methods=METHODS)
    method = catalogue.build("my_own_methods:Mean", temperature=2)
    support, query = torch.rand(2, 3, 1, 4, 5), torch.rand(2, 6, 4, 5)
    expected = -2 * torch.cdist(query.mean(-2), support[:, :, 0].mean(-2))
    torch.testing.assert_close(method(support, query), expected)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Bare", "lacks 'name': derive it from otfew.method.MethodBase"),
        ("Silent", "lacks '__call__'"),
        ("function", "a function and no class"),
        ("made", "of type Mean and no class"),
        ("torch", "of type module"),
    ],
)
def test_what_is_no_method_is_said_to_be_none(write, name, told):
    write(my_own_methods=METHODS)
    assert told in said(catalogue.find, f"my_own_methods:{name}")


def test_wrong_options_of_ones_own_method_are_one_sentence(write):
    write(my_own_methods=METHODS)
    name = "my_own_methods:Mean"
    assert "has no option 'heat'; it takes temperature" in said(catalogue.build, name, heat=1)
    assert "ValueError: temperature must be positive (" in said(catalogue.build, name, temperature=-1)
    assert "calling it fails with TypeError" in said(catalogue.build, name, temperature="hot")


SOLVERS = """
from dataclasses import dataclass
from typing import ClassVar
import otfew
from otfew.transport.registry import ArraySolver

@dataclass(frozen=True)
class Mine(ArraySolver):
    name: ClassVar[str] = "mine"
    kind: ClassVar[str] = "exact"
    requires: ClassVar[str] = "numpy"
    install: ClassVar[str] = "pip install numpy"
    def solve(self, problem):
        return otfew.Exact().solve(problem)

@dataclass(frozen=True)
class Needs(Mine):
    reg: float
    name: ClassVar[str] = "needs"

@dataclass(frozen=True)
class Missing(Mine):
    requires: ClassVar[str] = "not_there.at_all"

class Abstract(ArraySolver):
    pass

@dataclass(frozen=True)
class Nameless(ArraySolver):
    def solve(self, problem):
        return None

thing = Mine()
"""


def test_a_solver_of_ones_own_wherever_a_solver_is_named(write):
    write(my_solvers=SOLVERS)
    cost = np.random.default_rng(0).random((3, 4, 5))
    assert np.array_equal(otfew.solve(cost, solver="my_solvers:Mine").value, otfew.solve(cost).value)
    assert lookup("my_solvers:Mine").name == "mine"
    support, query = torch.rand(1, 2, 1, 4, 5), torch.rand(1, 3, 4, 5)
    mine = catalogue.build("deepemd", solver="my_solvers:Mine")(support, query)
    assert torch.equal(mine, catalogue.build("deepemd")(support, query))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Needs", "no default for all of its options"),
        ("Missing", "needs not_there.at_all"),
        ("Abstract", "lacks its method 'solve'"),
        ("Nameless", "lacks the attribute 'name'"),
        ("thing", "is no solver but of type Mine"),
        ("dataclass", "is no solver but of type function"),
        ("Nowhere", "has no 'Nowhere'"),
    ],
)
def test_what_is_no_solver_is_said_to_be_none(write, name, told):
    write(my_solvers=SOLVERS)
    assert told in said(resolve, f"my_solvers:{name}", error=(ValueError, ImportError))
    message = said(catalogue.build, "deepemd", solver=f"my_solvers:{name}")
    assert told in message
    assert ".." not in message


def test_errors_of_plugins_are_told_from_where_they_began():
    with pytest.raises(ValueError, match="fails with") as caught:
        importing.find("otfew.not_a_module:x", "method")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_file_in_place_of_a_module_is_told_how_modules_are_named(write):
    write(my_solvers=SOLVERS)
    with pytest.raises(ValueError, match=r"; write the module 'my_solvers', without \.py\.$"):
        importing.find("my_solvers.py:Mine", "solver")


def test_answers_of_a_wrong_shape_name_the_command_that_tries_a_method(write, tmp_path):
    write(my_flipped=FLIPPED)
    np.savez(tmp_path / "own.npz", nodes=np.ones((12, 3, 4)), labels=np.arange(12) % 3)
    for name, told in (("Flipped", "answered with shape"), ("Empty", "answered NaN in episode 0: check its options")):
        with pytest.raises(UserError, match=told) as caught:
            otfew.compare(
                features=tmp_path / "own.npz", methods=[f"my_flipped:{name}"], way=3, query=2, episodes=2,
                output=tmp_path / name,
            )  # fmt: skip
        assert str(caught.value).endswith(f"; otfew check my_flipped:{name} says what to mend.")
