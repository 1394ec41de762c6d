import numpy as np
import pytest
import torch

from otfew.data.base import ImageSet
from otfew.errors import UserError
from otfew.training import validation


def images(classes, each):
    labels = np.repeat(np.arange(classes), each)
    names = tuple(str(i) for i in range(len(labels)))
    return ImageSet(
        "made", "val", "", tuple(f"c{i}" for i in range(classes)), labels, names, lambda _: None, "", classes
    )


def test_accuracy_against_a_loop():
    torch.manual_seed(0)
    made = images(7, 9)
    vectors = torch.randn(63, 5) + torch.randn(7, 5).repeat_interleave(9, 0)
    prepared = validation.prepare(made, torch.zeros(63, 3, 4, 4, dtype=torch.uint8), 12)
    assert prepared.protocol.query == 8
    episodes = prepared.episodes
    each = []
    for i in range(12):
        right = []
        for c in range(5):
            for q in episodes.query[i, c]:
                scores = [
                    float(vectors[q] @ vectors[s] / vectors[q].norm() / vectors[s].norm())
                    for s in episodes.support[i, :, 0]
                ]
                right.append(int(np.argmax(scores)) == c)
        each.append(100 * np.mean(right))
    mean, interval = validation.episode_accuracy(vectors, episodes)
    assert mean == pytest.approx(np.mean(each))
    assert interval == pytest.approx(1.96 * np.std(each, ddof=1) / np.sqrt(12))


def test_maps_are_averaged_and_batches_do_not_matter():
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (40, 3, 6, 6), dtype=torch.uint8)
    prepared = validation.prepare(images(5, 8), pixels, 10)
    expected = validation.episode_accuracy(pixels.float().mean((2, 3)), prepared.episodes)
    assert prepared.accuracy(lambda part: part.float()) == expected
    assert prepared.accuracy(lambda part: part.float(), batch_size=7) == expected


def test_small_splits_shrink_the_episode():
    pixels = torch.zeros(9, 3, 2, 2, dtype=torch.uint8)
    prepared = validation.prepare(images(3, 3), pixels, 2)
    assert (prepared.protocol.way, prepared.protocol.query) == (3, 2)


@pytest.mark.parametrize(("classes", "each"), [(1, 20), (5, 1)])
def test_too_small_to_validate(classes, each):
    with pytest.raises(UserError):
        validation.prepare(images(classes, each), torch.zeros(classes * each, 3, 2, 2, dtype=torch.uint8), 2)
