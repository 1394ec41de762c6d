"""Answers for many files, some at a time: what is finished is kept, and a second start goes on from there.

What goes through the network together is settled by a file's place among all alone, so that answers are the same bytes
wherever a run was interrupted.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from otfew.classifier.answers import Answer, Raw, answers, ask
from otfew.classifier.door import Door, Skipped
from otfew.classifier.embedder import together
from otfew.classifier.few_shot import FewShotClassifier
from otfew.classifier.resemblance import MOST, Resemblance
from otfew.classifier.trust import resemble_vectors
from otfew.runs.directory import RunDirectory, to_json
from otfew.runs.files import parse_json
from otfew.runs.identity import code_digest, package_of, short_hash, versions
from otfew.runs.watch import SILENT, Step, Watch

Begun: TypeAlias = "Callable[[int], None]"

AT_ONCE = 64
"""Files whose answers are kept together: what a crash may cost."""
CODE = ("otfew.backbones", "otfew.classifier", "otfew.data", "otfew.features", "otfew.nodes", "otfew.scores",
        "otfew.statistics", "otfew.transport")  # fmt: skip
"""What answers depend on beside the method's own package."""


@dataclass(frozen=True)
class Classified:
    """What is said of some files.

    Attributes:
        files: All that were given.
        answers: One for each; None for a file that could not be used.
        skipped: Those, with reasons; ``place`` is among ``files``.
        resemblance: Whether the new photos resemble the labelled ones.
        logits: (files, classes) float64 of the method; NaN for a file that could not be used.
    """

    files: tuple[Path, ...]
    answers: tuple[Answer | None, ...]
    skipped: tuple[Skipped, ...]
    resemblance: Resemblance
    logits: npt.NDArray[np.float64]


def classify(
    classifier: FewShotClassifier, files: Sequence[Path], *, beside: Path | None = None, watch: Watch = SILENT
) -> Classified:
    """Answer for files; what cannot be used is left out with its reason.

    Args:
        classifier: Fitted.
        files: Image files.
        beside: File that the answers are going to be written to: what is finished is kept in a folder beside it until
            ``forget``, under a name of classifier and files. None keeps nothing.
        watch: Where progress is shown.

    Raises:
        UserError: What is finished cannot be kept, or the method's answer is none.
    """
    places = list(range(len(files)))
    # A method that sees all photos at once has no parts that could be finished alone.
    size = len(files) if classifier.method_.transductive else AT_ONCE
    parts = [places[start : start + size] for start in range(0, len(files), size)]
    wanted = set(np.linspace(0, len(files) - 1, min(MOST, len(files))).round().astype(int).tolist())
    directory, code = None, ""
    if beside is not None:
        identity = _identity(classifier, files)
        directory = RunDirectory(folder_of(beside, identity), identity)
        code = code_digest(*CODE, package_of(type(classifier.method_)))
    names = [f"{index:06d}.json" for index in range(len(parts))]
    kept = {name: directory.load_file(name, code, watch.note) if directory else None for name in names}
    missing = sum(len(part) for name, part in zip(names, parts, strict=True) if kept[name] is None)
    if missing < len(files):
        watch.note(
            f"{len(files) - missing:,} of the {len(files):,} new photos were answered before; going on from there"
        )
    rows: dict[int, tuple[list[float], int]] = {}
    vectors: dict[int, npt.NDArray[np.float32]] = {}
    skipped: list[Skipped] = []
    done = 0
    with watch.task("new photos") as step:
        for name, part in zip(names, parts, strict=True):
            data = kept.pop(name)
            if data is not None:
                record = parse_json(data)
            else:
                # What was answered before took no time now, and is not counted.
                record = _record(classifier, files, part, wanted, partial(_tell, step, done, missing))
                done += len(part)
                step(done, missing)
                if directory:
                    directory.save_file(name, to_json(record), code)
            rows |= {int(place): (logits, nearest) for place, logits, nearest in record["answers"]}
            vectors |= {int(place): _vector(text) for place, text in record["vectors"]}
            skipped += [Skipped(*entry) for entry in record["skipped"]]
    asked = sorted(rows)
    logits = np.array([rows[place][0] for place in asked], np.float64).reshape(-1, len(classifier.classes_))
    found = dict(zip(asked, answers(classifier, logits, [rows[place][1] for place in asked]), strict=True))
    looked = sorted(vectors)
    taken = np.array([int(np.argmax(rows[place][0])) for place in looked], np.int64)
    new = np.stack([vectors[place] for place in looked]) if looked else np.zeros((0, 1), np.float32)
    resembles = resemble_vectors(classifier._trusted().held, classifier.labelled_, new.astype(np.float64), taken)
    every = np.full((len(files), len(classifier.classes_)), np.nan)
    every[asked] = logits
    return Classified(tuple(files), tuple(found.get(place) for place in places), tuple(skipped), resembles, every)


def forget(classifier: FewShotClassifier, files: Sequence[Path], beside: Path) -> list[Path]:
    """Remove what was kept of a run, once its answers are written.

    Returns:
        Folders beside the file that hold what another classifier, or other files, left unfinished.
    """
    shutil.rmtree(folder_of(beside, _identity(classifier, files)), ignore_errors=True)
    return sorted(
        path
        for path in beside.parent.glob(f"{_escaped(beside.name)}.unfinished-*")
        if (path / "protocol.json").exists()
    )


def folder_of(beside: Path, identity: dict[str, Any]) -> Path:
    """Name the folder of what is finished, beside the file that is going to hold all."""
    return beside.with_name(f"{beside.name}.unfinished-{short_hash(identity)}")


def _escaped(name: str) -> str:
    """Escape what a pattern would take for a sign of its own."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _record(
    classifier: FewShotClassifier, files: Sequence[Path], part: Sequence[int], wanted: set[int], begun: Begun
) -> dict[str, Any]:
    """Read, embed and ask about some files, telling which of them is begun; JSON-ready."""
    door = Door("skip")

    def shown() -> Any:
        for row, place in enumerate(part):
            begun(row)
            yield files[place]

    batches = classifier.embedder_(door.read(shown()), classifier._images_at_once(), door, lambda image: image.place)
    if classifier.method_.transductive:
        batches = together(batches)
    found: list[tuple[list[int], Raw]] = [(where, ask(classifier, nodes)) for where, nodes in batches if where]
    rows, kept = [], []
    for where, raw in found:
        for row, own in enumerate(where):
            place = part[own]
            rows.append([place, raw.logits[row].tolist(), int(raw.nearest[row])])
            if place in wanted:
                kept.append([place, base64.b64encode(raw.vectors[row].astype("<f4").tobytes()).decode()])
    lost = [[part[one.place], _text(str(files[part[one.place]])), _said(one)] for one in door.skipped]
    return {"answers": rows, "vectors": kept, "skipped": lost}


def _tell(step: Step, before: int, total: int, row: int) -> None:
    step(before + row, total)


def _said(one: Skipped) -> str:
    """Return a reason that can be kept, without the place among those that were embedded together."""
    return _text(one.reason.removeprefix(f"image {one.place}: "))


def _text(text: str) -> str:
    """Return text that JSON can hold: names may be bytes that are no text."""
    return text.encode("utf-8", "replace").decode()


def _vector(text: str) -> npt.NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)


def _identity(classifier: FewShotClassifier, files: Sequence[Path]) -> dict[str, Any]:
    """Say whose answers these are: of which classifier, about which files as they are now."""
    listed = hashlib.sha256()
    for path in files:
        try:
            status = path.stat()
            seen = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            seen = "gone"
        listed.update(f"{path}\0{seen}\0".encode(errors="surrogateescape"))
    return {
        "command": "classify",
        "classifier": digest_of(classifier),
        "files": len(files),
        "files_sha256": listed.hexdigest(),
        "versions": versions(),
    }


def digest_of(classifier: FewShotClassifier) -> str:
    """Hash what a fitted classifier's logits depend on: nodes, labels, method, backbone and view."""
    known, embedder = classifier.labelled_, classifier.embedder_
    name, options = classifier.recipe_
    view = [
        embedder.backbone.digest,
        embedder.extractor.spec,
        embedder.preparation.resolution,
        embedder.preparation.crop,
    ]
    said = [repr(name), sorted((key, repr(value)) for key, value in options.items()), view, classifier.batch_size]
    digest = hashlib.sha256(json.dumps([said, [repr(c) for c in known.classes.tolist()]]).encode())
    digest.update(known.nodes.detach().to(torch.float32).cpu().contiguous().numpy().tobytes())
    digest.update(known.labels.astype(np.int64).tobytes())
    return digest.hexdigest()
