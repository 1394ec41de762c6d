import numpy as np
import pytest

from otfew.data import load
from otfew.data.class_lists import class_lists
from otfew.errors import UserError

SETS = ["miniimagenet", "tieredimagenet"]


def some(dataset, count=3):
    return {split: names[:count] for split, names in class_lists(dataset).classes.items()}


def check(dataset, root, images=2):
    for split, names in some(dataset).items():
        found = load(dataset, split, root)
        assert found.classes == names
        assert np.bincount(found.labels).tolist() == [images] * 3
        published = len(class_lists(dataset).classes[split])
        assert found.published_classes == published
        assert found.notes == (f"partial: 3 of {published} classes, {3 * images} images",)
        assert found.read(0).shape == (12, 16, 3)
        for name, label in zip(found.names, found.labels, strict=True):
            assert names[label] in name


@pytest.mark.parametrize("dataset", SETS)
@pytest.mark.parametrize("where", ["", "NAME", "Mixed_Case"])
@pytest.mark.parametrize("layout", ["SPLIT/CLASS", "images/SPLIT/CLASS", "images/CLASS", "CLASS"])
def test_folders_of_classes(tmp_path, class_folders, dataset, where, layout):
    base = tmp_path / {"": "", "NAME": dataset, "Mixed_Case": dataset.replace("imagenet", "-ImageNet")}[where]
    for split, names in some(dataset).items():
        folder = base / layout.replace("SPLIT", split).replace("CLASS", "")
        class_folders(folder, names)
    check(dataset, tmp_path)


@pytest.mark.parametrize("dataset", SETS)
@pytest.mark.parametrize("lists", ["", "split"])
@pytest.mark.parametrize("nested", [False, True])
def test_csv_lists(tmp_path, write, dataset, lists, nested):
    base = tmp_path / dataset
    (base / lists).mkdir(parents=True)
    for split, names in some(dataset).items():
        rows = ["filename,label"]
        for name in names:
            for k in range(2):
                write(base / "images" / (name if nested else "") / f"{name}{k}.jpg")
                rows.append(f"{name}{k}.jpg,{name}")
        (base / lists / f"{split}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8-sig")
    check(dataset, tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,class\na.jpg,b\n", "filename and label"),
        ("filename,label\n../../a.jpg,n01532829\n", "below images/"),
        ("filename,label\n/a.jpg,n01532829\n", "below images/"),
        ("filename,label\na.jpg\n", "below images/"),
        ("filename,label\n", "holds no image"),
        ("filename,label\ngone.jpg,n01532829\n", "holds no image"),
        ("filename,label\na.jpg,house_finch\n", "holds no image"),
    ],
)
def test_bad_lists(tmp_path, write, text, says):
    write(tmp_path / "images" / "a.jpg")
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(UserError, match=says):
        load("miniimagenet", "train", tmp_path)


def test_a_class_of_another_split_is_refused(tmp_path, class_folders):
    names = class_lists("miniimagenet").classes
    class_folders(tmp_path / "test", [*names["test"][:2], names["train"][0]])
    with pytest.raises(UserError, match=names["train"][0]):
        load("miniimagenet", "test", tmp_path)


@pytest.mark.parametrize("dataset", SETS)
def test_an_empty_root_says_what_to_put_where(tmp_path, dataset):
    with pytest.raises(UserError, match="cannot be downloaded by program") as error:
        load(dataset, "test", tmp_path)
    assert str(tmp_path / dataset) in str(error.value)


def test_a_giant_list_is_refused(tmp_path, write):
    write(tmp_path / "images" / "a.jpg")
    with (tmp_path / "train.csv").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match=r"train\.csv has 1,099,511,627,776 bytes or more"):
        load("miniimagenet", "train", tmp_path)
