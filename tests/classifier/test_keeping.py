"""Classifiers in files: equal answers bit for bit, in another process too; one sentence for what is no such file."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.exceptions import NotFittedError

import otfew
from otfew import FewShotClassifier
from otfew.backbones import ARCHITECTURES, weights
from otfew.backbones.base import Card
from otfew.classifier import find_photos, kept_values, model_file
from otfew.classifier.labelled import halved, rounded, unhalved
from otfew.errors import UserError
from otfew.methods.structured_fc import StructuredFC


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small network of our own kind, in a file."""
    path = tmp_path_factory.mktemp("network") / "mine.safetensors"
    torch.manual_seed(0)
    card = Card("mine", "conv4", {"channels": 16}, resolution=32)
    weights.save(path, ARCHITECTURES["conv4"](channels=16), card)
    return path


@pytest.fixture(scope="module")
def fitted(pools, checkpoint):
    images, labels = pools.deck(3)
    return FewShotClassifier(checkpoint, method="deepemd-fcn", crop="center").fit(images, labels)


def new(pools):
    return pools.deck(2, start=500)[0]


def test_rounding_keeps_eleven_bits_of_every_photo_whatever_its_size():
    torch.manual_seed(0)
    nodes = torch.randn(7, 5, 9) * torch.tensor([1e-30, 1e-9, 1e-3, 1, 60, 7e4, 1e30]).view(7, 1, 1)
    nodes[3, 0, 0] = 0
    found = rounded(nodes)
    most = nodes.abs().amax((1, 2), keepdim=True)
    assert ((found - nodes).abs() <= torch.maximum(nodes.abs() * 2.0**-11, most * 2.0**-39)).all()
    assert torch.equal(rounded(found), found)
    assert torch.equal(unhalved(*halved(found)), found)
    assert torch.equal(rounded(torch.zeros(1, 2, 3)), torch.zeros(1, 2, 3))
    # A photo's nodes do not depend on those of others.
    assert torch.equal(rounded(nodes[2:4]), found[2:4])


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99, 1])
def test_packing_is_without_loss(share):
    torch.manual_seed(1)
    values = torch.randn(3, 7, 5).half() * (torch.rand(3, 7, 5) < share)
    values[0, 0, :2] = torch.tensor([-0.0, 65504.0]).half()
    parts = model_file.packed(values, "x")
    assert (set(parts) == {"x"}) == (share > 0.9)
    found = model_file.unpacked(parts, "x")
    assert torch.equal(found.view(torch.int16), values.view(torch.int16))


def test_what_is_loaded_answers_as_what_was_saved(fitted, pools, checkpoint, tmp_path):
    path = fitted.save(tmp_path / "parts.otfew")
    again = FewShotClassifier.load(path, backbone=checkpoint)
    for ask in ("decision_function", "predict_proba"):
        np.testing.assert_array_equal(getattr(again, ask)(new(pools)), getattr(fitted, ask)(new(pools)))
    assert again.predict(new(pools)).dtype == fitted.predict(new(pools)).dtype
    for name in ("support_", "support_mask_"):
        assert torch.equal(getattr(again, name), getattr(fitted, name))
    np.testing.assert_array_equal(again.groups_, fitted.groups_)
    assert again.labelled_.photos == tuple(
        type(photo)(**{**vars(photo), "path": ""}) for photo in fitted.labelled_.photos
    )
    assert again.get_params() == {**fitted.get_params(), "backbone": checkpoint}
    assert again.calibration_ == fitted.calibration_
    twice = again.save(tmp_path / "again.otfew").read_bytes()
    assert twice == path.read_bytes() == fitted.save(str(tmp_path / "third")).read_bytes()


def test_another_process_answers_the_same(pools, checkpoint, tmp_path):
    images, labels = pools.deck(2)
    classifier = FewShotClassifier(checkpoint, method="cosine-centroid", resolution=20, nodes="fcn:1").fit(
        images, labels
    )
    classifier.save(tmp_path / "a.otfew", embed_backbone=True)
    np.save(tmp_path / "new.npy", np.stack(new(pools)))
    code = (
        "import numpy as np, otfew, sys; c = otfew.FewShotClassifier.load('a.otfew'); "
        "np.save('answers.npy', c.predict_proba(np.load('new.npy'))); print(c.predict(np.load('new.npy')).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "answers.npy"), classifier.predict_proba(new(pools)))
    assert done.stdout.strip() == str(classifier.predict(new(pools)).tolist())


@pytest.mark.parametrize(
    "labels",
    [
        ["a", "b", "long name"],
        [3, 1, 2],
        np.array([3, 1, 2], np.int8),
        [True, False, True],
        [1.0, 2.0, 5.0],
        np.array(["a", "ü", "\u2028"], object),
        [2**70, 1, -5],
    ],
)
def test_labels_keep_their_kind(pools, tmp_path, labels):
    images = [pools.picture(colour, i) for i, colour in enumerate(["red", "green", "blue"])]
    classifier = FewShotClassifier(pools.network(), method="cosine-centroid").fit(images, labels)
    again = FewShotClassifier.load(classifier.save(tmp_path / "a"), backbone=classifier.backbone)
    assert again.classes_.dtype == classifier.classes_.dtype
    assert again.predict(images).tolist() == classifier.predict(images).tolist() == list(labels)
    assert [type(label) for label in again.predict(images)] == [type(label) for label in classifier.predict(images)]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("deepemd", {"solver": otfew.Sinkhorn(reg=0.1), "temperature": 3.5}),
        ("deepemd", {"shot_head": StructuredFC(epochs=2, lr=0.5)}),
        ("simpleshot", {"base_mean": torch.full((3,), 0.25)}),
        ("cosine-centroid", {"temperature": np.float64(2)}),
    ],
)
def test_options_come_back(pools, tmp_path, method, options):
    images, labels = pools.deck(2)
    classifier = FewShotClassifier(pools.network(), method=method, options=options).fit(images, labels)
    again = FewShotClassifier.load(classifier.save(tmp_path / "a"), backbone=classifier.backbone)
    np.testing.assert_array_equal(again.decision_function(new(pools)), classifier.decision_function(new(pools)))
    assert again.options.keys() == options.keys()
    for name, value in options.items():
        assert np.all(np.asarray(again.options[name]) == np.asarray(value))


def test_refusals_and_choices_come_back(pools, tmp_path):
    images, labels = pools.deck(8)
    classifier = FewShotClassifier(pools.network(), reject=0.1, unknown_label="?").fit(images, labels)
    again = FewShotClassifier.load(classifier.save(tmp_path / "a"), backbone=classifier.backbone)
    odd = [*new(pools), np.full((12, 10, 3), 127, np.uint8), np.full((12, 10, 3), 255, np.uint8)]
    assert again.calibration_ == classifier.calibration_
    assert again.predict(odd).tolist() == classifier.predict(odd).tolist()
    np.testing.assert_array_equal(again.predict_proba(odd), classifier.predict_proba(odd))
    assert again.method == "auto"
    assert again.method_.name == classifier.method_.name
    assert again.embedder_.extractor.spec == classifier.embedder_.extractor.spec
    record, _ = model_file.read(tmp_path / "a")
    assert record["also"]["selection_"]
    assert str(again.selection_) == str(classifier.selection_)


class Evidently:
    """Makes a classifier of each kind, and compares what two of them say of held-out photos."""

    @staticmethod
    def made(pools, kind):
        each, settings = {
            "auto": (8, {"reject": 0.1}),
            "named": (6, {"method": "cosine-centroid"}),
            "refusing": (6, {"method": "knn", "reject": 0.2, "unknown_label": "?"}),
            "one photo each": (1, {"method": "protonet"}),
            "all at once": (3, {"method": "pt-map"}),
        }[kind]
        images, labels = pools.deck(each)
        images[0], labels[1] = images[0] // 2, "blue"  # something to confuse and to doubt
        return FewShotClassifier(pools.network(), **settings).fit(images, labels)

    @staticmethod
    def same(one, other, new):
        assert one.report_ == other.report_
        assert one.report_.lines() == other.report_.lines()
        assert one.report_.to_record() == other.report_.to_record()
        assert one.calibration_ == other.calibration_
        for name, values in vars(one._trusted().held).items():
            np.testing.assert_array_equal(values, getattr(other._trusted().held, name), strict=True)
        assert one.resembles(new) == other.resembles(new)


@pytest.fixture
def no_holding_out(monkeypatch):
    """Whoever holds photos out from now on fails."""

    def asked(*given, **options):
        raise AssertionError("photos were held out again")

    return lambda: monkeypatch.setattr("otfew.classifier.trust.assess", asked)


@pytest.mark.parametrize("kind", ["auto", "named", "refusing", "one photo each", "all at once"])
def test_evidence_comes_back_and_is_not_found_anew(pools, tmp_path, kind, no_holding_out):
    classifier = Evidently.made(pools, kind)
    path = classifier.save(tmp_path / "a")
    no_holding_out()
    again = FewShotClassifier.load(path, backbone=classifier.backbone)
    Evidently.same(again, classifier, new(pools))
    assert again.save(tmp_path / "b").read_bytes() == path.read_bytes()
    if kind == "auto":
        assert again.report_.accuracy.nested
        assert again.report_.choice == classifier.selection_ == again.selection_
    if kind == "refusing":
        assert again.report_.suspects
        assert again.report_.confusions


def test_evidence_is_the_same_in_another_process(pools, checkpoint, tmp_path):
    images, labels = pools.deck(6)
    classifier = FewShotClassifier(checkpoint, method="knn", nodes="fcn:1", reject=0.2).fit(images, labels)
    classifier.save(tmp_path / "a.otfew", embed_backbone=True)
    code = (
        "import otfew, json; from otfew.classifier import trust; trust.assess = None; "
        "c = otfew.FewShotClassifier.load('a.otfew'); print(json.dumps(c.report_.lines()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == classifier.report_.lines()


def test_another_rate_takes_the_held_out_photos_that_are_there(pools, tmp_path, no_holding_out):
    images, labels = pools.deck(6)
    known = FewShotClassifier(pools.network(), "cosine-centroid").fit(images, labels)
    wanted = FewShotClassifier(known.backbone, "cosine-centroid", reject=0.3).fit(images, labels)
    again = FewShotClassifier.load(known.save(tmp_path / "a"), backbone=known.backbone)
    no_holding_out()
    again.reject = 0.3
    again._refuse_anew()
    assert again.report_ == wanted.report_
    assert again.calibration_ == wanted.calibration_
    again.reject = 0.01
    with pytest.raises(UserError, match=r"`reject` 0\.01 needs 99 labelled photos"):
        again._refuse_anew()


def test_files_of_the_first_format_are_read(pools, tmp_path):
    """One that was written before evidence was kept: of 18 pictures, with its network inside."""
    again = FewShotClassifier.load(Path(__file__).with_name("format-1.otfew"))
    kept = again.calibration_
    assert kept.temperature == 0.2629451020483445
    assert kept.threshold == 0.626965681711833
    told = [[0.307429, 0.006696, 0.685875], [0.00027, 0.989021, 0.010709], [0.89896, 0.000013, 0.101027]]
    np.testing.assert_allclose(again.predict_proba(pools.deck(1, start=500)[0]), told, atol=1e-4)
    assert again.report_.lines()[0].startswith("18 photos of 3 classes (6 to 6 each); held out one a class, 10 times")
    assert again.calibration_ == again.report_.calibration == kept
    record, _ = model_file.read(again.save(tmp_path / "a", embed_backbone=True))
    assert record["format"] == 2
    assert FewShotClassifier.load(tmp_path / "a").report_ == again.report_


def test_a_loaded_classifier_learns_on(fitted, pools, checkpoint, tmp_path):
    again = FewShotClassifier.load(fitted.save(tmp_path / "a"), backbone=checkpoint)
    more = [pools.picture("red", 40), pools.picture("blue", 41)]
    copy = FewShotClassifier.load(tmp_path / "a", backbone=checkpoint).add(more, ["red", "odd"])
    assert copy.classes_.tolist() == ["blue", "green", "odd", "red"]
    assert again.classes_.tolist() == ["blue", "green", "red"]
    assert (
        FewShotClassifier.load(copy.save(tmp_path / "b"), backbone=checkpoint).classes_.tolist()
        == copy.classes_.tolist()
    )


def test_the_example_photos_make_a_small_file(on_photos, photos, tmp_path):
    path = on_photos.save(tmp_path / "photos.otfew")
    assert path.stat().st_size < 2.5e6  # of 48 photos
    assert on_photos.save(tmp_path / "bare", thumbnails=False).stat().st_size < 1.5e6
    again = FewShotClassifier.load(path)
    files = find_photos(photos / "new")[::7]
    np.testing.assert_array_equal(again.decision_function(files), on_photos.decision_function(files))
    assert again.labelled_.photos[0].name == "Avocado/1.jpg"
    assert str(photos).encode() not in path.read_bytes()
    assert again.labelled_.photos[0].picture().shape == (256, 256, 3)
    assert FewShotClassifier.load(tmp_path / "bare").labelled_.photos[0].thumbnail == b""


def test_an_embedded_backbone_needs_no_weights_elsewhere(on_photos, photos, tmp_path, monkeypatch):
    path = on_photos.save(tmp_path / "photos.otfew", embed_backbone=True)
    monkeypatch.setattr("otfew.classifier.kept_backbone.load", None)
    again = FewShotClassifier.load(path)
    files = find_photos(photos / "new")[:2]
    np.testing.assert_array_equal(again.decision_function(files), on_photos.decision_function(files))
    assert again.embedder_.backbone.digest == on_photos.embedder_.backbone.digest


@pytest.mark.slow
def test_rounding_changes_no_answer_on_the_example_photos(on_photos, photos, monkeypatch):
    files = find_photos(photos / "new")
    monkeypatch.setattr("otfew.classifier.fitting.rounded", lambda nodes: nodes)
    exact = FewShotClassifier(on_photos.backbone, method="cosine-centroid").fit_folder(photos / "labelled")
    assert exact.predict(files).tolist() == on_photos.predict(files).tolist()
    np.testing.assert_allclose(exact.decision_function(files), on_photos.decision_function(files), atol=2e-3)


def test_what_cannot_be_saved_is_said(fitted, pools, checkpoint, tmp_path):
    images, labels = pools.deck(1)
    with pytest.raises(NotFittedError):
        FewShotClassifier(checkpoint).save(tmp_path / "a")
    theirs = FewShotClassifier(pools.network(), method=otfew.catalogue.build("protonet")).fit(images, labels)
    with pytest.raises(UserError, match=r"the method is an object \(ProtoNet\), which cannot be saved"):
        theirs.save(tmp_path / "a")
    ours = FewShotClassifier(pools.network(), method="protonet", unknown_label=object()).fit(images, labels)
    with pytest.raises(UserError, match=r"setting\.unknown_label is of type object, which cannot be saved"):
        ours.save(tmp_path / "a")
    with pytest.raises(UserError, match="'pool' is none that otfew can build again"):
        ours.set_params(unknown_label=None).save(tmp_path / "a", embed_backbone=True)
    for path in ("", None, 3, "a\0b"):
        with pytest.raises(UserError, match="`path` is"):
            fitted.save(path)
        with pytest.raises(UserError, match="`path` is"):
            FewShotClassifier.load(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        fitted.save(tmp_path / "folder")
    assert sorted(os.listdir(tmp_path)) == ["folder"]


def test_the_backbone_must_be_the_same(fitted, pools, checkpoint, tmp_path):
    path = fitted.save(tmp_path / "a.otfew")
    with pytest.raises(UserError, match="needs the backbone 'mine', which it does not hold: give it as `backbone`"):
        FewShotClassifier.load(path)
    torch.manual_seed(1)
    other = tmp_path / "other.safetensors"
    weights.save(other, ARCHITECTURES["conv4"](channels=16), Card("other", "conv4", {"channels": 16}, resolution=32))
    with pytest.raises(UserError, match="other weights of 'mine' than those of 'other'"):
        FewShotClassifier.load(path, backbone=other)
    with pytest.raises(UserError, match="backbone is 3"):
        FewShotClassifier.load(path, backbone=3)


def test_a_file_imports_nothing(fitted, tmp_path):
    """Whoever writes a file could name a module; only otfew's own names are looked up."""
    record, arrays = model_file.read(fitted.save(tmp_path / "a"))
    for name in ("os:getcwd", "timm:resnet18", "/etc/passwd"):
        record["backbone"]["name"] = name
        model_file.write(tmp_path / "b", record, arrays)
        with pytest.raises(UserError, match="give it as `backbone`"):
            FewShotClassifier.load(tmp_path / "b")
    for name in ("subprocess:Popen", "otfew.errors:UserError", "otfew.data.files:files_in", "otfewx:A"):
        with pytest.raises(ValueError, match="none of otfew's options"):
            kept_values.from_json({"!object": name, "options": {}}, {})


def headed(data, change):
    """The same file with another head."""
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


BROKEN = {
    "empty": lambda data: b"",
    "text": lambda data: b"label,file\na,b\n" * 9,
    "zip": lambda data: b"PK\3\4" + bytes(200),
    "pickle": lambda data: b"\x80\4\x95" + bytes(200),
    "cut at the head": lambda data: data[:200],
    "cut at the end": lambda data: data[:-100],
    "bit flipped": lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
    "longer": lambda data: data + b"x",
    "head changed": lambda data: data.replace(b'\\"resolution\\": 32', b'\\"resolution\\": 33', 1),
    "huge head": lambda data: struct.pack("<Q", 2**60) + data[8:],
    "no metadata": lambda data: headed(data, lambda head: head.pop("__metadata__")),
    "other metadata": lambda data: headed(data, lambda head: head.update(__metadata__={"format": "pt"})),
    "metadata is text": lambda data: headed(data, lambda head: head.update(__metadata__={"otfew": "hello"})),
    "metadata is a list": lambda data: headed(data, lambda head: head.update(__metadata__={"otfew": "[]"})),
}
"""Ways to spoil a file."""
KINDS = {
    **dict.fromkeys(["empty", "text", "zip", "pickle", "cut at the head", "huge head"], "is no classifier that otfew"),
    **dict.fromkeys(["cut at the end", "bit flipped", "longer", "head changed"], "is damaged"),
    **dict.fromkeys(["no metadata", "other metadata"], "is a safetensors file, but no classifier"),
    **dict.fromkeys(["metadata is text", "metadata is a list"], "is damaged"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_damaged_and_foreign_files_are_one_sentence(fitted, checkpoint, tmp_path, kind):
    path = fitted.save(tmp_path / "a.otfew")
    spoilt = BROKEN[kind](path.read_bytes())
    assert spoilt != path.read_bytes()
    path.write_bytes(spoilt)
    with pytest.raises(UserError, match=rf"a\.otfew.* {KINDS[kind]}|a\.otfew {KINDS[kind]}") as caught:
        FewShotClassifier.load(path, backbone=checkpoint)
    assert "\n" not in str(caught.value)


def test_a_later_file_is_told_as_such(fitted, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(model_file, "FORMAT", 3)
    path = fitted.save(tmp_path / "a")
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"saved by a later otfew \(format 3; this one reads 2\): update otfew"):
        FewShotClassifier.load(path, backbone=checkpoint)


def test_missing_files_and_what_is_no_file(tmp_path, checkpoint):
    for place in (tmp_path / "missing.otfew", tmp_path):
        with pytest.raises(UserError) as caught:
            FewShotClassifier.load(place)
        assert "\n" not in str(caught.value)
    save_file({"a": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="but no classifier that otfew saved"):
        FewShotClassifier.load(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="but no classifier that otfew saved"):
        FewShotClassifier.load(checkpoint)
    shutil.copy(checkpoint, tmp_path / "y")


WRONG = {
    "no nodes": lambda record, arrays: [arrays.pop(name) for name in list(arrays) if name.startswith("nodes")],
    "labels of no class": lambda record, arrays: arrays.update(labels=torch.full_like(arrays["labels"], 9)),
    "fewer labels": lambda record, arrays: arrays.update(labels=arrays["labels"][:-1]),
    "unknown method": lambda record, arrays: record["method"].update(name="nonsense"),
    "unknown setting": lambda record, arrays: record["settings"].update(nonsense=1),
    "unknown nodes": lambda record, arrays: record.update(nodes="nonsense"),
    "a resolution of text": lambda record, arrays: record.update(resolution="large"),
    "no photos": lambda record, arrays: record.update(photos=[]),
    "labels of no kind": lambda record, arrays: record["classes"].update(dtype="<M8[s]"),
    "a photo without a name": lambda record, arrays: record["photos"][0].pop("name"),
    "no backbone": lambda record, arrays: record.pop("backbone"),
    "no evidence": lambda record, arrays: record.pop("evidence"),
    "evidence of other photos": lambda record, arrays: record["evidence"].update(photos=8),
    "accuracy of another kind": lambda record, arrays: record["evidence"].update(accuracy={"mean": 1}),
    "confusions of no class": lambda record, arrays: record["evidence"].update(confusions=[[0, 9, 1]]),
    "held-out photos of none": lambda record, arrays: arrays["held photos"].add_(9),
    "held-out logits of more classes": lambda record, arrays: arrays.update(
        {"held logits": arrays["held logits"].repeat(1, 2)}
    ),
    "held-out photos without labels": lambda record, arrays: arrays.pop("held labels"),
    "another calibration": lambda record, arrays: record["also"].update(calibration_={"warmth": 3}),
}


@pytest.mark.parametrize("kind", WRONG)
def test_files_that_somebody_made_up_are_one_sentence(fitted, checkpoint, tmp_path, kind):
    record, arrays = model_file.read(fitted.save(tmp_path / "a"))
    WRONG[kind](record, arrays)
    model_file.write(tmp_path / "b", record, arrays)
    with pytest.raises(UserError) as caught:
        FewShotClassifier.load(tmp_path / "b", backbone=checkpoint)
    assert "\n" not in str(caught.value)
