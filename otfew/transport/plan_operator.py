"""A batch of transport plans that can be multiplied with, whether or not their matrices exist."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import TypeVar

from otfew.transport.precision import in_full_precision

ArrayT = TypeVar("ArrayT", bound=Tensor | npt.NDArray[Any], default=Any)
"""What the caller works with: ``Tensor`` or ``NDArray[Any]``."""


class FlatPlan(ABC):
    """Plans of a flat batch of problems."""

    shape: tuple[int, int, int]
    dtype: torch.dtype
    device: torch.device

    @abstractmethod
    def apply(self, v: Tensor) -> Tensor:
        """Multiply with v (problems, m, k): (problems, n, k), differentiable in v."""

    @abstractmethod
    def transposed(self) -> FlatPlan:
        """Swap the sides."""

    @abstractmethod
    def dense(self) -> Tensor:
        """Make the matrices (problems, n, m)."""

    @abstractmethod
    def mapped(self, each: Callable[[Tensor], Tensor]) -> FlatPlan:
        """Describe the same problems, or some of them, by what ``each`` makes of every tensor (problems, ...)."""


class DensePlan(FlatPlan):
    """Plans (problems, n, m) that exist as matrices."""

    def __init__(self, plan: Tensor) -> None:
        self._plan = plan
        self.shape = (plan.shape[0], plan.shape[1], plan.shape[2])
        self.dtype, self.device = plan.dtype, plan.device

    def apply(self, v: Tensor) -> Tensor:
        """Multiply with the matrices."""
        return self._plan @ v

    def transposed(self) -> FlatPlan:
        """View the matrices from the other side."""
        return DensePlan(self._plan.mT)

    def dense(self) -> Tensor:
        """Hand the matrices out."""
        return self._plan

    def mapped(self, each: Callable[[Tensor], Tensor]) -> FlatPlan:
        """See ``FlatPlan``."""
        return DensePlan(each(self._plan))


def nonzeros(plan: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns, both int64, and mass of the entries other than zero of plans (problems, n, m).

    Each is (problems, arcs), as many as the fullest plan has; the others end with zeros. The mass has the plan's graph.
    """
    entries, m = plan.flatten(1), plan.shape[2]
    held = entries.detach() != 0
    most = int(held.sum(1).max()) if len(plan) else 0
    place = held.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    used = held.gather(1, place)
    place = place * used
    return place // m, place % m, entries.gather(1, place).where(used, 0.0)


@dataclass(frozen=True)
class PlanOperator(Generic[ArrayT]):
    """The transport plan P (*batch, n, m) of point clouds as an operator: ``plan @ v``, ``plan.T @ u``, ``dense()``.

    Products are taken in the dtype and on the device of the points, and are numpy arrays where the vector is one.
    They are differentiable in the vector; in the points and weights only where a solver of dense costs made the plan
    differentiable.

    Attributes:
        shape: (*batch, n, m).
        dtype: Precision of the products.
        device: Where they are taken.

    Examples:
        >>> import numpy as np
        >>> from otfew.transport import solve_points
        >>> x = np.array([[0.0], [1.0]])
        >>> solve_points(x, x + 3, solver="exact").plan @ np.array([1.0, 2.0])
        array([0.5, 1. ])
    """

    _flat: FlatPlan
    _batch: tuple[int, ...]
    _numpy: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(*batch, n, m)."""
        return (*self._batch, *self._flat.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the products."""
        return self._flat.dtype

    @property
    def device(self) -> torch.device:
        """Where products are taken."""
        return self._flat.device

    @property
    def T(self) -> PlanOperator[ArrayT]:  # noqa: N802
        """The transposed plan (*batch, m, n)."""
        return replace(self, _flat=self._flat.transposed())

    def dense(self) -> ArrayT:
        """Make the matrix.

        Returns:
            (*batch, n, m) in ``dtype``; a numpy array where the points were.
        """
        plan: Any = self._flat.dense().reshape(self.shape)
        return plan.detach().cpu().numpy() if self._numpy else plan  # type: ignore[no-any-return]

    @overload
    def __matmul__(self, v: Tensor) -> Tensor: ...
    @overload
    def __matmul__(self, v: npt.NDArray[Any]) -> npt.NDArray[Any]: ...
    @in_full_precision
    def __matmul__(self, v: Any) -> Any:
        """Multiply with vectors or matrices; batch dimensions of one are repeated.

        Args:
            v: (*batch, m) or (*batch, m, k), tensor or array.

        Returns:
            (*batch, n) or (*batch, n, k), of the library of v.

        Raises:
            ValueError: v has another shape, or is neither tensor nor array.
        """
        if not isinstance(v, Tensor | np.ndarray):
            raise ValueError(f"plan @ v needs a torch tensor or a numpy array, got {type(v).__name__}")
        given = torch.as_tensor(v).to(self.device, self.dtype)
        m, dims = self.shape[-1], len(self._batch)
        vector = given.ndim == dims + 1
        columns = given[..., None] if vector else given
        wrong = columns.ndim != dims + 2 or columns.shape[-2] != m
        if wrong or any(have not in (1, want) for have, want in zip(columns.shape, self._batch, strict=False)):
            batch = "".join(f"{size}, " for size in self._batch)
            raise ValueError(f"plan @ v needs v of shape ({batch}{m}) or ({batch}{m}, k), got {tuple(given.shape)}")
        flat = columns.expand(*self._batch, *columns.shape[-2:]).reshape(-1, *columns.shape[-2:])
        out = self._flat.apply(flat).reshape(*self._batch, self.shape[-2], flat.shape[-1])
        out = out[..., 0] if vector else out
        return out if isinstance(v, Tensor) else out.detach().cpu().numpy()

    def __repr__(self) -> str:
        n, m = self.shape[-2:]
        return f"PlanOperator(batch={self._batch}, n={n}, m={m}, dtype={self.dtype})"
