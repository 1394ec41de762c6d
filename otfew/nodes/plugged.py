"""Kinds of nodes of a user's own, by ``package.module:Name``: nowhere registered, and watched while they work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from otfew import plugins
from otfew.data.base import Image
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.nodes.base import Extractor

_PARTS = ("n_views", "views", "nodes")


@dataclass(frozen=True)
class Plugged:
    """Somebody's extractor under the name that it was given by, which is what reports and caches know it by.

    Args:
        spec: ``package.module:Name``, with arguments behind another colon where there are any.
        inner: The extractor.
        code: Digest of its source, for the caches of features.
    """

    spec: str
    inner: Extractor
    code: str

    @property
    def n_views(self) -> int:
        """Count the views of an image."""
        return self.inner.n_views

    @property
    def draws(self) -> bool:
        """Whether views depend on the image's name."""
        return bool(getattr(self.inner, "draws", True))

    def views(self, image: Image, preparation: Preparation, name: str) -> npt.NDArray[np.uint8]:
        """Cut an image into views, see ``otfew.nodes.base.Extractor``; raises ``UserError`` where they are none."""
        views = self._asked("views", image, preparation, name)
        expected = (self.n_views, preparation.resolution, preparation.resolution, 3)
        if not isinstance(views, np.ndarray) or views.shape != expected or views.dtype != image.dtype:
            got = f"{views.dtype} {views.shape}" if isinstance(views, np.ndarray) else type(views).__name__
            raise UserError(f"nodes {self.spec!r} cut views {got}, not {image.dtype} {expected}.")
        return views

    def nodes(self, maps: Tensor) -> Tensor:
        """Turn feature maps into nodes; raises ``UserError`` where they are none."""
        nodes = self._asked("nodes", maps)
        if not isinstance(nodes, Tensor) or nodes.ndim != 3 or len(nodes) != len(maps) or 0 in nodes.shape:
            got = tuple(nodes.shape) if isinstance(nodes, Tensor) else type(nodes).__name__
            raise UserError(
                f"nodes {self.spec!r} made {got} of maps {tuple(maps.shape)}, not (images, nodes, channels)."
            )
        return nodes

    def _asked(self, part: str, *arguments: Any) -> Any:
        try:
            return getattr(self.inner, part)(*arguments)
        except UserError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise UserError(f"nodes {self.spec!r}: {part} fails with {plugins.told(error)}.") from error


def load(spec: str) -> Plugged:
    """Import an extractor.

    Args:
        spec: ``package.module:Name`` of an extractor, or of a class or function that gives one when it is called: with
            what stands behind a further colon, as one string, or else without arguments.

    Raises:
        UserError: The module cannot be imported, the call fails, or the result is no extractor.
    """
    name = plugins.plain(spec)
    arguments = spec[len(name) + 1 :]
    found = plugins.load(name, "nodes")
    if isinstance(found, type) or not _is_extractor(found):
        if not callable(found):
            raise UserError(f"nodes {name!r} are of type {type(found).__name__}: name an extractor, {_WHAT}.")
        found = plugins.called(found, name, "nodes", *([arguments] if arguments else []))
    elif arguments:
        raise UserError(f"nodes {spec!r}: {name!r} is an extractor already, and takes no arguments: leave them out.")
    if not _is_extractor(found):
        lacking = next(part for part in _PARTS if not hasattr(found, part))
        raise UserError(f"nodes {name!r}: a {type(found).__name__} lacks {lacking!r} and is no extractor, {_WHAT}.")
    if not isinstance(found.n_views, int) or found.n_views < 1:
        raise UserError(f"nodes {name!r}: `n_views` is {found.n_views!r}, not the number of an image's views.")
    return Plugged(spec, found, plugins.digest(name))


_WHAT = "which cuts views and makes nodes of maps: see otfew.nodes.base.Extractor"


def _is_extractor(thing: object) -> bool:
    return all(hasattr(thing, part) for part in _PARTS)
