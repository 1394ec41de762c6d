"""Docstrings in Google's style, read as far as tests need it: summary, sections, and what code may raise."""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import importlib
import inspect
import re
import textwrap
from pathlib import Path

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Examples", "Source")
SHAPE = re.compile(r"\([^()]*\)|[Ss]calar|[Ss]ame shape|[Oo]ne number|[Ss]hape|[Aa]s (of|for|in|``)|[Ll]ike ")
"""A shape in brackets, or a word that says where it is said."""
DTYPE = re.compile(r"float|\bint|integer|bool|uint8|dtype|half precision|number|[Aa]s (of|in|for)|\bids\b|likewise")
"""A dtype, or a word that says where it is said."""
ARRAYS = re.compile(
    r"^(?!Callable\b|Mapping\b|Sequence\b|tuple\b).*\b(Tensor|NDArray|ndarray|Array|Floats|Indices|ArrayLike)\b"
)
HELPERS = re.compile(r"_?(check|checked|refuse|require|validate)(_\w+)?")
"""Names of what checks input: who calls one refuses what it refuses."""
CONSTRUCTOR = ("__init__", "__post_init__")


@dataclasses.dataclass(frozen=True)
class Docstring:
    """A docstring in parts: the text before the sections, and section -> entry -> text.

    Entries of Args, Attributes and Raises are names; other sections have one entry, "".
    """

    text: str
    sections: dict[str, dict[str, str]]

    @property
    def summary(self) -> str:
        return self.text.partition("\n\n")[0]


def read(doc: str) -> Docstring:
    """Divide a docstring, as ``inspect.getdoc`` cleans it."""
    text: list[str] = []
    sections: dict[str, dict[str, str]] = {}
    where, entry = "", ""
    for line in doc.splitlines():
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            where, entry = line.rstrip(":"), ""
            sections[where] = {}
        elif not where:
            text.append(line)
        elif line and not line.startswith(" "):
            # Text after a section.
            where = ""
            text.append(line)
        else:
            named = re.match(r"    (\*{0,2}[\w.]+)(?: \([^)]*\))?: ?(.*)", line)
            if named and where in {"Args", "Attributes", "Raises"}:
                entry = named[1].lstrip("*")
                sections[where][entry] = named[2]
            elif line.strip():
                sections[where][entry] = f"{sections[where].get(entry, '')} {line.strip()}".strip()
    return Docstring("\n".join(text).strip(), sections)


@functools.cache
def module_tree(module: str) -> ast.Module:
    return ast.parse(Path(importlib.import_module(module).__file__).read_text(encoding="utf-8"))


def constant_doc(module: str, name: str) -> str:
    """Find the string behind the assignment of a name, in the module that has it; "" without."""
    body = module_tree(module).body
    for here, after in zip(body, [*body[1:], None], strict=True):
        targets = here.targets if isinstance(here, ast.Assign) else [getattr(here, "target", None)]
        if isinstance(here, ast.ImportFrom) and name in {alias.asname or alias.name for alias in here.names}:
            return constant_doc(here.module, name)
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            return inspect.cleandoc(after.value.value) if said else ""
    return ""


def fields(cls: type) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(cls) if not field.name.startswith("_")]


def constructor(cls: type):
    """Return what says what a class of otfew's takes, or None."""
    if (
        dataclasses.is_dataclass(cls)
        or issubclass(cls, enum.Enum | BaseException)
        or getattr(cls, "_is_protocol", False)
    ):
        return None
    own = [vars(c)["__init__"] for c in ours(cls) if "__init__" in vars(c)]
    return own[0] if own else None


def ours(cls: type) -> list[type]:
    """List the class and what it derives from, as far as it is otfew's."""
    return [base for base in cls.__mro__ if base.__module__.partition(".")[0] == "otfew"]


def parameters(function) -> list[inspect.Parameter]:
    """List what a caller may give."""
    # What wraps a function is read through, as help() reads it.
    taken = inspect.signature(function).parameters.values()
    return [p for p in taken if p.name not in {"self", "cls"} and not p.name.startswith("_")]


def raised(function) -> tuple[set[str], set[str]]:
    """Find what a function raises itself or by helpers of its module, and which checks of elsewhere it calls."""
    return _raised(inspect.unwrap(function), set())


def _raised(function, seen: set) -> tuple[set[str], set[str]]:
    # What dataclasses write has no source.
    if function in seen or not inspect.isfunction(function) or function.__code__.co_filename == "<string>":
        return set(), set()
    seen.add(function)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    kinds: set[str] = set()
    helpers: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call | ast.Name):
            what = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(what, ast.Name) and what.id[:1].isupper():
                kinds.add(what.id)
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            owner = node.func.value.id if _of_name(node.func) else ""
            of_module = inspect.ismodule(function.__globals__.get(owner))
            target = inspect.unwrap(function.__globals__.get(called)) if isinstance(node.func, ast.Name) else None
            if getattr(target, "__module__", None) == function.__module__:
                below = _raised(target, seen)
                kinds |= below[0]
                helpers |= below[1]
            elif owner == "checks" or (HELPERS.fullmatch(called) and (not owner or owner == "self" or of_module)):
                helpers.add(f"{owner}.{called}" if owner else called)
    return kinds, helpers


def _of_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
