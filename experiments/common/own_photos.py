"""The classifier of the commands for one's own photos: fitted on a folder, or loaded."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from otfew.classifier.few_shot import FewShotClassifier
from otfew.classifier.places import is_list, labelled_photos
from otfew.errors import UserError
from otfew.experiments.common.photo_options import WithClassifier
from otfew.runs.files import cache_directory
from otfew.runs.watch import Watch

SETTLED = ("method", "nodes", "resolution", "depth")
"""Options that a saved classifier has settled."""


def check_rate(unknown: float | None) -> None:
    """Raise ``UserError`` unless the rate of refusals can be one."""
    if unknown is not None and not 0 < unknown < 1:
        raise UserError(f"`unknown` is {unknown:g}: give the share of known photos that may be refused, such as 0.05.")


def fitted(options: WithClassifier, watch: Watch, *, strict: bool = False) -> FewShotClassifier:
    """Fit on a folder, or load what was saved.

    Args:
        options: The command line.
        watch: Told of what is left out, and of progress.
        strict: Refuse the first photo that cannot be used, rather than leave it out.

    Raises:
        UserError: Nothing is there, or as ``FewShotClassifier`` says.
    """
    with _own_names():
        return _fitted(options, watch, strict)


def tell_known(classifier: FewShotClassifier, watch: Watch) -> None:
    """Say what is known of the labelled photos; of an automatic choice, all candidates with their costs.

    Args:
        classifier: Fitted.
        watch: Told of it, a line at a time.
    """
    for line in classifier.report_.lines([photo.title for photo in classifier.labelled_.photos]):
        watch.note(line)
    if classifier.selection_ is not None:
        watch.note("candidates in the prior's order; cost 1 is one image at the network's own resolution:")
        *table, _ = str(classifier.selection_).split("\n")  # the reason, which is last, is among the lines above
        for line in table:
            watch.note(f"  {line}")


@contextmanager
def _own_names() -> Iterator[None]:
    """Call what the library calls by other names as the options are called."""
    try:
        yield
    except UserError as error:
        said = str(error).replace("`reject`", "`unknown`").replace("give another `unknown_label`", "rename its folder")
        raise UserError(said) from error


def _fitted(options: WithClassifier, watch: Watch, strict: bool) -> FewShotClassifier:
    """Fit on a folder, or load what was saved."""
    given = os.path.expanduser(options.labelled)
    listed = is_list(Path(given))
    if os.path.isfile(given) and not listed:
        return _loaded(options, given)
    if not os.path.isdir(given) and not listed:
        raise UserError(
            f"{options.labelled} is not there: give a folder that holds a folder of photos for each class, a .csv file "
            "of image,label, or a file that classify has saved."
        )
    files, labels, notes = labelled_photos(given, options.depth)
    for note in notes:
        watch.note(note)
    made = FewShotClassifier(
        options.backbone,
        options.method,
        nodes=options.nodes or None,
        resolution=options.resolution,
        device=options.device,
        on_error="raise" if strict else "skip",
        reject=options.unknown,
        cache=cache_directory() / "photos",
    )
    with watch.task("labelled photos") as step, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is left out is listed
        made.fit(_counted(files, step), labels)
    for one in made.skipped_:
        watch.note(f"skipped: {one}")
    return made


def _loaded(options: WithClassifier, given: str) -> FewShotClassifier:
    """Load what was saved; the rate of refusals may be another one."""
    made = FewShotClassifier.load(given, backbone=options.backbone, device=options.device)
    defaults = {field.name: field.default for field in fields(options)}
    for name in SETTLED:
        if getattr(options, name) != defaults[name]:
            raise UserError(f"`{name}` cannot be had of {given}, a saved classifier: give the folder it was made from.")
    made.on_error = "skip"
    if options.unknown is not None and options.unknown != made.reject:
        made.reject = options.unknown
        made._refuse_anew()
    return made


def _counted(files: Sequence[Path], step: Any) -> Iterator[Path]:
    """Hand out files, and tell how many."""
    for i, path in enumerate(files):
        yield path
        step(i + 1, len(files))
