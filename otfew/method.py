"""The contract of a few-shot method, and the shared arithmetic of uneven shots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from otfew.errors import UserError
from otfew.transport.sending import send

CONTRASTS = ("chamfer", "product-coupling")
"""What a method that matches nodes by transport is compared with, on the same nodes with the same weights: each node to
its best match, and every node with every node. The one relaxes the plan, the other does not optimise it."""


@runtime_checkable
class FewShotMethod(Protocol):
    """A callable on node sets, batched over episodes, configured in its constructor, without hidden state.

    Attributes:
        name: Key in ``METHODS`` or ``BASELINES``.
        transductive: True where a query's answer depends on the other queries of its episode.
        nodes: The nodes it prefers ("fcn", "grid:2,3", ...); the argument ``nodes`` of whoever runs it overrides.
        needs_base_mean: True where the constructor takes ``base_mean``, the (channels,) mean of the base classes'
            global vectors.
        preset_of: Name of the method of which this is a preset, or "".
        pools: True where only the average of an image's nodes matters: the evaluator then averages once.
        learned: Options that meta-training learns with the backbone; the constructor takes tensors () for them.
        needs_nonnegative: True where features must not be negative; commands then say so before any episode.
    """

    name: ClassVar[str]
    transductive: ClassVar[bool]
    nodes: ClassVar[str]
    needs_base_mean: ClassVar[bool]
    preset_of: ClassVar[str]
    pools: ClassVar[bool]
    learned: ClassVar[tuple[str, ...]]
    needs_nonnegative: ClassVar[bool]

    def __call__(
        self,
        support: Tensor,
        query: Tensor,
        *,
        support_mask: Tensor | None = None,
        class_prior: Tensor | None = None,
    ) -> Tensor:
        """Score queries against classes.

        Args:
            support: (episodes, way, shot, nodes, channels) float.
            query: (episodes, n_query, nodes, channels) float.
            support_mask: (episodes, way, shot) bool, False at shots to ignore; each class keeps at least one.
            class_prior: (episodes, way), for transductive methods.

        Returns:
            logits (episodes, n_query, way); larger = more similar. They do not depend on batch-mates. Half precision
            is computed as float32, inside and outside autocast, and gives float32.

        Raises:
            UserError: Shapes or masks that do not fit, see ``check_episode``.
        """
        ...


class MethodBase:
    """Defaults of the contract's attributes, and of what else the conformance suite reads from a class.

    Attributes:
        frozen: True where something is fitted to the support, so that no gradient flows into it.
        partial_gradient: True where something is held constant on purpose, so that the gradient is not that of finite
            differences.
        ordered: True where the order of classes and shots acts as another seed does.
        counts_shots: True where a class's shots count one each: three equal ones are not as one of them.
        contrasts: Of a method by transport: the methods that do the same without it, as command lines name them, such
            as "chamfer" or "deepemd:shot_head=kmeans". What transport adds is the difference to these, and they are
            fixed by the class, not by what came out.
    """

    name: ClassVar[str] = ""
    transductive: ClassVar[bool] = False
    nodes: ClassVar[str] = "fcn"
    needs_base_mean: ClassVar[bool] = False
    preset_of: ClassVar[str] = ""
    pools: ClassVar[bool] = False
    learned: ClassVar[tuple[str, ...]] = ()
    needs_nonnegative: ClassVar[bool] = False
    frozen: ClassVar[bool] = False
    partial_gradient: ClassVar[bool] = False
    ordered: ClassVar[bool] = False
    counts_shots: ClassVar[bool] = False
    contrasts: ClassVar[tuple[str, ...]] = ()

    def controls(self, shot: int) -> tuple[str, ...] | None:
        """Name what this object is compared with to learn what transport adds: ``contrasts``, where it does not matter.

        Args:
            shot: Labelled images of each class.

        Returns:
            None where it transports nothing with its options; () where no method does the same without transport.
        """
        return self.contrasts

    @classmethod
    def recorded_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Turn options as run folders and command lines have them into the constructor's; those with objects override.

        Args:
            options: Numbers, words and objects by name.

        Returns:
            Options as the constructor takes them.
        """
        return dict(options)


def check_method(method: object) -> None:
    """Refuse what does not follow ``FewShotMethod``.

    Args:
        method: What was given as a method.

    Raises:
        UserError: A class in place of an object, nothing that can be called, or an attribute that it lacks.
    """
    contract = "a method is an object called with support and query; derive its class from otfew.method.MethodBase"
    if isinstance(method, type):
        raise UserError(f"method is the class {method.__name__}: give an object of it, as in {method.__name__}().")
    if not callable(method):
        raise UserError(f"method is {method!r}: give the name of one, or an object ({contract}).")
    missing = [name for name in FewShotMethod.__annotations__ if not hasattr(method, name)]
    if missing:
        raise UserError(f"method {type(method).__name__} lacks the attribute {missing[0]!r}: {contract}.")


def check_episode(support: Tensor, query: Tensor, support_mask: Tensor | None = None) -> None:
    """Refuse an episode whose shapes or masks do not fit the contract.

    Args:
        support: (episodes, way, shot, nodes, channels) float.
        query: (episodes, n_query, nodes, channels) float.
        support_mask: (episodes, way, shot) bool or None.

    Raises:
        UserError: Other numbers of axes, other episodes or channels in ``query``, a mask of another shape or dtype, or
            a class without a shot.
    """
    if support.ndim != 5 or query.ndim != 4:
        raise UserError(
            "support must be (episodes, way, shot, nodes, channels) and query (episodes, n_query, nodes, channels); "
            f"got {tuple(support.shape)} and {tuple(query.shape)}."
        )
    if support.shape[0] != query.shape[0] or support.shape[-1] != query.shape[-1]:
        raise UserError(
            f"support and query differ in episodes or channels: {tuple(support.shape)} and {tuple(query.shape)}."
        )
    if support_mask is not None:
        if support_mask.shape != support.shape[:3] or support_mask.dtype != torch.bool:
            raise UserError(f"support_mask must be bool of shape {tuple(support.shape[:3])}.")
        empty = (~support_mask.any(-1)).nonzero()
        if len(empty):
            episode, label = empty[0].tolist()
            raise UserError(f"support_mask leaves class {label} of episode {episode} without a shot.")


def shot_mean(support: Tensor, support_mask: Tensor | None = None) -> Tensor:
    """Average over shots, location by location.

    Args:
        support: (episodes, way, shot, nodes, channels) float.
        support_mask: (episodes, way, shot) bool; masked shots do not count.

    Returns:
        (episodes, way, nodes, channels) of the same dtype.
    """
    if support_mask is None:
        return support.mean(2)
    weight = support_mask.to(support.dtype)
    weight = weight / weight.sum(-1, keepdim=True)
    return torch.einsum("ewsnc,ews->ewnc", support.masked_fill(~support_mask[..., None, None], 0), weight)


def global_vectors(nodes: Tensor) -> Tensor:
    """Average node sets into global vectors.

    Args:
        nodes: (..., nodes, channels) float.

    Returns:
        (..., channels) of the same dtype.
    """
    return nodes.mean(-2)


def even_groups(support_mask: Tensor, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Group episodes with equally many shots that count, so that each group is a batch; a device is asked once.

    Args:
        support_mask: (episodes, way, shot) bool.
        device: Where the indices are wanted.

    Yields:
        Episodes (group,), and the shots that count (group, count), numbered class by class, in order.
    """
    valid = support_mask.flatten(1).cpu()
    counts = valid.sum(-1)
    for count in sorted(set(counts.tolist())):
        group = (counts == count).nonzero()[:, 0]
        chosen = valid[group].nonzero()[:, 1].view(len(group), count)
        yield send(group, device), send(chosen, device)
