"""Why transport must win on mosaics, proven on parts that are alike or not at all; and what the mosaics are."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from otfew import catalogue
from otfew.data.base import ImageSet
from otfew.errors import UserError
from otfew.experiments.regimes.mosaics import (
    CLASSES,
    LEAST,
    PARTS,
    PER_CLASS,
    SIDE,
    TILES,
    compositions,
    made_of,
    mosaics,
)


def pure_parts(classes):
    """Node sets of tiles that are alike within a part and unlike between parts: (classes, tiles, channels).

    Rows of a Hadamard matrix but the first are orthogonal to each other and to the mean over channels.
    """
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    rows = torch.kron(torch.kron(two, two), two)[1 : PARTS + 1]
    return torch.stack([rows.repeat_interleave(torch.tensor(c), 0) for c in classes])


def test_with_pure_parts_transport_alone_tells_proportions():
    classes = made_of()
    nodes = pure_parts(classes)
    shuffled = torch.stack(
        [n[torch.randperm(TILES**2, generator=torch.Generator().manual_seed(i))] for i, n in enumerate(nodes)]
    )
    support, query = nodes[None, :, None], shuffled[None]
    shares = torch.tensor(classes, dtype=torch.float64) / TILES**2
    methods = {
        "transport": catalogue.build("deepemd", weights="uniform", temperature=1.0),
        "chamfer": catalogue.build("chamfer", weights="uniform", temperature=1.0),
        "product": catalogue.build("product-coupling", weights="uniform", temperature=1.0),
    }
    logits = {name: method(support, query)[0].double() for name, method in methods.items()}
    truth = torch.arange(len(classes))

    # Transport: 1 - TV(p, q), which is 1 for equal proportions alone.
    total_variation = (shares[:, None] - shares[None]).abs().sum(-1) / 2
    torch.testing.assert_close(logits["transport"], 1 - total_variation, atol=1e-5, rtol=0)
    assert (logits["transport"].argmax(1) == truth).all()
    # Chamfer: 1 for every pair, so that it knows nothing.
    torch.testing.assert_close(logits["chamfer"], torch.ones(len(classes), len(classes)).double(), atol=1e-5, rtol=0)
    # Product coupling: sum_k p_k q_k, largest for a lopsided class whatever is asked.
    torch.testing.assert_close(logits["product"], shares @ shares.T, atol=1e-5, rtol=0)
    assert (logits["product"].argmax(1) == truth).float().mean() <= 0.5


def test_chamfer_with_equal_weights_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.rand(shape, generator=generator) for shape in ((2, 3, 1, 4, 6), (2, 5, 7, 6)))
    found = catalogue.build("chamfer", weights="uniform", temperature=1.0)(support, query)
    for e, q, c in np.ndindex(2, 5, 3):
        sims = np.corrcoef(query[e, q].numpy(), support[e, c, 0].numpy())[:7, 7:]
        assert float(found[e, q, c]) == pytest.approx((sims.max(1).mean() + sims.max(0).mean()) / 2, abs=1e-5)


def test_every_class_has_every_part_and_no_two_are_near():
    chosen = made_of()
    assert len(set(chosen)) == CLASSES
    assert all(sum(c) == TILES**2 and min(c) >= LEAST for c in chosen)
    assert (
        min(
            sum(abs(a - b) for a, b in zip(one, other, strict=True))
            for i, one in enumerate(chosen)
            for other in chosen[:i]
        )
        >= 10
    )
    with pytest.raises(UserError, match="divided in 3 ways, not 4"):
        compositions(4, 2, 4, least=1)


def coloured(classes=5, each=30):
    """Images of one colour a class."""
    labels = np.repeat(np.arange(classes), each)
    return ImageSet(
        dataset="coloured",
        split="test",
        variant="",
        classes=tuple("abcdefgh"[:classes]),
        labels=labels,
        names=tuple(f"{label}/{i}" for i, label in enumerate(labels)),
        read=lambda i: np.full((20, 24, 3), 40 * labels[i] + 10, np.uint8),
        fingerprint="coloured",
        published_classes=classes,
    )


def test_a_mosaic_has_the_tiles_that_its_class_says():
    found = mosaics(coloured())
    assert len(found) == CLASSES * PER_CLASS
    assert len(set(found.names)) == len(found)
    for i in (0, PER_CLASS - 1, PER_CLASS, len(found) - 1):
        image = found.read(i)
        assert image.shape == (TILES * SIDE, TILES * SIDE, 3)
        tiles = image.reshape(TILES, SIDE, TILES, SIDE, 3).transpose(0, 2, 1, 3, 4).reshape(TILES**2, -1)
        assert (tiles == tiles[:, :1]).all()
        counts = tuple(int((tiles[:, 0] == 40 * part + 10).sum()) for part in range(PARTS))
        assert counts == made_of()[found.labels[i]]
        assert np.array_equal(found.read(i), image)
    assert not np.array_equal(found.read(0), found.read(1))
    assert "positive control" in found.notes[-1]


def test_mosaics_are_the_same_on_every_machine():
    painted = hashlib.sha256(mosaics(coloured()).read(37).tobytes()).hexdigest()
    assert painted[:16] == "70671953c4f960ea"


def test_parts_that_cannot_be_had():
    with pytest.raises(UserError, match="no class 'z'"):
        mosaics(coloured(), ("a", "b", "c", "z"))
    with pytest.raises(UserError, match="has 24 images"):
        mosaics(coloured(each=24))
