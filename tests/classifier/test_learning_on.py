"""More photos, fewer classes: the same as fitting what is left at once, without extracting again."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from otfew import FewShotClassifier
from otfew.errors import UserError


class Counting(torch.nn.Module):
    """Pools, and counts the images that go through it."""

    def __init__(self):
        super().__init__()
        self.pool = torch.nn.AdaptiveAvgPool2d(2)
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return self.pool(images)


@pytest.fixture
def classifier(pools):
    backbone = pools.network()
    backbone.module = Counting()
    return FewShotClassifier(backbone, method="deepemd-fcn")


def same(one, other):
    """Whether two classifiers know the same."""
    a, b = one.labelled_, other.labelled_
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.classes, b.classes)
    np.testing.assert_array_equal(a.groups, b.groups)
    assert a.classes.dtype == b.classes.dtype
    assert [vars(p) | {"name": "", "drift": 0} for p in a.photos] == [
        vars(p) | {"name": "", "drift": 0} for p in b.photos
    ]
    np.testing.assert_array_equal(a.nodes, b.nodes)
    for name in ("support_", "support_mask_"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.groups_, other.groups_)
    np.testing.assert_array_equal(one.classes_, other.classes_)


def test_adding_is_fitting_all_at_once(classifier, pools):
    images, labels = pools.deck(4)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = [images[i] for i in order], [labels[i] for i in order]
    whole = clone(classifier).fit(images, labels)
    parts = clone(classifier).fit(images[:7], labels[:7])
    for start, stop in ((7, 8), (8, 12)):
        assert parts.add(images[start:stop], labels[start:stop]) is parts
    same(parts, whole)
    new = pools.deck(2, start=300)[0]
    np.testing.assert_array_equal(parts.predict_proba(new), whole.predict_proba(new))


def test_a_new_class_may_come_and_go(classifier, pools):
    images, labels = pools.deck(3)
    before = clone(classifier).fit(images, labels)
    changed = clone(classifier).fit(images, labels)
    grey = [np.clip(pools.picture("red", 90 + i) * 0 + 120 + 9 * i, 0, 255).astype(np.uint8) for i in range(2)]
    changed.add(grey, ["a much longer name", "a much longer name"])
    assert changed.classes_.tolist() == ["a much longer name", "blue", "green", "red"]
    assert changed.predict(grey).tolist() == ["a much longer name"] * 2
    assert changed.support_.shape[:3] == (1, 4, 3)
    changed.remove("a much longer name")
    np.testing.assert_array_equal(changed.labelled_.nodes, before.labelled_.nodes)
    np.testing.assert_array_equal(changed.decision_function(images), before.decision_function(images))
    assert changed.predict(images).tolist() == before.predict(images).tolist()


def test_nothing_is_extracted_again(classifier, pools):
    images, labels = pools.deck(4)
    classifier.set_params(method="cosine-centroid").fit(images, labels)
    module = classifier.backbone.module
    module.seen = 0
    classifier.remove("green")
    few = module.seen
    classifier.add(images[:1], labels[:1])
    # The new photo, and a probe or two, whole and middle, that came in where others went.
    assert few <= 2 * 10
    assert module.seen - few <= 1 + 2 * 2


def test_near_duplicates_of_what_is_known_are_found(classifier, pools):
    images = [pools.picture("red", 0, 80, 80), pools.picture("blue", 1, 80, 80), pools.picture("blue", 2, 80, 80)]
    classifier.fit(images, ["red", "blue", "blue"])
    classifier.add([images[2].copy(), pools.picture("red", 7, 80, 80)], ["blue", "red"])
    groups = classifier.labelled_.groups
    assert groups[2] == groups[3]
    assert (classifier.groups_ >= -1).all()
    assert (classifier.groups_ == -1).sum() == (~classifier.support_mask_).sum()


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        ([None], ["red"], "image 0 is None"),
        ([], [], "there are no images"),
        (["x.png"], ["red", "blue"], "1 images but 2 labels"),
        (["missing.png"], ["red"], "missing.png"),
        ([np.zeros((8, 8, 3), np.uint8)], [3], "give one kind"),
        ([np.zeros((8, 8, 3), np.uint8)], [None], "label 0 is missing"),
        (np.zeros((8, 8, 3), np.uint8), ["red"], "list of images"),
    ],
)
def test_what_cannot_be_added_leaves_all_as_it_was(classifier, pools, images, labels, said):
    known = classifier.fit(*pools.deck(2)).labelled_
    with pytest.raises(UserError, match=said):
        classifier.add(images, labels)
    assert classifier.labelled_ is known


def test_skipped_photos_are_listed_by_the_last_call(classifier, pools):
    classifier.set_params(on_error="skip").fit(*pools.deck(2))
    with pytest.warns(UserWarning, match="1 of 2 images"):
        classifier.add([None, pools.picture("red", 9)], ["red", "red"])
    assert len(classifier.labelled_) == 7
    assert [each.name for each in classifier.skipped_] == ["image 0"]
    classifier.remove("blue")
    assert classifier.skipped_ == ()


def test_whole_numbers_stay_whole_numbers(classifier, pools):
    images, _ = pools.deck(1)
    classifier.fit(images, np.array([2, 0, 1], np.int16)).add(images[:1], [70_000])
    assert classifier.classes_.tolist() == [0, 1, 2, 70_000]
    assert classifier.classes_.dtype.kind == "i"
    classifier.remove(1)
    assert classifier.classes_.tolist() == [0, 2, 70_000]
    objects = FewShotClassifier(pools.network(), method="protonet").fit(images, np.array(["a", "b", "c"], object))
    assert objects.add(images[:1], ["d"]).classes_.dtype == object


def test_two_classes_stay(classifier, pools):
    classifier.fit(*pools.deck(1))
    with pytest.raises(UserError, match=r"there is no class 'grey': there are blue, green, red\."):
        classifier.remove("grey")
    classifier.remove("green")
    known = classifier.labelled_
    with pytest.raises(UserError, match="name 1 class"):
        classifier.remove("red")
    assert classifier.labelled_ is known
    for ask in (lambda each: each.remove("a"), lambda each: each.add([], [])):
        with pytest.raises(NotFittedError):
            ask(clone(classifier))


def test_what_is_kept_of_some_photos(pools):
    images, labels = pools.deck(2)
    known = FewShotClassifier(pools.network(), method="protonet").fit(images, labels).labelled_
    part = known.keep([5, 0, 1])
    assert part.classes.tolist() == ["blue", "red"]
    assert part.labels.tolist() == [0, 1, 1]
    assert [photo.name for photo in part.photos] == ["image 5", "image 0", "image 1"]
    support, mask = part.episode()
    assert mask.tolist() == [[[True, False], [True, True]]]
    assert torch.equal(support[0, 0, 0], known.nodes[5])
    assert torch.equal(support[0, 1], known.nodes[:2])
    assert not support[0, 0, 1].any()
    assert len(known.keep(known.labels == 1)) == 2


def test_a_photo_is_remembered_small(classifier, pools, tmp_path):
    tall = pools.picture("red", 0, 900, 300)
    classifier.fit([tall, pools.picture("blue", 1), tall.astype(float) / 255], ["red", "blue", "red"])
    photo, small, floats = classifier.labelled_.photos
    assert photo.size == (900, 300)
    assert photo.picture().shape == (256, 85, 3)
    assert small.picture().shape == (12, 10, 3)
    assert np.abs(photo.picture().mean((0, 1)) - tall.mean((0, 1))).max() < 3
    assert photo.print == floats.print
    assert len(photo.thumbnail) < 25_000


def test_forgetting_photos_is_never_having_fitted_them(classifier, pools):
    images, labels = pools.deck(4)
    gone = {1, 5}
    left = [i for i in range(len(images)) if i not in gone]
    whole = clone(classifier).fit(images, labels)
    assert whole.forget(gone) is whole
    same(whole, clone(classifier).fit([images[i] for i in left], [labels[i] for i in left]))


def test_a_class_goes_with_its_last_photo(classifier, pools):
    images, labels = pools.deck(2)
    fitted = classifier.fit(images, labels)
    label = labels[0]
    fitted.forget([i for i, name in enumerate(labels) if name == label])
    assert label not in fitted.classes_.tolist()


def test_photos_that_cannot_be_forgotten_are_told(classifier, pools):
    with pytest.raises(NotFittedError):
        clone(classifier).forget([0])
    images, labels = pools.deck(2)
    fitted = classifier.fit(images, labels)
    for wrong in (-1, len(images)):
        with pytest.raises(UserError, match=f"no labelled photo {wrong}"):
            fitted.forget([wrong])
    with pytest.raises(UserError, match="fewer than two classes"):
        fitted.forget(range(1, len(images)))
    assert len(fitted.labelled_) == len(images)
