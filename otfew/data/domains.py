"""Two domains of the same classes: labelled images come from the one, images to classify from the other."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from otfew.data.base import Image, ImageSet
from otfew.data.files import FileReader, portable
from otfew.data.parts import subset
from otfew.data.shifts import SHIFTS, names_view, shifted
from otfew.errors import UserError

AS_THEY_ARE = "as they are"
"""What a domain is called whose images are seen as they are."""
TOLD = 5
"""Classes that a sentence names."""


@dataclass(frozen=True)
class Domains:
    """Images to label and images to ask about, of the same classes in the same order.

    Attributes:
        support: The labelled ones come from here.
        query: The others from here.
        names: What the two domains are called: of the support, of the queries.
        same: True where the two hold the same images, seen differently: one that is labelled in an episode is then not
            asked about in it.
    """

    support: ImageSet
    query: ImageSet
    names: tuple[str, str]
    same: bool

    @property
    def joined(self) -> ImageSet:
        """All images of both in one set, those of the queries' domain behind the others and named after it."""
        parts = self.support, self.query
        told = "\n".join(["otfew domains 1", *(part.fingerprint for part in parts)])
        return replace(
            self.support,
            labels=np.concatenate([part.labels for part in parts]),
            names=(*self.support.names, *(f"{name} [{self.names[1]}]" for name in self.query.names)),
            read=_Reader(self.support, self.query),
            fingerprint=hashlib.sha256(told.encode()).hexdigest(),
            notes=tuple(dict.fromkeys([*self.support.notes, *self.query.notes])),
            domains=tuple(name for name, part in zip(self.names, parts, strict=True) for _ in part.names),
            view="",
        )


@dataclass(frozen=True)
class _Reader:
    """Decodes image i of two sets, one behind the other; pickles where they do."""

    first: ImageSet
    second: ImageSet

    def __call__(self, index: int) -> Image:
        """Read image ``index``: (height, width, 3) uint8 RGB."""
        behind = index - len(self.first)
        return self.first.read(index) if behind < 0 else self.second.read(behind)


def across(
    images: ImageSet, support: str | None, query: str | None, open_folder: Callable[[Path], ImageSet]
) -> Domains:
    """Find the two domains that are asked for.

    Args:
        images: A split as it is.
        support: Where labelled images come from: None for the images as they are; a view of them, see
            ``otfew.data.shifts.parse``; or a value of their ``domains``.
        query: Where the others come from, likewise, or a folder with the same class names. Of two values of
            ``domains`` the one that is not named is the other.
        open_folder: Loads the part of a folder that stands beside ``images``.

    Raises:
        UserError: No such view, value or folder; both name the same; classes that differ; or a domain with one image.
    """
    if support is None and query is None:
        raise ValueError("neither `support` nor `query` is given")
    values = sorted(set(images.domains) - {""})
    if support in values or query in values:
        found = _of_column(images, values, support, query)
    elif query is not None and not _is_view(query, "query_domain", images, values):
        found = _of_folder(images, support, query, open_folder)
    else:
        if support is not None and not _is_view(support, "support_domain", images, values):
            raise UserError(
                f"`support_domain` {support!r} is a folder: give it as `data_root`, and the other as `query_domain`."
            )
        if support == query:
            raise UserError(f"`support_domain` and `query_domain` are both {query!r}: give different ones.")
        parts = [images if spec is None else shifted(images, spec) for spec in (support, query)]
        found = Domains(parts[0], parts[1], (_called(parts[0]), _called(parts[1])), same=True)
    for name, part in zip(found.names, (found.support, found.query), strict=True):
        if len(part) < 2:
            raise UserError(f"domain {name!r} of {images.dataset!r} has {_count(len(part))}: add more.")
    _refuse_other_classes(found)
    return found


def _called(images: ImageSet) -> str:
    return images.view or AS_THEY_ARE


def _count(images: int) -> str:
    return "one image" if images == 1 else f"{images} images"


def _is_view(spec: str, argument: str, images: ImageSet, values: Sequence[str]) -> bool:
    """Tell a view from a folder; raises ``UserError`` where it is neither."""
    if os.path.isdir(os.path.expanduser(spec)):
        return False
    if names_view(spec):
        return True
    column = f"a value of its column domain ({', '.join(values)}), " if values else ""
    if not values and images.dataset.lower().endswith(".csv"):
        lacks = f"{images.dataset} has no column domain"
    else:
        lacks = f"nothing of {images.dataset!r} is called so"
    close = get_close_matches(spec.rpartition(":")[0] or spec, [*SHIFTS, *values], n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise UserError(
        f"`{argument}` {portable(spec)!r} is no view and no folder that is there, and {lacks}{hint}: give {column}"
        f"{', '.join(SHIFTS)} with a severity, as in blur:2, or a folder with the same class names."
    )


def _of_column(images: ImageSet, values: Sequence[str], support: str | None, query: str | None) -> Domains:
    """Divide images by where they come from."""
    named = {"support_domain": support, "query_domain": query}
    for argument, value in named.items():
        other = query if argument == "support_domain" else support
        rest = [v for v in values if v != other]
        if value is None and len(rest) == 1:
            named[argument] = rest[0]
        elif value is None:
            raise UserError(
                f"{images.dataset!r} has images of {', '.join(values)}: give `{argument}` beside the other, {other!r}."
                if rest
                else f"all images of {images.dataset!r} are of domain {other!r}: there is no other to come from."
            )
        elif value not in values:
            raise UserError(
                f"`{argument}` {value!r} is no domain of {images.dataset!r}, whose column has {', '.join(values)}."
            )
    names = str(named["support_domain"]), str(named["query_domain"])
    if names[0] == names[1]:
        raise UserError(f"`support_domain` and `query_domain` are both {names[0]!r}: give different ones.")
    parts = [subset(images, [i for i, own in enumerate(images.domains) if own == name]) for name in names]
    return Domains(parts[0], parts[1], names, same=False)


def _of_folder(images: ImageSet, support: str | None, query: str, open_folder: Callable[[Path], ImageSet]) -> Domains:
    """Open the folder of queries, and leave out what the support has as well."""
    if support is not None:
        _is_view(support, "support_domain", images, [])
    folder = Path(os.path.expanduser(query))
    there = open_folder(folder)
    name = portable(folder.resolve().name)
    here = images if support is None else shifted(images, support)
    wanted = {label: k for k, label in enumerate(here.classes)}
    # Beside a split of another data set, a folder may have all its classes.
    if there.dataset == images.dataset and set(there.classes) != set(here.classes):
        only = [(_called(here), set(here.classes) - set(there.classes)), (name, set(there.classes) - set(here.classes))]
        said = [f"only {which!r} has {_listed(sorted(classes))}" for which, classes in only if classes]
        raise UserError(_differ(here.dataset, said, drawn="seed" in here.variant))
    kept = [i for i, label in enumerate(there.labels.tolist()) if there.classes[label] in wanted]
    copies = _copies(images, there)
    own = [i for i in kept if i not in copies]
    if kept and not own:
        raise UserError(
            f"`query_domain`: all images of folder {name!r} are in the other domain too: give other images."
        )
    notes = [f"{len(kept) - len(own)} images of {name!r} are in the other domain too and are left out"]
    found = subset(there, own)
    relabelled = replace(
        found,
        classes=here.classes,
        units=here.units,
        labels=np.array([wanted[found.classes[label]] for label in found.labels.tolist()], np.int64),
        notes=(*found.notes, *(notes if len(own) < len(kept) else [])),
    )
    return Domains(here, relabelled, (_called(here), name), same=False)


def _copies(images: ImageSet, others: ImageSet) -> set[int]:
    """Find the images of a folder whose files are in the other set too, byte for byte."""
    if not isinstance(images.read, FileReader) or not isinstance(others.read, FileReader):
        return set()
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in images.read.paths:
        by_size[path.stat().st_size].append(path)
    known: dict[int, set[bytes]] = {}
    found = set()
    for i, path in enumerate(others.read.paths):
        size = path.stat().st_size
        if size in by_size:
            if size not in known:
                known[size] = {_hashed(own) for own in by_size[size]}
            if _hashed(path) in known[size]:
                found.add(i)
    return found


def _hashed(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _refuse_other_classes(found: Domains) -> None:
    """Raise ``UserError`` where a class has no image in one of the domains."""
    said = []
    for name, part, other in (
        (found.names[0], found.support, found.query),
        (found.names[1], found.query, found.support),
    ):
        there = np.bincount(part.labels, minlength=len(part.classes)) > 0
        elsewhere = np.bincount(other.labels, minlength=len(other.classes)) > 0
        only = [label for label, a, b in zip(part.classes, there, elsewhere, strict=True) if a and not b]
        if only:
            said.append(f"only {name!r} has {_listed(only)}")
    if said:
        raise UserError(_differ(found.support.dataset, said, drawn="seed" in found.support.variant))


def _differ(dataset: str, said: Sequence[str], *, drawn: bool) -> str:
    """Say which classes two domains do not share."""
    why = ", and a class split is drawn of all classes' names" if drawn else ""
    return f"the domains of {dataset!r} have different classes: {'; '.join(said)}{why}: give both the same classes."


def _listed(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - TOLD} more" if len(classes) > TOLD else ""
    return ", ".join(classes[:TOLD]) + more
