"""Compile with numba and keep the machine code between processes, wherever that is possible.

numba's own cache refuses to compile at all where it may not write, and one damaged file of its index stops every later
run. Here a function compiles whatever becomes of the cache: a damaged file is compiled anew and replaced, a folder
that can be read but not written serves what it holds, and where nothing can be written each process compiles for
itself, which is said once.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba import njit
from numba.core.caching import NullCache
from numba.np import linalg

from otfew.transport import kept

_core: Any = numba.core
"""Only part of numba has types."""


def jit(*signatures: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorate as ``numba.njit`` does, with a cache that never stands in the way.

    Args:
        signatures: Types to compile for, or load, at once; without any, those of each call when it comes.
        options: Options of ``numba.njit``; ``cache`` is always on.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = njit(**options)(function)
        dispatcher._cache = _Kept(function)
        for signature in signatures:
            dispatcher.compile(signature)
        if signatures:
            dispatcher.disable_compile()
        return dispatcher

    return decorate


def _load_numba() -> None:
    """Load numba's array functions without SciPy's linear algebra.

    They ask whether that is there by importing it, which takes a sixth of the time of importing torch, and ask again
    wherever it is used.
    """
    if importlib.util.find_spec("scipy") is None or "numba.np.arraymath" in sys.modules:
        return
    asks = linalg.ensure_blas
    linalg.ensure_blas = lambda: None
    try:
        arraymath: Any = importlib.import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = asks
    arraymath.ensure_blas = asks


_load_numba()


class _Kept(NullCache):
    """What numba asks for the compiled forms of one function, a file each."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._file = Path(function.__code__.co_filename)
        self._name = f"{self._file.stem}.{function.__qualname__}"
        self._stamp = _stamp(function)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Rebuild a compiled form, or return None."""
        # numba fills the context only when it first compiles.
        target_context.refresh()
        for folder in _folders(self._file):
            content = kept.load(folder / self._entry(sig, target_context.codegen()), self._stamp)
            if content is not None:
                return _core.compiler.CompileResult._rebuild(target_context, *pickle.loads(content))
        if writable_folder(self._file) is None:
            _say_that_nothing_is_kept()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write a compiled form, if it can be written."""
        folder = writable_folder(self._file)
        if folder is None:
            return
        content = _core.serialize.dumps(data._reduce())
        if not kept.save(folder / self._entry(sig, data.codegen), content, self._stamp):
            _say_that_nothing_is_kept()

    def _entry(self, sig: Any, codegen: Any) -> str:
        """Name a file by all that the machine code depends on, but for the source, which overwrites."""
        key = repr((numba.__version__, sys.version_info[:2], sig, codegen.magic_tuple()))
        return f"{self._name}.{hashlib.sha256(key.encode()).hexdigest()[:16]}.nbc"


def _stamp(function: Callable[..., Any]) -> bytes:
    """Checksum of the files that a function and all that it calls stand in, and of the constants that it has by import.

    numba compiles those in as well: a new release may change them and leave the file as it was.
    """
    digest = hashlib.sha256()
    for name, names in sorted(_modules(function).items()):
        spec = sys.modules[name].__spec__
        assert spec is not None
        assert spec.origin is not None
        # The loader also reads what is in an archive, or was installed without its source.
        loader: Any = spec.loader
        constants = {
            key: value
            for key, value in names.items()
            if isinstance(value, (int, float, tuple)) and not key.startswith("__")
        }
        digest.update(loader.get_data(spec.origin) + repr(sorted(constants.items())).encode())
    return digest.digest()


def _modules(function: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    """Names in the module of a function, and in those of the compiled functions that are found there, by module."""
    found, waiting = {}, [function]
    while waiting:
        inner = waiting.pop()
        if inner.__module__ not in found:
            found[inner.__module__] = inner.__globals__
            waiting += [value.py_func for value in inner.__globals__.values() if hasattr(value, "py_func")]
    return found


def _folders(file: Path) -> Iterator[Path]:
    """Where compiled forms of the functions in a file may be: where numba is told to, else beside it or in the home."""
    place = kept.place(file.parent)
    if _core.config.CACHE_DIR:
        yield Path(_core.config.CACHE_DIR) / place
        return
    yield file.parent / "__pycache__"
    home = kept.home()
    if home is not None:
        yield home / place


@functools.cache
def writable_folder(file: Path) -> Path | None:
    """Find the first folder that keeps what is compiled from a file, or None."""
    return next(filter(kept.writable, _folders(file)), None)


@functools.cache
def _say_that_nothing_is_kept() -> None:
    """Warn once a process, whatever is compiled."""
    warnings.warn(
        "otfew keeps no compiled code, since it may write neither beside its files nor into a cache folder: every "
        "process compiles anew; set NUMBA_CACHE_DIR to a folder that can be written",
        RuntimeWarning,
        stacklevel=2,
    )
