"""Runs all folders of ``folder_plan``, one after another; what is finished in a run folder is not done again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from otfew import catalogue
from otfew.backbones import load as load_backbone
from otfew.classifier import prior
from otfew.classifier.candidates import HEADS
from otfew.classifier.folder_plan import SOURCES, Source, folders
from otfew.classifier.folder_pool import open_pool, read_pool
from otfew.classifier.folder_study import judge
from otfew.classifier.folder_summary import summary
from otfew.runs.directory import RunDirectory, to_json
from otfew.runs.files import parse_json
from otfew.runs.identity import code_digest, package_of, short_hash, versions
from otfew.runs.watch import SILENT, Watch

FORMAT = 1
CODE = (
    "otfew.scores", "otfew.transport", "otfew.random",
    "otfew.statistics.temperature", "otfew.statistics.detection", "otfew.classifier.automatic",
    "otfew.classifier.answering", "otfew.classifier.calibration", "otfew.classifier.candidates",
    "otfew.classifier.conformal", "otfew.classifier.duplicates", "otfew.classifier.folder_plan",
    "otfew.classifier.folder_pool", "otfew.classifier.folder_study", "otfew.classifier.holdouts",
    "otfew.classifier.prior", "otfew.classifier.rejection", "otfew.classifier.selection",
)  # fmt: skip
"""What a folder's figures depend on, beside the methods' own packages, features and the prior's table."""


def run(
    backbone: str,
    *,
    sources: Sequence[Source] = SOURCES,
    data_root: Path | None = None,
    download: bool = True,
    output: Path | None = None,
    command: str = "",
    watch: Watch = SILENT,
) -> dict[str, Any]:
    """Judge ``method="auto"`` on every folder.

    Args:
        backbone: Name of a network of the prior's table.
        sources: What folders are drawn from.
        data_root: Folder of data sets.
        download: Fetch what is missing where the publisher allows it.
        output: Folder of the run; None for runs/folders-HASH.
        command: For the record.
        watch: Where progress is shown.

    Returns:
        The record, JSON-ready: plan, figures of each folder and ``folder_summary.summary`` of them.

    Raises:
        UserError: Data or the network are missing, or the folder holds another run.
    """
    network = load_backbone(backbone)
    images = [read_pool(source, data_root, download=download) for source in sources]
    identity = {
        "command": "folders",
        "format": FORMAT,
        "backbone": {"name": network.name, "digest": network.digest},
        "prior": hashlib.sha256(prior.TABLE.read_bytes()).hexdigest(),
        "sources": [
            {**asdict(source), "photos": len(own), "sha256": own.digest, "notes": list(own.notes)}
            for source, own in zip(sources, images, strict=True)
        ],
        "versions": versions(),
    }
    place = output or Path("runs") / f"folders-{short_hash(identity)}"
    directory, code, table = RunDirectory(place, identity), code_of_folders(), prior.load()
    plan = list(folders({k: own.labels for k, own in enumerate(images)}, sources))
    found: list[dict[str, Any]] = []
    for k, (source, own) in enumerate(zip(sources, images, strict=True)):
        pool = None
        for folder in (each for each in plan if each.source == k):
            name = f"folder-{folder.number:02d}.json"
            kept = directory.load_file(name, code, watch.note)
            if kept is None:
                pool = pool or open_pool(source, own, network, watch=watch)
                # Written and read again, so that a run that was interrupted gives the same bytes.
                kept = to_json(judge(pool, folder, table))
                directory.save_file(name, kept, code)
                watch.note(
                    f"folder {folder.number + 1} of {len(plan)}: {source.dataset}, {len(folder.classes)} classes"
                )
            found.append(parse_json(kept))
    record = {**identity, "line": command, "summary": summary(found), "folders": found}
    directory.write("results.json", to_json(record))
    return record


def code_of_folders() -> str:
    """Digest the code that a folder's figures depend on."""
    methods = {type(catalogue.build(name)) for heads in HEADS.values() for name in heads}
    return code_digest(*CODE, *sorted({package_of(method) for method in methods}))
