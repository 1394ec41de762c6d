"""Views of training images as a user's own nodes cut them, drawn anew each time where they draw at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.data.base import Image
from otfew.data.preparation import Preparation
from otfew.devices import send
from otfew.nodes import Extractor
from otfew.random.keys import hashed


class OwnViews:
    """The views of an extractor that nobody here knows: see ``otfew.training.views.Views``.

    An extractor draws from an image's name alone; with the key behind the name it draws anew, and always the same for
    the same key.

    Args:
        images: Decoded, (height, width, 3) uint8.
        names: Of the images.
        extractor: Cuts the views.
        preparation: Whose resolution views get.
    """

    def __init__(
        self, images: Sequence[Image], names: Sequence[str], extractor: Extractor, preparation: Preparation
    ) -> None:
        self._images, self._names = images, names
        self._extractor, self._preparation = extractor, preparation
        self._pool = ThreadPoolExecutor(os.cpu_count())

    def __call__(self, indices: Tensor, device: torch.device, *key: int) -> Tensor:
        """Cut a batch into views (images, views, 3, side, side) in [0, 1]."""
        seed = hashed(*key)

        def cut(index: int) -> npt.NDArray[np.uint8]:
            return self._extractor.views(self._images[index], self._preparation, f"{self._names[index]} {seed}")

        views = np.stack(list(self._pool.map(cut, indices.tolist())))
        return send(torch.from_numpy(views), device).permute(0, 1, 4, 2, 3).float() / 255
