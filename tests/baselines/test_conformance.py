"""Laws of contract 2 that every method and baseline obeys; what a law may except is read from the class."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch.testing import assert_close

from otfew import catalogue, nodes
from otfew.baselines import BASELINES
from otfew.errors import UserError
from otfew.method import FewShotMethod
from otfew.methods import METHODS

METHOD = {**METHODS, **BASELINES}
NAMES = sorted(METHOD)
TOLERANCE = {"logistic": 1e-3, "lst": 1e-5, "pt-map": 1e-5}
"""Of those that stop their search at a tolerance of their own."""

SEVERAL = {"lst", "pt-map", "domain-transport", "mean-alignment", "coral", "whitening", "gaussian-transport"}
"""Those that refuse a single query, which has no spread."""

every = pytest.mark.parametrize("name", NAMES)


def those(fact, value=True):
    """Parametrise over the methods of whose class a fact is true, or not."""
    return pytest.mark.parametrize("name", [n for n in NAMES if bool(getattr(METHOD[n], fact)) is value])


def takes_prior(name):
    return METHOD[name].transductive and "class_prior" in inspect.signature(METHOD[name]).parameters


def close(name, found, expected, least=1e-7):
    tolerance = max(least, TOLERANCE.get(name, 0))
    assert_close(found, expected, rtol=tolerance, atol=tolerance)


@every
def test_registered_under_its_name_and_documented(name, make):
    method = make(name)
    assert isinstance(method, FewShotMethod)
    assert method.name == name
    assert nodes.parse(method.nodes).spec == method.nodes
    assert method.preset_of in {"", *METHOD}
    assert set(method.learned) <= set(inspect.signature(type(method)).parameters)
    assert ("base_mean" in inspect.signature(type(method)).parameters) == method.needs_base_mean
    doc = "".join(inspect.getdoc(kind) or "" for kind in type(method).__mro__)
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
    scale = max(1e-4, 200 * TOLERANCE.get(name, 0) * METHOD[name].transductive)
    assert_close(single.double(), exact, rtol=scale, atol=scale * exact.abs().max().item())


@every
def test_masked_shots_are_as_if_absent(name, make, episodes):
    support, query = episodes()
    mask = torch.tensor([True, False, True]).expand(3, 4, 3)
    spoiled = support.clone()
    spoiled[:, :, 1] = torch.nan
    close(name, make(name)(spoiled, query, support_mask=mask), make(name)(support[:, :, [0, 2]], query))


@every
def test_full_mask_is_no_mask(name, make, episodes):
    support, query = episodes()
    mask = torch.ones(3, 4, 3, dtype=torch.bool)
    close(name, make(name)(support, query, support_mask=mask), make(name)(support, query))


@every
def test_place_of_masked_shots_does_not_matter(name, make, episodes, uneven):
    support, query = episodes()
    logits = make(name)(support, query, support_mask=uneven)
    order = (~uneven).int().argsort(dim=-1, stable=True)
    moved = support.gather(2, order[..., None, None].expand_as(support))
    close(name, make(name)(moved, query, support_mask=uneven.gather(2, order)), logits)


@those("counts_shots", False)
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
    close(name, together, torch.cat(alone[::-1]), 1e-5)


@every
def test_calls_leave_no_trace(name, make, episodes):
    method = make(name)
    support, query = episodes()
    first = method(support, query)
    method(*episodes(seed=1))
    assert torch.equal(method(support, query), first)


@those("ordered", False)
def test_classes_permute_logits(name, make, episodes, uneven):
    """Except where start and order of the items go with the place of a class."""
    support, query = episodes()
    order = torch.tensor([2, 0, 3, 1])
    logits = make(name)(support, query, support_mask=uneven)
    permuted = make(name)(support[:, order], query, support_mask=uneven[:, order])
    close(name, permuted, logits[..., order], 1e-9)


@every
def test_queries_permute_rows(name, make, episodes):
    support, query = episodes()
    order = torch.tensor([4, 2, 0, 1, 3])
    close(name, make(name)(support, query[:, order]), make(name)(support, query)[:, order])


@those("transductive", False)
def test_a_query_is_answered_alone_as_among_others(name, make, episodes):
    support, query = episodes()
    close(name, make(name)(support, query[:, 1:2]), make(name)(support, query)[:, 1:2])


@those("transductive")
def test_a_query_is_answered_by_the_others(name, make, episodes):
    support, query = episodes()
    some = make(name)(support, query[:, :3])
    assert (some - make(name)(support, query)[:, :3]).abs().max() > 1e-3


@every
def test_order_of_nodes_does_not_matter(name, make, episodes):
    support, query = episodes()
    logits = make(name)(support, query)
    generator = torch.Generator().manual_seed(7)
    support = support[:, :, :, torch.randperm(6, generator=generator)]
    shuffled = torch.stack([query[:, q, torch.randperm(6, generator=generator)] for q in range(5)], 1)
    close(name, make(name)(support, shuffled), logits, 1e-9)


@those("pools")
def test_methods_that_pool_need_only_the_average(name, make, episodes, uneven):
    support, query = episodes()
    whole = make(name)(support, query, support_mask=uneven)
    pooled = make(name)(support.mean(-2, keepdim=True), query.mean(-2, keepdim=True), support_mask=uneven)
    close(name, pooled, whole)


@those("pools", False)
def test_others_see_more_than_the_average(name, make, episodes):
    support, query = episodes()
    pooled = make(name)(support.mean(-2, keepdim=True), query.mean(-2, keepdim=True))
    assert (pooled - make(name)(support, query)).abs().max() > 1e-3


@those("needs_nonnegative")
def test_negative_features_are_refused_where_the_class_says_so(name, make, episodes):
    support, query = episodes()
    with pytest.raises(UserError, match="needs features of at least 0"):
        make(name)(support - 5, query)


@those("needs_nonnegative", False)
def test_negative_features_are_answered_elsewhere(name, make, episodes):
    support, query = episodes()
    assert make(name)(support - 1, query - 1).isfinite().all()


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
    if METHOD[name].frozen:
        assert support.grad is None
        return
    assert support.grad.isfinite().all()
    assert support.grad.abs().max() > 0
    assert (support.grad[~uneven] == 0).all()


@every
@pytest.mark.parametrize("sizes", [{"nodes": 1, "shot": 1}, {"way": 2}, {"n": 1, "n_query": 1}, {"query_nodes": 4}])
def test_small_and_unequal_sizes(name, sizes, make, episodes):
    support, query = episodes(**sizes)
    if name in SEVERAL and query.shape[1] < 2:
        with pytest.raises(UserError, match="needs 2, not 1"):
            make(name)(support, query)
        return
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


@every
def test_class_prior_has_the_effect_that_the_class_says(name, make, episodes):
    support, query = episodes()
    prior = torch.tensor([0.7, 0.1, 0.1, 0.1]).expand(3, 4)
    told, untold = make(name)(support, query, class_prior=prior), make(name)(support, query)
    assert torch.equal(told, untold) is not takes_prior(name)


@every
def test_wrong_shapes_are_user_errors(name, make, episodes):
    support, query = episodes()
    with pytest.raises(UserError, match="support must be"):
        make(name)(support[0], query)
    with pytest.raises(UserError, match="support_mask"):
        make(name)(support, query, support_mask=torch.ones(3, 4, dtype=torch.bool))
    mask = torch.ones(3, 4, 3, dtype=torch.bool)
    mask[1, 2] = False
    with pytest.raises(UserError, match="leaves class 2 of episode 1 without a shot"):
        make(name)(support, query, support_mask=mask)


@every
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_answers_stay_on_the_device(name, make, episodes):
    support, query = episodes(dtype=torch.float32)
    logits = make(name)(support.cuda(), query.cuda())
    assert logits.device.type == "cuda"
    assert_close(logits.cpu(), make(name)(support, query), rtol=1e-2, atol=1e-2)


SIGNED = {"seed", "frn alpha", "frn beta"}
"""Numbers of which -1 is one."""


def bad_values(name, parameter):
    """What an option must refuse, by the kind of its default or annotation."""
    kind = str(parameter.annotation)
    default = parameter.default
    signed = parameter.name in SIGNED or f"{name} {parameter.name}" in SIGNED
    if isinstance(default, bool):
        return ["yes", 1, None]
    if kind.startswith("int"):
        return ["three", 2.5, math.nan, True, *([] if signed else [-1])]
    if isinstance(default, float) or kind.startswith("float"):
        return ["fast", math.nan, math.inf, True, [1.0], *([] if signed else [-1])]
    if parameter.name == "base_mean":
        return [None, 3, torch.zeros(2, 3), torch.zeros(0), torch.full((3,), math.nan), torch.zeros(3).long()]
    return ["no such thing", 3, [], None] if default is not None else ["no such thing", 3, []]


@every
def test_options_that_make_no_sense_are_one_sentence_with_their_name(name, make):
    for option, parameter in inspect.signature(METHOD[name]).parameters.items():
        for value in bad_values(name, parameter):
            with pytest.raises(UserError) as caught:
                make(name, **{option: value})
            said = str(caught.value)
            assert said.startswith(f"{name}: "), said
            assert f"`{option}`" in said
            assert said.endswith(".")


@every
def test_options_that_do_not_exist_are_named_by_the_catalogue(name):
    with pytest.raises(UserError, match=f"method '{name}' has no option 'tempreature'"):
        catalogue.build(name, tempreature=1.0)


def test_a_bug_in_a_constructor_keeps_its_traceback(monkeypatch):
    def broken(self):
        raise TypeError("a bug")

    monkeypatch.setattr(METHOD["protonet"], "__init__", broken)
    with pytest.raises(TypeError, match="a bug"):
        catalogue.build("protonet")


def test_chunks_change_nothing(make, episodes, monkeypatch):
    support, query = episodes()
    for name in ("knn", "frn", "chamfer"):
        logits = make(name)(support, query)
        with monkeypatch.context() as patch:
            patch.setattr("otfew.baselines._base._CPU_ELEMENTS", 1)
            assert_close(make(name)(support, query), logits)
