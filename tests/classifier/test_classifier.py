"""The scikit-learn style classifier, on pictures that a pooled mean tells apart."""

import copy
import pickle
import re
from pathlib import Path

import cv2
import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted

from otfew import catalogue, devices
from otfew.backbones import ARCHITECTURES, of_module, weights
from otfew.backbones.base import Backbone, Card
from otfew.classifier.embedder import placed
from otfew.classifier.few_shot import FewShotClassifier
from otfew.data import load
from otfew.errors import UserError
from otfew.method import MethodBase

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


@pytest.mark.parametrize("method", ["deepemd-fcn", "deepemd-grid", "cosine-centroid", "protonet", "fusion"])
@pytest.mark.parametrize("counts", [(2, 2), (3, 1)])
def test_what_is_prepared_once_changes_no_answer(method, counts):
    """Against the method on all that is known, asked anew; averages may be taken in another order."""
    labels = ["red"] * counts[0] + ["blue"] * counts[1]
    classifier = FewShotClassifier(backbone(), method=method).fit([picture(y, i) for i, y in enumerate(labels)], labels)
    copied = FewShotClassifier(backbone(), method=method).fit(new(), range(5))
    mask = None if classifier.support_mask_.all() else classifier.support_mask_
    logits = classifier.method_(classifier.support_, copied.support_[:, :, 0], support_mask=mask)[0].double().numpy()
    expected = logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(classifier.decision_function(new()), expected, rtol=1e-3, atol=2e-3)


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
    (tmp_path / "red" / "2.avif").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    with pytest.warns(UserWarning, match="1 folders without images|1 .avif") as warned:
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
        (None, "image 1 is None"),
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


def test_labels_that_name_no_class_are_refused():
    for labels in (["a", None], ["a", np.nan], [0.5, 1.5], [np.nan, 1.0], np.array([[0], [1]])):
        with pytest.raises(UserError, match="label"):
            FewShotClassifier(backbone(), method="cosine-centroid").fit(new()[:2], labels)


@pytest.mark.parametrize(("images", "labels"), [(3, 2), (2, 3), (0, 2)])
def test_an_iterator_must_have_an_image_for_each_label(images, labels):
    with pytest.raises(UserError, match=f"{images} images but {labels} labels"):
        FewShotClassifier(backbone(), method="protonet").fit(iter(new()[:images]), NEW[:labels])


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "protnet"},
        {"method": None},
        {"method": 3},
        {"method": catalogue.find("protonet")},
        {"method": lambda support, query, **_: query},
        {"nodes": "x"},
        {"nodes": 3},
        {"crop": "x"},
        {"crop": None},
        {"options": {"x": 1}},
        {"options": {3: 1}},
        {"options": "temperature"},
        {"method": catalogue.build("protonet"), "options": {"x": 1}},
        {"batch_size": 0},
        {"batch_size": -1},
        {"batch_size": 2.5},
        {"resolution": 0},
        {"resolution": "84"},
        {"device": "meta"},
        {"device": "nonsense"},
        {"backbone": 3},
        {"backbone": "no-such-backbone"},
        {"backbone": torch.nn.LazyConv2d(3, 2)},
    ],
    ids=lambda options: re.sub(r" at 0x\w+", "", str(options)),  # workers must agree on names
)
def test_wrong_settings_are_refused_in_fit(changes):
    settings = {"backbone": backbone(), "method": "protonet", **changes}
    with pytest.raises(UserError) as caught:
        FewShotClassifier(**settings).fit(new()[:2], NEW[:2])
    assert "\n" not in str(caught.value)


def test_a_batch_size_that_makes_no_sense_is_refused_in_predict_too(fitted):
    # A negative one used to answer for no image at all.
    with pytest.raises(UserError, match="batch_size is -1"):
        fitted.set_params(batch_size=-1).predict(new())


def test_a_fit_that_fails_leaves_the_last_one_as_it_was(fitted):
    before = fitted.decision_function(new())
    with pytest.raises(UserError):
        fitted.fit([new()[0], None], ["a", "b"])
    np.testing.assert_array_equal(fitted.decision_function(new()), before)
    unfitted = FewShotClassifier(backbone(), method="protonet")
    with pytest.raises(UserError):
        unfitted.fit([new()[0], None], ["a", "b"])
    with pytest.raises(NotFittedError):
        check_is_fitted(unfitted)


def test_settings_of_images_are_those_of_fit(fitted):
    before = fitted.decision_function(new())
    np.testing.assert_array_equal(fitted.set_params(resolution=4, nodes="grid:2").decision_function(new()), before)


def one(kind):
    array = picture("red", 0)
    return {
        "array": array,
        "grey": array[:, :, 0],
        "tensor": torch.from_numpy(array).permute(2, 0, 1),
        "pil": Image.fromarray(array),
        "str": "birds/one.jpg",
        "path": Path("birds/one.jpg"),
    }[kind]


@pytest.mark.parametrize("kind", ["array", "grey", "tensor", "pil", "str", "path"])
@pytest.mark.parametrize("ask", ["predict", "predict_proba", "decision_function"])
def test_one_image_in_place_of_a_list_is_refused(fitted, kind, ask):
    with pytest.raises(UserError, match="list of images"):
        getattr(fitted, ask)(one(kind))
    with pytest.raises(UserError, match="list of images"):
        fitted.fit(one(kind), ["a", "b"])


def test_arrays_of_images_are_lists_of_them(fitted):
    expected = fitted.decision_function(new())
    stacked = np.stack(new())
    np.testing.assert_array_equal(fitted.decision_function(stacked), expected)
    np.testing.assert_array_equal(fitted.decision_function(torch.from_numpy(stacked).permute(0, 3, 1, 2)), expected)
    np.testing.assert_array_equal(fitted.decision_function(image for image in new()), expected)


def deck(count=24):
    """Pictures with the colour of each, in an order that is not that of their classes."""
    labels = np.resize(list(COLOURS), count)
    return [picture(label, i) for i, label in enumerate(labels)], labels


@pytest.mark.parametrize("seed", range(3))
def test_a_shuffled_or_filtered_column_keeps_its_labels(seed):
    pd = pytest.importorskip("pandas")
    images, labels = deck()
    table = pd.DataFrame({"image": images, "label": labels})
    shuffled = table.sample(frac=1, random_state=seed)
    for part in (shuffled, shuffled[shuffled.label != "blue"], shuffled.set_index("label", drop=False)):
        classifier = FewShotClassifier(backbone(), method="cosine-centroid")
        # Labels go by position too, whatever their index says.
        for given in (part.label, part.label.astype("category"), part.label.astype("string"), list(part.label)):
            classifier.fit(part.image, given)
            assert classifier.score(part.image, part.label) == 1
            known = table[table.label.isin(part.label)]
            assert classifier.predict(known.image.iloc[::-1]).tolist() == known.label.iloc[::-1].tolist()


def test_tools_of_scikit_learn_on_every_container():
    pd = pytest.importorskip("pandas")
    images, labels = deck()
    held = np.empty(len(images), object)
    held[:] = images
    index = np.random.default_rng(0).permutation(len(images))
    classifier = FewShotClassifier(backbone(), method="cosine-centroid")
    for given in (images, held, np.stack(images), pd.Series(images, index=index)):
        for answers in (labels, pd.Series(labels, index=index[::-1])):
            np.testing.assert_array_equal(cross_val_score(classifier, given, answers, cv=3), 1)
            train, test, y_train, y_test = train_test_split(given, answers, random_state=1)
            assert classifier.fit(train, y_train).score(test, y_test) == 1
            np.testing.assert_array_equal(classifier.predict(test), np.asarray(y_test))


def test_search_pipeline_and_metadata_routing():
    images, labels = deck(12)
    classifier = FewShotClassifier(backbone(), method="cosine-centroid")
    search = GridSearchCV(classifier, {"method": ["protonet", "cosine-centroid"], "resolution": [4, 8]}, cv=2)
    assert search.fit(images, labels).best_score_ == 1
    assert make_pipeline(classifier).fit(images, labels).score(images, labels) == 1
    with config_context(enable_metadata_routing=True):
        np.testing.assert_array_equal(cross_val_score(classifier, images, labels, cv=2), 1)
        assert not hasattr(classifier, "set_fit_request")


def test_a_wrong_label_reaches_the_user_of_scikit_learns_tools():
    with pytest.raises(ValueError, match="label 1 is missing"):
        cross_val_score(
            FewShotClassifier(backbone()), new()[:4], ["a", None, "a", "b"], cv=[([0, 1], [2, 3])], error_score="raise"
        )


def test_two_classes_have_one_score_as_scikit_learn_has_it():
    images, labels = deck(12)
    images, labels = [i for i, y in zip(images, labels, strict=True) if y != "blue"], labels[labels != "blue"]
    classifier = FewShotClassifier(backbone(), method="cosine-centroid").fit(images, labels)
    scores, shares = classifier.decision_function(images), classifier.predict_proba(images)
    assert scores.shape == (8,)
    assert shares.shape == (8, 2)
    temperature = classifier.calibration_.temperature
    np.testing.assert_allclose(scores / temperature, np.log(shares[:, 1] / shares[:, 0]), rtol=1e-6)
    assert classifier.classes_[(scores > 0).astype(int)].tolist() == classifier.predict(images).tolist()
    assert classifier.decision_function([]).shape == (0,)
    np.testing.assert_array_equal(cross_val_score(classifier, images, labels, cv=2, scoring="roc_auc"), 1)
    for wrapper in (CalibratedClassifierCV(classifier, cv=2), OneVsRestClassifier(classifier)):
        assert wrapper.fit(*deck(12)).score(*deck(12)) == 1


def test_scores_weigh_by_position(fitted):
    pd = pytest.importorskip("pandas")
    answers = ["blue", "blue", "green", "red", "blue"]
    weights = pd.Series([1.0, 3.0, 1.0, 1.0, 2.0], index=[4, 2, 0, 1, 3])
    assert fitted.score(new(), answers, sample_weight=weights) == 5 / 8
    assert fitted.score(iter(new()), pd.Series(answers, index=[4, 2, 0, 1, 3])) == 4 / 5
    numbers = FewShotClassifier(backbone(), method="cosine-centroid").fit(new()[:3], torch.tensor([2, 0, 1]))
    assert numbers.score(new()[:3], torch.tensor([2, 0, 1])) == 1


def test_tags():
    tags = get_tags(FewShotClassifier())
    assert is_classifier(FewShotClassifier())
    assert not tags.input_tags.two_d_array
    assert tags.input_tags.one_d_array
    assert tags.input_tags.string
    assert tags.target_tags.required
    assert not tags.target_tags.multi_output


CHECKS = [
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_estimator_checks():
    check_estimator(FewShotClassifier(backbone()))
    for name in CHECKS:  # those that need no table
        getattr(estimator_checks, name)("FewShotClassifier", FewShotClassifier(method="protonet"))


def test_fitting_changes_no_parameter():
    settings = {"backbone": backbone(), "method": catalogue.build("protonet"), "options": {}}
    classifier = FewShotClassifier(**settings)
    before = {name: id(value) for name, value in classifier.get_params().items()}
    assert classifier.fit(new()[:3], NEW[:3]) is classifier
    assert {name: id(value) for name, value in classifier.get_params().items()} == before


@pytest.mark.parametrize("method", sorted(set(catalogue.methods())))
def test_a_fitted_classifier_survives_copies(method, tmp_path):
    options = {"base_mean": torch.full((3,), 0.3)} if catalogue.find(method).needs_base_mean else {}
    images, labels = deck(9)
    classifier = FewShotClassifier(backbone(), method=method, options=options).fit(images, labels)
    expected = classifier.decision_function(new())
    joblib.dump(classifier, tmp_path / "kept.joblib")
    for again in (
        pickle.loads(pickle.dumps(classifier)),
        copy.deepcopy(classifier),
        joblib.load(tmp_path / "kept.joblib"),
    ):
        np.testing.assert_array_equal(again.decision_function(new()), expected)
    with pytest.raises(NotFittedError):
        clone(classifier).predict(new())
    np.testing.assert_array_equal(clone(classifier).fit(images, labels).decision_function(new()), expected)


def test_a_copy_goes_where_there_is_a_device(fitted, monkeypatch):
    # Fitted on an accelerator, read where there is none: the CPU is what is left.
    fitted.device = "cuda:99"
    again = pickle.loads(pickle.dumps(fitted))
    assert again.support_.device.type == "cpu"
    np.testing.assert_array_equal(again.predict(new()), NEW)


def test_a_backbone_of_the_callers_stays_where_it_is():
    # The meta device stands for an accelerator.
    mine = of_module(torch.nn.Conv2d(3, 4, 2))
    moved = placed(mine, torch.device("meta"))
    assert next(moved.module.parameters()).device.type == "meta"
    assert next(mine.module.parameters()).device.type == "cpu"
    assert moved.card == mine.card
    assert placed(mine, torch.device("cpu")) is mine


class Brightest(MethodBase):
    """Answers with the class whose mean is nearest in brightness; its name is its own."""

    name = "brightest"

    def __call__(self, support, query, *, support_mask=None, class_prior=None):
        mean = support.mean((-1, -2))
        if support_mask is not None:
            mean = mean.masked_fill(~support_mask, 0)
        centre = mean.sum(-1) / (support.shape[2] if support_mask is None else support_mask.sum(-1))
        return -(query.mean((-1, -2))[:, :, None] - centre[:, None]).abs()


def test_a_method_may_be_an_object():
    images = [np.full((8, 8, 3), value, np.uint8) for value in (10, 100, 110, 200)]
    classifier = FewShotClassifier(backbone(), method=Brightest()).fit(images, ["dark", "grey", "grey", "light"])
    assert classifier.predict([images[0], images[3], images[1]]).tolist() == ["dark", "light", "grey"]
    named = FewShotClassifier(backbone(), method="deepemd-fcn", options={"temperature": 2.0}).fit(images, [0, 1, 1, 2])
    built = FewShotClassifier(backbone(), method=catalogue.build("deepemd-fcn", temperature=2.0)).fit(
        images, [0, 1, 1, 2]
    )
    np.testing.assert_array_equal(named.decision_function(images), built.decision_function(images))
    assert built.support_.shape == named.support_.shape


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda query: query, "answered with"),
        (lambda query: None, "answered with NoneType"),
        (lambda query: torch.full((1, query.shape[1], 2), torch.nan), "answered NaN"),
    ],
)
def test_what_an_object_answers_is_checked(answer, said):
    class Wrong(MethodBase):
        name = "wrong"

        def __call__(self, support, query, *, support_mask=None, class_prior=None):
            return answer(query)

    classifier = FewShotClassifier(backbone(), method=Wrong()).fit(new()[:2], NEW[:2])
    with pytest.raises(UserError, match=f"'wrong' {said}"):
        classifier.predict(new())


@pytest.mark.parametrize("error", [TypeError, ValueError])
def test_a_fault_of_a_method_keeps_its_traceback(error):
    class Broken(MethodBase):
        def __call__(self, support, query, *, support_mask=None, class_prior=None):
            raise error("deep inside")

    classifier = FewShotClassifier(backbone(), method=Broken()).fit(new()[:2], NEW[:2])
    with pytest.raises(error, match=r"^deep inside$") as caught:
        classifier.predict(new())
    assert type(caught.value) is error


def test_an_object_that_follows_no_contract_is_told_what_lacks():
    class Half:
        transductive = False

        def __call__(self, support, query, **_):
            return query

    with pytest.raises(UserError, match=r"method Half lacks the attribute 'name'.*MethodBase"):
        FewShotClassifier(backbone(), method=Half()).fit(new()[:2], NEW[:2])
    with pytest.raises(UserError, match=r"is the class ProtoNet: give an object of it, as in ProtoNet\(\)"):
        FewShotClassifier(backbone(), method=catalogue.find("protonet")).fit(new()[:2], NEW[:2])


def test_a_backbone_may_be_a_module_or_a_path(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.Conv2d(3, 5, 4, 4)
    classifier = FewShotClassifier(module, method="protonet", resolution=16).fit(new()[:3], NEW[:3])
    assert classifier.support_.shape == (1, 3, 1, 16, 5)
    assert module.weight.requires_grad
    card = Card("mine", "conv4", {"channels": 4}, resolution=16)
    weights.save(tmp_path / "mine.safetensors", ARCHITECTURES["conv4"](channels=4), card)
    classifier = FewShotClassifier(tmp_path / "mine.safetensors", method="protonet").fit(new()[:3], NEW[:3])
    assert classifier.support_.shape == (1, 3, 1, 1, 4)


def test_auto_runs_on_what_is_there(fitted):
    assert fitted.device == "auto"
    assert fitted.support_.device == devices.pick("auto")


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


@pytest.mark.parametrize("folder", [None, 3, b"photos", ["photos"], "", "a" * 5000, "a\0b"])
def test_what_is_no_folder_is_refused(folder):
    with pytest.raises(UserError, match=r"give (its path|one that holds a folder of images)"):
        FewShotClassifier(backbone()).fit_folder(folder)
