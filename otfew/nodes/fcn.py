"""Fully convolutional nodes: every location of the backbone's map is one node, with a pyramid above it if wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from otfew.data.base import Image
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.nodes.numbers import check_count, whole_numbers

NO_MAP = "nomap"
"""What leaves the map out, after the levels."""


@dataclass(frozen=True)
class FCN:
    """One view, h * w nodes in row-major order (DeepEMD-FCN, Zhang et al. 2020, section 3.3).

    With levels, a feature pyramid (Zhang et al. 2022, section 4.2): for each level l, l * l averages of the map, then
    the map itself. Averages are those of adaptive pooling, as in the released code; the paper says RoI pooling. The
    paper's pyramid (5, 2, 1) of a 5 x 5 map is levels 2, 1 with the map. Its pyramid for retrieval (section 5.8) is
    levels 3, 2, 1, presumably without the map: 14 nodes whatever the map's size.

    Args:
        levels: Sizes of the pooled maps, in the order of their nodes.
        with_map: Whether the map's locations are nodes too.
    """

    draws: ClassVar[bool] = False
    levels: tuple[int, ...] = ()
    with_map: bool = True

    @property
    def spec(self) -> str:
        """Return the canonical specification."""
        parts = [*map(str, self.levels), *([] if self.with_map else [NO_MAP])]
        return f"fcn:{','.join(parts)}" if parts else "fcn"

    @property
    def n_views(self) -> int:
        """Count the views of an image."""
        return 1

    def views(self, image: Image, preparation: Preparation, name: str) -> npt.NDArray[np.uint8]:
        """Prepare the whole image: (1, resolution, resolution, 3). ``name`` is not needed."""
        del name
        return preparation(image)[None]

    def nodes(self, maps: Tensor) -> Tensor:
        """Turn (images, 1, channels, h, w) into (images, l * l for each level + h * w or 0, channels).

        Raises:
            UserError: A level is larger than the map.
        """
        maps = maps[:, 0]
        height, width = maps.shape[2:]
        if self.levels and max(self.levels) > min(height, width):
            raise UserError(
                f"nodes {self.spec!r}: level {max(self.levels)} is larger than the backbone's map of {height} x "
                f"{width} nodes; give smaller levels or a larger resolution."
            )
        pyramid = [*(adaptive_avg_pool2d(maps, level) for level in self.levels), *([maps] if self.with_map else [])]
        return torch.cat([level.flatten(2) for level in pyramid], 2).transpose(1, 2).contiguous()


def parse(arguments: str) -> FCN:
    """Take every location of the backbone's map as one node; fcn:2,1 adds its averages over 2 x 2 and 1 x 1 parts.

    fcn:2,1,nomap leaves the map's own locations out: 4 + 1 nodes.

    Args:
        arguments: What follows "fcn:": levels of a feature pyramid, or nothing; "nomap" at the end leaves out the map.

    Raises:
        UserError: Not a list of levels, or no node is left.
    """
    if not arguments:
        return FCN()
    *levels, last = arguments.split(",")
    with_map = last != NO_MAP
    if not with_map and not levels:
        raise UserError(f"nodes 'fcn:{NO_MAP}' are none: name the levels to keep, for example fcn:3,2,1,{NO_MAP}.")
    fcn = FCN(whole_numbers("fcn", [*levels, last] if with_map else levels, "fcn:2,1"), with_map)
    check_count(fcn.spec, sum(level * level for level in fcn.levels))
    return fcn
