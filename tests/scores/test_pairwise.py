from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from otfew.scores.pairwise import centred_norms, cr_weights, similarities


def draw(dtype=torch.float64, offset=0.0, channels=7):
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(3, 4, 5, channels, generator=generator, dtype=torch.float64) + offset
    query = torch.randn(3, 2, 6, channels, generator=generator, dtype=torch.float64) + offset
    return support.to(dtype), query.to(dtype)


def test_similarities_are_torchs_cosines_of_centred_nodes():
    support, query = draw()
    sim = similarities(support, query)
    assert sim.shape == (3, 2, 4, 6, 5)
    assert sim.is_contiguous()
    for e, q, c in torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(4)).tolist():
        u, v = query[e, q], support[e, c]
        expected = torch.cosine_similarity(
            (u - u.mean(-1, keepdim=True))[:, None], (v - v.mean(-1, keepdim=True))[None], dim=-1
        )
        assert_close(sim[e, q, c], expected)


def test_weights_are_rectified_products_with_the_other_sides_mean():
    support, query = draw()
    s, d = cr_weights(support, query)
    assert s.shape == (3, 2, 4, 6)
    assert d.shape == (3, 2, 4, 5)
    for e, q, c in torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(4)).tolist():
        u, v = query[e, q], support[e, c]
        left = torch.stack([(x @ v.mean(0)).clamp_min(0) + 1e-3 for x in u])
        right = torch.stack([(y @ u.mean(0)).clamp_min(0) + 1e-3 for y in v])
        assert_close(s[e, q, c], left / left.sum())
        assert_close(d[e, q, c], right / right.sum())


@pytest.mark.parametrize("offset", [0.0, 3.0, 1000.0])
def test_float32_is_accurate_even_where_means_are_large(offset):
    support, query = draw(torch.float32, offset, channels=640)
    assert_close(
        similarities(support, query).double(), similarities(support.double(), query.double()), rtol=0, atol=1e-6
    )
    for single, double in zip(cr_weights(support, query), cr_weights(support.double(), query.double()), strict=True):
        assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


def test_dead_and_constant_nodes_have_no_similarity():
    support, query = draw()
    query[0, 0, 0] = 0
    support[0, 1, 2] = 2.5
    sim = similarities(support, query)
    assert sim.isfinite().all()
    assert (sim[0, 0, :, 0] == 0).all()
    assert (sim[0, :, 1, :, 2] == 0).all()
    assert_close(centred_norms(query)[0, 0, 0].item(), 1e-8)


def test_zero_features_have_uniform_weights():
    s, d = cr_weights(torch.zeros(1, 2, 5, 3), torch.zeros(1, 1, 4, 3))
    assert_close(s, torch.full_like(s, 1 / 4))
    assert_close(d, torch.full_like(d, 1 / 5))


def test_gradients_are_those_of_finite_differences():
    support, query = draw()
    support, query = support[:1, :2].requires_grad_(), query[:1].requires_grad_()
    assert torch.autograd.gradcheck(similarities, (support, query))
    assert torch.autograd.gradcheck(cr_weights, (support, query))


def test_chunks_change_nothing(monkeypatch):
    support, query = draw()
    whole = similarities(support, query), centred_norms(query)
    monkeypatch.setattr("otfew.scores.pairwise._CHUNK", 1)
    assert_close((similarities(support, query), centred_norms(query)), whole)


@pytest.mark.parametrize("function", [similarities, cr_weights])
def test_shapes_that_do_not_fit_are_value_errors(function):
    support, query = draw()
    with pytest.raises(ValueError, match="must be"):
        function(support[0], query)
    with pytest.raises(ValueError, match="differ in episodes or channels"):
        function(support, query[..., 1:])
