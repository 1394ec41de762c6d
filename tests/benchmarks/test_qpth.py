"""The layer of DeepEMD's released training code beside ``exact``; runs where qpth is installed (``tox -e qpth``)."""

from __future__ import annotations

import pytest
import torch

import otfew

pytest.importorskip("qpth")


@pytest.mark.parametrize(("size", "n"), [(50, 9), (4, 16)])
def test_forward_and_backward(size, n, race, nodes_batch):
    leaves = [torch.from_numpy(x).requires_grad_() for x in nodes_batch(size, n)]

    def layer(solver):
        return lambda: torch.autograd.grad(otfew.solve(*leaves, solver=solver).value_linear.sum(), leaves)

    race(f"{size} x {n}x{n} forward and backward", {"exact": layer("exact"), "qpth": layer("qpth")}, rounds=3)
