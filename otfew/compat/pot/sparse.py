"""Sparse costs: pairs that are not stored carry nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew.transport.problem import Array


@dataclass(slots=True, eq=False)
class SparseCost:
    """The stored pairs of a sparse matrix, in the order of rows, each once.

    Attributes:
        rows: (pairs,) int64.
        cols: (pairs,) int64.
        values: (pairs,) their costs, an array or a tensor.
        shape: Numbers of rows and columns (n, m).
    """

    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    values: Any
    shape: tuple[int, int]

    def dense(self) -> Array:
        """Lay the costs out, (n, m), infinity where nothing is stored."""
        out = np.full(self.shape, np.inf)
        values = self.values.detach().cpu().numpy() if isinstance(self.values, Tensor) else self.values
        out[self.rows, self.cols] = values
        return out

    def matrix(self, values: Any) -> Any:
        """Make a sparse matrix of the same pattern and kind.

        Args:
            values: (pairs,) of the kind of ``self.values``.
        """
        if isinstance(self.values, Tensor):
            indices = torch.from_numpy(np.stack([self.rows, self.cols])).to(values.device)
            return torch.sparse_coo_tensor(indices, values, self.shape, is_coalesced=True)
        from scipy.sparse import coo_array

        return coo_array((values, (self.rows, self.cols)), shape=self.shape)

    def plan(self, dense: Any) -> Any:
        """Make the sparse matrix of the pairs of a plan (n, m) that carry mass."""
        kept = dense[self.rows, self.cols] != 0
        pairs = SparseCost(self.rows[np.asarray(kept)], self.cols[np.asarray(kept)], self.values, self.shape)
        return pairs.matrix(dense[pairs.rows, pairs.cols])


def sparse_cost(M: Any) -> SparseCost | None:
    """Read a sparse matrix of SciPy or torch; None for anything else."""
    if isinstance(M, Tensor):
        if M.layout == torch.strided:
            return None
        pairs = (M.detach() if M.layout == torch.sparse_coo else M.detach().to_sparse()).coalesce()
        rows, cols = pairs.indices().cpu().numpy()
        return SparseCost(rows, cols, pairs.values(), (M.shape[0], M.shape[1]))
    if not hasattr(M, "tocoo"):
        return None
    found = M.tocsr().tocoo()
    rows, cols = found.row.astype(np.int64), found.col.astype(np.int64)
    return SparseCost(rows, cols, found.data, found.shape)
