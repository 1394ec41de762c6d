"""Strides over collapsed batch dimensions find what torch's own broadcasting finds."""

from __future__ import annotations

import itertools
import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from otfew.transport.cuda.layout import layout, strided


@st.composite
def broadcast_views(draw):
    """A batch shape, and two tensors in odd memory layouts with items of one dimension, that broadcast to it."""
    batch = draw(st.lists(st.integers(1, 4), max_size=5))
    tensors = []
    for _ in range(2):
        kept = batch[draw(st.integers(0, len(batch))) :]
        shape = [length if draw(st.booleans()) else 1 for length in kept]
        order = draw(st.permutations(range(len(shape))))
        gaps = [draw(st.integers(1, 2)) for _ in shape]
        big = torch.arange(math.prod(shape[d] * gaps[d] for d in range(len(shape))) * 3)
        stored = big.reshape(*(shape[d] * gaps[d] for d in order), 3)
        view = stored.permute(*(order.index(d) for d in range(len(shape))), len(shape))
        view = view[(*(slice(None, None, gap) for gap in gaps), ...)]
        expand = draw(st.booleans())
        tensors.append(view.expand(*batch, 3) if expand else view)
    return torch.Size(batch), tensors


@given(broadcast_views())
def test_every_problem_is_found(case):
    batch, tensors = case
    found = layout(batch, *(strided(tensor, 1) for tensor in tensors))
    assert math.prod(found.size) == batch.numel()
    for tensor, strides in zip(tensors, found.strides, strict=True):
        # Each number is its own place in memory.
        wanted = tensor.expand(*batch, 3)[..., 0].reshape(-1).tolist()
        first = tensor.storage_offset()
        steps = itertools.product(*map(range, found.size))
        assert [first + sum(k * step for k, step in zip(index, strides, strict=True)) for index in steps] == wanted


def test_dimensions_that_go_on_evenly_become_one():
    cost, a = torch.zeros(2, 3, 4, 7, 5), torch.zeros(4, 7)
    assert layout(torch.Size([2, 3, 4]), strided(cost, 2)).size == (24,)
    both = layout(torch.Size([2, 3, 4]), strided(cost, 2), strided(a, 1), strided(None, 1))
    assert both.size == (6, 4)
    assert both.strides == ((140, 35), (0, 7), (0, 0))
    assert layout(torch.Size([2, 1, 3]), strided(cost[:, :1, :3], 2)).size == (2, 3)
    assert layout(torch.Size([]), strided(cost[0, 0, 0], 2)).size == ()
    assert layout(torch.Size([9, 9]), strided(cost[0, 0, 0].expand(9, 9, 7, 5), 2)).strides == ((0,),)
