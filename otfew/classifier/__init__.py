"""The classifier for one's own photos."""

from otfew.classifier.few_shot import FewShotClassifier

__all__ = ["FewShotClassifier"]
