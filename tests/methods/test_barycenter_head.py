"""The barycentre head and its control against plain loops, one class at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog
from torch.testing import assert_close

import otfew
from otfew import catalogue
from otfew.errors import UserError
from otfew.methods import METHODS, BarycenterHead, KMeansHead

DeepEMD = METHODS["deepemd"]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def directions(x):
    return unit(x - x.mean(-1, keepdims=True))


def plan_of(cost, a, b):
    """HiGHS, or SciPy's assignment where all weigh alike."""
    n, m = cost.shape
    if n == m and np.ptp(a) == np.ptp(b) == 0:
        rows, columns = linear_sum_assignment(cost)
        plan = np.zeros((n, m))
        plan[rows, columns] = 1 / n
        return plan
    sums = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    return linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([a, b]), method="highs-ds").x.reshape(n, m)


def weights_among(shots):
    """Cross-reference weights of each shot's nodes against the mean node of the others."""
    found = []
    for s, nodes in enumerate(shots):
        mean = np.mean([other.mean(0) for t, other in enumerate(shots) if t != s], 0)
        w = np.maximum(nodes @ mean, 0) + 1e-3
        found.append(w / w.sum())
    return found


def combined(shots, parts):
    """Nodes from how much (shots, n, nodes) of each shot's nodes is in them, rows of total 1 over all."""
    towards = unit(sum(p @ directions(x) for p, x in zip(parts, shots, strict=True)))
    length = sum(p @ np.linalg.norm(x - x.mean(-1, keepdims=True), axis=-1) for p, x in zip(parts, shots, strict=True))
    mean = sum(p @ x.mean(-1) for p, x in zip(parts, shots, strict=True))
    return towards * length[:, None] + mean[:, None]


def plain_barycentre(shots, masses, start):
    """Alternate plans and nodes until nothing moves."""
    n = len(shots[0])
    a = weights_among(shots) if masses == "cross_reference" else [np.full(n, 1 / n)] * len(shots)
    u = [directions(x) for x in shots]

    def total(y, b):
        return np.mean([(plan_of(1 - y @ v.T, b, w) * (1 - y @ v.T)).sum() for v, w in zip(u, a, strict=True)])

    if start == "mean":
        y, b = unit(np.mean(u, 0)), np.full(n, 1 / n)
    else:
        best = int(np.argmin([total(v, w) for v, w in zip(u, a, strict=True)]))
        y, b = u[best], a[best]
    for _ in range(50):
        plans = [plan_of(1 - y @ v.T, b, w) for v, w in zip(u, a, strict=True)]
        new = unit(sum(p @ v for p, v in zip(plans, u, strict=True)))
        if np.abs(new - y).max() < 1e-9:
            break
        y = new
    return combined(shots, [p / b[:, None] / len(shots) for p in plans])


@pytest.mark.parametrize("masses", ["uniform", "cross_reference"])
@pytest.mark.parametrize("start", ["medoid", "mean"])
def test_class_nodes_are_those_of_a_plain_loop(masses, start, episodes):
    support, _ = episodes(shot=3, nodes=6)
    found = BarycenterHead(masses, start).class_nodes(support, None)
    for e in range(2):
        for c in range(3):
            expected = plain_barycentre(list(support[e, c].numpy()), masses, start)
            assert_close(found[e, c], torch.from_numpy(expected), rtol=0, atol=1e-7)


def test_logits_are_those_of_the_class_nodes(episodes):
    support, query = episodes()
    for head in (BarycenterHead(), KMeansHead()):
        nodes = head.class_nodes(support, None)
        assert_close(DeepEMD(shot_head=head)(support, query), DeepEMD()(nodes[:, :, None], query))


def test_shots_that_show_the_same_in_other_places(episodes):
    """The barycentre of a shot and its shuffled copies is that shot; the mean of their maps is not."""
    one, query = episodes(shot=1, nodes=6)
    generator = torch.Generator().manual_seed(3)
    shots = torch.cat([one[:, :, :, torch.randperm(6, generator=generator)] for _ in range(3)], 2)
    single = DeepEMD()(one, query)
    for head in (BarycenterHead("uniform", "medoid"), BarycenterHead(start="medoid"), KMeansHead()):
        assert_close(DeepEMD(shot_head=head)(shots, query), single)
    assert (DeepEMD()(shots, query) - single).abs().max() > 0.01


def spherical_objective(nodes, points):
    return (directions(points) @ unit(nodes - nodes.mean(-1, keepdims=True)).T).max(1).mean()


def test_k_means_ends_where_no_round_of_lloyd_changes_it(episodes):
    support, _ = episodes(shot=4, nodes=6)
    found = KMeansHead().class_nodes(support, None)
    first = KMeansHead(n_iter=1).class_nodes(support, None)
    for e in range(2):
        for c in range(3):
            shots, points = support[e, c].numpy(), support[e, c].flatten(0, 1).numpy()
            centres = found[e, c].numpy()
            assert centres.shape == (6, 16)
            nearest = (directions(points) @ directions(centres).T).argmax(1)
            parts = np.array([nearest == k for k in range(6)], float)
            held = parts.sum(1) > 0
            parts = parts[held] / parts[held].sum(1, keepdims=True)
            again = combined(shots, np.stack(np.split(parts, 4, axis=1)))
            assert_close(torch.from_numpy(centres[held]), torch.from_numpy(again), rtol=0, atol=1e-9)
            assert spherical_objective(centres, points) >= spherical_objective(first[e, c].numpy(), points) - 1e-12


def test_another_seed_is_another_start_and_the_same_seed_the_same(episodes):
    support, query = episodes(shot=4, nodes=6)
    logits = [DeepEMD(shot_head=KMeansHead(seed=s))(support, query) for s in (0, 0, 1)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


def test_the_barycentre_takes_as_much_from_each_shot():
    """A node that only one shot shows: a cluster of its own for k-means, not for transport."""
    generator = torch.Generator().manual_seed(0)
    shots = torch.rand(1, 1, 2, 2, 8, generator=generator, dtype=torch.float64)
    shots[0, 0, 1] = shots[0, 0, 0] + 0.01 * shots[0, 0, 1]
    shots[0, 0, 1, 1] = torch.tensor([5.0, 0, 0, 0, 0, 0, 0, 0])
    y = BarycenterHead("uniform", "medoid").class_nodes(shots, None)
    expected = unit(directions(shots[0, 0, 0, 1].numpy()) + directions(shots[0, 0, 1, 1].numpy()))
    found = directions(y[0, 0].numpy())
    assert np.abs(found - expected).sum(-1).min() < 1e-9


@pytest.mark.parametrize("head", [BarycenterHead(), BarycenterHead("uniform", "medoid"), KMeansHead()], ids=repr)
def test_gradients_are_those_of_finite_differences(head, episodes):
    """Plans, masses and clusters stay as they are nearby: with uniform masses nothing else depends on the shots."""
    generator = torch.Generator().manual_seed(2)
    # No node is constant over channels, where directions jump.
    inputs = tuple(
        (x + torch.rand(x.shape, generator=generator, dtype=x.dtype)).requires_grad_()
        for x in episodes(n=1, way=2, shot=3, nodes=3, n_query=2, channels=5)
    )
    method = DeepEMD(weight_gradient=True, shot_head=head)
    if head == BarycenterHead():
        # Masses depend on the shots and are constants of the gradient, as plans are.
        grads = torch.autograd.grad(method(*inputs).sum(), inputs)
        assert all(g.isfinite().all() and g.abs().max() > 0 for g in grads)
        return
    assert torch.autograd.gradcheck(method, inputs)


def test_names_with_options_as_on_a_command_line(episodes):
    made = catalogue.build("deepemd", shot_head="barycenter+masses=uniform+start=medoid+n_iter=3")
    assert made.shot_head == BarycenterHead("uniform", "medoid", 3)
    assert catalogue.build("deepemd:shot_head=kmeans+seed=7,mass=0.9").shot_head == KMeansHead(7)
    assert DeepEMD(shot_head="barycenter").shot_head == BarycenterHead()
    for spec, said in [
        ("barycenter+start", "behind the name stand, once each, options of 'barycenter', masses, start, n_iter"),
        ("kmeans+start=mean", "options of 'kmeans', seed, n_iter, as in NAME"),
        ("kmeans+seed=first", "seed must be a number, not 'first'"),
        ("kmeans+n_iter=0", "`n_iter` must be a whole number"),
        ("barycenter+start=first", "^deepemd: unknown `start` 'first'; there are: medoid, mean"),
        ("barycenter+masses=1", "unknown `masses` '1'"),
    ]:
        with pytest.raises(UserError, match=said):
            DeepEMD(shot_head=spec)


def test_barycentres_come_from_one_call_for_all(episodes, monkeypatch):
    from otfew.methods import barycenter_head

    calls = []

    def counted(points, **options):
        calls.append(points.shape)
        return otfew.barycenter(points, **options)

    monkeypatch.setattr(barycenter_head, "barycenter", counted)
    support, query = episodes()
    DeepEMD(shot_head="barycenter")(support, query)
    assert calls == [(2, 3, 3, 5, 16)]
