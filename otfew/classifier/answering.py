"""Asking a few-shot method about images, and checking what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from otfew import catalogue
from otfew.errors import UserError
from otfew.method import FewShotMethod, check_method, shot_mean
from otfew.transport.precision import in_full_precision


@dataclass(frozen=True)
class Judge:
    """A method with the labelled photos that it compares others with.

    Attributes:
        method: What scores.
        support: (1, way, shot, nodes, channels), short classes padded; or what gives the same answers.
        mask: (1, way, shot) bool, False at the padding; None for none.
    """

    method: FewShotMethod
    support: Tensor
    mask: Tensor | None

    @classmethod
    def of(cls, method: FewShotMethod, support: Tensor, mask: Tensor) -> Judge:
        """Prepare what each question needs again.

        A method that pools gets one node a photo, averaged once; DeepEMD with its usual head, which compares with the
        mean of a class's maps, gets that mean, which it would take the same of every time.
        """
        whole = None if bool(mask.all()) else mask
        if method.pools:
            support = support.mean(-2, keepdim=True)
        if takes_means(method):
            support, whole = shot_mean(support, whole)[:, :, None], None
        return cls(method, support, whole)

    def __call__(self, nodes: Tensor) -> Tensor:
        """Score images (images, nodes, channels), all of one episode: (images, way).

        Raises:
            UserError: The method answers with something else than numbers of that shape.
        """
        if self.method.pools:
            nodes = nodes.mean(-2, keepdim=True)
        logits = self._answer(nodes[None])
        expected = (1, len(nodes), self.support.shape[1])
        if not isinstance(logits, Tensor) or logits.shape != expected:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(f"method {self.name!r} answered with {got} in place of logits {expected}: mend the method.")
        if bool(logits.isnan().any()):
            raise UserError(f"method {self.name!r} answered NaN: check its options.")
        return logits[0].detach()

    @cached_property
    def _answer(self) -> Callable[[Tensor], Tensor]:
        """Have the method do once what depends on the labelled photos alone, where it can, at the first question."""
        if hasattr(self.method, "settled"):
            return in_full_precision(in_full_precision(self.method.settled)(self.support, self.mask))
        return lambda query: self.method(self.support, query, support_mask=self.mask)

    @property
    def name(self) -> str:
        """What the method is called."""
        return getattr(self.method, "name", "") or type(self.method).__name__


def takes_means(method: FewShotMethod) -> bool:
    """Tell whether the location-wise mean of a class's photos, as its only one, gets the same answers as they do."""
    # Found by name: only then are the solvers loaded.
    return isinstance(method, catalogue.find("deepemd")) and method.shot_head.name == "mean"  # type: ignore[attr-defined]


def build_method(method: object, options: Mapping[str, Any] | None) -> FewShotMethod:
    """Make a method from its name, or check the object that was given.

    Args:
        method: As in ``FewShotClassifier``.
        options: Of the constructor, where the method is a name.

    Raises:
        UserError: There is no such method or option, or the object does not follow the contract.
    """
    options = options or {}
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise UserError(f"options are {options!r}: give a dictionary of the method's options by name.")
    if isinstance(method, str):
        return catalogue.build(method, **options)
    check_method(method)
    if options:
        raise UserError("options go with the name of a method: set those of an object in its constructor.")
    assert isinstance(method, FewShotMethod)
    return method
