"""What commands expect of their finished blocks: an arm's second stage, a run of metric learning."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from otfew.evaluation import blocks as episodes
from otfew.experiments.common import training
from otfew.experiments.long_tail.stage2 import _form
from otfew.experiments.metric_learning import session
from otfew.experiments.solver_timings import session as timings
from otfew.retrieval import run as retrieval
from otfew.runs.directory import RunDirectory
from otfew.runs.identity import sources

CONFIG = SimpleNamespace(stage2="head", head=SimpleNamespace(epochs=4))
STAGE1 = SimpleNamespace(
    cached=SimpleNamespace(test=np.zeros((4, 2)), features=SimpleNamespace(counts=np.ones(3))),
    images=SimpleNamespace(curve=object()),
)
BLOCK = {
    "predictions": np.array([0, 2, 1, 0], np.int16),
    "epoch": np.array(3),
    "learning_rate": np.array(0.1),
    "seconds": np.array(2.0),
    "validation_error": np.array(40.0),
    "curve": np.array([50.0, 55.0, 60.0, 61.0]),
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"predictions": np.array([0, 3, 1, 0], np.int16)}, "from 0 to 3; possible is 0 to 2"),
        ({"predictions": np.array([0, 1, 0], np.int16)}, "has shape (3,)"),
        ({"validation_error": np.array(101.0)}, "possible is 0 to 100"),
        ({"epoch": np.array(-1)}, "possible is 0"),
        ({"tau": np.array(1.0)}, "'tau' is none of its arrays"),
        ({"curve": np.array([50.0, 55.0])}, "has shape (2,)"),
    ],
)
def test_the_block_of_an_arm(change, said):
    found = _form(CONFIG, "ce", STAGE1, "").objection({**BLOCK, **change})
    assert said in found
    assert bool(said) == bool(found)


def test_what_is_only_adjusted_has_a_strength():
    form = _form(CONFIG, "logit-adjustment", STAGE1, "")
    untrained = {**BLOCK, "curve": np.empty(0)}
    assert "'tau' is missing" in form.objection(untrained)
    assert form.objection({**untrained, "tau": np.array(0.5)}) == ""


def test_a_run_of_metric_learning_that_was_altered_is_done_again(tmp_path):
    said = []
    here = session.Session.__new__(session.Session)
    here.directory, here.code = RunDirectory(tmp_path, {}), "c0de"
    here.console = SimpleNamespace(print=lambda text, **_: said.append(text))
    here.directory.save_file("runs/a.json", b'{"split": "test", "loss": "x"}', "c0de")
    assert here._finished("a") == {"split": "test", "loss": "x"}
    path = tmp_path / "runs" / "a.json"
    path.write_text(path.read_text().replace("test", "val"))
    assert here._finished("a") is None
    here.directory.save_file("runs/a.json", b"{}", "old")
    assert here._finished("a") is None
    assert ["damaged" in said[0], "other code" in said[1]] == [True, True]


@pytest.mark.parametrize("names", [training.CODE, timings.CODE, episodes.CODE, retrieval.CODE])
def test_the_code_that_a_block_names_is_there(names):
    """A room that has moved must not go on counting by its name alone."""
    for name in names:
        assert sources(name)[0][1] is not None, name
