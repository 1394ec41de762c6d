"""Which tensor of a file belongs to which of a network: a prefix is stripped, names and shapes are compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from otfew.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a tensor -> its shape."""
COUNTERS = "num_batches_tracked"
"""Batch normalisation's count of batches, which old files lack and evaluation does not use."""


@dataclass(frozen=True)
class Match:
    """How a file fits a network.

    Attributes:
        prefix: Stripped from the file's names, such as "params.encoder.".
        taken: The network's name -> the file's, for tensors of equal shape.
        missing: The network's names of tensors that the file lacks, counts of batches apart.
        misfits: (the network's name, the file's, shape needed, shape found) of tensors of another shape.
        strays: Names in the file, behind the prefix, that belong to a layer whose other tensors were taken, or to one
            more layer like those that were: a bias of a convolution that has none here, a fifth block beside four.
            Such a file is of another network.
        unused: Other names of the file: heads, optimisers, other networks.
    """

    prefix: str
    taken: dict[str, str]
    missing: tuple[str, ...]
    misfits: tuple[tuple[str, str, tuple[int, ...], tuple[int, ...]], ...]
    strays: tuple[str, ...]
    unused: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """True where every tensor of the network was found in its shape, and no layer has more than it."""
        return not (self.missing or self.misfits or self.strays)

    @property
    def wanted(self) -> int:
        """Count the tensors that the network needs."""
        return sum(not name.endswith(COUNTERS) for name in (*self.taken, *self.missing)) + len(self.misfits)

    @property
    def matched(self) -> int:
        """Count those that were found."""
        return sum(not name.endswith(COUNTERS) for name in self.taken)


def match(wanted: Shapes, found: Shapes, names: Mapping[str, str], folded: frozenset[str] = frozenset()) -> Match:
    """Compare a network's tensors with those of a file.

    The prefix is the one under which most tensors are found by name; of several, the shortest.

    Args:
        wanted: Of the network.
        found: Of the file.
        names: The network's name -> what the file calls it, behind the prefix.
        folded: Names, behind the prefix, of tensors that are used though the network has none such.
    """
    prefix = _prefix(set(names.values()), found)
    taken, missing, misfits = {}, [], []
    for ours, shape in wanted.items():
        theirs = f"{prefix}{names[ours]}"
        if theirs not in found:
            if not ours.endswith(COUNTERS):
                missing.append(ours)
        elif found[theirs] != shape:
            misfits.append((ours, theirs, shape, found[theirs]))
        else:
            taken[ours] = theirs
    used = {*taken.values(), *(theirs for _, theirs, _, _ in misfits), *(f"{prefix}{name}" for name in folded)}
    layers = {theirs.rpartition(".")[0] for theirs in taken.values()}
    left = [name for name in found if name not in used]
    alike = _more_of_the_same(left, list(taken.values()), found)
    strays = tuple(name for name in left if name.rpartition(".")[0] in layers | alike and not name.endswith(COUNTERS))
    unused = tuple(name for name in left if name not in strays and not name.endswith(COUNTERS))
    return Match(prefix, taken, tuple(missing), tuple(misfits), strays, unused)


def _more_of_the_same(left: list[str], taken: list[str], found: Shapes) -> set[str]:
    """Return the layers left over of which every tensor is like some that were taken: names but for numbers, and rank.

    The rank tells a head, counted on behind the convolutions of a sequence, from one more block.
    """

    def kind(name: str) -> tuple[str, int]:
        return re.sub(r"\d+", "#", name), len(found[name])

    kinds = {kind(name) for name in taken}
    by_layer: dict[str, set[tuple[str, int]]] = {}
    for name in left:
        by_layer.setdefault(name.rpartition(".")[0], set()).add(kind(name))
    return {layer for layer, all_kinds in by_layer.items() if all_kinds <= kinds}


def _prefix(names: set[str], found: Shapes) -> str:
    """Return what stands before most of the names."""
    counts: Counter[str] = Counter()
    for theirs in found:
        # Only beginnings that end at a dot, from none of the name to all but its last part.
        parts = theirs.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in names:
                counts["".join(f"{part}." for part in parts[:cut])] += 1
    return min(counts, key=lambda prefix: (-counts[prefix], len(prefix), prefix), default="")


def refusal(fit: Match, file: str, network: str) -> UserError:
    """Name what keeps a file from fitting a network.

    Args:
        fit: Which does not fit.
        file: Name of the file.
        network: What it was held against, in words.
    """
    count = f"{fit.matched} of {fit.wanted} tensors match"
    if fit.misfits:
        ours, theirs, needed, got = fit.misfits[0]
        more = f" ({len(fit.misfits) - 1} more of other shapes)" if len(fit.misfits) > 1 else ""
        what = f"{theirs!r} has shape {got}, but {ours!r} needs {needed}{more}"
    elif fit.missing:
        more = f" and {len(fit.missing) - 1} more" if len(fit.missing) > 1 else ""
        what = f"it lacks {fit.missing[0]!r}{more}"
    else:
        what = f"it has {fit.strays[0]!r}, which that network does not have"
    return UserError(f"{file} does not fit {network}: {count}; {what}. Check `backbone`.")
