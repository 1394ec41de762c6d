"""Fully convolutional nodes: every location of the backbone's map is one node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from otfew.data.base import Image
from otfew.errors import UserError
from otfew.preparation import Preparation


@dataclass(frozen=True)
class FCN:
    """One view, h * w nodes in row-major order (DeepEMD-FCN, Zhang et al. 2020, section 3.3)."""

    @property
    def spec(self) -> str:
        """Return the canonical specification."""
        return "fcn"

    @property
    def n_views(self) -> int:
        """Count the views of an image."""
        return 1

    def views(self, image: Image, preparation: Preparation, name: str) -> npt.NDArray[np.uint8]:
        """Prepare the whole image: (1, resolution, resolution, 3). ``name`` is not needed."""
        del name
        return preparation(image)[None]

    def nodes(self, maps: Tensor) -> Tensor:
        """Turn (images, 1, channels, h, w) into (images, h * w, channels)."""
        return maps[:, 0].flatten(2).transpose(1, 2).contiguous()


def parse(arguments: str) -> FCN:
    """Take every location of the backbone's map as one node.

    Args:
        arguments: What follows "fcn:"; there is nothing to choose.

    Raises:
        UserError: Something follows.
    """
    if arguments:
        raise UserError(f"nodes 'fcn' take no arguments, not {arguments!r}: write --nodes fcn.")
    return FCN()
