"""Labels in any container go by position; what names no class is refused in a sentence."""

import enum

import numpy as np
import pytest
import torch

from otfew.data.class_labels import as_indices, as_labels, classes_of
from otfew.errors import UserError
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.features.extract import FeatureSet
from otfew.methods.batchwise_ot import BatchwiseOTLoss
from otfew.methods.ot_reweighting import OTReweighting
from otfew.retrieval.metrics import retrieval_metrics

TEXT = ["b", "a", "c", "a"]


class Legacy:
    """Goes by position through ``[]`` alone."""

    def __getitem__(self, i):
        return TEXT[i]


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array, lambda text: np.array(text, object), lambda _: Legacy()])
def test_any_order_is_kept(kind):
    assert as_labels(kind(TEXT)).tolist() == TEXT


@pytest.mark.parametrize("labels", [[3, 1, 2], [3.0, 1.0, 2.0], [True, False, True], range(3, 0, -1)])
def test_numbers_keep_the_dtype_that_numpy_gives_them(labels):
    expected = np.array(list(labels))
    for given in (labels, np.array(list(labels), object), torch.tensor(list(labels)), list(torch.tensor(list(labels)))):
        found = as_labels(given)
        assert found.tolist() == expected.tolist()
        assert found.dtype.kind == expected.dtype.kind


@pytest.mark.parametrize(
    "labels",
    [
        [2**63, 2**63 + 1, -1],  # neither int64 nor uint64 holds all of them, float64 not each
        [2**64, 2**64 + 1, 0],
        [np.uint64(2**63), np.uint64(2**63 + 1), -1],
        ["a", "a\0", "b"],  # numpy's own text ends before NUL
    ],
)
def test_no_two_labels_become_one(labels):
    classes, indices = classes_of(as_labels(labels))
    assert sorted(classes.tolist()) == sorted(labels)
    assert [classes[i] for i in indices] == labels


def test_floats_beside_numbers_that_they_cannot_hold():
    with pytest.raises(UserError, match="give whole numbers only"):
        as_labels([2**53, 2**53 + 1, 1.0])
    assert as_labels([2**53, 3, 1.0]).tolist() == [2**53, 3, 1]


def test_views_of_dictionaries_have_an_order():
    table = {"b": 3, "a": 1, "c": 2}
    assert as_labels(table.keys()).tolist() == ["b", "a", "c"]
    assert as_labels(table.values()).tolist() == [3, 1, 2]


def test_text_keeps_its_dtype():
    assert as_labels(TEXT).dtype == np.array(TEXT).dtype
    assert as_labels(np.array(TEXT, object)).dtype == object


def test_tensors_that_numpy_does_not_know():
    assert as_labels(torch.tensor([2, 1], dtype=torch.bfloat16)).tolist() == [2, 1]
    assert as_labels(torch.tensor([2.0, 1.0], requires_grad=True)).tolist() == [2, 1]


def test_pandas_goes_by_position():
    pd = pytest.importorskip("pandas")
    index = [2, 0, 3, 1]
    for labels in (
        pd.Series(TEXT, index=index),
        pd.Series(TEXT, index=index, dtype="string"),
        pd.Series(TEXT, index=index, dtype="category"),
        pd.Series(TEXT, index=index, dtype=object),
        pd.Index(TEXT),
        pd.Categorical(TEXT, categories=["c", "b", "a"]),
        pd.array(TEXT, dtype="string"),
    ):
        assert as_labels(labels).tolist() == TEXT
    for dtype in ("int64", "Int64", "float64", "Float64", "category"):
        assert as_labels(pd.Series([7, 5, 6], index=[2, 0, 1], dtype=dtype)).tolist() == [7, 5, 6]


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "string", "str", "category", "boolean", object])
def test_missing_values_of_pandas_are_refused(dtype):
    pd = pytest.importorskip("pandas")
    labels = pd.Series(
        ["b", "a", None] if dtype in {"string", "str", "category", object} else [1, 0, None], dtype=dtype
    )
    with pytest.raises(UserError, match=r"label 2 (is missing|is nan)"):
        as_labels(labels)


@pytest.mark.parametrize("missing", [None, np.nan, float("nan"), np.float32("nan"), np.datetime64("NaT")])
@pytest.mark.parametrize("others", [["a", "b"], [1, 2]])
def test_missing_labels_are_refused_and_named(missing, others):
    # numpy alone would turn NaN beside text into the text "nan".
    for labels in ([*others, missing], np.array([*others, missing], object)):
        with pytest.raises(UserError, match="label 2 is missing"):
            as_labels(labels)


@pytest.mark.parametrize("labels", [[0.5, 1.0], np.array([0.25, 1]), [1.0, np.inf], torch.tensor([0.5, 1.0])])
def test_quantities_are_no_classes(labels):
    with pytest.raises(UserError, match="names no class"):
        as_labels(labels)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1 + 2j, 3], "label 0"),
        (np.array(["2020-01-01", "NaT"], "datetime64[D]"), "label 1 is missing"),
        (np.array([np.nan, 1.0]), "label 0 is missing"),
        (np.zeros((3, 1)), "one dimension"),
        (np.array(3), "one dimension"),
        ([["a"], ["b"]], "some are lists"),
        ([("a", 1), ("b", 2)], "some are lists"),
        ([np.zeros(2), np.zeros(2)], "some are lists"),
        (["a", 1], "side by side"),
        ([b"a", "b"], "side by side"),
        ("ab", "'ab'"),
        (b"ab", "b'ab'"),
        (None, "None"),
        (7, "7"),
        ({"a": 1}, "no order"),
        ({"a", "b"}, "no order"),
        (np.ma.array([1, 2], mask=[0, 1]), "masked"),
    ],
)
def test_what_is_no_list_of_classes(labels, said):
    with pytest.raises(UserError, match=said) as caught:
        as_labels(labels)
    assert "\n" not in str(caught.value)


def test_a_mask_without_an_entry_masks_nothing():
    assert as_labels(np.ma.array([1, 2])).tolist() == [1, 2]


def test_tables_are_refused():
    pd = pytest.importorskip("pandas")
    with pytest.raises(UserError, match="one dimension"):
        as_labels(pd.DataFrame({"label": TEXT}))


def test_classes_are_sorted_and_what_cannot_be_is_refused():
    classes, indices = classes_of(as_labels(TEXT))
    assert classes.tolist() == ["a", "b", "c"]
    assert indices.tolist() == [1, 0, 2, 0]
    colours = enum.Enum("Colour", "RED GREEN")
    with pytest.raises(UserError, match="cannot be sorted"):
        classes_of(as_labels(list(colours)))


@pytest.mark.parametrize("labels", [[2, 0, 1], [2.0, 0.0, 1.0], torch.tensor([2, 0, 1]), np.array([2, 0, 1], np.uint8)])
def test_numbers_of_classes(labels):
    found = as_indices(labels, 3)
    assert found.tolist() == [2, 0, 1]
    assert found.dtype == np.int64


@pytest.mark.parametrize("labels", [[0, 3], [0, -1], [0, 0.5], ["0", "1"], [0, None], [True, False], [0, np.nan]])
def test_what_counts_no_class(labels):
    with pytest.raises(UserError, match=r"label [01]"):
        as_indices(labels, 3)


def test_features_and_episodes_take_a_column_by_position():
    pd = pytest.importorskip("pandas")
    column = pd.Series([0, 1, 1, 0, 0, 1], index=[5, 3, 1, 0, 2, 4])
    features = FeatureSet(torch.arange(6.0).view(6, 1, 1), column, ("a", "b"))
    assert features.labels.tolist() == [0, 1, 1, 0, 0, 1]
    protocol = Protocol("made", "", "test", way=2, shot=1, query=2)
    drawn = Sampler(protocol, column, ("a", "b"))(0, 20)
    expected = Sampler(protocol, column.to_numpy(), ("a", "b"))(0, 20)
    np.testing.assert_array_equal(drawn.support, expected.support)
    assert (column.to_numpy()[drawn.support] == drawn.classes[:, :, None]).all()


def test_features_need_a_label_for_each_image():
    with pytest.raises(UserError, match="nodes of 3 images but 2 labels"):
        FeatureSet(torch.zeros(3, 1, 1), np.array([0, 1]), ("a", "b"))


def test_fractions_are_not_cut_to_classes():
    with pytest.raises(UserError, match="label 0"):
        Sampler(Protocol("made", "", "test", way=2, query=1), [0.5, 1, 0, 1], ("a", "b"))


def test_where_only_tensors_go_anything_else_is_told():
    pd = pytest.importorskip("pandas")
    labels, points = pd.Series([0, 1, 0], index=[2, 0, 1]), torch.eye(3)
    with pytest.raises(ValueError, match="query_labels must be a tensor"):
        retrieval_metrics(points, labels, labels, exclude_self=True)
    with pytest.raises(ValueError, match=r"labels must be int64 .* got Series"):
        OTReweighting().fit(points, labels, points, labels)
    with pytest.raises(ValueError, match=r"labels must be a tensor .* not Series"):
        BatchwiseOTLoss()(points, labels)
