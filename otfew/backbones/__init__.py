"""Networks from images to feature maps, and the cards that say what they have seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otfew.registry import exported

if TYPE_CHECKING:
    from otfew.backbones.architectures import ARCHITECTURES
    from otfew.backbones.base import Backbone
    from otfew.backbones.cards import Card
    from otfew.backbones.foreign import of_module
    from otfew.backbones.loading import available, default_for, load
    from otfew.backbones.seen import classes_seen

__all__ = ["ARCHITECTURES", "Backbone", "Card", "available", "classes_seen", "default_for", "load", "of_module"]

_PLACES = {
    "ARCHITECTURES": "otfew.backbones.architectures:ARCHITECTURES",
    "Backbone": "otfew.backbones.base:Backbone",
    "Card": "otfew.backbones.cards:Card",
    "of_module": "otfew.backbones.foreign:of_module",
    "available": "otfew.backbones.loading:available",
    "default_for": "otfew.backbones.loading:default_for",
    "load": "otfew.backbones.loading:load",
    "classes_seen": "otfew.backbones.seen:classes_seen",
}
"""Public name -> where it is, which is imported when the name is first asked for."""


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    return exported(__name__, _PLACES, name)


def __dir__() -> list[str]:
    """List what there is to ask for."""
    return sorted({*globals(), *__all__})
