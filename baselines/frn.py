"""FRN: classes compete in reconstructing the query's feature map."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from otfew import checks
from otfew.baselines._base import Baseline, in_chunks
from otfew.baselines._shots import pooled_nodes

Number = float | Tensor
"""A setting, or the tensor () that is its value in training."""


def reconstruction_errors(nodes: Tensor, count: Tensor, query: Tensor, alpha: Number, beta: Number) -> Tensor:
    """Measure how badly ridge regression on a class's nodes reconstructs the query's nodes.

    Whichever of the n x n and the C x C system is smaller is inverted; the reconstruction itself is never formed.

    Args:
        nodes: (episodes, way, n, channels), zeros at nodes to ignore.
        count: (episodes, way), nodes that count.
        query: (episodes, n_query, m, channels).
        alpha: Log of the factor of the ridge penalty.
        beta: Log of the factor of the reconstruction.

    Returns:
        Squared error, mean over query nodes, (episodes, n_query, way).
    """
    return reconstruction(nodes, count, alpha, beta)(query)


def reconstruction(nodes: Tensor, count: Tensor, alpha: Number, beta: Number) -> Callable[[Tensor], Tensor]:
    """Invert what ``reconstruction_errors`` of any query need; arguments as there.

    Returns:
        From queries (episodes, n_query, m, channels) to errors (episodes, n_query, way).
    """
    channels = nodes.shape[-1]
    penalty = (count.to(nodes.dtype) * (_exp(alpha) / channels))[..., None, None]
    form = _by_nodes if nodes.shape[2] <= channels else _by_channels
    scale = channels**-0.5
    errors = form(nodes * scale, penalty, _exp(beta))

    def answer(query: Tensor) -> Tensor:
        found = errors(query.flatten(1, 2) * scale)
        return found.view(*nodes.shape[:2], *query.shape[1:3]).mean(-1).mT

    return answer


def _exp(value: Number) -> Number:
    """Exponentiate; a tensor stays differentiable."""
    return value.exp() if isinstance(value, Tensor) else math.exp(value)


def _identity(size: int, like: Tensor) -> Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device)


def _inverse(matrix: Tensor) -> Tensor:
    """Invert symmetric positive definite matrices.

    By Cholesky's factors: LU of matrices of a few hundred rows fails on several threads in some CPU builds of torch.
    Not by ``cholesky_inverse``, whose bits depend on the number of threads.
    """
    factor = torch.linalg.cholesky(matrix)
    half = torch.linalg.solve_triangular(factor, _identity(matrix.shape[-1], matrix).expand_as(matrix), upper=False)
    inverse: Tensor = half.mT @ half
    return inverse


def _by_nodes(nodes: Tensor, penalty: Tensor, rho: Number) -> Callable[[Tensor], Tensor]:
    """Invert S S^T + penalty * I.

    With R = Q S^T (S S^T + penalty I)^-1, the reconstruction is R S and |R S|^2 = <R, Q S^T> - penalty |R|^2, row by
    row.
    """
    episodes, way, n_support, _ = nodes.shape
    inverse = _inverse(nodes @ nodes.mT + penalty * _identity(n_support, nodes))

    def errors(query: Tensor) -> Tensor:
        dots = (query @ nodes.flatten(1, 2).mT).view(episodes, -1, way, n_support).transpose(1, 2)
        coefficients = dots @ inverse
        fit = (coefficients * dots).sum(-1)
        shrinkage = penalty.squeeze(-1) * coefficients.square().sum(-1)
        found: Tensor = query.square().sum(-1)[:, None] - 2 * rho * fit + rho**2 * (fit - shrinkage)
        return found

    return errors


def _by_channels(nodes: Tensor, penalty: Tensor, rho: Number) -> Callable[[Tensor], Tensor]:
    """Invert S^T S + penalty * I: the residual is Q ((1 - rho) I + rho * penalty * inverse)."""
    identity = _identity(nodes.shape[-1], nodes)
    inverse = _inverse(nodes.mT @ nodes + penalty * identity)
    left = (1 - rho) * identity + rho * penalty * inverse
    return lambda query: (query[:, None] @ left).square().sum(-1)


class FRN(Baseline):
    """Feature map reconstruction by closed-form ridge regression (Wertheimer et al. 2021, equations 4 to 10).

    logit_c = -temperature * (1/M) sum_i |u_i - exp(beta) * (R_c S_c)_i|^2, R_c = Q S_c^T (S_c S_c^T + lambda_c I)^-1,
    where S_c holds the n_c nodes of all shots of class c, Q the query's M nodes, both divided by sqrt(channels) as in
    the released code for ResNet-12, and lambda_c = exp(alpha) * n_c / channels. Uneven shots: each class reconstructs
    from the nodes that it has, under a penalty in proportion. The paper learns temperature, alpha and beta with the
    backbone, from these defaults; so does the command metatrain.

    Args:
        temperature: Scale of the logits. Without effect on accuracy.
        alpha: See above.
        beta: See above.

    Raises:
        UserError: An option out of range.
    """

    name = "frn"
    counts_shots = True
    learned: ClassVar[tuple[str, ...]] = ("temperature", "alpha", "beta")

    def __init__(self, temperature: Number = 1.0, alpha: Number = 0.0, beta: Number = 0.0) -> None:
        self.temperature = checks.number(self.name, "temperature", temperature, above=0, tensor=True)
        # Their exponentials must be numbers.
        self.alpha = checks.number(self.name, "alpha", alpha, least=-100, most=100, tensor=True)
        self.beta = checks.number(self.name, "beta", beta, least=-100, most=100, tensor=True)

    def logits(self, support: Tensor, query: Tensor, support_mask: Tensor | None) -> Tensor:
        """Compute scaled negative reconstruction errors."""
        nodes, valid = pooled_nodes(support, support_mask)
        elements = query.shape[1] * query.shape[2] * nodes.shape[1] * min(nodes.shape[2:])
        errors = in_chunks(
            lambda n, v, q: reconstruction_errors(n, v, q, self.alpha, self.beta), elements, nodes, valid.sum(-1), query
        )
        return -self.temperature * errors

    def settled(self, support: Tensor, support_mask: Tensor | None) -> Callable[[Tensor], Tensor]:
        """Invert."""
        nodes, valid = pooled_nodes(support, support_mask)
        if nodes.shape[2] > nodes.shape[3]:
            return super().settled(support, support_mask)
        errors = reconstruction(nodes, valid.sum(-1), self.alpha, self.beta)
        return lambda query: -self.temperature * errors(query)
