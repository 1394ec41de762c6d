"""Adam's steps on the loss of ``otfew.baselines._information``, compiled by numba; names and shapes are its.

An episode's vectors and weights stay in the cache of one core for all steps.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from otfew.transport.jit import jit

_REORDER = {"nsz", "reassoc", "contract", "arcp"}


@njit(fastmath=_REORDER, error_model="numpy", inline="always")
def _dots(vectors, weights, out):
    """Write all products of vectors (n, C) and weights (W, C) to out (n, W), four vectors at a time."""
    n, channels = vectors.shape
    zero = vectors.dtype.type(0)
    whole = n // 4 * 4
    for i in range(0, whole, 4):
        x0, x1, x2, x3 = vectors[i], vectors[i + 1], vectors[i + 2], vectors[i + 3]
        for c in range(len(weights)):
            w = weights[c]
            d0, d1, d2, d3 = zero, zero, zero, zero
            for k in range(channels):
                d0 += x0[k] * w[k]
                d1 += x1[k] * w[k]
                d2 += x2[k] * w[k]
                d3 += x3[k] * w[k]
            out[i, c], out[i + 1, c], out[i + 2, c], out[i + 3, c] = d0, d1, d2, d3
    for i in range(whole, n):
        x0 = vectors[i]
        for c in range(len(weights)):
            w = weights[c]
            d0 = zero
            for k in range(channels):
                d0 += x0[k] * w[k]
            out[i, c] = d0


@njit(fastmath=_REORDER, error_model="numpy", inline="always")
def _combine(slopes, vectors, out):
    """Add slopes' (W, n) times vectors (n, C) to out (W, C), four vectors at a time."""
    n, channels = vectors.shape
    whole = n // 4 * 4
    for i in range(0, whole, 4):
        x0, x1, x2, x3 = vectors[i], vectors[i + 1], vectors[i + 2], vectors[i + 3]
        for c in range(len(out)):
            s0, s1, s2, s3 = slopes[i, c], slopes[i + 1, c], slopes[i + 2, c], slopes[i + 3, c]
            row = out[c]
            for k in range(channels):
                row[k] += (s0 * x0[k] + s1 * x1[k]) + (s2 * x2[k] + s3 * x3[k])
    for i in range(whole, n):
        x0 = vectors[i]
        for c in range(len(out)):
            s0, row = slopes[i, c], out[c]
            for k in range(channels):
                row[k] += s0 * x0[k]


@njit(fastmath=_REORDER, error_model="numpy", inline="always")
def _log_softmax(scores, half, temperature):
    """Turn products (n, W) into log-probabilities of temperature * (product - half), in place."""
    n, way = scores.shape
    for i in range(n):
        row = scores[i]
        top = row[0] - half[0]
        for c in range(way):
            top = max(top, row[c] - half[c])
        total = scores.dtype.type(0)
        for c in range(way):
            row[c] = temperature * (row[c] - half[c] - top)
            total += np.exp(row[c])
        total = np.log(total)
        for c in range(way):
            row[c] -= total


@njit(fastmath=_REORDER, error_model="numpy", inline="always")
def _power_slope(log_p, alpha, factor):
    """Compute a / (a - 1) p^(a - 1) from log p; at a = 1, up to a constant, log p."""
    one = type(alpha)(1)
    return log_p if alpha == one else factor * np.exp((alpha - one) * log_p)


@njit(fastmath=_REORDER, error_model="numpy", inline="always")
def _support_slopes(scores, labels, weight, both):
    """Turn log-probabilities (S, W) into slopes of the weighted cross-entropy, in place, and add them up in both."""
    n, way = scores.shape
    for i in range(n):
        share = scores.dtype.type(0)
        for c in range(way):
            share += labels[i, c]
        for c in range(way):
            slope = weight * (share * np.exp(scores[i, c]) - labels[i, c])
            scores[i, c] = slope
            both[c] += slope


@njit(fastmath=_REORDER, error_model="numpy", inline="always")
def _query_slopes(scores, pull, alpha, factor, marginal, conditional, mean, both):
    """Turn log-probabilities (Q, W) into slopes of the two entropy terms, in place, and add them up in both."""
    n, way = scores.shape
    mean[:] = 0
    for i in range(n):
        for c in range(way):
            mean[c] += np.exp(scores[i, c])
    for c in range(way):
        share = max(mean[c] / scores.dtype.type(n), np.finfo(scores.dtype).tiny)
        mean[c] = marginal * (_power_slope(np.log(share), alpha, factor) - pull[c])
    for i in range(n):
        average = scores.dtype.type(0)
        for c in range(way):
            slope = mean[c] - conditional * _power_slope(scores[i, c], alpha, factor)
            average += np.exp(scores[i, c]) * slope
        for c in range(way):
            slope = mean[c] - conditional * _power_slope(scores[i, c], alpha, factor)
            slope = np.exp(scores[i, c]) * (slope - average)
            scores[i, c] = slope
            both[c] += slope


@jit(nogil=True, fastmath=_REORDER, error_model="numpy")
def adam(first, last, support, labels, query, pull, alphas, terms, lr, n_steps, beta1, beta2, eps, weights):
    """Move the weights of episodes first..last-1 by n_steps steps of Adam, in place.

    Args:
        first: First episode.
        last: One after the last episode.
        support: (E, S, C).
        labels: (E, S, W).
        query: (E, Q, C).
        pull: (E, W).
        alphas: (E,).
        terms: (4,) temperature and the weights of cross-entropy, marginal and conditional term.
        lr: Step size.
        n_steps: Steps.
        beta1: Adam's.
        beta2: Adam's.
        eps: Adam's.
        weights: (E, W, C), start and result.
    """
    _, way, channels = weights.shape
    n_query = query.shape[1]
    dtype = weights.dtype
    kind = dtype.type
    temperature, on_support = terms[0], terms[0] * terms[1]
    marginal, conditional = terms[0] * terms[2] / kind(n_query), terms[0] * terms[3] / kind(n_query)
    keep1, take1, keep2, take2, least = kind(beta1), kind(1 - beta1), kind(beta2), kind(1 - beta2), kind(eps)
    scores_s, scores_q = np.empty((support.shape[1], way), dtype), np.empty((n_query, way), dtype)
    gradient, m, v = (
        np.empty((way, channels), dtype),
        np.empty((way, channels), dtype),
        np.empty((way, channels), dtype),
    )
    half, mean, both = np.empty(way, dtype), np.empty(way, dtype), np.empty(way, dtype)
    for e in range(first, last):
        w, alpha = weights[e], alphas[e]
        factor = kind(1) if alpha == kind(1) else alpha / (alpha - kind(1))
        m[:] = 0
        v[:] = 0
        for step in range(1, n_steps + 1):
            for c in range(way):
                square = kind(0)
                for k in range(channels):
                    square += w[c, k] * w[c, k]
                half[c] = square / kind(2)
            both[:] = 0
            _dots(support[e], w, scores_s)
            _log_softmax(scores_s, half, temperature)
            _support_slopes(scores_s, labels[e], on_support, both)
            _dots(query[e], w, scores_q)
            _log_softmax(scores_q, half, temperature)
            _query_slopes(scores_q, pull[e], alpha, factor, marginal, conditional, mean, both)
            for c in range(way):
                for k in range(channels):
                    gradient[c, k] = -both[c] * w[c, k]
            _combine(scores_s, support[e], gradient)
            _combine(scores_q, query[e], gradient)
            rate = kind(lr / (1 - beta1**step))
            unbias = kind(1 / np.sqrt(1 - beta2**step))
            for c in range(way):
                for k in range(channels):
                    g = gradient[c, k]
                    m[c, k] = keep1 * m[c, k] + take1 * g
                    v[c, k] = keep2 * v[c, k] + take2 * g * g
                    w[c, k] -= rate * m[c, k] / (np.sqrt(v[c, k]) * unbias + least)
