"""Laws of contract 2 that every baseline obeys, and the rival that is built on transport."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.testing import assert_close

from otfew.baselines import BASELINES
from otfew.errors import UserError
from otfew.method import FewShotMethod
from otfew.methods import METHODS

METHOD = {**BASELINES, "sot": METHODS["sot"]}
NAMES = sorted(METHOD)
FITTED_BY_SGD = {"linear-classifier", "cosine-classifier"}
WITH_PRIOR = {"tim", "alpha-tim"}
TRANSDUCTIVE = WITH_PRIOR | {"laplacianshot", "sot"}
FROZEN_SUPPORT = FITTED_BY_SGD | {"logistic"} | WITH_PRIOR
MORE_SHOTS_COUNT = FITTED_BY_SGD | {"logistic", "knn", "frn", "laplacianshot", "sot"}

every = pytest.mark.parametrize("name", NAMES)


@every
def test_registered_under_its_name_and_documented(name, make):
    method = make(name)
    assert isinstance(method, FewShotMethod)
    assert method.name == name
    assert method.transductive == (name in TRANSDUCTIVE)
    assert method.nodes == "fcn"
    doc = inspect.getdoc(type(method))
    assert "logit_c =" in doc
    assert "shot" in doc


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype(name, dtype, make, episodes):
    support, query = episodes(dtype=dtype)
    logits = make(name)(support, query)
    assert logits.shape == (3, 5, 4)
    assert logits.dtype == dtype
    assert logits.isfinite().all()


@every
def test_float32_agrees_with_float64(name, make, episodes):
    support, query = episodes(channels=64, nodes=9)
    exact = make(name, 64)(support, query)
    single = make(name, 64)(support.float(), query.float())
    assert_close(single.double(), exact, rtol=1e-4, atol=1e-4 * exact.abs().max().item())


@every
def test_masked_shots_are_as_if_absent(name, make, episodes):
    support, query = episodes()
    mask = torch.tensor([True, False, True]).expand(3, 4, 3)
    spoiled = support.clone()
    spoiled[:, :, 1] = torch.nan
    assert_close(make(name)(spoiled, query, support_mask=mask), make(name)(support[:, :, [0, 2]], query))


@every
def test_full_mask_is_no_mask(name, make, episodes):
    support, query = episodes()
    mask = torch.ones(3, 4, 3, dtype=torch.bool)
    assert_close(make(name)(support, query, support_mask=mask), make(name)(support, query))


@every
def test_place_of_masked_shots_does_not_matter(name, make, episodes, uneven):
    support, query = episodes()
    logits = make(name)(support, query, support_mask=uneven)
    order = (~uneven).int().argsort(dim=-1, stable=True)
    moved = support.gather(2, order[..., None, None].expand_as(support))
    assert_close(make(name)(moved, query, support_mask=uneven.gather(2, order)), logits)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in MORE_SHOTS_COUNT])
def test_number_of_shots_alone_favours_no_class(name, make, episodes):
    """Where shots are averaged, a class of three equal shots scores as with one of them."""
    support, query = episodes()
    support[:, 1] = support[:, 1, :1]
    mask = torch.ones(3, 4, 3, dtype=torch.bool)
    mask[:, 1, 1:] = False
    assert_close(make(name)(support, query, support_mask=mask), make(name)(support, query))


@every
def test_episodes_do_not_depend_on_batch_mates(name, make, episodes, uneven):
    support, query = episodes(dtype=torch.float32)
    together = make(name)(support, query, support_mask=uneven)
    alone = [
        make(name)(support[e : e + 1], query[e : e + 1], support_mask=uneven[e : e + 1]) for e in reversed(range(3))
    ]
    assert_close(together, torch.cat(alone[::-1]), rtol=1e-5, atol=1e-5)


@every
def test_calls_leave_no_trace(name, make, episodes):
    method = make(name)
    support, query = episodes()
    first = method(support, query)
    method(*episodes(seed=1))
    assert torch.equal(method(support, query), first)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in FITTED_BY_SGD])
def test_classes_permute_logits(name, make, episodes, uneven):
    """Except where start and order of the items go with the place of a class."""
    support, query = episodes()
    order = torch.tensor([2, 0, 3, 1])
    logits = make(name)(support, query, support_mask=uneven)
    permuted = make(name)(support[:, order], query, support_mask=uneven[:, order])
    tolerance = 1e-3 if name == "logistic" else 1e-9
    assert_close(permuted, logits[..., order], rtol=tolerance, atol=tolerance)


@every
def test_queries_permute_rows(name, make, episodes):
    support, query = episodes()
    order = torch.tensor([4, 2, 0, 1, 3])
    assert_close(make(name)(support, query[:, order]), make(name)(support, query)[:, order])


@every
def test_order_of_nodes_does_not_matter(name, make, episodes):
    support, query = episodes()
    logits = make(name)(support, query)
    generator = torch.Generator().manual_seed(7)
    support = support[:, :, :, torch.randperm(6, generator=generator)]
    shuffled = torch.stack([query[:, q, torch.randperm(6, generator=generator)] for q in range(5)], 1)
    tolerance = 1e-3 if name == "logistic" else 1e-9
    assert_close(make(name)(support, shuffled), logits, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [name for name, kind in METHOD.items() if kind.pools])
def test_methods_that_pool_need_only_the_average(name, make, episodes, uneven):
    support, query = episodes()
    whole = make(name)(support, query, support_mask=uneven)
    pooled = make(name)(support.mean(-2, keepdim=True), query.mean(-2, keepdim=True), support_mask=uneven)
    assert_close(pooled, whole)


@every
def test_gradients_are_finite(name, make, episodes, uneven):
    support, query = episodes()
    # Dead nodes, a dead image, and a query that equals a shot: where norms and distances have no derivative.
    support[0, 0, 0, 0] = 0
    query[0, 0, 1] = 0
    query[0, 1] = 0
    query[1, 2] = support[1, 0, 0]
    support.requires_grad_()
    query.requires_grad_()
    logits = make(name)(support, query, support_mask=uneven)
    logits.log_softmax(-1)[..., 0].sum().backward()
    assert query.grad.isfinite().all()
    assert query.grad.abs().max() > 0
    if name in FROZEN_SUPPORT:
        assert support.grad is None
        return
    assert support.grad.isfinite().all()
    assert support.grad.abs().max() > 0
    assert (support.grad[~uneven] == 0).all()


@every
@pytest.mark.parametrize("sizes", [{"nodes": 1, "shot": 1}, {"way": 2}, {"n": 1, "n_query": 1}, {"query_nodes": 4}])
def test_small_and_unequal_sizes(name, sizes, make, episodes):
    support, query = episodes(**sizes)
    logits = make(name)(support, query)
    assert logits.shape == (support.shape[0], query.shape[1], support.shape[1])
    assert logits.isfinite().all()


@every
def test_recognises_well_separated_classes(name, make):
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(4).repeat_interleave(2, -1)[None, :, None, None]
    support = centres + 0.1 * torch.rand(2, 4, 2, 5, 8, generator=generator)
    query = centres[:, :, 0] + 0.1 * torch.rand(2, 4, 5, 8, generator=generator)
    assert torch.equal(make(name)(support, query).argmax(-1), torch.arange(4).expand(2, 4))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in WITH_PRIOR])
def test_class_prior_has_no_effect(name, make, episodes):
    support, query = episodes()
    prior = torch.tensor([0.7, 0.1, 0.1, 0.1]).expand(3, 4)
    assert torch.equal(make(name)(support, query, class_prior=prior), make(name)(support, query))


@every
def test_wrong_shapes_are_value_errors(name, make, episodes):
    support, query = episodes()
    with pytest.raises(ValueError, match="support must be"):
        make(name)(support[0], query)
    with pytest.raises(ValueError, match="support_mask"):
        make(name)(support, query, support_mask=torch.ones(3, 4, dtype=torch.bool))


@every
def test_options_out_of_range_are_named(name, make):
    for option in ("temperature", "k", "lr", "epochs", "batch_size", "scale", "C", "max_iter", "n_steps", "reg"):
        if option in inspect.signature(METHOD[name]).parameters:
            with pytest.raises(UserError, match=f"{name}: {option} must be"):
                make(name, **{option: 0})


def test_chunks_change_nothing(make, episodes, monkeypatch):
    support, query = episodes()
    for name in ("knn", "frn", "chamfer"):
        logits = make(name)(support, query)
        with monkeypatch.context() as patch:
            patch.setattr("otfew.baselines._base._CPU_ELEMENTS", 1)
            assert_close(make(name)(support, query), logits)
