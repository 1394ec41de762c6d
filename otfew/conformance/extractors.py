"""Laws of nodes: an image becomes views, their maps become nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew import nodes
from otfew.conformance.chance import twice
from otfew.conformance.findings import Finding, Law, broken, judge, noted
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.nodes import Extractor

SIDE, MAP, CHANNELS, IMAGES = 32, 6, 5, 4
SIZES = ((40, 56), (56, 40), (32, 32))
"""Heights and widths of images."""


@dataclass
class Subject:
    """Kinds of nodes.

    Attributes:
        spec: As it was given.
        extractor: What it means.
    """

    spec: str
    extractor: Extractor

    def maps(self, seed: int = 0) -> Tensor:
        """Draw maps (images, n_views, channels, h, w) of as many views as it cuts."""
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(IMAGES, self.extractor.n_views, CHANNELS, MAP, MAP, generator=generator)


def check(spec: str) -> tuple[Finding, ...]:
    """Try all laws on a kind of nodes.

    Args:
        spec: As ``otfew.nodes.parse`` takes it.

    Raises:
        UserError: There is no such kind.
    """
    return judge(Subject(spec, nodes.parse(spec)), LAWS)


def _image(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _says(subject: Subject) -> None:
    inner: Any = getattr(subject.extractor, "inner", subject.extractor)
    if not isinstance(getattr(inner, "spec", None), str) or not inner.spec:
        broken("`spec` is no text: it tells this kind of nodes, with its options, from others.")


def _views(subject: Subject) -> None:
    for height, width in SIZES:
        subject.extractor.views(_image(height, width), Preparation(SIDE), "some/image.png")
    floats = _image(*SIZES[0]).astype(np.float32) / 255
    views: Any = getattr(subject.extractor, "inner", subject.extractor).views(floats, Preparation(SIDE), "x")  # type: ignore[arg-type]
    if views.dtype != np.float32:
        broken(f"images of float32 become views of {views.dtype}: keep the dtype, which the classifier needs.")


def _same_views(subject: Subject) -> None:
    image = _image(*SIZES[0])
    given = image.copy()
    first, second = twice(lambda: subject.extractor.views(image, Preparation(SIDE), "some/image.png"))
    if not np.array_equal(first, second):
        broken(
            "the same image is cut otherwise when generators are seeded otherwise: draw from the image's name "
            "(otfew.random.draws.uniforms), so that every run sees the same crops."
        )
    if not np.array_equal(image, given):
        broken("it writes into the image: copy it first.")
    other = subject.extractor.views(image, Preparation(SIDE), "another/image.png")
    draws = getattr(subject.extractor, "draws", True)
    if not draws and not np.array_equal(first, other):
        broken("'draws' is False, but views depend on the image's name: state True.")
    if draws and np.array_equal(first, other):
        noted("views do not depend on the image's name: state 'draws = False', and nobody makes up a name for it.")


def _makes_nodes(subject: Subject) -> None:
    maps = subject.maps()
    given = maps.clone()
    found = subject.extractor.nodes(maps)
    if found.ndim != 3 or found.shape[0] != IMAGES:
        broken(f"of maps {tuple(maps.shape)} it makes {tuple(found.shape)}: return (images, nodes, channels).")
    if found.shape[2] != CHANNELS:
        noted(f"maps of {CHANNELS} channels become nodes of {found.shape[2]}: a mean of base classes may not fit.")
    if not bool(torch.isfinite(found).all()):
        broken("nodes are NaN or infinite.")
    if not torch.equal(maps, given):
        broken("it writes into the maps: copy them first.")


def _same_nodes(subject: Subject) -> None:
    maps = subject.maps()
    first, second = twice(lambda: subject.extractor.nodes(maps))
    if not torch.equal(first, second):
        broken("the same maps give other nodes when generators are seeded otherwise: nodes must draw nothing.")


def _batch_mates(subject: Subject) -> None:
    maps = subject.maps()
    together = subject.extractor.nodes(maps)
    alone = [subject.extractor.nodes(maps[i : i + 1]) for i in range(IMAGES)]
    if any(part.shape[1:] != together.shape[1:] for part in alone):
        broken("an image has another number of nodes among others than alone.")
    if float((torch.cat(alone) - together).abs().max()) > 1e-5:
        broken("an image's nodes depend on the other images of the batch: never mix over the first axis.")


def _gradient(subject: Subject) -> None:
    maps = subject.maps().requires_grad_()
    found = subject.extractor.nodes(maps)
    if not found.requires_grad:
        noted("nodes have no gradient in the maps: metatrain cannot train through them.")
    (gradient,) = torch.autograd.grad(found.square().sum(), maps)
    if not bool(torch.isfinite(gradient).all()):
        broken("the gradient of nodes in the maps is NaN or infinite.")


def _small(subject: Subject) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(1, subject.extractor.n_views, CHANNELS, 1, 1, generator=generator)
    try:
        subject.extractor.nodes(maps)
    except UserError as error:
        noted(f"maps of one place are refused: {error}")


LAWS: tuple[Law[Subject], ...] = (
    Law("it says what it is", _says),
    Law("views of images of any shape", _views, first=True),
    Law("the same image has the same views, whatever is drawn elsewhere", _same_views),
    Law("nodes have the right shape and are finite", _makes_nodes, first=True),
    Law("the same maps have the same nodes", _same_nodes),
    Law("an image does not depend on its batch-mates", _batch_mates),
    Law("gradients reach the maps", _gradient),
    Law("maps of one place, as networks of vectors have", _small),
)
