"""Where publishers put their shapes and sketches: ModelNet10 and 40, SHREC13 and 14."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from otfew.data.base import SPLITS, ImageSet
from otfew.data.files import files_in, image_set, images_in, named_folders, portable
from otfew.data.roots import plain
from otfew.data.shapes.mesh import Mesh
from otfew.data.shapes.off_files import read_off
from otfew.data.shapes.rendering import Solid
from otfew.errors import UserError
from otfew.runs.files import reading

_DEEPEST = 4
"""Folders below the data's that are searched."""


@dataclass(frozen=True)
class Solids:
    """Meshes of a split, by class.

    Attributes:
        classes: Names, sorted.
        solids: By class, then by name.
    """

    classes: tuple[str, ...]
    solids: tuple[Solid, ...]


@dataclass(frozen=True)
class OffReader:
    """Reads one mesh when it is asked for; a class, so that it can go to another process."""

    path: Path
    named: str

    def __call__(self) -> Mesh:
        """Read it, see ``otfew.data.shapes.off_files.read_off``."""
        return read_off(self.path, self.named)


def modelnet(root: Path, name: str, split: str) -> Solids:
    """Find the meshes of ModelNet as it is distributed: ``CLASS/train|test/NAME.off``.

    Args:
        root: That folder, or the one above it that holds ``ModelNet10`` or ``ModelNet40``.
        name: "modelnet10" or "modelnet40".
        split: "train" or "test".

    Raises:
        UserError: There is no such folder, or a class has no mesh in this split.
    """
    base = below(root, name)
    meshes = {
        shape: _search(folder / split, ".off") if (folder / split).is_dir() else []
        for shape, folder in named_folders(base).items()
        if any((folder / part).is_dir() for part in SPLITS)
    }
    if not any(meshes.values()):
        raise UserError(f"{base} holds no CLASS/{split}/NAME.off: unpack the publisher's archive there.")
    if empty := [shape for shape, paths in sorted(meshes.items()) if not paths]:
        raise UserError(f"{base / empty[0] / split} holds no .off file: unpack the publisher's archive anew.")
    return _solids((shape, path) for shape, paths in meshes.items() for path in paths)


def has_views(root: Path, name: str) -> bool:
    """Tell whether a ModelNet folder holds views, as the MVCNN line of work distributes them, in place of meshes."""
    base = below(root, name)
    for folder in named_folders(base).values():
        for split in SPLITS:
            if (folder / split).is_dir():
                return not any(path.suffix.lower() == ".off" for path in files_in(folder / split))
    return False


def shrec(root: Path) -> Solids:
    """Find the shapes of SHREC13 or SHREC14: one class file (``*.cla``), and an OFF file for each name in it.

    The benchmarks' sketches are divided into training and test ones, their shapes are not: these are all of them.

    Args:
        root: Folder that holds both, at whatever depth.

    Raises:
        UserError: There is no class file or more than one, it can't be read, or a shape that it names has no file.
    """
    lists = _search(root, ".cla")
    if len(lists) != 1:
        found = f"class files: {', '.join(path.name for path in lists[:3])}" if lists else "no class file"
        raise UserError(f"{root} holds {found}; it needs the one of the shapes, such as SHREC14_SBR_Model.cla.")
    meshes = {path.stem: path for path in _search(root, ".off")}
    pairs = []
    for shape, names in read_classes(lists[0]).items():
        for each in names:
            path = meshes.get(each) or meshes.get(f"m{each}") or meshes.get(f"M{each}")
            if path is None:
                raise UserError(f"{lists[0]} names the shape {each!r} of {shape!r}, and {root} holds no {each}.off.")
            pairs.append((shape, path))
    return _solids(pairs)


def sketches(root: Path, name: str, split: str) -> ImageSet:
    """Find the sketches of SHREC13 or SHREC14: ``CLASS/train|test/NAME.png``.

    Args:
        root: Folder that holds the classes, at whatever depth up to four.
        name: Of the data set.
        split: "train" or "test".

    Raises:
        UserError: No such folders.
    """
    for base in _folders(root):
        folders = {key: at / split for key, at in named_folders(base).items() if (at / split).is_dir()}
        entries = [(key, path.relative_to(base)) for key, at in folders.items() for path in images_in(at)]
        if entries:
            return image_set(name, split, base, entries, sorted(folders), variant="sketches")
    raise UserError(f"{root} holds no sketches of the split {split}: it needs CLASS/{split}/NAME.png.")


def read_classes(path: Path) -> dict[str, list[str]]:
    """Read a class file of the Princeton Shape Benchmark's format, as SHREC uses it.

    "PSB 1", the numbers of classes and of shapes, then for each class its name, that of the class above it and the
    number of its shapes, and their names, a line each.

    Raises:
        UserError: It is something else, or cut off.
    """
    with reading(path):
        words = path.read_text(encoding="utf-8", errors="replace").split()
    if words[:1] != ["PSB"]:
        raise UserError(f"{path} is no class file: it should begin with PSB 1.")
    try:
        count, at, classes = int(words[2]), 4, dict[str, list[str]]()
        for _ in range(count):
            name, members = words[at], int(words[at + 2])
            listed = words[at + 3 : at + 3 + members]
            if len(listed) < members:
                raise IndexError
            if listed:
                classes[name] = listed
            at += 3 + members
    except (IndexError, ValueError):
        raise UserError(f"{path} is cut off or damaged: it does not hold what its head announces.") from None
    return classes


def _solids(pairs: Iterable[tuple[str, Path]]) -> Solids:
    found = sorted(pairs, key=lambda pair: (pair[0], pair[1].name))
    classes = tuple(sorted({shape for shape, _ in found}))
    label = {shape: place for place, shape in enumerate(classes)}
    return Solids(
        classes,
        tuple(
            Solid(name, label[shape], _stamp(path), OffReader(path, name))
            for shape, path in found
            for name in [f"{shape}/{portable(path.stem)}"]
        ),
    )


def _stamp(path: Path) -> str:
    """Tell a file from what it may be replaced by."""
    status = path.stat()
    return f"{status.st_size:x}.{status.st_mtime_ns:x}"


def below(root: Path, name: str) -> Path:
    """Find the folder of that name in the data's, however it is spelt; else take the data's folder for it.

    Raises:
        UserError: There is no folder ``root``.
    """
    if not root.is_dir():
        raise UserError(f"the folder {root} is not there; correct the path.")
    inner = [folder for key, folder in named_folders(root).items() if plain(key) == plain(name)]
    return inner[0] if inner else root


def _folders(root: Path, depth: int = _DEEPEST) -> Iterator[Path]:
    """Walk a folder and those below it, the upper ones first."""
    level = [root]
    for _ in range(depth):
        yield from level
        level = [child for folder in level if folder.is_dir() for child in named_folders(folder).values()]


def _search(root: Path, suffix: str) -> list[Path]:
    if not root.is_dir():
        raise UserError(f"the folder {root} is not there; correct the path.")
    return [path for path in files_in(root) if path.suffix.lower() == suffix]
