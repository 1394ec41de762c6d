"""What a user says weights were trained on, so that the guard against seen classes can work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from os.path import isfile
from pathlib import Path

from otfew.backbones.base import Backbone
from otfew.backbones.cards import IMAGENET, Card
from otfew.data.class_lists import class_lists
from otfew.errors import UserError
from otfew.runs.files import reason
from otfew.runs.regular_file import LIST_BYTES, read_regular

LISTS = {
    "cub": ("cub", "cub-feat"),
    "cub-feat": ("cub", "cub-feat"),
    "cub-closerlook": ("cub", "cub-closerlook"),
    "cifar-fs": ("cifar-fs", "cifar-fs"),
    "fc100": ("fc100", "fc100"),
    "glyphs": ("glyphs", "glyphs"),
    "miniimagenet": ("miniimagenet", "miniimagenet"),
    "omniglot": ("omniglot", "omniglot-vinyals"),
    "tieredimagenet": ("tieredimagenet", "tieredimagenet"),
}
"""What may be stated -> data set, and its list of classes."""
ALL_OF_IMAGENET = "imagenet"


def state(backbone: Backbone, trained_on: str) -> Backbone:
    """Give a backbone's card the classes that its user says it was trained on.

    Args:
        backbone: Whose card names no training classes.
        trained_on: "miniimagenet" (its train split), "cub-closerlook:train+val", "imagenet" (all 1,000 classes), a text
            file of class names, one a line; or several of them, separated by commas.

    Returns:
        The same network; the evaluator refuses those classes now, as it does for a checkpoint of our own.

    Raises:
        UserError: The card names training data already, or nothing of that name is known.
    """
    card = backbone.card
    if card.training_classes or card.training_data == IMAGENET:
        raise UserError(
            f"`trained_on` is for weights that say nothing of their training, but the card of {card.name!r} names "
            f"{card.training_data or 'its classes'}: leave it out."
        )
    parts = [part.strip() for part in trained_on.split(",") if part.strip()]
    if not parts:
        raise UserError("`trained_on` is empty: name a data set such as miniimagenet, or a file of class names.")
    if parts == [ALL_OF_IMAGENET]:
        stated = replace(card, external=True, training_data=IMAGENET)
    else:
        found = [_classes(part) for part in parts]
        classes = tuple(dict.fromkeys(name for _, names in found for name in names))
        datasets = {dataset for dataset, _ in found}
        stated = replace(
            card,
            external=False,
            training_data=f"{', '.join(_told(part) for part in parts)} (as its user states; {len(classes)} classes)",
            dataset=datasets.pop() if len(datasets) == 1 else "",
            training_classes=classes,
        )
    return backbone.with_card(stated)


def unknown(card: Card) -> bool:
    """Tell whether nobody has said what a network was trained on."""
    return not card.training_classes and card.training_data != IMAGENET


def _told(part: str) -> str:
    """Name a part without folders."""
    return Path(part).name if isfile(part) else part


def _classes(part: str) -> tuple[str, tuple[str, ...]]:
    """Return the data set of a part, "" of a file, and its classes."""
    name, _, splits = part.partition(":")
    if name in LISTS:
        dataset, listed = LISTS[name]
        return dataset, tuple(_of_splits(part, listed, splits or "train"))
    if part == ALL_OF_IMAGENET:
        return "", tuple(_imagenet())
    if isfile(part):
        return "", _file(Path(part))
    raise UserError(
        f"`trained_on` names {part!r}, which is neither a file of class names nor one of "
        f"{', '.join([*LISTS, ALL_OF_IMAGENET])} (with :train, :val, :test or several as :train+val)."
    )


def _of_splits(part: str, listed: str, splits: str) -> Iterator[str]:
    """Yield the classes of some splits."""
    lists = {str(split): classes for split, classes in class_lists(listed).classes.items()}
    for split in splits.split("+"):
        if split not in lists:
            raise UserError(
                f"`trained_on` names the split {split!r} in {part!r}: write train, val or test, joined by +."
            )
        yield from lists[split]


def _imagenet() -> tuple[str, ...]:
    """Return ImageNet's synsets, beside those of another part."""
    from otfew.backbones.seen import synsets

    table = synsets()
    if table is None:
        raise UserError('the names of ImageNet\'s classes need a package: run pip install "otfew[pretrained]".')
    return tuple(table)


def _file(path: Path) -> tuple[str, ...]:
    """Read class names, one a line."""
    try:
        lines = read_regular(path, LIST_BYTES).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        told = reason(error) if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UserError(f"the class names in {path} cannot be read ({told}).") from error
    names = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not names:
        raise UserError(f"{path} holds no class names: write one a line.")
    return names
