"""The Latent Space Transform as a scikit-learn transformer; ``otfew.methods.latent_space`` has it batched in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from otfew.methods.latent_space import OFFSET, check_options

Array = npt.NDArray[Any]


class LatentSpaceTransform(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Power, isometric reduction, partial scaling, centring, partial scaling (Chobola, Vasata and Kordik 2021).

    ``fit_transform`` of all points of a task, labelled and unlabelled together, is the published transform, up to an
    isometry. Points that come later are projected onto the span of those fitted, where these were fewer than their
    features, and centred about the mean of those fitted.

    PT-MAP's transform is delta = gamma = 1 with labelled points and queries each about their own mean:
    ``fit_transform`` of either alone, with ``reduce=False`` so that both keep the same coordinates.

    Args:
        beta: Exponent of the power transform of x + 1e-6, above 0; features must not be negative unless it is 1.
        delta: Points are divided by their norm to the power delta, at least 0, before they are centred.
        gamma: And to the power gamma, at least 0, after.
        reduce: Keep as many coordinates as points were fitted, if those are fewer than the features.

    Attributes:
        components_: (n_components, n_features_in_) orthonormal rows, or None where nothing is reduced.
        mean_: (n_components,) of the scaled points.
        n_features_in_: Features of the points fitted.

    Raises:
        UserError: In ``fit``, an option out of range.
        ValueError: In all methods, NaN, infinity, or a negative feature where beta is not 1.

    Examples:
        >>> import numpy as np
        >>> points = np.abs(np.random.default_rng(0).normal(size=(80, 640)))
        >>> LatentSpaceTransform(beta=0.5, delta=0.3, gamma=0.9).fit_transform(points).shape
        (80, 80)
    """

    def __init__(self, beta: float = 0.5, delta: float = 0.3, gamma: float = 0.9, reduce: bool = True) -> None:
        self.beta = beta
        self.delta = delta
        self.gamma = gamma
        self.reduce = reduce

    def fit(self, X: Any, y: Any = None) -> LatentSpaceTransform:
        """Find the coordinates and the mean of points.

        Args:
            X: (n_points, n_features), float32 or float64 or what becomes that.
            y: Without effect.

        Returns:
            Itself.

        Raises:
            UserError: An option out of range.
            ValueError: NaN, infinity, or a negative feature where ``beta`` is not 1.
        """
        del y
        check_options(type(self).__name__, self.beta, self.delta, self.gamma)
        points = self._powers(X, reset=True)
        self.components_ = np.linalg.qr(points.T)[0].T if self.reduce and len(points) < points.shape[1] else None
        self.mean_: Array = self._scaled_once(points).mean(0)
        return self

    def transform(self, X: Any) -> Array:
        """Transform points.

        Args:
            X: (n_points, n_features), as many features as were fitted.

        Returns:
            (n_points, n_components), float32 if that is what X is, else float64.

        Raises:
            NotFittedError: Before ``fit``.
            ValueError: NaN, infinity, another number of features, or a negative one where ``beta`` is not 1.
        """
        check_is_fitted(self)
        return _scaled(self._scaled_once(self._powers(X, reset=False)) - self.mean_, self.gamma)

    def _powers(self, X: Any, *, reset: bool) -> Array:
        """Check points and take their power."""
        points: Array = validate_data(self, X, reset=reset, dtype=(np.float64, np.float32))
        if self.beta != 1 and points.min() < 0:
            # scikit-learn's checks look for its own first words.
            raise ValueError(
                f"Negative values in data passed to {type(self).__name__}: X holds {points.min():.3g}, but the power "
                f"transform x^{self.beta:g} needs features of at least 0; take features that end in ReLU, or beta=1, "
                "which transforms nothing"
            )
        powers: Array = (points + points.dtype.type(OFFSET)) ** points.dtype.type(self.beta)
        return powers

    def _scaled_once(self, powers: Array) -> Array:
        """Reduce, then divide by the norm to the power delta."""
        return _scaled(powers if self.components_ is None else powers @ self.components_.T, self.delta)

    @property
    def _n_features_out(self) -> int:
        """Number of coordinates, for ``get_feature_names_out``."""
        return len(self.mean_)

    def __sklearn_tags__(self) -> Tags:
        """Tell scikit-learn what the features must be and what becomes of their dtype."""
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self.beta != 1
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _scaled(points: Array, exponent: float) -> Array:
    """Divide points by their norms to a power; what is 0 stays 0."""
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    divided: Array = points / np.where(norms > 0, norms, 1) ** points.dtype.type(exponent)
    return divided
