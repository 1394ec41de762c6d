"""Plug-ins in the commands: the examples in one table, trained and meta-trained, remembered by their source."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import otfew
from otfew import FewShotClassifier, backbones, plugins
from otfew.errors import UserError
from otfew.experiments import compare, metatrain, pretrain
from otfew.experiments.retrieve import command as retrieve

EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"
METHODS = (
    "my_method:BestMatches", "my_method:BestMatches:share=1,temperature=3", "deepemd:solver=my_solver:Dual", "deepemd",
    "cosine-centroid",
)  # fmt: skip
SHORT = ("--way", "3", "--query", "2", "--episodes", "4", "--threads", "1")


@pytest.fixture
def mine(surroundings, tmp_path, monkeypatch):
    """A folder with the examples, the current one, on no path."""
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, tmp_path)
    (tmp_path / "my_data.py").write_text((EXAMPLES / "my_data.py").read_text().replace("IMAGES = 20", "IMAGES = 6"))
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in {"", str(EXAMPLES)}])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def arguments(backbone, *more):
    return ["--dataset", "my_data:STRIPES", "--backbone", backbone, "--methods", *METHODS, *SHORT, *more]


def trained(main, *more):
    main(["--dataset", "my_data:STRIPES", "--epochs", "1", "--val-episodes", "4", "--threads", "1", "--no-tensorboard",
          *more])  # fmt: skip


def test_all_five_in_one_table_and_their_sources_in_the_protocol(mine, finish, refused, capsys):
    torch.manual_seed(0)
    results = finish(compare.main, mine / "run", *arguments("my_network:small", "--nodes", "my_nodes:Rings"))
    protocol = results["protocol"]
    names = ["my_data:STRIPES", "my_method:BestMatches", "my_network:small", "my_nodes:Rings", "my_solver:Dual"]
    assert protocol["plugins"] == {name: plugins.digest(name) for name in names}
    assert protocol["data"]["dataset"] == "my_data:STRIPES"
    assert protocol["order"] == [
        "my_method:BestMatches", "my_method:BestMatches share=1 temperature=3", "deepemd solver=my_solver:Dual",
        "deepemd", "cosine-centroid",
    ]  # fmt: skip
    assert {method["nodes"] for method in protocol["methods"].values()} == {"my_nodes:Rings"}
    mean = {name: method["accuracy"]["mean"] for name, method in results["methods"].items()}
    assert mean["deepemd"] == mean["deepemd solver=my_solver:Dual"]
    assert "my_method:BestMatches share=1" in capsys.readouterr().out
    # The same in Python; and a comparison without any says nothing of plug-ins.
    torch.manual_seed(0)
    again = otfew.compare(
        "my_data:STRIPES", [("my_method:BestMatches", {"share": 1, "temperature": 3}), "deepemd"], way=3, query=2,
        episodes=4, backbone="my_network:small", nodes="my_nodes:Rings",
    )  # fmt: skip
    name = "my_method:BestMatches share=1 temperature=3"
    assert again.results["methods"][name]["accuracy"]["mean"] == mean[name]
    # An edited source is another run, and caches do not answer for it.
    source = mine / "my_nodes.py"
    source.write_text(source.read_text().replace("depth >= self.rings - 1", "depth > self.rings - 1"))
    torch.manual_seed(0)
    said = refused(compare.main, *arguments("my_network:small", "--nodes", "my_nodes:Rings", "--output", mine / "run"))
    assert "another protocol" in said
    assert "my_nodes:Rings" in said


def test_pretrained_meta_trained_and_compared_without_a_line_in_otfew(mine, finish, refused):
    trained(pretrain.main, "--backbone", "my_network:small", "--name", "small", "--batch-size", "16")
    start = "my_network:small@runs/small/small.safetensors"
    card = json.loads((mine / "runs/small/small.json").read_text())
    assert card["architecture"] == "my_network:small"
    assert set(card["protocol"]["plugins"]) == {"my_data:STRIPES", "my_network:small"}
    trained(
        metatrain.main, "--backbone", start, "--method", "my_method:BestMatches:share=0.5", "--name", "tuned", "--way",
        "3", "--query", "2", "--episodes-per-epoch", "2", "--nodes", "my_nodes:Rings", "--select", "last",
    )  # fmt: skip
    card = json.loads((mine / "runs/tuned/tuned.json").read_text())
    learned = card["protocol"]["learned"]["my_method:BestMatches"]["temperature"]
    assert learned != 10
    assert card["protocol"]["meta_trained_for"] == "my_method:BestMatches"
    assert card["protocol"]["method"]["options"] == {"share": 0.5}
    assert set(card["protocol"]["plugins"]) == {
        "my_data:STRIPES", "my_method:BestMatches", "my_network:small", "my_nodes:Rings",
    }  # fmt: skip
    assert f"--backbone {'my_network:small@small.safetensors'}" in card["protocol"]["command"]
    tuned = "my_network:small@runs/tuned/tuned.safetensors"
    results = finish(compare.main, mine / "run", *arguments(tuned))
    protocol = results["protocol"]
    assert protocol["methods"]["my_method:BestMatches"]["options"]["temperature"] == learned
    assert protocol["backbone"]["test_classes_seen"] == 0
    # The file alone does not have the network's code run.
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]
    said = refused(compare.main, *arguments("runs/tuned/tuned.safetensors"))
    assert "names 'my_network:small', code that is none of otfew's" in said
    assert "my_network" not in sys.modules
    assert "is of 'my_network:small', not of 'my_network:other'" in refused(
        compare.main, *arguments("my_network:other@runs/tuned/tuned.safetensors")
    )


def test_meta_training_starts_from_the_weights_a_network_comes_with(mine):
    trained(
        metatrain.main, "--backbone", "my_network:small", "--method", "protonet", "--name", "own", "--way", "3",
        "--query", "2", "--episodes-per-epoch", "2",
    )  # fmt: skip
    found = backbones.load("my_network:small@runs/own/own.safetensors")
    assert found.card.external
    assert found.card.training_classes == ()
    assert found.card.resolution == 32


def test_retrieve_takes_them_too(mine, finish):
    found = finish(
        retrieve.main, mine / "ranked", "--dataset", "my_data:STRIPES", "--backbone", "my_network:small", "--nodes",
        "my_nodes:Rings", "--scores", "deepemd", "chamfer", "--solver", "my_solver:Dual", "--rerank", "3", "--threads",
        "1",
    )  # fmt: skip
    assert set(found["protocol"]["plugins"]) == {
        "my_data:STRIPES", "my_network:small", "my_nodes:Rings", "my_solver:Dual",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--methods", "raises:Name"), "importing 'raises' fails with RuntimeError: no licence"),
        (("--methods", "my_method:Tensor"), "the class 'my_method:Tensor' is no method, since it lacks"),
        (("--methods", "my_method:BestMatches:share=2"), "ValueError: share must be above 0"),
        (("--methods", "my_method:BestMatches:shar=1"), "has no option 'shar'; it takes temperature, share"),
        (("--methods", "deepemd:sfc"), "options are written NAME=VALUE"),
        (("--methods", "deepemd:solver=my_method:BestMatches"), "is no solver but BestMatches"),
        (("--dataset", "my_method:BestMatches"), "is of type BestMatches: name an otfew.data.Dataset"),
        (("--dataset", "my_data:STRIPE"), "did you mean STRIPES?"),
        (("--backbone", "my_data:CLASSES"), "is of type dict and no function"),
        (("--nodes", "my_method:BestMatches"), "lacks 'n_views' and is no extractor"),
        (("--nodes", "my_nodes:Rings:none"), "give the number of rings"),
        (("--solver", "my_solver:Rule"), "is no solver but Rule"),
    ],
)
def test_bad_plugins_are_one_sentence(mine, refused, given, said):
    (mine / "raises.py").write_text("raise RuntimeError('no licence')")
    words = {"--dataset": ["my_data:STRIPES"], "--backbone": ["my_network:small"], "--methods": ["deepemd"]}
    words[given[0]] = list(given[1:])
    line = refused(compare.main, *(word for option, values in words.items() for word in (option, *values)), *SHORT)
    assert said in line
    assert not (mine / "runs").exists()


def test_a_saved_classifier_has_no_code_imported(mine):
    photos = list(np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8))
    made = FewShotClassifier(backbone="glyphs-resnet12-quarter", method="my_method:BestMatches", resolution=16)
    made.fit(photos, ["a", "b"] * 3)
    made.save("mine.otfew")
    assert list(FewShotClassifier.load("mine.otfew").predict(photos)) == list(made.predict(photos))
    del sys.modules["my_method"]
    with pytest.raises(UserError, match=r"classifier mine.otfew names the method 'my_method:BestMatches'"):
        FewShotClassifier.load("mine.otfew")
    assert "my_method" not in sys.modules
