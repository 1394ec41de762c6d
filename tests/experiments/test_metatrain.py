import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from otfew import backbones
from otfew.backbones.weights import save
from otfew.errors import UserError
from otfew.experiments import compare, metatrain, pretrain
from otfew.experiments.common import setup


@pytest.fixture(scope="module")
def start(folder, tmp_path_factory):
    """A backbone of a few steps, with 2 x 2 nodes."""
    output = tmp_path_factory.mktemp("start") / "run"
    words = f"--dataset image-folder --data-root {folder} --backbone conv4 --no-last-pool --resolution 16 --epochs 1 "
    words += f"--batch-size 16 --val-episodes 10 --accelerator cpu --threads 1 --no-tensorboard --output {output} "
    words += "--no-half"
    pretrain.main(words.split())
    return output / "image-folder-conv4.safetensors"


def arguments(folder, start, output, *more):
    words = f"--dataset image-folder --data-root {folder} --backbone {start} --way 3 --query 4 --epochs 2 "
    words += f"--episodes-per-epoch 4 --val-episodes 10 --accelerator cpu --threads 1 --output {output}"
    return [*words.split(), *more]


@pytest.fixture(scope="module")
def trained(folder, start, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "run"
    metatrain.main(arguments(folder, start, output, "--learning-rate", "0.05", "--no-half"))
    return output


def test_it_writes_a_checkpoint_with_where_it_comes_from(trained, start):
    backbone = backbones.load(str(trained / "image-folder-conv4-deepemd.safetensors"))
    card, first = backbone.card, backbones.load(str(start)).card
    assert card.options == {"last_pool": False}
    assert card.training_classes == first.training_classes
    assert (card.mean, card.std, card.resolution) == (first.mean, first.std, first.resolution)
    assert card.protocol["meta_trained_for"] == "deepemd"
    assert card.protocol["method"]["options"] == {"solver": "exact", "weight_gradient": True}
    assert card.protocol["started_from"]["sha256"] == first.sha256
    assert card.protocol["batchnorm"] == "episode"
    history = json.loads((trained / "history.json").read_text())
    assert [record["epoch"] for record in history] == [0, 1, 2]
    assert set(history[0]["validation"]) == {"deepemd", "cosine-centroid"}


def test_the_gain_is_paired(trained, start):
    record = json.loads((trained / "gain.json").read_text())
    history = json.loads((trained / "history.json").read_text())
    best = max(history, key=lambda r: (r["validation"]["deepemd"]["mean"], -r["epoch"]))
    for name in ("deepemd", "cosine-centroid"):
        parts = record[name]
        assert parts["difference"]["mean"] == pytest.approx(parts["after"]["mean"] - parts["before"]["mean"])
        # Weights are stored in full precision here: not one of the answers changes.
        assert parts["before"] == pytest.approx(history[0]["validation"][name], abs=1e-9)
        assert parts["after"] == pytest.approx(best["validation"][name], abs=1e-9)


def test_the_start_is_validated_as_the_pretraining_did(trained, start):
    """Epoch 0 is the backbone that was given: the same episodes, the same accuracy."""
    first = json.loads((trained / "history.json").read_text())[0]["validation"]["cosine-centroid"]["mean"]
    protocol = backbones.load(str(start)).card.protocol
    assert first == pytest.approx(protocol["val_accuracies"]["cosine-centroid"], abs=1e-3)


def test_the_method_that_is_trained_chooses_the_epoch_or_nothing_does(trained, folder, start, tmp_path):
    words = ("--select", "last", "--learning-rate", "0.05", "--no-tensorboard")
    metatrain.main(arguments(folder, start, tmp_path / "out", *words))
    protocols = {
        run: backbones.load(str(run / "image-folder-conv4-deepemd.safetensors")).card.protocol
        for run in (trained, tmp_path / "out")
    }
    own, last = protocols.values()
    history = json.loads((trained / "history.json").read_text())
    assert own["kept_epoch"] == max(history, key=lambda r: (r["validation"]["deepemd"]["mean"], -r["epoch"]))["epoch"]
    assert own["selection"].startswith("best epoch, the start included, on 10 episodes")
    assert own["selection"].endswith("by deepemd")
    assert last["kept_epoch"] == 2
    assert last["selection"].startswith("the last epoch")
    assert "--select last" in last["command"]


@pytest.mark.parametrize("method", ["protonet", "matchingnet", "frn"])
def test_baselines(folder, start, tmp_path, method):
    metatrain.main(arguments(folder, start, tmp_path / "out", "--method", method, "--epochs", "1"))
    card = backbones.load(str(tmp_path / "out" / f"image-folder-conv4-{method}.safetensors")).card
    assert card.protocol["meta_trained_for"] == method
    learned = card.protocol.get("learned", {})
    assert {name: set(values) for name, values in learned.items()} == (
        {"frn": {"temperature", "alpha", "beta"}} if method == "frn" else {}
    )


@pytest.mark.parametrize("more", [("--solver", "sinkhorn"), ("--nodes", "grid:2"), ("--nodes", "fcn:1")])
def test_other_solvers_and_nodes(folder, start, tmp_path, more):
    metatrain.main(arguments(folder, start, tmp_path / "out", *more, "--epochs", "1", "--no-tensorboard"))
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert all(math.isfinite(record["loss"]) for record in history[1:])


def test_again_resumes_and_writes_the_same(trained, folder, start, capsys):
    path = trained / "image-folder-conv4-deepemd.safetensors"
    before = load_file(path)
    metatrain.main(arguments(folder, start, trained, "--learning-rate", "0.05", "--no-half"))
    after = load_file(path)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "resuming after 2 epochs" in capsys.readouterr().err


def test_another_solver_or_start_does_not_resume(trained, folder, start):
    for more in (("--solver", "sinkhorn"), ("--no-weight-gradient",), ("--batchnorm", "frozen"), ("--nodes", "fcn:1")):
        with pytest.raises(UserError, match="another `output`"):
            metatrain.main([*arguments(folder, start, trained), "--learning-rate", "0.05", *more])


def test_the_command_in_the_card_parses(trained):
    protocol = json.loads((trained / "image-folder-conv4-deepemd.json").read_text())["protocol"]
    words = protocol["command"].split()
    assert words[:3] == ["python", "-m", "experiments.metatrain"]
    config = metatrain.parse(metatrain.Config, "metatrain", words[3:])
    assert (config.backbone, config.method, config.way) == ("image-folder-conv4", "deepemd", 3)
    assert config.settings.learning_rate == 0.05


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--method", "deepmd"), "deepemd"),
        (("--solver", "simplex"), "simplex"),
        (("--method", "protonet", "--temperature", "-1"), "temperature"),
        (("--method", "linear-classifier", "--temperature", "2"), "has none"),
        (("--backbone", "nowhere.safetensors"), "nowhere"),
        (("--backbone", "torch.nn:Identity"), "has no weights"),
        (("--method", "deepemd:heat=1"), "has no option 'heat'"),
        (("--method", "deepemd:temperature=3", "--temperature", "2"), "leave one out"),
        (("--backbone", "glyphs-resnet12-quarter"), "glyphs"),
        (("--way", "9"), "way`? 9"),
        (("--query", "400"), "query"),
        (("--nodes", "hexagons"), "hexagons"),
        (("--nodes", "fcn:3"), "level 3"),
        (("--episodes-per-epoch", "0"), "--episodes-per-epoch"),
        (("--accumulate", "3"), "3 equal parts"),
    ],
)
def test_mistakes(folder, start, tmp_path, wrong, said):
    with pytest.raises(UserError, match=said):
        metatrain.main([*arguments(folder, start, tmp_path / "out"), *wrong])
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_a_backbone_that_has_seen_the_validation_classes(folder, start, tmp_path):
    backbone = backbones.load(str(start))
    card = replace(backbone.card, training_classes=("val-0", "train-1"))
    save(tmp_path / "seen.safetensors", backbone.module, card)
    with pytest.raises(UserError, match="1 of the 5 validation classes"):
        metatrain.main(arguments(folder, tmp_path / "seen.safetensors", tmp_path / "out"))


def test_compare_takes_what_was_learned_with_the_backbone(folder, start, tmp_path, monkeypatch):
    """FRN's factors come from the card; those of another method's backbone stay at their defaults."""
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(setup, "set_threads", lambda threads: 1)
    metatrain.main(arguments(folder, start, tmp_path / "out", "--method", "frn", "--epochs", "1", "--no-tensorboard"))
    path = tmp_path / "out" / "image-folder-conv4-frn.safetensors"
    chosen = backbones.load(str(path)).card.protocol["learned"]["frn"]
    for backbone, expected in ((path, chosen), (start, {})):
        words = f"--dataset image-folder --data-root {folder} --backbone {backbone} --methods frn protonet --way 3 "
        words += f"--query 4 --episodes 4 --output {tmp_path / backbone.stem}"
        compare.main(words.split())
        methods = json.loads((tmp_path / backbone.stem / "results.json").read_text())["protocol"]["methods"]
        assert methods["frn"]["options"] == expected
        assert methods["protonet"]["options"] == {}
