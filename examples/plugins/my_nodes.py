"""Nodes of one's own: ``otfew compare --nodes my_nodes:Rings`` or, with an argument, ``--nodes my_nodes:Rings:4``."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.data import Image
from otfew.data.preparation import Preparation
from otfew.errors import UserError


class Rings:
    """Each node is the average of the map over a square ring around its middle, the innermost first.

    Args:
        argument: What stands behind the name and another colon: how many rings.
    """

    draws: ClassVar[bool] = False
    """Views do not depend on the image's name."""

    def __init__(self, argument: str = "2") -> None:
        if not argument.isdecimal() or int(argument) < 1:
            raise UserError(f"my_nodes:Rings:{argument}: give the number of rings, as in my_nodes:Rings:3.")
        self.rings = int(argument)

    @property
    def spec(self) -> str:
        """Return the canonical specification; otfew puts the module's name before it."""
        return f"rings:{self.rings}"

    @property
    def n_views(self) -> int:
        """Count the views of an image: the whole of it."""
        return 1

    def views(self, image: Image, preparation: Preparation, name: str) -> npt.NDArray[np.uint8]:
        """Resize the whole image: (1, resolution, resolution, 3)."""
        return preparation(image)[None]

    def nodes(self, maps: Tensor) -> Tensor:
        """Average (images, 1, channels, h, w) over rings: (images, rings, channels)."""
        height, width = maps.shape[-2:]
        if self.rings > (min(height, width) + 1) // 2:
            raise UserError(f"a map of {height} x {width} has no {self.rings} rings: give fewer, or larger images.")
        # How far a place is from the border, the nearest border of the four.
        rows, columns = (torch.arange(n).minimum(n - 1 - torch.arange(n)) for n in (height, width))
        depth = torch.minimum(rows[:, None], columns[None, :]).to(maps.device)
        outer = [depth == k for k in range(self.rings - 1)]
        masks = [depth >= self.rings - 1, *reversed(outer)]
        return torch.stack([maps[:, 0][:, :, mask].mean(-1) for mask in masks], 1)
