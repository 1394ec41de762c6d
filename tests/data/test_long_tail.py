import math
import pickle
import random

import numpy as np
import pytest

from otfew.data.base import ImageSet
from otfew.data.long_tail import FACTORS, class_sizes, draw, subset
from otfew.data.long_tail_sources import load
from otfew.errors import UserError

NAMES = [f"class{i}" for i in range(10)]


def shuffled_labels(classes, each, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), each))


# Largest and smallest class and the total, as published for these factors.
PUBLISHED = {
    (10, 200): (4990, 24, 11_177),
    (10, 100): (4990, 49, 12_380),
    (10, 50): (4990, 99, 13_967),
    (10, 20): (4990, 249, 16_989),
    (100, 200): (490, 2, 9_304),
    (100, 100): (490, 4, 10_626),
    (100, 50): (490, 9, 12_354),
    (100, 20): (490, 24, 15_594),
}


@pytest.mark.parametrize(("classes", "factor"), PUBLISHED)
def test_published_class_sizes(classes, factor):
    assert factor in FACTORS
    sizes = class_sizes([50_000 // classes - 10] * classes, factor)
    assert (sizes[0], sizes[-1], sum(sizes)) == PUBLISHED[classes, factor]
    assert sizes == sorted(sizes, reverse=True)


def test_uneven_classes_are_ranked_by_size_and_the_largest_possible_tail_is_kept():
    available = [7, 100, 40, 100]
    sizes = class_sizes(available, 10)
    # The smallest class binds: 7 = floor(n_max / 10) holds up to n_max = 79.
    assert sizes == [7, 79, 17, 36]
    assert all(size <= there for size, there in zip(sizes, available, strict=True))


def published_draw(labels, classes, factor, meta):
    """The published construction in its own order of steps, on the global generators."""
    state, other = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(6)  # noqa: NPY002
    kept, chosen = [], []
    for label in range(classes):
        rows = [i for i, found in enumerate(labels) if found == label]
        np.random.shuffle(rows)  # noqa: NPY002
        chosen += rows[:meta]
    rest = [i for i in range(len(labels)) if i not in set(chosen)]
    random.seed(42)
    most = len(labels) / classes - meta
    for label in range(classes):
        places = [i for i, row in enumerate(rest) if labels[row] == label]
        random.shuffle(places)
        kept += [rest[i] for i in places[: int(most * (1 / factor) ** (label / (classes - 1.0)))]]
    np.random.set_state(state)  # noqa: NPY002
    random.setstate(other)
    return sorted(kept), sorted(chosen)


@pytest.mark.parametrize("factor", [1, 20, 50])
def test_the_draw_is_the_published_one(factor):
    labels = shuffled_labels(10, 110)
    drawn = draw(labels, NAMES, factor, meta=10, validation=0)
    train, meta = published_draw(labels.tolist(), 10, factor, 10)
    assert drawn.train.tolist() == train
    assert drawn.meta.tolist() == meta
    assert len(drawn.validation) == 0


def test_validation_takes_what_is_unused_and_only_large_classes_give_up_images():
    labels = shuffled_labels(10, 110)
    whole, drawn = (draw(labels, NAMES, 20, validation=v) for v in (0, 30))
    assert np.bincount(labels[drawn.validation]).tolist() == [30] * 10
    assert np.bincount(labels[drawn.meta]).tolist() == [10] * 10
    parts = np.concatenate([drawn.train, drawn.meta, drawn.validation])
    assert len(set(parts.tolist())) == len(parts)
    assert drawn.meta.tolist() == whole.meta.tolist()
    assert set(drawn.train.tolist()) <= set(whole.train.tolist())
    assert drawn.counts.tolist() == np.minimum(whole.counts, 100 - 30).tolist()
    assert drawn.counts.tolist() == np.bincount(labels[drawn.train]).tolist()


def test_images_of_a_curve_are_left_over_and_change_no_other_part():
    labels = shuffled_labels(10, 110)
    plain, drawn = (draw(labels, NAMES, 20, validation=10, curve=c) for c in (0, 25))
    assert len(plain.curve) == 0
    for name in ("train", "meta", "validation", "counts"):
        assert getattr(drawn, name).tolist() == getattr(plain, name).tolist()
    parts = np.concatenate([drawn.train, drawn.meta, drawn.validation, drawn.curve])
    assert len(set(parts.tolist())) == len(parts)
    # Of the largest class nothing is left.
    left = 110 - 10 - 10 - drawn.counts
    assert left[0] == 0
    assert np.bincount(labels[drawn.curve], minlength=10).tolist() == np.minimum(left, 25).tolist()
    with pytest.raises(UserError, match="curve images a class must be at least 0, not -1"):
        draw(labels, NAMES, 20, curve=-1)


def test_seeds_change_what_is_drawn():
    labels = shuffled_labels(10, 110)
    first = draw(labels, NAMES, 20)
    other_meta, other_subset = draw(labels, NAMES, 20, meta_seed=7), draw(labels, NAMES, 20, subset_seed=43)
    assert other_meta.meta.tolist() != first.meta.tolist()
    assert other_subset.meta.tolist() == first.meta.tolist()
    assert other_subset.train.tolist() != first.train.tolist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"factor": 0.5}, "at least 1, not 0.5"),
        ({"factor": math.nan}, "at least 1, not nan"),
        ({"factor": math.inf}, "at least 1, not inf"),
        ({"factor": 1e6}, "leaves a class without a training image"),
        ({"factor": 2, "meta": 50}, "50 meta images a class are asked, but class 'class0' has 50"),
        ({"factor": 2, "meta": 0}, "at least 1 meta image"),
        ({"factor": 2, "validation": 40}, "too few for 10 meta, 40 validation"),
        ({"factor": 2, "validation": -1}, "at least 0, not -1"),
    ],
)
def test_draws_that_cannot_be(options, said):
    with pytest.raises(UserError, match=said):
        draw(shuffled_labels(10, 50), NAMES, **options)


def test_a_class_without_images():
    with pytest.raises(UserError, match="class 'class9' has no images"):
        draw(shuffled_labels(9, 50), NAMES, 2)


def test_a_part_reads_its_own_images():
    whole = ImageSet("d", "train", "", ("a", "b"), np.array([0, 1, 0, 1]), tuple("wxyz"), lambda i: i, "f", 2)
    part = subset(whole, np.array([3, 0]), "tail")
    assert [part.read(i) for i in range(2)] == [3, 0]
    assert part.names == ("z", "w")
    assert part.labels.tolist() == [1, 0]
    assert (part.classes, part.variant) == (("a", "b"), "tail")
    assert part.fingerprint != subset(whole, np.array([0, 3]), "tail").fingerprint


def test_a_folder_with_its_own_test_part(tmp_path, class_folders):
    class_folders(tmp_path / "train", ["a", "b"], 5)
    class_folders(tmp_path / "test", ["b", "a"], 3)
    train, test = load("image-folder", tmp_path)
    assert train.classes == test.classes == ("a", "b")
    assert np.bincount(train.labels).tolist() == [5, 5]
    assert np.bincount(test.labels).tolist() == [3, 3]
    class_folders(tmp_path / "test", ["c"], 3)
    with pytest.raises(UserError, match="must have the same classes, but 'c'"):
        load("image-folder", tmp_path)


def test_a_folder_whose_test_part_is_drawn(tmp_path, class_folders):
    class_folders(tmp_path, ["a", "b"], 10)
    train, test = load("image-folder", tmp_path)
    assert np.bincount(test.labels).tolist() == [2, 2]
    assert sorted((*train.names, *test.names)) == sorted(f"{c}/{i}.png" for c in "ab" for i in range(10))
    assert test.notes == ("test images drawn: 20% of each class",)
    class_folders(tmp_path, ["c"], 1)
    with pytest.raises(UserError, match="single image"):
        load("image-folder", tmp_path)


def test_mistakes_of_place(tmp_path):
    with pytest.raises(UserError, match="unknown data set 'mnist'"):
        load("mnist", tmp_path)
    with pytest.raises(UserError, match="not a folder"):
        load("cifar100", tmp_path / "nowhere")
    with pytest.raises(UserError, match="no class folders"):
        load("image-folder", tmp_path)
    for name in ("cifar10", "cifar100"):
        with pytest.raises(UserError, match="not complete"):
            load(name, tmp_path, download=False)


def make_cifar100(root, labels):
    base = root / "cifar-100-python"
    base.mkdir(parents=True)
    for part in ("train", "test"):
        data = np.zeros((len(labels), 3072), np.uint8)
        data[:, 0] = np.arange(len(labels))
        record = {
            b"data": data,
            b"fine_labels": list(labels),
            b"filenames": [f"x_{i:06d}.png".encode() for i in range(len(labels))],
        }
        (base / part).write_bytes(pickle.dumps(record, protocol=2))
    (base / "meta").write_bytes(pickle.dumps({b"fine_label_names": [f"c{i}".encode() for i in range(3)]}, protocol=2))


def test_rows_stay_in_their_publishers_order_and_sorted_ones_are_announced(tmp_path):
    make_cifar100(tmp_path / "a", [2, 0, 1, 0])
    make_cifar100(tmp_path / "b", [0, 0, 1, 2])
    (train, test), (ordered, _) = (load("cifar100", tmp_path / folder) for folder in "ab")
    assert train.labels.tolist() == [2, 0, 1, 0]
    assert [train.read(i)[0, 0, 0] for i in range(4)] == [0, 1, 2, 3]
    assert train.names[0] == "train/c2/x_000000"
    assert test.names[0] == "test/c2/x_000000"
    assert not any("sorted by class" in note for note in (*train.notes, *test.notes))
    assert any("sorted by class" in note for note in ordered.notes)


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_real_images(otdata, name, classes):
    train, test = load(name, otdata, download=False)
    assert np.bincount(train.labels).tolist() == [50_000 // classes] * classes
    assert np.bincount(test.labels).tolist() == [10_000 // classes] * classes
    drawn = draw(train.labels, train.classes, 100, validation=0)
    assert len(drawn.train) == PUBLISHED[classes, 100][2]
