"""The classifier for one's own photos."""

from otfew.classifier.few_shot import FewShotClassifier
from otfew.classifier.places import find_photos

__all__ = ["FewShotClassifier", "find_photos"]
