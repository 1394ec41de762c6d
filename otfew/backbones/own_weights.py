"""Weights from elsewhere for a network of ours: ``resnet12@own.pth``, ``deepemd@max_acc.pth``, or the file alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from otfew.backbones.architectures import ARCHITECTURES
from otfew.backbones.base import Backbone, digest
from otfew.backbones.cards import Card
from otfew.backbones.foreign import UNKNOWN
from otfew.backbones.layouts import LAYOUTS, SAME_AS, Layout, codebases, own
from otfew.backbones.matching import COUNTERS, Match, Shapes, match, refusal
from otfew.backbones.tensor_files import read_tensors
from otfew.errors import UserError


@dataclass(frozen=True)
class _Fitted:
    """A layout with what it makes of a file."""

    layout: Layout
    match: Match


def names() -> tuple[str, ...]:
    """Return what may stand before ``@FILE``: our architectures and published codebases."""
    return (*ARCHITECTURES, *codebases())


def load(path: Path, name: str = "") -> Backbone:
    """Load somebody's weights into a network of ours.

    Args:
        path: See ``tensor_files.read_tensors``.
        name: Key of ``ARCHITECTURES``, a codebase of ``layouts``, or "": told by the file's names and shapes.

    Returns:
        The backbone. Its card says that its training data are unknown; its notes count the tensors that matched, and
        name the prefix that was stripped and what was left over.

    Raises:
        UserError: The file can't be read or is refused, or fits none of the networks; says which tensor does not.
    """
    tensors, sha256 = read_tensors(path)
    # Asked for before any network is built, which takes a while for the large ones.
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    fitted = _fitting(path, name, shapes)
    layout, fit = fitted.layout, fitted.match
    module = ARCHITECTURES[layout.architecture]()
    module.load_state_dict(_state(path, module, fitted, tensors))
    card = Card(
        name=f"{layout.architecture}@{path.name}",
        architecture=layout.architecture,
        resolution=layout.resolution,
        mean=layout.mean,
        std=layout.std,
        external=True,
        training_data=UNKNOWN,
        protocol={"weights": {"file": path.name, "sha256": sha256, "layout": layout.codebase, "prefix": fit.prefix}},
    )
    return Backbone(module.requires_grad_(False), card, digest(module, card), (said(path.name, fit, layout),))


def said(file: str, fit: Match, layout: Layout | None = None) -> str:
    """Say how many tensors of a file were taken, and what of it was not."""
    text = f"{file}: {fit.matched} of {fit.wanted} tensors matched"
    if layout is not None:
        text += f", as {layout.architecture} in the layout of {layout.codebase}"
    if fit.prefix:
        text += f"; the prefix {fit.prefix!r} was stripped"
    if fit.unused:
        more = f" and {len(fit.unused) - 2} more" if len(fit.unused) > 2 else ""
        text += f"; not used: {', '.join(fit.unused[:2])}{more}"
    if layout is not None and layout.codebase != "otfew":
        mean = ", ".join(f"{value:.3f}" for value in layout.mean)
        text += f"; normalised as in {layout.codebase} (mean {mean})"
        alike = [c for c in _alike(layout) if c != layout.codebase]
        if alike:
            text += f", give {alike[0]}@{file} where they are {alike[0]}'s"
    return text


def _alike(layout: Layout) -> list[str]:
    """Return the codebases whose files name the same network's tensors in the same way but prepare images otherwise."""
    return [
        other.codebase
        for other in LAYOUTS
        if (other.architecture, other.rename) == (layout.architecture, layout.rename)
        and (other.mean, other.std) != (layout.mean, layout.std)
    ]


def _fitting(path: Path, name: str, shapes: Shapes) -> _Fitted:
    """Return the first layout that a file fits; raises for the nearest where none does."""
    tried: list[_Fitted] = []
    for layout in _candidates(name):
        if layout.marks and not any(layout.marks in key for key in shapes):
            continue
        wanted, named, folded = _wanted(layout)
        fit = match(_with_one_channel(layout, wanted, shapes, named), shapes, named, folded)
        tried.append(_Fitted(layout, fit))
        if fit.fits:
            return tried[-1]
    nearest = max(tried, key=lambda each: (each.match.matched / each.match.wanted, each.match.matched))
    network = f"{nearest.layout.architecture} in the layout of {nearest.layout.codebase}"
    if not name:
        network = f"any network that is known here, of which the nearest is {network}"
    raise refusal(nearest.match, str(path), network)


def _candidates(name: str) -> Sequence[Layout]:
    """Return the layouts that a name allows."""
    codebase = SAME_AS.get(name, name)
    if name in ARCHITECTURES:
        return [own(name), *(layout for layout in LAYOUTS if layout.architecture == name)]
    if codebase in codebases():
        return [layout for layout in LAYOUTS if layout.codebase == codebase]
    if name:
        raise UserError(f"unknown network {name!r} before @: choose from {', '.join(names())}, or timm:NAME.")
    return [*LAYOUTS, *(own(architecture) for architecture in ARCHITECTURES)]


@cache
def _wanted(layout: Layout) -> tuple[Shapes, dict[str, str], frozenset[str]]:
    """Return a network's shapes, the layout's names, and the biases that are folded away."""
    with torch.device("meta"):
        module = ARCHITECTURES[layout.architecture]()
    named = dict(layout.rename(module))
    shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    return shapes, named, frozenset(_biases(layout, module, named))


def _biases(layout: Layout, module: nn.Module, named: dict[str, str]) -> dict[str, str]:
    """Return the file's name of each convolution's bias -> our name of the mean of the normalisation behind it."""
    if not layout.folds:
        return {}
    assert isinstance(module.layers, nn.Sequential)
    return {
        named[f"layers.{i}.weight"].removesuffix("weight") + "bias": f"layers.{i + 1}.running_mean"
        for i, layer in enumerate(module.layers)
        if isinstance(layer, nn.Conv2d)
    }


def _with_one_channel(layout: Layout, wanted: Shapes, found: Shapes, named: dict[str, str]) -> Shapes:
    """Let a first convolution of one channel pass where the layout knows such."""
    first = next(iter(wanted))
    shape = wanted[first]
    single = (shape[0], 1, *shape[2:])
    if layout.one_channel and any(k.endswith(named[first]) and s == single for k, s in found.items()):
        return {**wanted, first: single}
    return wanted


def _state(path: Path, module: nn.Module, fitted: _Fitted, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return the network's tensors; raises for one that is not finite."""
    fit, layout = fitted.match, fitted.layout
    state: dict[str, Tensor] = dict(module.state_dict())
    _, named, _ = _wanted(layout)
    for ours, theirs in fit.taken.items():
        tensor = tensors[theirs]
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{path} holds NaN or infinite values in {theirs!r}: copy or train it again.")
        if tensor.shape != state[ours].shape:  # one channel: the others are multiplied by zero
            wide = torch.zeros_like(state[ours])
            wide[:, :1] = tensor
            tensor = wide
        state[ours] = tensor.to(state[ours].dtype) if not ours.endswith(COUNTERS) else tensor
    for theirs, ours in _biases(layout, module, named).items():
        bias = tensors.get(f"{fit.prefix}{theirs}")
        if bias is not None:
            state[ours] = (state[ours].double() - bias.double()).float()
    return state
