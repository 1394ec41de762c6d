"""Questions about new photos: nothing of the labelled ones is done twice, and answers stay those of a plain call."""

import numpy as np
import pytest
import torch

from otfew import catalogue
from otfew.baselines import _sgd, frn, knn, logistic
from otfew.classifier.answering import Judge, takes_means
from otfew.classifier.holdouts import Photos, ask, means, padded
from otfew.method import shot_mean

SINGLY = sorted(
    name
    for name in catalogue.baselines()
    if not catalogue.find(name).transductive and not catalogue.find(name).needs_base_mean
)
WORK = {
    "logistic": (logistic, "fit_logistic"),
    "cosine-classifier": (_sgd, "fit"),
    "linear-classifier": (_sgd, "fit"),
    "frn": (frn, "_inverse"),
    "knn": (knn, "unit"),
}
"""What each does of labelled photos alone."""


def episode(short=False):
    generator = torch.Generator().manual_seed(0)
    support = torch.rand(1, 5, 4, 6, 32, generator=generator)
    mask = torch.ones(1, 5, 4, dtype=torch.bool)
    if short:
        mask[0, 1, 2:] = False
        support[~mask] = 0
    return support, mask, torch.rand(7, 6, 32, generator=generator)


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("name", SINGLY)
def test_answers_are_those_of_a_plain_call_bit_for_bit(name, short):
    support, mask, new = episode(short)
    method = catalogue.build(name)
    judge = Judge.of(method, support, mask)
    if method.pools:
        support, pooled = support.mean(-2, keepdim=True), new.mean(-2, keepdim=True)
    plain = method(support, (pooled if method.pools else new)[None], support_mask=mask if short else None)[0]
    for _ in range(2):
        torch.testing.assert_close(judge(new), plain, rtol=0, atol=0)
    # A photo alone is answered as one among others, but for the last bits of a product of another shape.
    torch.testing.assert_close(judge(new[:1]), plain[:1])


@pytest.mark.parametrize("name", WORK)
def test_labelled_photos_are_worked_through_once(name, monkeypatch):
    module, work = WORK[name]
    support, mask, new = episode()
    calls, original = [], getattr(module, work)

    def counted(nodes, *args, **kwargs):
        calls.append(nodes)
        return original(nodes, *args, **kwargs)

    monkeypatch.setattr(module, work, counted)
    judge = Judge.of(catalogue.build(name), support, mask)
    assert not calls  # a classifier that is fitted and only saved does not wait for it
    judge(new)
    assert len(calls) == 1
    judge(new)
    assert len(calls) == 1


def test_only_the_usual_head_of_deepemd_takes_means():
    assert takes_means(catalogue.build("deepemd"))
    assert takes_means(catalogue.build("deepemd-fcn"))
    assert not takes_means(catalogue.build("deepemd", shot_head="nn"))
    assert not takes_means(catalogue.build("cosine-nodes"))


def test_means_of_held_out_rounds_are_those_of_the_photos_laid_out():
    generator = torch.Generator().manual_seed(1)
    labels = np.array([2, 0, 1, 0, 2, 1, 1, 0, 2, 1])
    photos = Photos(torch.rand(10, 6, 32, generator=generator), labels, 3, np.arange(10))
    known = (0, 1, 2, 4, 5, 7, 9)  # two, two and three photos
    support, mask = padded(photos.nodes, labels, 3, known)
    assert mask is not None
    found = means(photos.nodes, labels, 3, known)
    torch.testing.assert_close(found[:, :, 0], shot_mean(support, mask))
    method = catalogue.build("deepemd")
    plain = method(support, photos.nodes[[3, 6, 8]][None], support_mask=mask)[0]
    np.testing.assert_allclose(ask(method, photos, known, (3, 6, 8)), plain.double().numpy(), rtol=1e-5)
