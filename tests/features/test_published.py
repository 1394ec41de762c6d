"""Features as S2M2, PT-MAP and LST publish them, read without running anything."""

from __future__ import annotations

import os
import pickle
import pickletools
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch

from otfew.errors import UserError
from otfew.features.file import load_feature_file


def refusal(path):
    with pytest.raises(UserError) as caught:
        load_feature_file(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def by_label(dtype=np.float32):
    """What their code keeps: label -> rows of a batch's array, in the order in which they came."""
    rng = np.random.default_rng(0)
    kept = defaultdict(list)
    for label in (7, 100, 7, 9, 100, 100):
        batch = rng.standard_normal((2, 6)).astype(dtype)
        kept[label].append(batch[1])
    return kept


@pytest.mark.parametrize("protocol", [0, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("kind", [lambda kept: kept, dict, lambda kept: {k: np.stack(v) for k, v in kept.items()}])
def test_output_plk(protocol, dtype, kind, tmp_path):
    kept = by_label(dtype)
    path = tmp_path / "output.plk"
    path.write_bytes(pickle.dumps(kind(kept), protocol=protocol))
    found = load_feature_file(path)
    assert found.classes == ("7", "9", "100")
    assert found.labels.tolist() == [0, 0, 2, 2, 2, 1]
    expected = np.concatenate([np.stack(kept[label]) for label in (7, 100, 9)]).astype(np.float32)
    assert found.nodes.dtype == torch.float32
    np.testing.assert_array_equal(found.nodes[:, 0].numpy(), expected)


def test_nodes_and_names_by_label(tmp_path):
    path = tmp_path / "own.pkl"
    path.write_bytes(pickle.dumps({"crow": [np.ones((4, 3), np.float32)], "jay": [np.zeros((4, 3), np.float32)] * 2}))
    found = load_feature_file(path)
    assert found.classes == ("crow", "jay")
    assert found.nodes.shape == (3, 4, 3)
    assert found.nodes[0].min() == 1


def test_labels_that_are_numbers_are_sorted_as_numbers(tmp_path):
    path = tmp_path / "output.plk"
    path.write_bytes(pickle.dumps({2: [np.zeros(3, np.float32)], 10: [np.ones(3, np.float32)]}))
    assert load_feature_file(path).classes == ("2", "10")


class Evil:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(
    "place", [lambda e: e, lambda e: {1: e}, lambda e: {1: [e]}, lambda e: defaultdict(list, {1: e})]
)
@pytest.mark.parametrize("name", ["output.plk", "features.pkl"])
def test_code_in_a_plk_is_refused_and_not_run(place, name, tmp_path):
    path, mark = tmp_path / name, tmp_path / "it-ran"
    path.write_bytes(pickle.dumps(place(Evil(mark))))
    message = refusal(path)
    assert "nothing of it was run" in message
    assert not mark.exists()


def _tuples(depth):
    """A key of tuples inside tuples, each twice the one before, whose hash takes for ever."""
    code = b"\x80\x04}("
    code += b")"
    for _ in range(depth):
        code += b"\x94h\x00\x86" if depth < 0 else b"2\x86"
    return code + b"K\x01u."


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (_tuples(64), ""),
        (b"\x80\x04}(K\x01]r\xff\xff\xff\x7fu.", "the slot 2147483647"),
        (b"\x80\x04}(\x8a\xff" + b"\x01" * 255 + b"]u.", "bits"),
        (b"\x80\x02ccollections\ndefaultdict\n(cbuiltins\neval\ntR.", "builtins.eval"),
        (b"\x80\x04\x95", ""),
        (b"", ""),
        (pickle.dumps([1, 2]), "not a dictionary"),
        (pickle.dumps({1: [np.arange(3)]}), "another type than f2, f4, f8"),
        (pickle.dumps({1: [np.ones(3, ">f4")]}), "big-endian"),
        (pickle.dumps({1: [np.array(["x"], object)]}), ""),
        (pickle.dumps({1: "abc"}), "a str for the label 1"),
        (pickle.dumps({1: [1.0, 2.0]}), "something else than arrays"),
        (pickle.dumps({True: [np.ones(3, np.float32)]}), "the label True"),
        (pickle.dumps({1.5: [np.ones(3, np.float32)]}), "the label 1.5"),
        (pickle.dumps({1: []}), "0 vectors"),
        (pickle.dumps({1: [np.ones(3, np.float32), np.ones(4, np.float32)]}), "2 shapes"),
        (pickle.dumps({1: [np.ones(3, np.float32)], 2: [np.ones(4, np.float32)]}), "(3,), (4,)"),
    ],
)
def test_bombs_and_other_pickles(data, said, tmp_path):
    path = tmp_path / "output.plk"
    path.write_bytes(data)
    assert said in refusal(path)


def test_an_array_that_claims_more_than_it_has(tmp_path):
    honest = pickle.dumps({1: [np.ones(3, np.float32)]}, protocol=2)
    assert any(op.name == "TUPLE1" for op, _, _ in pickletools.genops(honest))
    # The shape's 3, which stands as a one-byte number before a tuple of one, becomes a number of two bytes.
    claims = honest.replace(b"K\x01K\x03\x85", b"K\x01M\xff\xff\x85")
    assert claims != honest
    path = tmp_path / "output.plk"
    path.write_bytes(claims)
    assert "another shape than its bytes" in refusal(path)


# Tensors.


def test_pt_of_features_and_labels(tmp_path):
    path = tmp_path / "features.pt"
    data, labels = torch.rand(2, 3, 5), torch.tensor([[4, 4, 4], [8, 8, 8]])
    torch.save({"data": data, "labels": labels}, path)
    found = load_feature_file(path)
    assert found.classes == ("4", "8")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(found.nodes, data.flatten(0, 1)[:, None])
    torch.save({"nodes": torch.rand(2, 3, 5).half(), "labels": torch.tensor([1, 0]), "base_mean": torch.ones(5)}, path)
    found = load_feature_file(path)
    assert found.nodes.shape == (2, 3, 5)
    assert found.base_mean is not None


def test_pt_by_label(tmp_path):
    path = tmp_path / "features.pt"
    torch.save(OrderedDict({3: torch.rand(2, 5), 1: torch.rand(1, 5)}), path)
    found = load_feature_file(path)
    assert found.classes == ("1", "3")
    assert found.labels.tolist() == [1, 1, 0]


def test_pt_that_is_something_else(tmp_path):
    path, mark = tmp_path / "features.pt", tmp_path / "it-ran"
    torch.save({"features": torch.rand(2, 5), "labels": Evil(mark)}, path)
    assert "nothing of it was run" in refusal(path)
    assert not mark.exists()
    torch.save(torch.rand(3), path)
    assert "a Tensor" in refusal(path)
    torch.save({"features": torch.rand(1).expand(10**10, 5), "labels": torch.ones(3)}, path)
    assert "more than the file holds" in refusal(path)
    torch.save({"features": torch.rand(3, 5), "names": ["a"]}, path)
    assert "the entries features, names" in refusal(path)
    path.write_bytes(b"nothing")
    assert "damaged" in refusal(path)
