"""Lists of images in a CSV file: ``image,label[,split][,domain]``, checked row by row, each mistake with its line."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PureWindowsPath

from otfew.data.base import SPLITS, Split
from otfew.data.files import portable
from otfew.errors import UserError
from otfew.runs.regular_file import LIST_BYTES, read_regular

COLUMNS = ("image", "label", "split", "domain")
"""Names of the columns; the last two may be missing."""
_SEPARATORS = ",;\t"
"""A comma; what spreadsheets write where a comma divides decimals; a tabulator."""
_TOLD = 3
"""Columns of no use that are named."""


@dataclass(frozen=True)
class Row:
    """One image of a list.

    Attributes:
        line: Where it stands in the file; the first line is 1.
        image: Path relative to the folder that paths are read from.
        label: Its class.
        split: "train", "val" or "test"; None where the list has no column of them.
        domain: Where it comes from; "" where that is not said.
    """

    line: int
    image: Path
    label: str
    split: Split | None
    domain: str


@dataclass(frozen=True)
class ImageList:
    """What a file lists.

    Attributes:
        rows: In the order of the file; at least one.
        split: True where the list has a column of splits.
        domain: True where it has a column of domains.
        notes: Sentences on what is not read.
    """

    rows: tuple[Row, ...]
    split: bool
    domain: bool
    notes: tuple[str, ...]


def read_list(path: Path, base: Path) -> ImageList:
    """Read a list of images and check every row.

    The first line names the columns, in any order and case: ``image``, the path of a file; ``label``, its class; and
    if there are any ``split`` (train, val or test) and ``domain``. Columns are divided by commas, semicolons or
    tabulators, whichever the first line has. Space around a value counts for nothing, empty lines neither.

    Args:
        path: The file, in UTF-8.
        base: Folder that the paths of images are relative to; absolute ones must lie in it.

    Raises:
        UserError: In one sentence with the line: not UTF-8, columns that are missing or named twice, a row of another
            number of columns, an empty image, label or split, a split of another name, an image that is outside
            ``base``, listed twice, a folder, or not there. Also where there is no such file, or no row in it.
    """
    text = _text(path)
    separator, columns = _header(path, text)
    place = {name: columns.index(name) for name in COLUMNS if name in columns}
    inside, rows, missing = _Inside(path, base), [], []
    for line, values in _records(path, text, separator):
        if len(values) != len(columns):
            few = "few" if len(values) < len(columns) else "many"
            raise _bad(
                path,
                line,
                f"{len(values)} columns, too {few} for the {len(columns)} of the first line ({', '.join(columns)})",
                "write a value for each column, with quotes around one that holds the separator",
            )
        told = {name: unicodedata.normalize("NFC", values[place[name]].strip()) for name in place if name != "image"}
        for name, value in {"image": values[place["image"]].strip(), **told}.items():
            if not value and name != "domain":
                remedy = f"name its {name}, or remove the row" if name != "split" else "write train, val or test"
                raise _bad(path, line, f"the {name} is empty", remedy)
        image = inside(line, values[place["image"]].strip())
        if not os.path.isfile(base / image):
            missing.append((line, image))
        split = _split(path, line, told["split"]) if "split" in told else None
        rows.append(Row(line, image, told["label"], split, told.get("domain", "")))
    if not rows:
        raise UserError(f"{portable(str(path))} lists no image: write a row for each below the names of the columns.")
    if missing:
        raise _missing(path, base, missing)
    unused = [column for column in columns if column not in COLUMNS]
    return ImageList(tuple(rows), "split" in place, "domain" in place, _unused(path, unused))


class _Inside:
    """Turns what a row calls its image into a path below the base, and remembers where each was listed first."""

    def __init__(self, path: Path, base: Path) -> None:
        self._path, self._base = path, base
        self._roots = [Path(os.path.abspath(base)), Path(os.path.realpath(base))]
        self._first: dict[str, int] = {}

    def __call__(self, line: int, text: str) -> Path:
        """Find the path; raises ``UserError`` where it leads outside or was listed before."""
        if "\\" in text and not os.path.exists(self._base / text):
            text = text.replace("\\", "/")
        found = Path(os.path.normpath(self._roots[0] / text))
        foreign = os.name != "nt" and bool(PureWindowsPath(text).drive)
        root = next((root for root in self._roots if not foreign and root in found.parents), None)
        if root is None:
            raise _bad(
                self._path,
                line,
                f"{portable(text)} is not inside {portable(str(self._base))}",
                "write a path relative to that folder, or give as `data_root` a folder that holds all images",
            )
        image = found.relative_to(root)
        before = self._first.setdefault(portable(image.as_posix()), line)
        if before != line:
            raise _bad(
                self._path, line, f"{portable(image.as_posix())} is listed in line {before} already", "remove one"
            )
        return image


def _text(path: Path) -> str:
    """The file's text; raises ``UserError`` with the line that is not UTF-8."""
    name = portable(str(path))
    try:
        data = read_regular(path, LIST_BYTES)
    except FileNotFoundError as error:
        raise UserError(
            f"{name} is not there: give the path of a .csv file with the columns image and label."
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or error}.") from error
    remedy = 'save it as "CSV UTF-8"'
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _bad(path, 1, "the text is UTF-16", remedy)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _bad(path, data.count(b"\n", 0, error.start) + 1, "the text is not UTF-8", remedy) from error
    if "\0" in text:
        raise _bad(path, text.count("\n", 0, text.index("\0")) + 1, "there is a NUL character, as in no text", remedy)
    return text


def _records(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows below the first line, with the lines that they begin in."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    begins, header = 1, True
    try:
        for values in reader:
            if any(value.strip() for value in values):
                if not header:
                    yield begins, values
                header = False
            begins = reader.line_num + 1
    except csv.Error as error:
        raise _bad(path, begins, f"the quotes are wrong ({error})", 'write "" for a quote inside quotes') from error


def _header(path: Path, text: str) -> tuple[str, list[str]]:
    """The separator, and the names of the columns in lower case."""
    lines = enumerate(io.StringIO(text, newline=""), 1)
    number, first = next(((k, line) for k, line in lines if line.strip(_SEPARATORS + " \r\n")), (1, ""))
    separator = max(_SEPARATORS, key=lambda one: (first.count(one), -_SEPARATORS.index(one)))
    try:
        [columns] = csv.reader([first], delimiter=separator, skipinitialspace=True)
    except (csv.Error, ValueError):
        columns = []
    columns = [column.strip().lower() for column in columns]
    written = "image,label, and split or domain where there are any"
    for name in COLUMNS:
        near = [column for column in get_close_matches(name, columns, n=1, cutoff=0.85) if column not in COLUMNS]
        if columns.count(name) > 1:
            raise _bad(path, number, f"two columns are called {name}", "rename or remove one")
        if name not in columns and near:
            raise _bad(path, number, f"there is a column {near[0]!r} and none called {name}", "rename it")
        if name not in columns and name in COLUMNS[:2]:
            told = f"the first line names no column {name}"
            raise _bad(path, number, told, f"name the columns there: {written}")
    return separator, columns


def _split(path: Path, line: int, value: str) -> Split:
    for split in SPLITS:
        if value.lower() == split:
            return split
    near = {"valid": "val", "validation": "val", "dev": "val"}.get(value.lower())
    hint = f" (did you mean {near}?)" if near else ""
    raise _bad(path, line, f"unknown split {value!r}{hint}", f"write {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")


def _missing(path: Path, base: Path, missing: Sequence[tuple[int, Path]]) -> UserError:
    """Name the first image that is not there, and count the others."""
    line, image = missing[0]
    if os.path.isdir(base / image):
        return _bad(path, line, f"{portable(str(image))} is a folder", "list the files in it, each in a row")
    more = f", nor are those of {len(missing) - 1:,} more lines, the next {missing[1][0]}" if len(missing) > 1 else ""
    return _bad(
        path,
        line,
        f"{portable(str(image))} is not in {portable(str(base))}{more}",
        "put it there, correct the path, or give as `data_root` the folder that paths are relative to",
    )


def _unused(path: Path, columns: Sequence[str]) -> tuple[str, ...]:
    if not columns:
        return ()
    named = ", ".join(column or "one without a name" for column in columns[:_TOLD])
    return (f"columns of {portable(path.name)} that are not read: {named}{', ...' * (len(columns) > _TOLD)}",)


def _bad(path: Path, line: int, what: str, remedy: str) -> UserError:
    return UserError(f"{portable(str(path))}, line {line}: {what}; {remedy}.")
