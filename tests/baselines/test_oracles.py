"""Every baseline against a plain loop that follows its formula, on uneven shots, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.testing import assert_close

from otfew.baselines.frn import FRN
from otfew.errors import UserError
from otfew.methods import DeepEMD
from otfew.node_weights import KMeans, MeanShift, Uniform


def unit(x):
    return x / max(np.linalg.norm(x), 1e-8)


def cosine(x, y):
    return float(unit(x) @ unit(y))


def centred(x):
    return x - x.mean()


def looped(support, query, mask, score):
    """Fill logits from score(shots of each class, one query's nodes) -> one number a class."""
    rows = []
    for s, q, m in zip(support.numpy(), query.numpy(), mask.numpy(), strict=True):
        classes = [
            [shot for shot, kept in zip(shots, keeps, strict=True) if kept] for shots, keeps in zip(s, m, strict=True)
        ]
        rows.append([score(classes, nodes) for nodes in q])
    return torch.tensor(np.array(rows))


def global_mean(shots):
    return np.mean([shot.mean(0) for shot in shots], 0)


def protonet(classes, nodes):
    return [-np.sum((nodes.mean(0) - global_mean(shots)) ** 2) for shots in classes]


def cosine_centroid(classes, nodes):
    return [12.5 * cosine(nodes.mean(0), global_mean(shots)) for shots in classes]


def simpleshot(classes, nodes):
    base = np.linspace(0.1, 0.4, nodes.shape[-1])
    z = unit(nodes.mean(0) - base)
    return [-np.sum((z - np.mean([unit(shot.mean(0) - base) for shot in shots], 0)) ** 2) for shots in classes]


def matchingnet(classes, nodes):
    scores = [np.mean([math.exp(12.5 * cosine(nodes.mean(0), shot.mean(0))) for shot in shots]) for shots in classes]
    return list(np.log(np.array(scores) / sum(scores)))


def knn(classes, nodes):
    scores = []
    for shots in classes:
        pool = np.concatenate(shots)
        k = min(3, len(pool))
        scores.append(sum(sum(sorted((cosine(u, v) for v in pool), reverse=True)[:k]) for u in nodes) * 3 / k)
    return scores


def fusion(classes, nodes):
    total = np.zeros(len(classes))
    for u in nodes:
        votes = np.exp([12.5 * cosine(u, global_mean(shots)) for shots in classes])
        total += votes / votes.sum()
    return list(np.log(total / len(nodes)))


def frn(classes, nodes, alpha=0.0, beta=0.0):
    scores = []
    for shots in classes:
        S = np.concatenate(shots) / math.sqrt(nodes.shape[-1])
        Q = nodes / math.sqrt(nodes.shape[-1])
        penalty = math.exp(alpha) * S.shape[0] / S.shape[1]
        weights = np.linalg.solve(S @ S.T + penalty * np.eye(len(S)), S @ Q.T).T
        scores.append(-np.mean(np.sum((Q - math.exp(beta) * weights @ S) ** 2, -1)))
    return scores


def mean_map(shots):
    return np.mean(shots, 0)


def weights(nodes, others):
    w = np.array([max(u @ others.mean(0), 0) + 1e-3 for u in nodes])
    return w / w.sum()


def node_cosines(nodes, others):
    return np.array([[cosine(centred(u), centred(v)) for v in others] for u in nodes])


def cr_pooled(classes, nodes):
    scores = []
    for v in map(mean_map, classes):
        left = sum(s * centred(u) for s, u in zip(weights(nodes, v), nodes, strict=True))
        right = sum(d * centred(x) for d, x in zip(weights(v, nodes), v, strict=True))
        scores.append(12.5 * cosine(left, right))
    return scores


def chamfer(classes, nodes):
    scores = []
    for v in map(mean_map, classes):
        sim = node_cosines(nodes, v)
        scores.append(12.5 * (weights(nodes, v) @ sim.max(1) + weights(v, nodes) @ sim.max(0)) / 2)
    return scores


def best_part(best, weights, mass):
    """Spend ``mass`` on the best first."""
    score, left = 0.0, mass
    for i in np.argsort(-best):
        spent = min(weights[i], left)
        score, left = score + spent * best[i], left - spent
    return score / mass


def trimmed_chamfer(classes, nodes):
    scores = []
    for v in map(mean_map, classes):
        sim = node_cosines(nodes, v)
        sides = (best_part(sim.max(1), weights(nodes, v), 0.9), best_part(sim.max(0), weights(v, nodes), 0.9))
        scores.append(12.5 * np.mean(sides))
    return scores


def product_coupling(classes, nodes):
    return [12.5 * weights(nodes, v) @ node_cosines(nodes, v) @ weights(v, nodes) for v in map(mean_map, classes)]


def cosine_nodes(classes, nodes):
    return [12.5 * node_cosines(nodes, v).mean() for v in map(mean_map, classes)]


ORACLES = {
    "protonet": protonet,
    "cosine-centroid": cosine_centroid,
    "simpleshot": simpleshot,
    "matchingnet": matchingnet,
    "knn": knn,
    "fusion": fusion,
    "frn": frn,
    "cr-pooled": cr_pooled,
    "chamfer": chamfer,
    "trimmed-chamfer": trimmed_chamfer,
    "product-coupling": product_coupling,
    "cosine-nodes": cosine_nodes,
}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("query_nodes", [6, 4])
def test_follows_its_formula(name, query_nodes, make, episodes, uneven):
    support, query = episodes(query_nodes=query_nodes)
    expected = looped(support, query, uneven, ORACLES[name])
    assert_close(make(name)(support, query, support_mask=uneven), expected, rtol=1e-9, atol=1e-9)


def test_knn_scales_up_classes_with_too_few_nodes(make, episodes, uneven):
    support, query = episodes(nodes=1)
    assert_close(make("knn")(support, query, support_mask=uneven), looped(support, query, uneven, knn))


@pytest.mark.parametrize("channels", [5, 40])
def test_frn_inverts_the_smaller_side_with_the_same_result(channels, make, episodes, uneven):
    support, query = episodes(channels=channels)
    logits = make("frn", channels, alpha=0.3, beta=-0.2)(support, query, support_mask=uneven)
    expected = looped(support, query, uneven, lambda c, q: frn(c, q, 0.3, -0.2))
    assert_close(logits, expected, rtol=1e-9, atol=1e-9)


def clusters(nodes, weights):
    """The means of an image's clusters, with their shares of its nodes."""
    labels = weights.labels(nodes)
    members = [nodes[labels == label] for label in np.unique(labels)]
    return np.array([m.mean(0) for m in members]), np.array([len(m) for m in members]) / len(nodes)


@pytest.mark.parametrize("weights", [Uniform(), KMeans(n_clusters=2), MeanShift(bandwidth=2.0)])
def test_controls_take_the_weights_of_deepemd(weights, make, episodes):
    """Uniform weights, or clusters as nodes: written out, with only the clusters there."""
    support, query = episodes(n=1, way=2, shot=2, n_query=2, query_nodes=4)
    chamfers, products = make("chamfer", weights=weights), make("product-coupling", weights=weights)

    def of(classes, nodes, join):
        found = []
        for v in map(mean_map, classes):
            (one, s), (other, d) = (
                (x, np.full(len(x), 1 / len(x))) if isinstance(weights, Uniform) else clusters(x, weights)
                for x in (nodes, v)
            )
            found.append(12.5 * join(node_cosines(one, other), s, d))
        return found

    everyone = torch.ones(support.shape[:3], dtype=torch.bool)
    best = looped(support, query, everyone, lambda c, q: of(c, q, lambda x, s, d: (s @ x.max(1) + d @ x.max(0)) / 2))
    assert_close(chamfers(support, query), best, rtol=1e-9, atol=1e-9)
    mean = looped(support, query, everyone, lambda c, q: of(c, q, lambda x, s, d: s @ x @ d))
    assert_close(products(support, query), mean, rtol=1e-9, atol=1e-9)
    plan = DeepEMD(weights=weights)(support, query)
    assert (products(support, query) <= plan + 1e-5).all()
    assert (plan <= chamfers(support, query) + 1e-5).all()
    if isinstance(weights, Uniform):
        assert_close(products(support, query), make("cosine-nodes")(support, query))


def test_unknown_weights_are_named(make):
    with pytest.raises(UserError, match="chamfer: unknown `weights` 'equal'"):
        make("chamfer", weights="equal")


def test_product_and_chamfer_enclose_the_optimal_plan(make, episodes):
    """The product plan is feasible and each half of Chamfer relaxes one side: product <= optimum <= Chamfer."""
    support, query = episodes(n=1, shot=1, way=3, n_query=2)
    low, high = make("product-coupling")(support, query), make("chamfer")(support, query)
    for q, u in enumerate(query[0].numpy()):
        for c, v in enumerate(support[0, :, 0].numpy()):
            rows, columns = np.kron(np.eye(6), np.ones(6)), np.kron(np.ones(6), np.eye(6))
            plan = linprog(
                -node_cosines(u, v).ravel(),
                A_eq=np.concatenate([rows, columns]),
                b_eq=np.concatenate([weights(u, v), weights(v, u)]),
            )
            assert low[0, q, c] <= -12.5 * plan.fun + 1e-9
            assert -12.5 * plan.fun <= high[0, q, c] + 1e-9


def sgd_loop(support, query, mask, build, prepare, seed=0):
    """Fit a torch module to each episode by autograd and ``torch.optim.SGD``, as Chen et al. 2019 do."""
    logits = []
    for s, q, m in zip(support, query, mask, strict=True):
        items, labels = prepare(s.mean(-2)[m]), m.nonzero()[:, 0]
        model = build()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, dampening=0.9, weight_decay=1e-3)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(20):
            for index in torch.randperm(len(items), generator=generator).split(4):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(items[index]), labels[index]).backward()
                optimiser.step()
        logits.append(model(prepare(q.mean(-2))).detach())
    return torch.stack(logits)


def linear_module(rows, bias):
    model = nn.Linear(rows.shape[1], rows.shape[0], bias=bias is not None, dtype=torch.float64)
    model.weight.data.copy_(rows)
    if bias is not None:
        model.bias.data.copy_(bias)
    return model


def test_linear_classifier_is_torchs_sgd(make, episodes, uneven):
    method = make("linear-classifier", epochs=20, seed=3)
    support, query = episodes()
    (start,) = method.start(4, 8)
    expected = sgd_loop(support, query, uneven, lambda: linear_module(start[:, :-1], start[:, -1]), lambda x: x, seed=3)
    assert_close(method(support, query, support_mask=uneven), expected, rtol=1e-9, atol=1e-9)


def test_cosine_classifier_is_torchs_sgd_on_normalised_weights(make, episodes, uneven):
    method = make("cosine-classifier", epochs=20, seed=3)
    support, query = episodes()
    rows, lengths = method.start(4, 8)

    def build():
        model = nn.utils.parametrizations.weight_norm(linear_module(rows, None), dim=0)
        assert_close(model.parametrizations.weight.original0.data, lengths)
        return nn.Sequential(model, Twice())

    expected = sgd_loop(support, query, uneven, build, lambda x: nn.functional.normalize(x, dim=-1), seed=3)
    assert_close(method(support, query, support_mask=uneven), expected, rtol=1e-9, atol=1e-9)


class Twice(nn.Module):
    def forward(self, x):
        return 2 * x


@pytest.mark.parametrize("name", ["linear-classifier", "cosine-classifier"])
def test_fitted_classifiers_depend_on_their_seed_alone(name, make, episodes):
    support, query = episodes()
    torch.manual_seed(0)
    first = make(name, epochs=3)(support, query)
    torch.manual_seed(1)
    assert torch.equal(make(name, epochs=3)(support, query), first)
    assert not torch.allclose(make(name, epochs=3, seed=1)(support, query), first)


@pytest.mark.parametrize("way", [2, 4])
def test_logistic_is_scikit_learns(way, make, episodes):
    support, query = episodes(way=way)
    mask = torch.ones(3, way, 3, dtype=torch.bool)
    mask[0, 0, 1:] = False
    logits = make("logistic")(support, query, support_mask=mask)
    for e in range(3):
        vectors = support[e].mean(-2)[mask[e]].numpy()
        labels = mask[e].nonzero()[:, 0].numpy()
        model = LogisticRegression(C=1.0, max_iter=1000)
        model.fit(np.array([unit(x) for x in vectors]), labels)
        scores = model.decision_function(np.array([unit(x) for x in query[e].mean(-2).numpy()]))
        got = logits[e].numpy()
        if way == 2:
            got = got[:, 1] - got[:, 0]
        np.testing.assert_allclose(got, scores, rtol=1e-9, atol=1e-9)


def test_logistic_wants_two_classes(make, episodes):
    from otfew.errors import UserError

    with pytest.raises(UserError, match="at least two classes"):
        make("logistic")(*episodes(way=1))


def test_simpleshot_wants_a_mean_of_the_same_channels(make, episodes):
    from otfew.errors import UserError

    with pytest.raises(UserError, match="`base_mean` has 9 channels"):
        make("simpleshot", 9)(*episodes())


def test_frn_at_many_nodes_on_several_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        generator = torch.Generator().manual_seed(0)
        support = torch.randn(1, 5, 5, 49, 300, generator=generator).relu()
        query = torch.randn(1, 2, 49, 300, generator=generator).relu()
        logits = FRN()(support, query)
        oracle = FRN()(support.double(), query.double())
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(logits.double(), oracle, rtol=1e-4, atol=1e-5)
