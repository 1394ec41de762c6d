import dataclasses
import os

import numpy as np
import pytest

from otfew.data import DataOptions, load
from otfew.data.class_lists import class_lists
from otfew.errors import UserError

OFFLINE = DataOptions(download=False)
FEAT = class_lists("cub-feat").classes
BIRDS = sorted(FEAT["train"][:3] + FEAT["val"][:2] + FEAT["test"][:4])


@pytest.fixture
def cub(tmp_path, write, picture):
    """Nine species with 1, 2, ... images, numbered as the publisher does."""
    base = tmp_path / "CUB_200_2011"
    rows = [(bird, f"{bird}/{k}.jpg") for i, bird in enumerate(BIRDS) for k in range(i + 1)]
    for seed, (_, path) in enumerate(rows):
        write(base / "images" / path, picture(seed, 20, 30))
    classes = {bird: str(i) for i, bird in enumerate(sorted(sum(FEAT.values(), ())), start=1)}
    (base / "classes.txt").write_text("".join(f"{i} {bird}\n" for bird, i in classes.items()))
    (base / "images.txt").write_text("".join(f"{i} {path}\n" for i, (_, path) in enumerate(rows, start=1)))
    (base / "image_class_labels.txt").write_text(
        "".join(f"{i} {classes[b]}\n" for i, (b, _) in enumerate(rows, start=1))
    )
    return tmp_path


@pytest.mark.parametrize("inside", [False, True])
def test_partial_set_under_the_feat_split(cub, inside):
    images = load("cub", "test", cub / "CUB_200_2011" if inside else cub, OFFLINE)
    assert images.classes == FEAT["test"][:4]
    assert images.variant == "feat"
    assert images.published_classes == 50
    counts = [BIRDS.index(bird) + 1 for bird in images.classes]
    assert np.bincount(images.labels).tolist() == counts
    assert images.notes == (f"partial: 4 of 50 classes, {sum(counts)} images",)
    assert images.names[0] == f"{images.classes[0]}/0.jpg"
    assert all(
        name.split("/")[0] == images.classes[label] for name, label in zip(images.names, images.labels, strict=True)
    )
    assert images.read(0).shape == (20, 30, 3)


def test_the_other_split_has_the_same_birds_elsewhere(cub):
    options = dataclasses.replace(OFFLINE, cub_split="closerlook")
    found = {}
    for split in ("train", "val", "test"):
        try:
            images = load("cub", split, cub, options)
        except UserError:
            continue
        assert set(images.classes) <= set(class_lists("cub-closerlook").classes[split])
        found |= dict.fromkeys(images.classes)
    assert sorted(found) == BIRDS


def test_bad_input(cub, tmp_path):
    with pytest.raises(UserError, match="feat, closerlook"):
        load("cub", "test", cub, dataclasses.replace(OFFLINE, cub_split="meta"))
    base = cub / "CUB_200_2011"
    (base / "classes.txt").write_text("1\n")
    with pytest.raises(UserError, match=r"classes\.txt is damaged"):
        load("cub", "test", cub, OFFLINE)
    (base / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"cannot read .*classes\.txt"):
        load("cub", "test", cub, OFFLINE)
    (base / "images.txt").unlink()
    with pytest.raises(UserError, match=r"not complete under .*images\.txt"):
        load("cub", "test", cub)  # never downloads over what is there


def test_an_empty_root(tmp_path):
    with pytest.raises(UserError) as error:
        load("cub", "test", tmp_path, OFFLINE)
    assert str(tmp_path / "CUB_200_2011") in str(error.value)


@pytest.mark.parametrize(
    ("cub_split", "species"), [("feat", (46, 32, 22)), ("closerlook", (44, 28, 28))], ids=["feat", "closerlook"]
)
def test_real_birds(otdata, cub_split, species):
    options = DataOptions(cub_split=cub_split, download=False)
    splits = [load("cub", split, otdata, options) for split in ("train", "val", "test")]
    total = sum(len(images) for images in splits)
    if total == 11_788:
        species, notes = (100, 50, 50), [()] * 3
    else:
        assert total == 5_902
        notes = [
            (f"partial: {n} of {images.published_classes} classes, {len(images):,} images",)
            for n, images in zip(species, splits, strict=True)
        ]
    assert tuple(len(images.classes) for images in splits) == species
    assert [images.notes for images in splits] == notes
    names = [name for images in splits for name in images.names]
    assert len(set(names)) == total
    image = splits[2].read(0)
    assert image.dtype == np.uint8
    assert image.shape[2] == 3


def test_a_list_that_is_a_pipe_is_refused(cub):
    path = cub / "CUB_200_2011" / "classes.txt"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"classes\.txt is a pipe"):
        load("cub", "test", cub, OFFLINE)
