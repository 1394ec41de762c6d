import json
from importlib.resources import files

import pytest

from otfew.data.base import SPLITS
from otfew.data.class_lists import class_lists, parse_class_lists

PUBLISHED = {
    "cifar-fs": (64, 16, 20),
    "fc100": (60, 20, 20),
    "cub-feat": (100, 50, 50),
    "cub-closerlook": (100, 50, 50),
    "miniimagenet": (64, 16, 20),
    "tieredimagenet": (351, 97, 160),
    "omniglot-vinyals": (1028, 172, 423),
}


def everything(name):
    return [c for split in SPLITS for c in class_lists(name).classes[split]]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_and_disjointness(name):
    lists = class_lists(name)
    assert tuple(len(lists.classes[split]) for split in SPLITS) == PUBLISHED[name]
    assert len(set(everything(name))) == sum(PUBLISHED[name])
    assert "20" in lists.source


def test_closer_look_follows_its_rule():
    birds = sorted(everything("cub-closerlook"))
    assert birds == sorted(everything("cub-feat"))
    lists = class_lists("cub-closerlook").classes
    assert lists == {
        "train": tuple(birds[0::2]),
        "val": tuple(birds[1::4]),
        "test": tuple(birds[3::4]),
    }


def test_fc100_keeps_superclasses_whole():
    record = json.loads(files("otfew.data").joinpath("splits", "cifar100-superclasses.json").read_text())
    groups = [set(group) for group in record["superclasses"].values()]
    assert sorted(everything("fc100")) == sorted(everything("cifar-fs")) == sorted(set().union(*groups))
    whole = [sum(group <= set(class_lists("fc100").classes[split]) for group in groups) for split in SPLITS]
    assert whole == [12, 4, 4]


@pytest.mark.parametrize(
    "change",
    [{"test": ["a"]}, {"test": ["c", "d"]}, {"val": ["b", "b"], "counts": {"train": 1, "val": 2, "test": 1}}],
    ids=["overlap", "count", "twice"],
)
def test_damaged_lists_are_refused(change):
    record = {
        "source": "nobody 2000",
        "counts": {"train": 1, "val": 1, "test": 1},
        "train": ["a"],
        "val": ["b"],
        "test": ["c"],
    }
    assert parse_class_lists("x", record).classes == {"train": ("a",), "val": ("b",), "test": ("c",)}
    with pytest.raises(ValueError, match="split file x"):
        parse_class_lists("x", record | change)
