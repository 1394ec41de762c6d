"""The kinds of caches, and what lies in each."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from otfew.caches import receipts
from otfew.choices import CacheKind
from otfew.runs.files import cache_directory
from otfew.transport import kept

MADE_AGAIN: tuple[CacheKind, ...] = ("features", "kernels", "pictures")
"""Kinds that a machine makes again by itself; the others have to be fetched."""
SUMMARIES: dict[CacheKind, str] = {
    "features": "node sets of images, extracted by networks, and networks as onnxruntime runs them",
    "kernels": "compiled code of solvers",
    "pictures": "drawings of glyphs, and views of shapes",
    "downloads": "data sets that otfew has fetched, wherever they lie",
    "zoo": "weights of networks that otfew has fetched",
}
_UNFINISHED_SECONDS = 24 * 3600
"""After which a file under a temporary name is no longer being written: that takes seconds."""
_COMPILED = ".nbc"
_BESIDE = ("methods", "baselines")


@dataclass(frozen=True)
class Item:
    """What is kept and removed as one.

    Attributes:
        kind: Of cache.
        paths: Files or a folder, in the order of their removal.
        bytes: On disk.
        used: When it was last read or written, seconds since 1970, as far as the file system tells.
        lock: File that is locked while it is written, or None where that is not needed.
        receipt: Of a download.
    """

    kind: CacheKind
    paths: tuple[Path, ...]
    bytes: int
    used: float
    lock: Path | None = None
    receipt: receipts.Receipt | None = None


def items(kind: CacheKind, now: float | None = None) -> list[Item]:
    """List what a cache holds; what another process removes meanwhile is left out.

    Args:
        kind: Of cache.
        now: Seconds since 1970; None asks the clock.
    """
    return list(_LISTED[kind](time.time() if now is None else now))


def places(kind: CacheKind) -> list[Path]:
    """Name the folders of a cache, whether they are there or not; of downloads that of their receipts."""
    cache = cache_directory()
    if kind == "kernels":
        return _kernel_folders()
    if kind == "pictures":
        import platformdirs

        home = Path(platformdirs.user_cache_dir("otfew", appauthor=False))
        # The last is where earlier versions kept them.
        return list(dict.fromkeys([cache / "glyphs", cache / "shapes", home / "glyphs", home / "data" / "glyphs"]))
    folders: dict[CacheKind, tuple[str, ...]] = {"features": ("features", "photos", "onnx")}
    return [cache / name for name in folders.get(kind, (kind,))]


def _features(now: float) -> Iterator[Item]:
    for folder in places("features"):
        groups: defaultdict[str, list[Path]] = defaultdict(list)
        for path in _files(folder):
            if path.suffix != ".lock" and _whole(path, now):
                groups[path.name if path.name.startswith(".") else path.stem].append(path)
        for name, paths in groups.items():
            lock = folder / f"{name}.lock"
            # A reader looks for the record first, and takes an entry without one for none.
            ordered = sorted(paths, key=lambda path: path.suffix != ".json")
            yield from _item("features", ordered, lock if lock.exists() else None)


def _single_files(kind: CacheKind, fits: Callable[[Path], bool]) -> Callable[[float], Iterator[Item]]:
    def listed(now: float) -> Iterator[Item]:
        for folder in places(kind):
            for path in _files(folder):
                if fits(path) and _whole(path, now):
                    yield from _item(kind, [path])

    return listed


def _downloads(now: float) -> Iterator[Item]:
    del now
    (zoo,) = places("zoo")
    for file, receipt in receipts.read().items():
        path = Path(receipt.path)
        if path.parent == Path(os.path.abspath(zoo)):
            continue  # of another kind
        try:
            _, size = receipts.measure(path)
            times = path.stat()
        except OSError:
            continue
        used = max(times.st_atime, times.st_mtime)
        yield Item("downloads", (path, file), size, used, Path(receipt.lock), receipt)


def _zoo(now: float) -> Iterator[Item]:
    for folder in places("zoo"):
        for path in _files(folder):
            if path.suffix != ".lock" and _whole(path, now):
                # As ``otfew.data.download`` names it.
                lock = path.with_name(f".{path.name.removesuffix('.part')}.lock")
                yield from _item("zoo", [path], lock if lock.exists() else None)


def _kernel_folders() -> list[Path]:
    """Where ``otfew.transport.jit`` and the compiler for GPUs may have kept code."""
    own = Path(__file__).parents[1]
    # In a checkout, the folders of methods and baselines lie beside that of the library; in a wheel, in it.
    packages = [own, *(own.parent / name for name in _BESIDE if (own.parent / name / "__init__.py").is_file())]
    sources = dict.fromkeys(
        Path(top) for package in packages for top, _, _ in os.walk(package) if not top.endswith("__pycache__")
    )
    found = [source / "__pycache__" for source in sources]
    if numba := os.environ.get("NUMBA_CACHE_DIR"):
        # Others keep code there too: ours is in folders that are named after those of our sources.
        found += [Path(numba) / kept.place(source) for source in sources]
    home = kept.home()
    return [folder for folder in found if folder.is_dir()] + ([] if home is None else [home])


def _is_compiled(path: Path) -> bool:
    """Whether a file is compiled code of solvers: beside sources lies what Python itself has compiled."""
    home = kept.home()
    return path.suffix == _COMPILED or (home is not None and home in path.parents)


def _files(folder: Path) -> list[Path]:
    """All files below a folder, each once; none where there is no such folder."""
    return sorted(Path(top) / name for top, _, names in os.walk(folder) for name in names)


def _whole(path: Path, now: float) -> bool:
    """Whether nobody can be writing a file: it has its own name, or has not been touched for long."""
    try:
        return not path.name.endswith(".tmp") or now - path.stat().st_mtime > _UNFINISHED_SECONDS
    except OSError:
        return False


def _item(kind: CacheKind, paths: Iterable[Path], lock: Path | None = None) -> Iterator[Item]:
    """Make an item of files, unless one has just gone."""
    paths = tuple(paths)
    try:
        found = [path.stat() for path in paths]
    except OSError:
        return
    used = max(max(one.st_atime, one.st_mtime) for one in found)
    yield Item(kind, paths, sum(one.st_size for one in found), used, lock)


_LISTED: dict[CacheKind, Callable[[float], Iterator[Item]]] = {
    "features": _features,
    "kernels": _single_files("kernels", _is_compiled),
    "pictures": _single_files("pictures", lambda path: path.suffix in {".safetensors", ".png", ".tmp"}),
    "downloads": _downloads,
    "zoo": _zoo,
}
