"""What a run is: the versions that its figures depend on, its short name, and a digest of the code that makes it."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from otfew.errors import UserError
from otfew.runs.directory import to_json
from otfew.runs.files import cache_directory, parse_json, write_atomically

ABOVE = ("methods", "baselines", "experiments")
"""Packages that a wheel puts into the folder of ``otfew`` and a checkout beside it: never part of ``otfew`` itself."""
_SOURCES = ("*.py", "*.h")
"""Modules, and what kernels of a GPU are compiled from."""
_VERSION = "otfew syntax 1"
_NO_SOURCE = "no source"
_Stamp = tuple[int, int, int]
_known: dict[str, tuple[_Stamp, str]] = {}
"""Digests of files that this process has met: path -> size and times, digest."""


def versions() -> dict[str, str]:
    """Versions that figures may depend on."""
    names = ("otfew", "torch", "numpy", "numba", "scipy", "scikit-learn")
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if name != "otfew":
            raise
        # Found by PYTHONPATH, as on a borrowed machine; ``otfew.__version__`` says the same.
        return "0.0+uninstalled"


def short_hash(identity: Mapping[str, Any]) -> str:
    """Tell runs apart by what they are: eight hexadecimal digits."""
    return hashlib.sha256(to_json(identity)).hexdigest()[:8]


def code_digest(*packages: str) -> str:
    """Hash what the code of modules says, without importing them.

    What is hashed is the syntax tree of every module, without docstrings: comments, formatting and where a module lies
    change nothing, on any version of Python. Of kernels' sources it is the bytes. Digests of files are kept in the
    cache folder under their size and times, so that a start reads only files that have changed.

    A module without a source file (compiled, typed at a prompt, not installed) counts by its name alone: changes in it
    are not noticed.

    Args:
        *packages: Dotted names of packages, with all modules in them, or of modules; order and repetition change
            nothing. "otfew" itself is the library without methods, baselines and experiments.

    Returns:
        64 hexadecimal digits.
    """
    modules = {module: path for package in packages for module, path in sources(package)}
    digests = _digests([path for path in modules.values() if path is not None])
    digest = hashlib.sha256(_VERSION.encode())
    for module, path in sorted(modules.items()):
        digest.update(f"\0{module}\0{_NO_SOURCE if path is None else digests[path]}".encode())
    return digest.hexdigest()


def package_of(kind: type) -> str:
    """Name the package that a class lies in, as ``code_digest`` takes it: what it uses of its neighbours is in it.

    The module itself where that lies in no package, such as a user's single file.
    """
    package = kind.__module__.rpartition(".")[0]
    return package if package and sources(package)[0][1] is not None else kind.__module__


def sources(package: str) -> list[tuple[str, Path | None]]:
    """List the modules of a package, and sources of kernels beside them, or a module alone, without importing them.

    Args:
        package: Dotted name.

    Returns:
        (dotted name, source) pairs; the package alone with None where no source is found.
    """
    path = origin(package)
    spec = _spec(package)
    if spec is None or path is None:
        return [(package, None)]
    if spec.submodule_search_locations is None:
        return [(package, path)]
    root = path.parent
    found: list[tuple[str, Path | None]] = []
    for path in sorted(path for pattern in _SOURCES for path in root.rglob(pattern)):
        parts = path.relative_to(root).parts
        if path.suffix == ".py":
            parts = (*parts[:-1], path.stem)
        if package == "otfew" and len(parts) > 1 and parts[0] in ABOVE:
            continue
        found.append((".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)]), path))
    return found


def origin(module: str) -> Path | None:
    """Find the source of a module, or of a package's ``__init__``, without importing it; None where there is none.

    Args:
        module: Dotted name.
    """
    spec = _spec(module)
    path = Path(spec.origin) if spec and spec.origin else None
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _spec(name: str) -> ModuleSpec | None:
    """Find where a module lies; ``importlib.util.find_spec`` would import the packages above it."""
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    if isinstance(loaded, ModuleSpec):
        return loaded
    spec: ModuleSpec | None = None
    path: Sequence[str] | None = None
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        if end > 1 and path is None:
            return None
        partial = ".".join(parts[:end])
        finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
        spec = next((found for find in finders if find and (found := find(partial, path))), None)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec


def _digests(paths: Sequence[Path]) -> dict[Path, str]:
    """Hash source files, those alone that are new or have changed since they were last hashed."""
    stamps = {path: _stamp(path) for path in paths}
    if any(_known.get(str(path), (None,))[0] != stamp for path, stamp in stamps.items()):
        _remember()
    changed = [path for path, stamp in stamps.items() if _known.get(str(path), (None,))[0] != stamp]
    for path in changed:
        _known[str(path)] = stamps[path], _digest(path)
    if changed:
        _keep()
    return {path: _known[str(path)][1] for path in paths}


def _stamp(path: Path) -> _Stamp:
    """Tell one content of a file from the next without reading it: size, and times of content and of entry."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _digest(path: Path) -> str:
    """Hash the syntax tree of a file, or its bytes where they are no Python that this version can read."""
    data = path.read_bytes()
    try:
        tree = ast.parse(data) if path.suffix == ".py" else None
    except (SyntaxError, ValueError):
        tree = None
    if tree is None:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha256("\0".join(_words(tree)).encode(errors="surrogatepass")).hexdigest()


def _words(node: object) -> Iterator[str]:
    """Spell out a syntax tree; absent parts are left out, because versions of Python differ in what they may leave out.

    Strings that stand alone are docstrings, or say the same of a constant above them.
    """
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name, value in ast.iter_fields(node):
            if value is not None and value != [] and name not in {"kind", "type_comment", "type_ignores"}:
                yield name
                yield from _words(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for part in node:
            if not (isinstance(part, ast.Expr) and _is_text(part.value)):
                yield from _words(part)
        yield "]"
    else:
        yield f"{type(node).__name__} {node!r}"


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _store() -> Path:
    return cache_directory() / "code.json"


def _remember() -> None:
    """Read the digests that other processes have kept; a file that can't be read, or holds anything else, is none."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        for path, size, mtime, ctime, digest in parse_json(_store().read_bytes()):
            _known.setdefault(str(path), ((int(size), int(mtime), int(ctime)), str(digest)))


def _keep() -> None:
    """Keep the digests for other processes, without those of files that are gone; without room for them, do without."""
    rows = [[path, *stamp, digest] for path, (stamp, digest) in sorted(_known.items()) if Path(path).exists()]
    with contextlib.suppress(UserError):
        write_atomically(_store(), json.dumps(rows).encode())
