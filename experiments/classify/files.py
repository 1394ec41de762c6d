"""The file of answers: CSV or JSON, the same bytes for the same answers."""

from __future__ import annotations

import json
from pathlib import Path

from otfew.classifier.answer_table import HEAD, answers_csv, row
from otfew.classifier.few_shot import FewShotClassifier
from otfew.classifier.many import Classified
from otfew.data.files import portable
from otfew.errors import UserError
from otfew.runs.files import reason, write_atomically

_PAGE = b"<!DOCTYPE html>\n<!-- otfew"
_MARKS = {".csv": b"file,label,confidence,", ".json": b'{\n  "answers": ', ".html": _PAGE, ".htm": _PAGE}
"""How files begin that this command has written."""
_OPTIONS = {"to": "answers", "report": "report"}


def to_file(path: Path, found: Classified, fitted: FewShotClassifier, summary: str) -> None:
    """Write the answers, whole or not at all.

    Args:
        path: Ends in .csv or .json.
        found: The answers.
        fitted: Who gave them.
        summary: Line of JSON's record.
    """
    rows = [row(portable(str(file)), answer, fitted) for file, answer in zip(found.files, found.answers, strict=True)]
    if path.suffix.lower() == ".csv":
        write_atomically(path, answers_csv(rows))
        return
    record = {
        "answers": [dict(zip(HEAD, own, strict=True)) for own in rows],
        "skipped": [{"file": portable(one.name), "reason": one.reason} for one in found.skipped],
        "summary": summary,
    }
    write_atomically(path, (json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def may_write(option: str, path: Path) -> None:
    """Refuse a file that this command has not written, and what can be none.

    Args:
        option: That names it.
        path: Of the file.

    Raises:
        UserError: It is a folder, cannot be read, or is somebody's own file.
    """
    try:
        if path.is_dir():
            raise UserError(f"`{option}` {path} is a folder: give the name of a file.")
        mark = _MARKS.get(path.suffix.lower())
        if option not in _OPTIONS or not path.exists() or mark is None:
            return
        with path.open("rb") as file:
            begins = file.read(len(mark))
    except OSError as error:
        raise UserError(f"`{option}` {path} cannot be written ({reason(error)}): give another name.") from error
    if begins and begins != mark:
        raise UserError(f"`{option}` {path} is there and holds no {_OPTIONS[option]} of classify: give another name.")
