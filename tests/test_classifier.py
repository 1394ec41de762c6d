"""The scikit-learn style classifier, on pictures that a pooled mean tells apart."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from otfew import catalogue
from otfew.backbones.base import Backbone, Card
from otfew.classifier import FewShotClassifier
from otfew.data import load
from otfew.errors import UserError

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def backbone():
    pool = torch.nn.AdaptiveAvgPool2d(2)
    return Backbone(pool, Card("pool", "pool", resolution=8, mean=(0, 0, 0), std=(1, 1, 1)), "pool")


def picture(name, seed):
    noise = np.random.default_rng(seed).integers(-25, 26, (12, 10, 3))
    return np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def fitted():
    labels = ["red", "green", "green", "green", "blue", "blue"]
    images = [picture(label, i) for i, label in enumerate(labels)]
    return FewShotClassifier(backbone(), method="cosine-centroid").fit(images, labels)


NEW = ["blue", "red", "green", "red", "blue"]


def new():
    return [picture(label, 100 + i) for i, label in enumerate(NEW)]


def test_uneven_shots_and_several_batches(fitted):
    assert fitted.classes_.tolist() == ["blue", "green", "red"]
    assert fitted.support_mask_.sum(-1).tolist() == [[2, 3, 1]]
    fitted.set_params(batch_size=2)
    assert fitted.predict(new()).tolist() == NEW
    assert fitted.score(new(), NEW) == 1


@pytest.mark.parametrize("method", ["deepemd-fcn", "protonet", "cr-pooled", "logistic"])
def test_any_method_runs(method):
    labels = ["red", "green", "green", "blue"]
    images = [picture(label, i) for i, label in enumerate(labels)]
    classifier = FewShotClassifier(backbone(), method=method).fit(images, labels)
    # Cross-reference costs of centred constant pictures say nothing: only shapes are asked of deepemd.
    answers = classifier.predict(new())
    assert answers.shape == (5,)
    if method != "deepemd-fcn":
        assert answers.tolist() == NEW


@pytest.mark.parametrize("method", sorted(catalogue.methods()))
@pytest.mark.parametrize("kind", ["fcn:2,1", "grid:2,3", "sampling:3"])
def test_any_method_runs_on_any_nodes(method, kind):
    options = {"base_mean": torch.full((3,), 0.3)} if catalogue.find(method).needs_base_mean else {}
    labels = ["red", "green", "green", "blue"]
    images = [picture(label, i) for i, label in enumerate(labels)]
    classifier = FewShotClassifier(backbone(), method=method, nodes=kind, options=options).fit(images, labels)
    assert classifier.support_.shape == (1, 3, 2, {"fcn:2,1": 9, "grid:2,3": 13, "sampling:3": 3}[kind], 3)
    assert np.isfinite(classifier.decision_function(new())).all()


@pytest.mark.parametrize(("method", "count"), [("deepemd-fcn", 4), ("deepemd-grid", 13), ("deepemd-sampling", 9)])
def test_a_method_gets_the_nodes_that_it_prefers(method, count):
    classifier = FewShotClassifier(backbone(), method=method).fit([picture("red", 0), picture("blue", 1)], ["r", "b"])
    assert classifier.support_.shape == (1, 2, 1, count, 3)


def test_random_crops_do_not_depend_on_the_place_among_other_images(tmp_path):
    images = [picture(label, i) for i, label in enumerate(COLOURS)]
    classifier = FewShotClassifier(backbone(), method="fusion", nodes="sampling:3").fit(images, list(COLOURS))
    path = tmp_path / "new.png"
    cv2.imwrite(str(path), new()[2][:, :, ::-1])
    scores = classifier.decision_function(new())
    np.testing.assert_allclose(classifier.decision_function(new()[::-1]), scores[::-1], rtol=1e-6)
    np.testing.assert_allclose(classifier.decision_function([path]), scores[2:3], rtol=1e-6)


def test_an_image_too_small_for_its_patches_is_named():
    classifier = FewShotClassifier(backbone(), method="protonet", nodes="grid:2,11")
    with pytest.raises(UserError, match=r"image 1: nodes 'grid:2,11' cut 11 cells .* 12 x 10 pixels"):
        classifier.fit([np.zeros((20, 20, 3), np.uint8), picture("red", 0)], ["a", "b"])


def test_padding_of_short_classes_changes_nothing():
    # The class with one shot must be what it is among classes of one shot each.
    labels = ["red", "green", "blue"]
    images = [picture(label, i) for i, label in enumerate(labels)]
    even = FewShotClassifier(backbone(), method="protonet").fit(images, labels)
    more = FewShotClassifier(backbone(), method="protonet").fit([*images, picture("blue", 50)], [*labels, "blue"])
    np.testing.assert_allclose(even.decision_function(new())[:, 1:], more.decision_function(new())[:, 1:], rtol=1e-6)


def test_probabilities_sum_to_one_and_agree(fitted):
    probabilities = fitted.predict_proba(new())
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert fitted.classes_[probabilities.argmax(1)].tolist() == fitted.predict(new()).tolist()


def test_kinds_of_images_agree(fitted, tmp_path):
    array = picture("red", 7)
    path = tmp_path / "red.png"
    cv2.imwrite(str(path), array[:, :, ::-1])
    tensor = torch.from_numpy(array).permute(2, 0, 1).float() / 255
    pil = Image.fromarray(array)
    logits = fitted.decision_function(
        [array, path, str(path), path.read_bytes(), tensor, array.astype(np.float64) / 255, pil, pil.convert("RGBA")]
    )
    # Resizing rounds bytes, but not floats.
    np.testing.assert_allclose(logits, np.broadcast_to(logits[:1], logits.shape), atol=1e-2)


def test_a_folder_of_class_folders(tmp_path):
    for i, label in enumerate(["red", "green", "green", "blue"]):
        (tmp_path / label).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / label / f"{i}.png"), picture(label, i)[:, :, ::-1])
    (tmp_path / "red" / "notes.txt").write_text("not an image")
    classifier = FewShotClassifier(backbone(), method="cosine-centroid").fit_folder(tmp_path)
    assert classifier.predict(new()).tolist() == NEW


def coloured(folder, name="1.png", label="red"):
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / name), picture(label, 0)[:, :, ::-1])


def test_a_folder_is_read_as_the_data_set_reads_it(tmp_path):
    coloured(tmp_path / "red" / "2024" / "holiday")
    coloured(tmp_path / "e\u0301te", label="green")  # decomposed, as macOS writes it
    for left in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "red/__MACOSX"):
        coloured(tmp_path / left, label="blue")
    for left in ("red/._1.png", "red/Thumbs.db", "red/desktop.ini", "red/.hidden.jpg"):
        (tmp_path / left).write_bytes(b"\0\5\x16\7")
    (tmp_path / "red" / "2.heic").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    with pytest.warns(UserWarning, match="1 folders without images|1 .heic") as warned:
        classifier = FewShotClassifier(backbone(), method="cosine-centroid").fit_folder(tmp_path)
    images = load("image-folder", "test", tmp_path)
    assert tuple(classifier.classes_) == images.classes == ("red", "\xe9te")
    assert images.names == ("red/2024/holiday/1.png", "\xe9te/1.png")
    assert classifier.support_mask_.sum() == len(images) == 2
    assert [note in str(each.message) for each, note in zip(warned, images.notes[1:], strict=True)] == [True, True]


def test_a_folder_of_splits_is_no_folder_of_classes(tmp_path):
    for split in ("train", "test"):
        for label in COLOURS:
            coloured(tmp_path / split / label, label=label)
    with pytest.raises(UserError, match=r"train, test: give .*train\.$"):
        FewShotClassifier(backbone()).fit_folder(tmp_path)


def test_what_is_no_image_in_a_folder_is_named(tmp_path):
    coloured(tmp_path / "a")
    coloured(tmp_path / "b")
    (tmp_path / "b" / "2.jpg").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"b/2\.jpg is not a complete image"):
        FewShotClassifier(backbone(), method="cosine-centroid").fit_folder(tmp_path)


def test_sklearn_conventions():
    classifier = FewShotClassifier(method="protonet", crop="center")
    assert classifier.get_params()["crop"] == "center"
    assert clone(classifier).get_params() == classifier.get_params()
    with pytest.raises(NotFittedError):
        classifier.predict(new())


def test_no_images_no_answers(fitted):
    assert fitted.predict([]).shape == (0,)


NAN = np.full((8, 8, 3), np.nan)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (NAN, "image 1 holds a NaN"),
        (torch.full((3, 8, 8), torch.inf), "image 1 holds"),
        (np.full((8, 8, 3), 200.0), "image 1 has values outside"),
        (np.zeros((8, 8, 5), np.uint8), "image 1 has shape"),
        (np.zeros((0, 8, 3), np.uint8), "image 1 has shape"),
        (np.zeros((8, 8, 3), np.int64), "image 1 is int64"),
        ("missing.png", "missing.png"),
    ],
)
def test_an_image_that_cannot_be_used_is_named(fitted, image, said):
    with pytest.raises(UserError, match=said) as caught:
        fitted.predict([picture("red", 0), image])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("images", "labels"), [(2, ["a"]), (2, ["a", "a"]), (0, []), (2, [["a", "b"], ["a", "b"]])])
def test_labels_that_make_no_sense_are_refused(images, labels):
    with pytest.raises(UserError):
        FewShotClassifier(backbone()).fit([picture("red", 0)] * images, labels)


@pytest.mark.parametrize("changes", [{"method": "protnet"}, {"nodes": "x"}, {"crop": "x"}, {"options": {"x": 1}}])
def test_wrong_settings_are_refused_in_fit(changes):
    settings = {"method": "protonet", **changes}
    with pytest.raises(UserError):
        FewShotClassifier(backbone(), **settings).fit(new()[:2], NEW[:2])


@pytest.mark.parametrize("made", [False, True])
def test_missing_and_empty_folders_are_refused(tmp_path, made):
    folder = tmp_path / "birds"
    if made:
        folder.mkdir()
    with pytest.raises(UserError, match="birds"):
        FewShotClassifier(backbone()).fit_folder(folder)


def test_catalogue_suggests_near_names():
    with pytest.raises(UserError, match=r"did you mean protonet"):
        catalogue.build("protonett")
    with pytest.raises(UserError, match="no option 'temprature'"):
        catalogue.build("protonet", temprature=1.0)
    with pytest.raises(UserError, match="needs base_mean"):
        catalogue.build("simpleshot")


def test_every_method_has_its_own_name():
    table = catalogue.methods()
    assert set(table) == set(catalogue.ot_methods()) | set(catalogue.baselines())
    assert not set(catalogue.ot_methods()) & set(catalogue.baselines())
    for name, kind in table.items():
        assert kind.name == name
        assert kind.preset_of in {"", *table}
