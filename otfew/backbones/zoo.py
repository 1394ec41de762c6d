"""Our own checkpoints: their cards come with every copy of the package, their weights are found by name and sha256.

The card is the record of a checkpoint: its sha256, and the command that trains one like it. The weights lie in the
checkout (those that a user gets by default), in ``$OTFEW_ZOO``, in the cache, or are downloaded. A copy of the package
that lacks them says so; it takes no other network in their place.
"""

from __future__ import annotations

import os
from pathlib import Path

from otfew.backbones import hosts
from otfew.backbones.cards import SUFFIX, Card, read_card
from otfew.errors import UserError
from otfew.runs.files import cache_directory

ZOO = Path(__file__).parent / "zoo"
"""Where the cards are, and the weights that come with this copy of the package."""
VARIABLE = "OTFEW_ZOO"
"""Environment variable that names a folder of weights."""
IN_CHECKOUT = (
    "cifar-fs-resnet12-quarter",
    "cifar-fs-resnet12-quarter-deepemd",
    "cub-resnet12-quarter",
    "cub-resnet12-quarter-deepemd",
    "fc100-resnet12-quarter",
    "glyphs-resnet12-quarter",
    "omniglot-conv4",
)
"""Whose weights a checkout holds: a network for each data set, and those meta-trained with DeepEMD."""


def zoo() -> dict[str, Card]:
    """Return the cards of our own checkpoints, by name, in alphabetical order, wherever their weights are."""
    return {path.stem: read_card(path) for path in sorted(ZOO.glob("*.json"))}


def known(name: str) -> bool:
    """Tell whether there is a checkpoint of that name."""
    return "/" not in name and os.sep not in name and os.path.isfile(ZOO / f"{name}.json")


def find(name: str) -> Path | None:
    """Look for the weights of a checkpoint of ours on this machine.

    Args:
        name: Key of ``zoo``.

    Returns:
        Their file in the package, in ``$OTFEW_ZOO`` or in the cache, in this order, or None. Its sha256 is compared
        with the card's when it is read.

    Raises:
        UserError: ``$OTFEW_ZOO`` is set to what is no folder.
    """
    given = os.environ.get(VARIABLE)
    if given and not os.path.isdir(given):
        raise UserError(f"${VARIABLE} is {given!r}, which is no folder: correct it, or unset it.")
    folders = [ZOO, *([Path(given)] if given else []), _cache()]
    return next((folder / f"{name}{SUFFIX}" for folder in folders if os.path.isfile(folder / f"{name}{SUFFIX}")), None)


def obtain(name: str) -> tuple[Path, Card]:
    """Return weights and card of a checkpoint of ours; the weights are downloaded where they are nowhere here.

    Args:
        name: Key of ``zoo``.

    Raises:
        UserError: The weights are not here and can't be downloaded; says where they are had.
    """
    card = read_card(ZOO / f"{name}.json")
    found = find(name)
    if found is not None:
        return found, card
    if not hosts.HOSTS:
        raise UserError(missing(name, card))
    from otfew.data.download import install_file

    failures = []
    for host in hosts.HOSTS:
        url = f"{host.rstrip('/')}/{name}{SUFFIX}"
        try:
            return install_file(url, f"sha256:{card.sha256}", _cache(), instead=_elsewhere(name, card)), card
        except UserError as error:
            failures.append(error)
    raise failures[-1]


def missing(name: str, card: Card) -> str:
    """Say that weights are not here, and where they are had."""
    return (
        f"the weights of {name!r} (sha256 {card.sha256[:16]}...) are not on this machine, and nobody serves them for "
        f"download yet: {_elsewhere(name, card)}; `backbone` efficientnet-lite0, of ImageNet weights, must be asked "
        "for."
    )


def _elsewhere(name: str, card: Card) -> str:
    """Say what can be done by hand."""
    again = f"train such a network again ({command(card)}) and give its file as `backbone`"
    if name not in IN_CHECKOUT:
        return again
    return (
        f"copy {name}{SUFFIX} from otfew/backbones/zoo of a checkout into a folder that ${VARIABLE} names, or {again}"
    )


def command(card: Card) -> str:
    """Return the command that trains a network like that of a card: the same recipe, not the same bytes."""
    return str(card.protocol.get("command", "its card names no command"))


def _cache() -> Path:
    """Where downloaded weights lie."""
    return cache_directory() / "zoo"
