"""The contract of an extractor: an image becomes views, their feature maps become nodes."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from otfew.data.base import Image
from otfew.data.preparation import Preparation


class Extractor(Protocol):
    """Turns images into node sets.

    Attributes:
        spec: Canonical form of the argument ``nodes`` ("fcn", "grid:2,3"); part of cache keys and reports.
        n_views: Views of each image that go through the backbone.

    One that never looks at the name of an image says so with an attribute ``draws`` that is False: then nobody needs to
    make a name of the pixels of an image that has none.
    """

    @property
    def spec(self) -> str:
        """Return the canonical specification."""
        ...

    @property
    def n_views(self) -> int:
        """Count the views of an image."""
        ...

    def views(self, image: Image, preparation: Preparation, name: str) -> npt.NDArray[np.uint8]:
        """Cut an image into views.

        Args:
            image: (height, width, 3) at its original resolution.
            preparation: Resolution and crop.
            name: The image's identifier; random crops draw from it alone, so that they never depend on order.

        Returns:
            (n_views, resolution, resolution, 3) of the image's dtype.
        """
        ...

    def nodes(self, maps: Tensor) -> Tensor:
        """Turn feature maps into nodes.

        Args:
            maps: (images, n_views, channels, h, w) float32.

        Returns:
            (images, nodes, channels) float32.
        """
        ...
