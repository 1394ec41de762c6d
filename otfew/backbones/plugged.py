"""Networks of a user's own that otfew trains: ``package.module:factory`` as an architecture, and its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from otfew.backbones import foreign, weights
from otfew.backbones.architectures import ARCHITECTURES
from otfew.backbones.base import Backbone
from otfew.backbones.cards import load_card
from otfew.errors import UserError
from otfew.plugins import is_plugin


def architecture(name: str) -> Callable[..., nn.Module]:
    """Return what makes a network without weights.

    Args:
        name: Key of ``ARCHITECTURES``, or ``package.module:factory``, whose output becomes maps as
            ``otfew.backbones.foreign.AsMaps`` says.

    Raises:
        UserError: There is none; what a factory does is told when it is called.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if is_plugin(name):
        return partial(_made, name)
    raise UserError(
        f"unknown architecture {name!r}: choose from {', '.join(ARCHITECTURES)}, or give package.module:factory."
    )


def checkpoint(name: str, path: Path) -> Backbone:
    """Load weights that otfew trained into a network of the user's own.

    Args:
        name: ``package.module:factory`` of the network.
        path: Of the weights, with the card beside them.

    Raises:
        UserError: The card is of another network, or as ``weights.load`` and ``architecture``.
    """
    card = load_card(path)
    if card.architecture != name:
        raise UserError(f"checkpoint {path} is of {card.architecture!r}, not of {name!r}: name that before the @.")
    found = weights.load(path, build=architecture(name))
    return Backbone(found.module, found.card, foreign.of_source(found.digest, name))


def spelled(architecture: str, path: Path) -> str:
    """Write a checkpoint as the argument ``backbone`` takes it.

    Args:
        architecture: Of its card.
        path: Of the weights.
    """
    return f"{architecture}@{path}" if is_plugin(architecture) else str(path)


def _made(name: str, **options: bool) -> nn.Module:
    """Call the factory, and bring what it returns to maps."""
    made = foreign.make(name, **options)
    return made.module if isinstance(made, Backbone) else foreign.AsMaps(made, name)
