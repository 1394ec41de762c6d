"""LaplacianShot against a loop over episodes with scikit-learn's neighbours, as its authors' code goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch.testing import assert_close

from otfew.baselines.laplacianshot import LaplacianShot, bound_updates, neighbours
from otfew.baselines.simpleshot import SimpleShot
from otfew.errors import UserError

BASE = torch.linspace(0.1, 0.4, 8, dtype=torch.float64)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x):
    y = np.exp(x - x.max(-1, keepdims=True))
    return y / y.sum(-1, keepdims=True)


def one_episode(support, query, mask, lam, k, rectify, steps=20):
    shots = [unit(s.mean(-2)[m] - BASE.numpy()) for s, m in zip(support, mask, strict=True)]
    q = unit(query.mean(-2) - BASE.numpy())
    prototypes = np.array([s.mean(0) for s in shots])
    if rectify:
        q = q + prototypes.mean(0) - q.mean(0)
        images = np.concatenate([*shots, q])
        likeness = unit(images) @ unit(prototypes).T
        chosen, w = likeness.argmax(1), softmax(10 * likeness)
        prototypes = np.array(
            [
                (w[chosen == c, c, None] * images[chosen == c]).mean(0) if (chosen == c).any() else prototypes[c]
                for c in range(len(prototypes))
            ]
        )
    a = ((q[:, None] - prototypes) ** 2).sum(-1)
    near = NearestNeighbors(n_neighbors=min(k, len(q))).fit(q).kneighbors(q, return_distance=False)[:, 1:]
    y, old = softmax(-a), np.inf
    for step in range(steps):
        y = softmax(-a + lam * y[near].sum(1))
        energy = (y * np.log(y) + a * y - lam * y[near].sum(1) * y).sum()
        if step > 1 and abs(energy - old) <= 1e-6 * abs(old):
            break
        old = energy
    return np.log(y)


@pytest.mark.parametrize("rectify", [True, False])
@pytest.mark.parametrize(("lam", "k"), [(0.7, 3), (1.5, 5), (0.3, 99)])
def test_is_the_published_procedure(lam, k, rectify, episodes, uneven):
    support, query = episodes(n_query=12)
    parts = zip(support.numpy(), query.numpy(), uneven.numpy(), strict=True)
    expected = np.stack([one_episode(s, q, m, lam, k, rectify) for s, q, m in parts])
    logits = LaplacianShot(BASE, lam, k, rectify)(support, query, support_mask=uneven)
    assert_close(logits, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


def test_an_episode_stops_by_itself(episodes):
    """The first stops early, as in the loop; the others go on."""
    support, query = episodes(n_query=12)
    support[0], query[0] = support[0] * 0 + support[0, :, :1, :1], support[0, 0, 0, 0]
    together = LaplacianShot(BASE, 1.5, rectify=False)(support, query)
    for e in range(3):
        one = slice(e, e + 1)
        assert_close(LaplacianShot(BASE, 1.5, rectify=False)(support[one], query[one]), together[one])


def test_without_neighbours_it_is_simpleshot(episodes, uneven):
    support, query = episodes(n_query=12)
    plain = SimpleShot(BASE)(support, query, support_mask=uneven).log_softmax(-1)
    for method in (LaplacianShot(BASE, 0.0, rectify=False), LaplacianShot(BASE, 0.7, k=1, rectify=False)):
        assert_close(method(support, query, support_mask=uneven), plain)
    one = query[:, :1]
    alone = LaplacianShot(BASE, 0.7, rectify=False)(support, one)
    assert_close(alone, SimpleShot(BASE)(support, one).log_softmax(-1))


def test_strong_neighbours_agree():
    """Two tight pairs of queries, each with one member beyond the border: each pair ends on one side."""
    unary = torch.tensor([[[0.0, 1.0], [0.6, 0.4], [1.0, 0.0], [0.4, 0.6]]], dtype=torch.float64)
    nearest = torch.tensor([[[1], [0], [3], [2]]])
    none, strong = (bound_updates(unary, nearest, torch.tensor([lam], dtype=torch.float64), 20) for lam in (0.0, 3.0))
    assert none.argmax(-1).tolist() == [[0, 1, 1, 0]]
    assert strong.argmax(-1).tolist() == [[0, 0, 1, 1]]


def test_bound_updates_lower_the_energy(episodes):
    """Guaranteed where the affinity is symmetric and positive semidefinite: pairs, each with itself."""
    generator = torch.Generator().manual_seed(0)
    unary = torch.rand(5, 6, 3, generator=generator, dtype=torch.float64)
    nearest = torch.tensor([[0, 1], [1, 0], [2, 3], [3, 2], [4, 5], [5, 4]]).expand(5, 6, 2)
    lam = torch.full((5,), 2.0, dtype=torch.float64)
    energies = []
    for steps in range(8):
        log_y = bound_updates(unary, nearest, lam, steps)
        y = log_y.exp()
        pull = lam[:, None, None] * torch.stack([y[:, n].sum(1) for n in nearest[0]], 1)
        # Each pair counts twice in the sum over queries, hence half of it.
        energies.append((y * (log_y + unary - pull / 2)).sum((1, 2)))
    assert (torch.stack(energies).diff(dim=0) <= 1e-12).all()


def test_neighbours_are_others(episodes):
    vectors = torch.nn.functional.normalize(torch.randn(2, 5, 3), dim=-1)
    near = neighbours(vectors, 9)
    assert near.shape == (2, 5, 4)
    for q in range(5):
        assert (near[:, q].sort(-1).values == torch.tensor([i for i in range(5) if i != q])).all()


def test_lam_goes_by_the_shots_of_each_episode(episodes):
    """0.3 from five shots on."""
    support, query = episodes(n=4, shot=6, n_query=12)
    mask = torch.zeros(4, 4, 6, dtype=torch.bool)
    for e, shots in enumerate((5, 1, 6, 4)):
        mask[e, :, :shots] = True
    logits = LaplacianShot(BASE)(support, query, support_mask=mask)
    for e, lam in enumerate((0.3, 0.7, 0.3, 0.7)):
        one = slice(e, e + 1)
        assert_close(logits[one], LaplacianShot(BASE, lam)(support[one], query[one], support_mask=mask[one]))


def test_what_makes_no_sense_is_named(episodes):
    with pytest.raises(UserError, match="laplacianshot: `lam` must be"):
        LaplacianShot(BASE, -0.1)
    with pytest.raises(ValueError, match="`base_mean` must be"):
        LaplacianShot(BASE[None])
    with pytest.raises(UserError, match="laplacianshot: `base_mean` has 7 channels"):
        LaplacianShot(BASE[:7])(*episodes())
