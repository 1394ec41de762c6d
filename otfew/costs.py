"""Costs between points: cosine, squared Euclidean, Euclidean and powers of p-norms; see ``otfew.transport.costs``."""

from otfew.transport.costs import cosine, euclidean, lp, pairwise, sqeuclidean

__all__ = ["cosine", "euclidean", "lp", "pairwise", "sqeuclidean"]
