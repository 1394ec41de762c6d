"""Shapes in several views are found by shapes and by sketches, through what metric learning has trained."""

from __future__ import annotations

import json

import pytest

from otfew.data.shapes import generated, objects
from otfew.experiments.metric_learning import command as metric_learning
from otfew.experiments.retrieve import command as retrieve

pytestmark = pytest.mark.slow

TRAIN = (
    "--dataset shapes --views 2 --resolution 16 --backbone conv4 --pooled --batch-size 4 --seeds 1 --epochs 1 "
    "--threads 1 --device cpu --losses batchwise-ot:normalize=True --reference batchwise-ot:normalize=True"
)
FIND = "--dataset shapes --views 2 --threads 1 --device cpu"
NAME = "shapes-conv4-batchwise-ot-normalize=True-seed1"
METRICS = ("nn", "ft", "st", "e", "dcg", "map")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A cache and runs within and across modalities, on few objects of few classes."""
    root = tmp_path_factory.mktemp("shapes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTFEW_CACHE", str(root / "cache"))
        patch.setattr(generated, "OBJECTS", {"train": 4, "val": 2, "test": 3})
        patch.setattr(generated, "SIDE", 32)
        patch.setattr(objects, "CLASSES", {name: objects.CLASSES[name] for name in ("bed", "bench", "stool", "table")})
        metric_learning.main([*TRAIN.split(), "--output", str(root / "within")])
        metric_learning.main([*TRAIN.split(), "--query-modality", "sketch", "--output", str(root / "across")])
        yield root


def checkpoint(root, run, side=""):
    (found,) = (root / run / "checkpoints").glob(f"*seed1{side}.safetensors")
    return str(found)


def found(output, words):
    retrieve.main([*words, "--output", str(output)])
    return json.loads((output / "results.json").read_text())


@pytest.mark.parametrize("run", ["within", "across"])
def test_a_pooled_checkpoint_finds_what_it_found_in_training(trained, tmp_path, run, capsys):
    """Its mean maps' maximum is the embedding, whose directions order as normalised embeddings' distances do."""
    words = [*FIND.split(), "--backbone", checkpoint(trained, run), "--scores", "chamfer", "deepemd"]
    if run == "across":
        words += ["--query-modality", "sketch"]
    results = found(tmp_path / "run", words)
    (learned,) = json.loads((trained / run / "results.json").read_text())["losses"].values()
    rankings = results["rankings"]
    for metric in METRICS:
        # Checkpoints are in half precision.
        assert rankings["maximum over views"]["metrics"][metric]["mean"] == pytest.approx(
            learned["last_epoch"][metric], abs=0.03
        ), metric
    own = ["nearest view"] if run == "across" else ["chamfer [views]", "deepemd [views]"]
    assert set(rankings) == {"maximum over views", "mean over views", *own}
    said = capsys.readouterr().out
    for word in ("NN %", "FT %", "ST %", "E %", "DCG %", "mAP %", "never evidence", "trained on 4 of the 4 classes"):
        assert word in said
    assert ("sketches ask for shapes" if run == "across" else "shapes ask for shapes") in said
    assert "left behind" not in said
    rows = (tmp_path / "run" / "queries.csv").read_text().splitlines()
    assert len(rows) == 1 + 12 * len(rankings)
    before = (tmp_path / "run" / "results.json").read_bytes()
    found(tmp_path / "run", words)
    assert (tmp_path / "run" / "results.json").read_bytes() == before


def test_sketches_go_through_the_network_that_lies_beside(trained, tmp_path):
    words = [*FIND.split(), "--query-modality", "sketch", "--backbone", checkpoint(trained, "across")]
    beside = found(tmp_path / "beside", words)
    assert beside["protocol"]["query_backbone"]["name"].endswith("-queries")
    given = [*words, "--query-backbone", checkpoint(trained, "across", "-queries")]
    assert found(tmp_path / "given", given)["rankings"] == beside["rankings"]
    alone = [*FIND.split(), "--query-modality", "sketch", "--backbone", checkpoint(trained, "within")]
    assert found(tmp_path / "alone", alone)["protocol"]["query_backbone"]["name"] == NAME
    assert "through the same network" in (tmp_path / "alone" / "report.md").read_text()


def test_refusals(trained, tmp_path, refused):
    backbone = ["--backbone", checkpoint(trained, "within")]
    for more, message in (
        (["--nodes", "fcn"], "--nodes is of images: a shape's nodes are its views"),
        (["--split", "second-half"], "--split of shapes is train, val or test"),
        (["--split", "train"], "was trained on these very shapes"),
        (["--query-backbone", "x"], "goes with --query-modality sketch"),
        (["--query-modality", "sketch", "--rerank", "3"], "leave out --rerank"),
        (["--rerank", "3", "--all-pairs"], "leave out --rerank, or --all-pairs"),
        (["--views", "13"], "between 1 and 12"),
        (["--dataset", "glyphs"], "--views goes with a set of shapes"),
        (["--dataset", "modelnet10", "--query-modality", "sketch", "--data-root", str(tmp_path)], "has no sketches"),
        (["--dataset", "modelnet10", "--data-root", str(tmp_path)], "no CLASS/test"),
    ):
        said = refused(retrieve.main, *FIND.split(), *backbone, *more, "--output", str(tmp_path / "run"))
        assert message in said, more
        assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_network_of_other_channels_is_refused(trained, tmp_path, refused):
    words = [*FIND.split(), "--query-modality", "sketch", "--backbone", checkpoint(trained, "across")]
    other = tmp_path / "other"
    lenet = TRAIN.replace("conv4 --pooled", "lenet5 --head 4").replace("--resolution 16", "--resolution 32")
    metric_learning.main([*lenet.split(), "--output", str(other)])
    (path,) = (other / "checkpoints").glob("*.safetensors")
    said = refused(retrieve.main, *words, "--query-backbone", str(path), "--output", str(tmp_path / "run"))
    assert "give networks that were trained together" in said
    # A head stays behind, and the report says so.
    found(tmp_path / "alone", [*FIND.split(), "--backbone", str(path)])
    assert "its head of 4 is left behind" in (tmp_path / "alone" / "report.md").read_text()
