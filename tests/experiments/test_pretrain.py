import json

import pytest
import torch
from safetensors.torch import load_file

from otfew import backbones
from otfew.errors import UserError
from otfew.experiments import pretrain
from otfew.training import board


def arguments(folder, output, *more):
    words = f"--dataset image-folder --data-root {folder} --backbone conv4 --resolution 16 --epochs 2 --batch-size 16 "
    return [
        *words.split(),
        "--val-episodes",
        "10",
        "--accelerator",
        "cpu",
        "--threads",
        "1",
        "--output",
        str(output),
        *more,
    ]


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "run"
    pretrain.main(arguments(folder, output))
    return output


def test_it_writes_a_checkpoint_that_loads(trained):
    backbone = backbones.load(str(trained / "image-folder-conv4.safetensors"))
    card = backbone.card
    assert card.training_classes == ("train-0", "train-1", "train-2", "train-3")
    assert backbones.classes_seen(card, ["train-1", "test-0"], dataset="image-folder") == (1, 2)
    assert card.dataset == "image-folder"
    assert not card.external
    assert card.resolution == 16
    history = json.loads((trained / "history.json").read_text())
    assert [record["epoch"] for record in history] == [1, 2]
    assert card.protocol["kept_epoch"] == 2
    assert card.protocol["selection"].startswith("the last epoch; validated on 10 episodes")
    assert "--select last" in card.protocol["command"]
    for name in ("deepemd-fcn", "cosine-centroid"):
        found = history[-1]["validation"][name]
        assert card.protocol["val_accuracies"][name] == pytest.approx(found["mean"], abs=1e-3)
        assert card.protocol["val_intervals"][name] == pytest.approx(found["interval"], abs=1e-3)
    assert (trained / "tensorboard").is_dir() == board.installed()
    assert card.protocol["seed"] == 1
    assert backbone.maps(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 64, 2, 2)


def test_the_best_epoch_by_the_cosine_on_request(folder, tmp_path):
    pretrain.main(arguments(folder, tmp_path / "run", "--select", "cosine-centroid", "--no-tensorboard"))
    protocol = json.loads((tmp_path / "run" / "image-folder-conv4.json").read_text())["protocol"]
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    means = [record["validation"]["cosine-centroid"]["mean"] for record in history]
    assert protocol["kept_epoch"] == 1 + means.index(max(means))
    assert protocol["selection"].startswith("best epoch on 10 episodes")
    assert protocol["selection"].endswith("by cosine-centroid")


def test_the_card_holds_no_path_of_this_machine(trained, folder):
    text = (trained / "image-folder-conv4.json").read_text()
    assert str(folder) not in text
    assert str(trained) not in text


def test_the_command_in_the_card_parses_to_the_same_run(trained):
    protocol = json.loads((trained / "image-folder-conv4.json").read_text())["protocol"]
    words = protocol["command"].split()
    assert words[:3] == ["python", "-m", "experiments.pretrain"]
    config = pretrain.parse(pretrain.Config, "pretrain", words[3:])
    assert (config.dataset, config.backbone, config.resolution) == ("image-folder", "conv4", 16)
    assert (config.settings.epochs, config.settings.batch_size, config.val_episodes) == (2, 16, 10)


@pytest.mark.parametrize("value", [True, False, None])
def test_the_command_spells_switches_so_that_they_parse(value):
    config = pretrain.Config(flip=value, last_pool=bool(value), half=not value, min_scale=0.25)
    again = pretrain.parse(pretrain.Config, "pretrain", pretrain.command(config).split()[3:])
    assert again == config


def test_again_resumes_and_writes_the_same(trained, folder, capsys):
    before = load_file(trained / "image-folder-conv4.safetensors")
    pretrain.main(arguments(folder, trained))
    after = load_file(trained / "image-folder-conv4.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "resuming after 2 epochs" in capsys.readouterr().err


def test_another_run_in_the_same_folder_is_refused(trained, folder):
    before = sorted((p.name, p.read_bytes()) for p in trained.iterdir() if p.is_file())
    with pytest.raises(UserError, match="another `output`"):
        pretrain.main([*arguments(folder, trained), "--seed", "2"])
    assert sorted((p.name, p.read_bytes()) for p in trained.iterdir() if p.is_file()) == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--backbone", "resnet13"), "resnet13"),
        (("--dataset", "birds"), "birds"),
        (("--resolution", "8"), "leaves no node"),
        (("--epochs", "0"), "--epochs"),
        (("--epochs", "many"), "many"),
        (("--batch-size", "1000"), "`batch_size` 1000 is more than the 32 training images"),
        (("--val-episodes", "0"), "--val-episodes"),
        (("--accumulate", "3"), "3 equal parts"),
        (("--recipe", "s2m2", "--mixup-epochs", "1"), "wrn16_2"),
        (("--backbone", "wrn16_2", "--no-last-pool"), "no last pooling"),
        (("--select", "chamfer"), "chamfer"),
        (("--select", "deepemd-fcn"), "cosine-centroid"),
        (("--name", "a/b"), "--name"),
        (("--data-root", "/nowhere/at/all"), "/nowhere/at/all"),
    ],
)
def test_mistakes(folder, tmp_path, wrong, said):
    with pytest.raises(UserError, match=said):
        pretrain.main([*arguments(folder, tmp_path / "out"), *wrong])
    assert not (tmp_path / "out").exists()


def test_s2m2(folder, tmp_path):
    words = ("--backbone", "wrn16_2", "--recipe", "s2m2", "--mixup-epochs", "1", "--optimizer", "adam")
    pretrain.main([*arguments(folder, tmp_path / "out"), *words, "--learning-rate", "0.001", "--batch-size", "8"])
    backbone = backbones.load(str(tmp_path / "out" / "image-folder-wrn16_2.safetensors"))
    assert backbone.card.options == {}
    assert backbone.card.protocol["recipe"] == "s2m2"
    assert float(backbone.maps(torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)).min()) >= 0


def test_a_mistake_is_one_line_and_exit_code_2(folder, tmp_path, refused):
    assert "'nope'" in refused(pretrain.main, *arguments(folder, tmp_path), "--backbone", "nope")
