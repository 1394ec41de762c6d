"""DeepEMD's published layer, its equations written down pair by pair, on ``cv2.EMD`` and on ours in its place."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from otfew.compat import opencv
from otfew.methods import METHODS

TEMPERATURE = 12.5


def published_layer(support, query, library):
    """Logits (n_query, way) with the plan of each pair from ``library.EMD``, a constant for autograd.

    Args:
        support: (way, nodes, channels), one image a class.
        query: (n_query, nodes, channels).
        library: A module with ``EMD`` and ``DIST_USER``.
    """
    # Weights of the raw nodes against the other image's mean, kept positive.
    of_query = torch.relu(torch.einsum("qnc,wc->qwn", query, support.mean(1))) + 1e-3
    of_support = torch.relu(torch.einsum("wnc,qc->qwn", support, query.mean(1))) + 1e-3
    centred = [x - x.mean(-1, keepdim=True) for x in (query, support)]
    similarity = torch.nn.functional.cosine_similarity(centred[0][:, None, :, None], centred[1][None, :, None], dim=-1)
    n, m = similarity.shape[-2:]
    flows = torch.empty_like(similarity)
    for q in range(len(query)):
        for w in range(len(support)):
            sides = []
            for weights, total in ((of_query[q, w], n), (of_support[q, w], m)):
                raised = torch.relu(weights) + 1e-5
                scaled = raised * (total / raised.sum())
                sides.append(scaled.detach().numpy().astype(np.float32).reshape(-1, 1))
            cost = (1 - similarity[q, w]).detach().numpy().astype(np.float32)
            _, _, flow = library.EMD(sides[0], sides[1], library.DIST_USER, cost)
            flows[q, w] = torch.from_numpy(flow)
    return (similarity * flows).sum((-2, -1)) * (TEMPERATURE / n)


def images(seed, way=5, n_query=6, nodes=25, channels=32):
    generator = torch.Generator().manual_seed(seed)
    # Maps behind a leaky rectifier: mostly positive, never far below zero.
    return (
        torch.nn.functional.leaky_relu(torch.randn(n, nodes, channels, generator=generator), 0.1)
        for n in (way, n_query)
    )


@pytest.mark.parametrize("nodes", [9, 25])
@pytest.mark.parametrize("seed", range(3))
def test_equal_logits(seed, nodes):
    support, query = images(seed, nodes=nodes)
    ours = published_layer(support, query, opencv)
    torch.testing.assert_close(ours, published_layer(support, query, cv2), rtol=0, atol=2e-5)
    method = METHODS["deepemd"]()(support[None, :, None], query[None])[0]
    torch.testing.assert_close(ours, method, rtol=0, atol=2e-4)


def test_equal_gradients():
    grads = []
    for library in (opencv, cv2):
        support, query = (x.requires_grad_() for x in images(7))
        loss = torch.nn.functional.cross_entropy(published_layer(support, query, library), torch.arange(6) % 5)
        grads.append(torch.autograd.grad(loss, (support, query)))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_images_of_unequal_numbers_of_nodes():
    """Totals then differ, and part of the larger stays behind."""
    support, _ = images(8, nodes=30)
    _, query = images(9, nodes=25)
    ours = published_layer(support, query, opencv)
    torch.testing.assert_close(ours, published_layer(support, query, cv2), rtol=0, atol=2e-5)
