"""The command that compares losses of metric learning: runs, resumes, adds, reports, refuses."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from otfew import backbones
from otfew.backbones.architectures import ARCHITECTURES
from otfew.backbones.cards import Card
from otfew.data.shapes import generated, objects
from otfew.experiments.common.cli import run
from otfew.experiments.metric_learning import checkpoints, material
from otfew.experiments.metric_learning import command as metric_learning
from otfew.experiments.metric_learning import report as metric_report
from otfew.experiments.reproduce import budget
from otfew.experiments.reproduce.claims import Arm, Claim
from otfew.experiments.retrieve import command as retrieve
from otfew.training.metric.embedding import Space
from otfew.training.metric.evaluation import FIGURES
from otfew.training.metric.task import Images

COLOURS = {"blue": (200, 60, 60), "green": (60, 190, 60), "red": (60, 60, 200), "grey": (128, 128, 128)}


def pictures(root, counts, seed=0, extra=()):
    """Class folders of noisy coloured squares on black, the splits given and of the same classes."""
    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        for name in (*COLOURS, *extra):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = np.zeros((16, 16, 3))
                image[4:12, 4:12] = COLOURS.get(name, (9, 9, 9))
                cv2.imwrite(str(folder / f"{i}.png"), np.clip(image + rng.normal(0, 50, image.shape), 0, 255))
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures"), {"train": 20, "val": 5, "test": 6})


def arguments(folder, output, *more):
    words = f"--dataset image-folder --data-root {folder} --resolution 12 --head 16 8 --epochs 2 --batch-size 8 "
    words += "--losses matched-pairs all-pairs batchwise-ot:reg_inverse=5 --seeds 2 --threads 1 --device cpu "
    return [*words.split(), "--output", str(output), *map(str, more)]


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "run"
    metric_learning.main(arguments(folder, output))
    return output


def test_results_hold_every_figure_of_every_epoch(finished):
    results = json.loads((finished / "results.json").read_text())
    assert list(results["losses"]) == sorted(["matched-pairs", "all-pairs", "batchwise-ot:reg_inverse=5"])
    assert results["protocol"]["images"] == {"test": [24], "train": [80]}
    assert "train and test share 4 class names" in results["protocol"]["notes"]
    for name, found in results["losses"].items():
        assert list(found["seeds"]) == ["1", "2"]
        for history in found["seeds"].values():
            assert [record["epoch"] for record in history] == [0, 1, 2]
            for record in history:
                assert set(record["figures"]) == set(FIGURES)
                assert all(0 <= value <= 1 for value in record["figures"].values())
                assert "seconds" not in record
        maps = [[record["figures"]["map"] for record in history] for history in found["seeds"].values()]
        assert found["map"]["last_epoch"]["mean"] == pytest.approx(np.mean([run[-1] for run in maps]))
        assert found["map"]["mean_of_epochs"]["mean"] == pytest.approx(np.mean([run[1:] for run in maps]))
        assert ("difference" in found) is (name != "all-pairs")
    first = [found["seeds"]["1"][0]["figures"] for found in results["losses"].values()]
    assert first[0] == first[1] == first[2]
    timings = json.loads((finished / "timings.json").read_text())
    assert timings["budget_seconds"] > 0
    assert max(found["epochs"] for found in timings["losses"].values()) == pytest.approx(2)
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")
    report = (finished / "report.md").read_text()
    assert "| batchwise-ot:reg_inverse=5 |" in report
    assert "train and test share 4 class names" in report
    assert not list((finished / "runs").glob("*.pt"))


def test_curves_are_of_the_val_split_where_that_chooses_nothing(finished):
    results = json.loads((finished / "results.json").read_text())
    assert results["protocol"]["curve"]["from"] == "the val split"
    assert results["protocol"]["curve"]["items"] == [20]
    assert results["val_curves"].keys() == results["losses"].keys()
    for each in results["val_curves"].values():
        assert {seed: len(curve) for seed, curve in each.items()} == {"1": 2, "2": 2}
    assert "mAP among 20 further items (the val split)" in (finished / "report.md").read_text()
    (own,) = budget.owns(
        Claim("c", "t", "s", left=(Arm("r", "all-pairs"),)),
        {"r": {**results["protocol"], "val_curves": results["val_curves"]}},
        {},
    )
    assert own.curves == tuple(map(tuple, results["val_curves"]["all-pairs"].values()))


@pytest.fixture(scope="module")
def pooled(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("pooled") / "run"
    words = (
        f"--dataset image-folder --data-root {folder} --backbone conv4 --resolution 16 --pooled --epochs 1 --seeds 1 "
    )
    words += "--batch-size 8 --losses all-pairs --threads 1 --device cpu --output "
    metric_learning.main([*words.split(), str(output)])
    return output, words


def test_every_run_keeps_its_trunk_with_a_card(pooled):
    path = pooled[0] / "checkpoints" / "image-folder-conv4-all-pairs-seed1.safetensors"
    card = backbones.load(str(path)).card
    assert card.training_classes == tuple(sorted(COLOURS))
    assert card.training_data.startswith("image-folder train: 4 classes, 80 items")
    words = card.protocol["command"]
    assert words.startswith("python -m experiments.metric_learning --dataset image-folder --seeds 1 --backbone conv4")
    assert words.endswith("--losses all-pairs --learning-rates 0.01")
    assert "--pooled" in words
    assert len(card.protocol["val_curves"]["map"]) == 1


def test_a_checkpoint_is_the_trunk_of_its_modality(tmp_path):
    torch.manual_seed(0)
    sides = [torch.zeros(1, 3, 16, 16)] * 2
    space = Space(ARCHITECTURES["conv4"], sides, (4,), "flatten").eval()
    train = tuple(
        Images(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.zeros(1), (m,) * 3, (0.3,) * 3) for m in (0.2, 0.7)
    )
    state = {f"space.{name}": tensor for name, tensor in space.state_dict().items()}
    checkpoints.write(tmp_path, state, train, Card("mine", "conv4", resolution=16))
    pixels = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    for modality, (side, images) in enumerate(zip(("", "-queries"), train, strict=True)):
        found = backbones.load(str(tmp_path / "checkpoints" / f"mine{side}.safetensors"))
        expected = space.embedders[modality].trunk((pixels / 255 - images.mean[0]) / 0.3)
        # In half precision.
        torch.testing.assert_close(found.maps(pixels), expected.detach(), rtol=0.01, atol=0.01)


def test_training_goes_on_from_a_checkpoint(pooled, tmp_path):
    """With steps of no size the weights stay those of the start."""
    output, words = pooled
    name = "image-folder-conv4-all-pairs-seed1.safetensors"
    path, again = output / "checkpoints" / name, tmp_path / "run" / "checkpoints" / name
    still = words.replace("--backbone conv4", f"--backbone {path} --learning-rates 1e-30")
    metric_learning.main([*still.split(), str(tmp_path / "run")])
    start, end = (backbones.load(str(each)) for each in (path, again))
    for (key, before), after in zip(start.module.named_parameters(), end.module.parameters(), strict=True):
        assert torch.equal(before, after), key
    assert end.card.protocol["started_from"]["name"] == path.stem
    assert (end.card.mean, end.card.std) == (start.card.mean, start.card.std)
    protocol = json.loads((tmp_path / "run" / "results.json").read_text())["protocol"]
    assert protocol["backbone"] == "conv4"
    assert protocol["started_from"] == {"name": path.stem, "sha256": start.card.sha256}


def test_retrieve_takes_a_checkpoint(pooled, folder, tmp_path):
    path = pooled[0] / "checkpoints" / "image-folder-conv4-all-pairs-seed1.safetensors"
    words = f"--dataset image-folder --data-root {folder} --backbone {path} --split test --allow-overlap --device cpu "
    words += f"--nodes fcn:1,nomap --scores chamfer --rerank 3 --threads 1 --output {tmp_path / 'run'}"
    retrieve.main(words.split())
    protocol = json.loads((tmp_path / "run" / "results.json").read_text())["protocol"]
    assert protocol["backbone"]["name"] == path.stem


def test_other_losses_and_seeds_join_the_folder(folder, finished, tmp_path, capsys):
    import shutil

    output = tmp_path / "more"
    shutil.copytree(finished, output)
    before = json.loads((output / "results.json").read_text())["losses"]
    more = ("--losses", "batchwise-ot:reg_inverse=5", "batchwise-ot-shrec", "--seeds", 3)
    metric_learning.main(arguments(folder, output, *more))
    after = json.loads((output / "results.json").read_text())["losses"]
    assert set(after) == {*before, "batchwise-ot-shrec"}
    assert after["matched-pairs"]["seeds"] == before["matched-pairs"]["seeds"]
    assert list(after["batchwise-ot:reg_inverse=5"]["seeds"]) == ["1", "2", "3"]
    for seed in "12":
        assert after["batchwise-ot:reg_inverse=5"]["seeds"][seed] == before["batchwise-ot:reg_inverse=5"]["seeds"][seed]
    # Paired over the two seeds that both have.
    assert after["batchwise-ot:reg_inverse=5"]["difference"]["last_epoch"]["seeds"] == 2
    assert after["batchwise-ot-shrec"]["difference"]["last_epoch"]["seeds"] == 2
    printed = capsys.readouterr().out
    for heading in ("mAP, % ± 95 % over seeds", "difference in mAP to all-pairs", "after the last epoch", "plans,"):
        assert heading in printed


def test_the_rate_is_chosen_on_the_val_split(folder, tmp_path):
    more = ("--losses", "all-pairs", "--seeds", 1, "--epochs", 1, "--learning-rates", "1e-7", "0.02", "1e9",
            "--tune-epochs", 1)  # fmt: skip
    metric_learning.main(arguments(folder, tmp_path / "run", *more))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    found = results["losses"]["all-pairs"]
    assert set(found["tuning"]) == {"1e-07", "0.02", "1e+09"}
    assert found["tuning"]["1e+09"] is None
    assert found["tuning"]["0.02"] > found["tuning"]["1e-07"]
    assert found["learning_rate"] == 0.02
    assert results["protocol"]["images"]["val"] == [20]
    # The val split chooses, and nothing is left out of training.
    assert results["protocol"]["curve"] is None
    assert results["val_curves"] == {}


def test_curves_are_of_what_is_left_out_where_the_val_split_chooses(folder):
    options = material.Options("image-folder", folder, "", False, 12, None, 50, None, "")
    found = material.load(options, ["train", "val", "test"], lambda _: None)
    (kept,), (left,) = found.splits["train"], found.curve
    assert (len(kept.labels), len(left.labels)) == (50, 80 - 50)
    both = torch.cat([kept.pixels, left.pixels]).flatten(1)
    assert len(torch.unique(both, dim=0)) == 80
    assert found.curve_from == "what is left out of training"


def test_a_diverged_seed_is_reported(folder, tmp_path, capsys, refused):
    more = ("--losses", "all-pairs", "--seeds", 1, "--epochs", 1, "--learning-rates", "1e9")
    said = refused(metric_learning.main, *arguments(folder, tmp_path / "run", *more))
    assert "every run diverged" in said
    assert "epoch 1" in said


def test_across_edges(folder, tmp_path):
    more = ("--across", "edges", "--epochs", 1, "--seeds", 1, "--losses", "batchwise-ot", "all-pairs")
    metric_learning.main(arguments(folder, tmp_path / "run", *more))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["protocol"]["across"] == "edges"
    assert results["protocol"]["images"] == {"test": [24, 24], "train": [80, 80]}
    assert any("edge maps (Canny)" in note for note in results["protocol"]["notes"])


def test_shapes_of_views_against_sketches(folder, tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 3)):
        for name, colour in COLOURS.items():
            for shape in range(count):
                for view in range(4):
                    path = tmp_path / "shapes" / split / name / f"{name}_{shape:04d}_v{view:03d}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(path), np.clip(rng.normal(colour, 40, (10, 10, 3)), 0, 255))
    more = ("--dataset", "views", "--data-root", tmp_path / "shapes", "--across", folder, "--views", 2, "--epochs", 1,
            "--seeds", 1, "--losses", "batchwise-ot", "--reference", "batchwise-ot")  # fmt: skip
    metric_learning.main(arguments(folder, tmp_path / "run", *more))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["protocol"]["across"] == "folder"
    assert results["protocol"]["images"] == {"test": [12, 24], "train": [32, 80]}
    assert results["reference"] == "batchwise-ot"
    alone = ("--dataset", "views", "--data-root", tmp_path / "shapes", "--epochs", 1, "--seeds", 1, "--losses",
             "all-pairs", "--backbone", "conv4", "--resolution", 16)  # fmt: skip
    metric_learning.main(arguments(folder, tmp_path / "alone", *alone))
    assert json.loads((tmp_path / "alone" / "results.json").read_text())["protocol"]["views"] is None


def test_disjoint_classes_have_no_classifiers(tmp_path):
    pictures(tmp_path / "data", {"train": 16})
    for old in COLOURS:
        (tmp_path / "data" / "train" / old).rename(tmp_path / "data" / "train" / f"old-{old}")
    pictures(tmp_path / "data", {"test": 4})
    more = ("--epochs", 1, "--seeds", 1, "--losses", "all-pairs")
    metric_learning.main(arguments(tmp_path / "data", tmp_path / "run", *more))
    found = json.loads((tmp_path / "run" / "results.json").read_text())["losses"]["all-pairs"]
    assert found["last_epoch"]["knn"] is None
    assert found["last_epoch"]["map"] > 0
    assert "not measured" in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.parametrize("loss", ["n-pair:distance=1", "contrastive:margin=1"])
def test_options_that_a_loss_does_not_have_are_refused(folder, tmp_path, refused, loss):
    pytest.importorskip("pytorch_metric_learning")
    said = refused(metric_learning.main, *arguments(folder, tmp_path / "run", "--losses", loss))
    assert f"the loss has no option {loss.partition(':')[2].partition('=')[0]!r}" in said


def test_refusals(folder, finished, tmp_path, refused):
    for more, message in (
        (("--losses", "batchwise"), "unknown loss 'batchwise'"),
        (("--losses", "all-pairs:margin=-1"), "margin must be a number of at least 0, not -1"),
        (("--losses",), "names no loss"),
        (("--seeds", "0"), "--seeds must be at least 1"),
        (("--batch-size", "64"), "needs 128 training images"),
        (("--backbone", "resnet99"), "unknown backbone 'resnet99'"),
        (("--pooled",), "--pooled leaves out the layers that --head asks for"),
        (("--dataset", "mnistt"), "unknown data set 'mnistt'"),
        (("--resolution", "3"), "too small for this backbone"),
        (("--train-images", "1"), "--train-images must be at least 2"),
        (("--learning-rates", "-1"), "--learning-rates must be positive"),
        (("--across", tmp_path / "no"), "no"),
        (("--device", "tpu"), "--device"),
        (("--losses", "all-pairs:margn=1"), "no option 'margn': did you mean margin or positive_margin?\n"),
        (("--losses", "batchwise-ot:margin=far"), "margin must be like its default 5.0, not 'far'"),
        (("--output", finished, "--epochs", "3"), "another protocol"),
    ):
        assert message in refused(metric_learning.main, *arguments(folder, tmp_path / "run", *more)), more
    assert not (tmp_path / "run").exists()
    other = pictures(tmp_path / "other", {"train": 2, "test": 2}, extra=["mauve"])
    said = refused(metric_learning.main, *arguments(folder, tmp_path / "run", "--across", other))
    assert "the modalities differ in classes: 'mauve'" in said


def test_the_list_of_losses(capsys):
    run(lambda: metric_learning.main(["--list"]))
    printed = capsys.readouterr().out
    for name in ("batchwise-ot-3d", "matched-pairs", "n-pair", "multi-similarity"):
        assert name in printed


def history(maps, seconds):
    return [
        {"figures": {name: value if name == "map" else 0.5 for name in FIGURES}, "diagnostics": {}, "loss": 1.0,
         "seconds": seconds * bool(epoch), "cpu_seconds": 3.0 * bool(epoch), "evaluation_seconds": 1.0, "epoch": epoch}
        for epoch, value in enumerate(maps)
    ]  # fmt: skip


def test_equal_time_reads_the_slower_loss_earlier():
    histories = {
        "fast": {1: history([0.1, 0.2, 0.3, 0.4, 0.5], 1.0)},
        "slow": {1: history([0.1, 0.4, 0.6, 0.8, 0.9], 1.6)},
        "slowest": {1: history([0.1, 0.4, 0.6, 0.8, 0.9], 8.0)},
    }
    found = metric_report.equal_time(histories, "fast")
    assert found["budget_seconds"] == pytest.approx(4)
    read = {loss: (f["epochs"], f["map"]["mean"]) for loss, f in found["losses"].items()}
    assert read["fast"] == pytest.approx((4, 0.5))
    assert read["slow"] == pytest.approx((2.5, 0.7))
    assert read["slowest"] == pytest.approx((0.5, 0.25))
    assert found["losses"]["slow"]["difference"]["mean"] == pytest.approx(0.2)
    found = metric_report.equal_time(histories, "fast", "cpu")
    assert [f["epochs"] for f in found["losses"].values()] == pytest.approx([4, 4, 4])
    summary = metric_report.summarise(histories, "fast")
    assert summary["slow"]["map"]["first_epoch"]["mean"] == 0.4
    assert summary["slow"]["map"]["mean_of_epochs"]["mean"] == pytest.approx(0.675)
    assert summary["slow"]["difference"]["mean_of_epochs"]["mean"] == pytest.approx(0.325)


@pytest.fixture
def few_shapes(monkeypatch, tmp_path):
    """The generated set with few objects of few classes."""
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(generated, "OBJECTS", {"train": 4, "val": 2, "test": 3})
    monkeypatch.setattr(generated, "SIDE", 32)
    monkeypatch.setattr(objects, "CLASSES", {name: objects.CLASSES[name] for name in ("cup", "fir", "ladder")})


SHAPES = (
    "--dataset shapes --views 2 --resolution 16 --head 8 --batch-size 4 --seeds 1 --epochs 1 --threads 1 --device cpu "
    "--losses batchwise-ot-modelnet10 all-pairs"
)


def test_generated_shapes_are_learnt_with_a_softmax_loss_and_pictured(few_shapes, tmp_path):
    metric_learning.main([*SHAPES.split(), "--svc", "--output", str(tmp_path / "run")])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["protocol"]["images"] == {"test": [9], "train": [12]}
    assert any("never evidence" in note for note in results["protocol"]["notes"])
    found = results["losses"]["batchwise-ot-modelnet10"]
    assert found["seeds"]["1"][-1]["diagnostics"]["softmax"] > 0
    assert 0 <= found["last_epoch"]["svc"] <= 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("data:image/jpeg") >= 2 * 3 * 5
    assert "SVC" in page


def test_sketches_ask_for_generated_shapes(few_shapes, tmp_path):
    metric_learning.main([*SHAPES.split(), "--query-modality", "sketch", "--output", str(tmp_path / "run")])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["protocol"]["across"] == "sketch"
    assert results["protocol"]["images"] == {"test": [9, 9], "train": [12, 12]}
    assert "shapes across modalities (sketch)" in (tmp_path / "run" / "report.html").read_text()


def test_refusals_of_shapes(folder, tmp_path, refused):
    for more, message in (
        (("--dataset", "modelnet10", "--data-root", str(tmp_path / "no")), "comes from https://modelnet"),
        (("--dataset", "modelnet10", "--query-modality", "sketch", "--data-root", str(tmp_path)), "has no sketches"),
        (("--query-modality", "sketch"), "goes with a set of shapes"),
        (("--dataset", "shapes", "--query-modality", "sketch", "--across", "edges"), "give one of them"),
        (("--losses", "all-pairs:softmax=-1"), "softmax"),
        (("--dataset", "shrec14", "--data-root", str(tmp_path)), "are one gallery"),
        (("--across", "sketch"), "sketch"),
    ):
        said = refused(metric_learning.main, *arguments(folder, tmp_path / "run", *more))
        assert message in said, more
