"""Files of weights that are bad or worse: refused in one sentence, nothing executed."""

from __future__ import annotations

import os
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from otfew import backbones
from otfew.backbones import tensor_files
from otfew.backbones.tensor_files import read_tensors
from otfew.errors import UserError


class Evil:
    """Leaves a folder behind where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def refusal(path):
    with pytest.raises(UserError) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "place", [lambda e: e, lambda e: {"params": e}, lambda e: {"params": {"w": torch.ones(2), "x": e}}]
)
@pytest.mark.parametrize("name", ["own.pth", "470.tar", "features.pt"])
def test_code_in_a_file_is_refused_and_not_run(zipped, place, name, tmp_path):
    path, mark = tmp_path / name, tmp_path / "it-ran"
    torch.save(place(Evil(mark)), path, _use_new_zipfile_serialization=zipped)
    message = refusal(path)
    assert "mkdir, which may run code: nothing of it was run" in message
    for spec in (str(path), f"resnet12@{path}", f"deepemd@{path}"):
        with pytest.raises(UserError, match="nothing of it was run"):
            backbones.load(spec)
    assert not mark.exists()
    # It does run where it is let: the test would see it.
    torch.load(path, weights_only=False)
    assert mark.exists()


def test_a_whole_module_is_no_file_of_weights(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "own.pth")
    assert "asks for torch.nn.modules.linear.Linear" in refusal(tmp_path / "own.pth")


@pytest.mark.parametrize("held", [torch.ones(3), [torch.ones(3)], {}, {"epoch": 3}, {"a": {"b": "c"}}])
def test_files_without_tensors_by_name(held, tmp_path):
    torch.save(held, tmp_path / "own.pth")
    assert "save module.state_dict()" in refusal(tmp_path / "own.pth")


def test_an_archive_that_unpacks_to_more_than_it_holds(tmp_path):
    plain, bomb = tmp_path / "plain.pth", tmp_path / "bomb.pth"
    torch.save({"w": torch.zeros(1 << 20)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member.filename))
    assert bomb.stat().st_size < 100_000
    assert "unpacks to more than it holds" in refusal(bomb)


def test_a_tensor_that_claims_more_than_its_file_has(tmp_path):
    torch.save({"w": torch.zeros(1).expand(10**12)}, tmp_path / "own.pth")
    assert "claims 1,000,000,000,000 numbers in 'w'" in refusal(tmp_path / "own.pth")


def test_sparse_and_quantised_tensors(tmp_path):
    torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "own.pth")
    assert "sparse, quantised" in refusal(tmp_path / "own.pth")


@pytest.mark.parametrize("data", [b"", b"nothing", b"PK\x03\x04 and more", b"\x80\x02"])
@pytest.mark.parametrize("name", ["own.pth", "own.safetensors"])
def test_damaged_files(data, name, tmp_path):
    (tmp_path / name).write_bytes(data)
    assert "copy it again" in refusal(tmp_path / name)


def test_missing_files_and_folders(tmp_path):
    assert "there are no weights at" in refusal(tmp_path / "own.pth")
    (tmp_path / "folder.pth").mkdir()
    assert "is a folder" in refusal(tmp_path / "folder.pth")


def test_a_torch_that_could_be_made_to_run_code(tmp_path, monkeypatch):
    torch.save({"w": torch.ones(2)}, tmp_path / "own.pth")
    monkeypatch.setattr(tensor_files.torch, "__version__", "2.5.1+cu124")
    assert "install torch 2.6 or newer" in refusal(tmp_path / "own.pth")
    save_file({"w": torch.ones(2)}, tmp_path / "own.safetensors")
    assert list(read_tensors(tmp_path / "own.safetensors")[0]) == ["w"]


def test_dictionaries_inside_dictionaries(tmp_path):
    w = torch.ones(2)
    torch.save({"epoch": 3, "params": {"a": {"w": w}}, "opt": {0: w}, "names": ["x"]}, tmp_path / "own.tar")
    tensors, digest = read_tensors(tmp_path / "own.tar")
    assert sorted(tensors) == ["opt.0", "params.a.w"]
    assert len(digest) == 64
