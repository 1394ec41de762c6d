"""Networks from images to feature maps, and the cards that say what they have seen."""

from otfew.backbones.architectures import ARCHITECTURES
from otfew.backbones.base import Backbone, Card
from otfew.backbones.foreign import of_module
from otfew.backbones.loading import available, default_for, load
from otfew.backbones.seen import classes_seen

__all__ = ["ARCHITECTURES", "Backbone", "Card", "available", "classes_seen", "default_for", "load", "of_module"]
