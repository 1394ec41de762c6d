import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from otfew import backbones
from otfew.errors import UserError
from otfew.experiments.long_tail import command as long_tail
from otfew.experiments.long_tail import report, setting, stage2
from otfew.experiments.long_tail.arms import ARMS, COMPARISONS, POST_HOC
from otfew.experiments.reproduce import budget
from otfew.experiments.reproduce.claims import Arm, Claim
from otfew.runs.identity import versions

SIDE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noisy one-coloured pictures, a train and a test part with the same classes."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    colours = rng.integers(60, 196, (3, 3))
    for part, each in (("train", 40), ("test", 40)):
        for c in range(3):
            place = root / part / f"class{c}"
            place.mkdir(parents=True)
            for i in range(each):
                noisy = np.clip(colours[c] + rng.normal(0, 60, (SIDE, SIDE, 3)), 0, 255)
                cv2.imwrite(str(place / f"{i}.png"), noisy.astype(np.uint8))
    return root


def arguments(folder, output, *more):
    words = (
        f"--dataset image-folder --data-root {folder} --factor 8 --backbone conv4 --resolution {SIDE} --epochs 2 "
        f"--batch-size 8 --accelerator cpu --validation 5 --seeds 2 --threads {torch.get_num_threads()} "
        f"--head.epochs 2 --stage1 {output}-stage1 --output {output}"
    )
    return [*words.split(), *map(str, more)]


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "run"
    long_tail.main(arguments(folder, output))
    return output


def results_of(output):
    return json.loads((output / "results.json").read_text())


def test_every_arm_runs_and_is_reported(finished):
    results = results_of(finished)
    assert results["arms"] == [*POST_HOC, *ARMS]
    assert set(results["errors"]) == set(results["arms"]) == set(results["summary"])
    for name, record in results["errors"].items():
        assert len(record["seed_errors"]) == (1 if name in POST_HOC else 2)
        assert record["error"] == pytest.approx(np.mean(record["seed_errors"]))
        assert 0 <= record["error"] <= 100
    assert [(c["arm"], c["rival"]) for c in results["comparisons"]] == list(COMPARISONS)
    assert results["setting"]["images_sha256"].keys() == {
        "train", "meta", "validation", "curve", "test",
    }  # fmt: skip
    assert results["training_images"] == sorted(results["training_images"], reverse=True)
    text = (finished / "report.md").read_text()
    assert "do OT weights (ot-combined+meta-ce) beat inverse-frequency weights with the same meta data?" in text
    assert "chosen on the validation split, never on test" in text
    for name in ("weights.png", "plans.png"):
        assert cv2.imread(str(finished / name)) is not None


def test_curves_are_kept_of_both_stages(finished):
    results = results_of(finished)
    found = results["val_curves"]
    assert found.keys() == {"stage-1", *ARMS}
    assert {seed: len(curve) for seed, curve in found["stage-1"].items()} == {"1": 2}
    for name in ARMS:
        assert found[name].keys() == {"0", "1"}
        assert {len(curve) for curve in found[name].values()} == {30 if name == "ot-published" else 2}
        assert all(0 <= point <= 100 for curve in found[name].values() for point in curve)
    assert "images that the subset leaves unused and that choose nothing" in (finished / "report.md").read_text()
    card = json.loads((finished.parent / f"{finished.name}-stage1" / "stage1.json").read_text())
    assert card["protocol"]["val_curves"] == {"stage-1": found["stage-1"]["1"]}
    (own,) = budget.owns(
        Claim("c", "t", "s", left=(Arm("r", "ce"),)),
        {"r": {"setting": results["setting"], "val_curves": found}},
        {},
    )
    assert own.curves == tuple(tuple(found[name][seed]) for name, seed in (("stage-1", "1"), ("ce", "0"), ("ce", "1")))


def test_the_first_stage_is_a_backbone_for_other_commands(finished):
    backbone = backbones.load(f"{finished}-stage1/stage1.safetensors")
    assert backbone.maps(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 64, 2, 2)
    assert backbone.card.training_classes == ("class0", "class1", "class2")


def test_again_reads_what_is_there(finished, folder, monkeypatch):
    before = {name: (finished / name).read_bytes() for name in ("results.json", "weights.png")}

    def forbidden(*_):
        raise AssertionError("a finished arm ran again")

    monkeypatch.setattr(stage2, "_run_arm", forbidden)
    long_tail.main(arguments(folder, finished))
    assert {name: (finished / name).read_bytes() for name in before} == before


def test_another_run_in_the_same_folder_is_refused(finished, folder):
    with pytest.raises(UserError, match=r"another protocol \(ot.reg"):
        long_tail.main(arguments(folder, finished, "--ot.reg", "0.2"))


def test_all_layers_of_a_trained_backbone(finished, folder, tmp_path):
    """Stage 1 goes on from a checkpoint; second stages train all layers, and OT weights come from its features."""
    output = tmp_path / "run"
    more = ("--stage2", "all", "--all-layers.epochs", "1", "--seeds", "1", "--no-figures", "--backbone")
    arms = ("--arms", "ce", "ot-combined+meta-ce", "ldam-drw", "logit-adjustment")
    long_tail.main(arguments(folder, output, *more, f"{finished}-stage1/stage1.safetensors", *arms))
    results = results_of(output)
    assert results["arms"] == ["logit-adjustment", "ce", "ldam-drw", "ot-combined+meta-ce"]
    assert results["stage2"]["layers"] == "all"
    assert (output / "states" / "ldam-drw-0.pt").exists()
    assert not (output / "weights.png").exists()


def test_the_test_labels_choose_nothing(finished, folder, tmp_path, monkeypatch):
    """With other test labels every choice is the same."""
    found = setting.find

    def relabelled(config):
        drawn = found(config)
        drawn.test.labels[:] = 0
        return drawn

    monkeypatch.setattr(setting, "find", relabelled)
    output = tmp_path / "run"
    long_tail.main(arguments(folder, output, "--arms", "logit-adjustment", "inverse-frequency", "ot-combined"))
    before, after = results_of(finished)["errors"], results_of(output)["errors"]
    for name in after:
        assert after[name]["chosen"] == before[name]["chosen"]
        assert after[name]["validation_error"] == before[name]["validation_error"]
        assert after[name]["error"] != before[name]["error"]


@pytest.mark.slow
def test_stopped_among_the_second_stages_and_the_same_command_again(folder, finished, tmp_path, monkeypatch):
    """What is finished is taken from the folder, and the results are those of a run that was not stopped."""
    output = tmp_path / "run"
    shutil.copytree(f"{finished}-stage1", f"{output}-stage1")
    real, left, ran = stage2._run_arm, [5], []

    def stopping(*given):
        left[0] -= 1
        if left[0] < 0:
            raise InterruptedError
        ran.append(given[1:3])
        return real(*given)

    monkeypatch.setattr(stage2, "_run_arm", stopping)
    with pytest.raises(InterruptedError):
        long_tail.main(arguments(folder, output))
    assert len(list((output / "blocks").glob("*.npz"))) == 5
    left[0] = 1000
    long_tail.main(arguments(folder, output))
    assert len(ran) == len(set(ran)) == len(POST_HOC) + 2 * len(ARMS)
    assert (output / "results.json").read_bytes() == (finished / "results.json").read_bytes()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--factor", "0.5"), "at least 1, not 0.5"),
        (("--factor", "nan"), "at least 1, not nan"),
        (("--factor", "1000"), "leaves a class without"),
        (("--meta", "40"), "40 meta images a class are asked"),
        (("--meta", "0"), "at least 1 meta image"),
        (("--validation", "0"), "--validation"),
        (("--validation", "30"), "too few"),
        (("--arms", "magic"), "unknown arm 'magic'"),
        (("--seeds", "0"), "--seeds"),
        (("--dataset", "birds"), "unknown data set 'birds'"),
        (("--backbone", "resnet33"), "resnet33"),
        (("--resolution", "4"), "leaves no map"),
        (("--epochs", "0"), "--epochs"),
        (("--ot.reg", "0"), "--ot.reg"),
        (("--ot.reg", "nan"), "--ot.reg"),
        (("--head.epochs", "0"), "--head.epochs"),
        (("--head.learning-rates", "nan"), "--head.learning-rates"),
        (("--all-layers.epochs", "0", "--stage2", "all"), "--all-layers"),
        (("--stage2", "all", "--arms", "ot-published"), "nothing to run"),
        (("--batch-size", "1000"), "--batch-size 1000"),
        (("--data-root", "/nowhere/at/all"), "/nowhere/at/all"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(folder, tmp_path, refused, wrong, said):
    assert said in refused(long_tail.main, *arguments(folder, tmp_path / "out", *wrong))


def test_errors_and_paired_differences_by_hand(monkeypatch):
    """Two arms on eight images; the first errs on images 0 and 5 with one seed of two, the second always on 5."""
    labels = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    one, two = labels.copy(), labels.copy()
    one[0] = 2
    one[5] = 0
    rival = labels.copy()
    rival[5] = 1

    def record(predictions):
        return {"predictions": predictions, "validation_error": 10.0, "learning_rate": 0.1, "epoch": 3.0}

    blocks = {"a": [record(one), record(two)], "b": [record(rival), record(rival)]}
    found, tables, _ = report.compare(blocks, labels, ["x", "y", "z"], np.array([200, 50, 5]), [("a", "b"), ("a", "c")])
    errors = found["errors"]
    assert errors["a"]["error"] == pytest.approx(12.5)
    assert errors["b"]["error"] == pytest.approx(12.5)
    assert errors["a"]["seed_errors"] == [25.0, 0.0]
    assert (errors["a"]["many"], errors["a"]["medium"], errors["a"]["few"]) == pytest.approx((25.0, 0.0, 12.5))
    assert found["groups"] == {"many": 1, "medium": 1, "few": 1}
    (pair,) = found["comparisons"]
    assert pair["error_difference"] == pytest.approx(0)
    difference = np.array([-0.5, 0, 0, 0, 0, 0.5, 0, 0])
    assert pair["image_ci"] == pytest.approx(100 * 1.96 * difference.std(ddof=1) / np.sqrt(8))
    assert pair["verdict"] == "not assessed"
    assert len(tables) == 2


def test_published_errors_are_quoted_for_published_settings_only():
    (line,) = report.references("cifar100", 100.0)
    assert "51.46 (Guo et al. 2022), 55.46 (a replication)" in line
    assert "cross-entropy 61.68" in line
    assert report.references("cifar100", 99.0) == []
    assert report.references("image-folder", 100.0) == []


def test_versions_are_part_of_the_identity(finished):
    assert results_of(finished)["versions"] == versions()
