"""What all analyses promise: compare's episodes, the same bytes after an interruption, no paths, one sentence."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from otfew.evaluation.episodes import Protocol, Sampler
from otfew.evaluation.run import Ready, evaluate
from otfew.evaluation.study import FirstShots
from otfew.experiments import ablate_weights, compare, cross_domain, extractors, shots
from otfew.experiments import commands as otfew_command
from otfew.experiments.common.cli import run
from otfew.experiments.does_ot_matter import command as does_ot_matter
from otfew.features.file import load_feature_file
from otfew.methods import METHODS
from otfew.runs.directory import RunDirectory

pytestmark = pytest.mark.usefixtures("surroundings")

ON_FEATURES = {
    "ablate-weights": (ablate_weights.main, ["--clusters", "2", "--bandwidths", "0", "inf"]),
    "does-ot-matter": (does_ot_matter.main, ["--regs", "0.1", "--entropy-episodes", "1"]),
    "shots": (shots.main, ["--shots", "1", "3", "--baselines", "cosine-centroid", "--sfc-epochs", "2"]),
}
FAST = ["--query", "4", "--episodes", "60"]


@pytest.fixture(params=ON_FEATURES)
def analysis(request, own_features):
    """A command that runs on own features, with its arguments."""
    main, arguments = ON_FEATURES[request.param]
    return main, ["--features", own_features, *FAST, *arguments]


def test_results_hold_no_paths_or_times(analysis, own_features, tmp_path, finish):
    main, arguments = analysis
    finish(main, tmp_path / "run", *arguments)
    text = (tmp_path / "run" / "results.json").read_text()
    for word in (str(tmp_path), str(own_features), "ms_per", "seconds", "threads"):
        assert word not in text
    assert (tmp_path / "run" / "report.md").read_text().startswith("## ")


def test_episodes_csv_has_every_episode(analysis, tmp_path, finish):
    main, arguments = analysis
    results = finish(main, tmp_path / "run", *arguments)
    with (tmp_path / "run" / "episodes.csv").open() as file:
        rows = list(csv.DictReader(file))
    for key, panel in results["panels"].items():
        for name, method in panel["methods"].items():
            values = [float(r["accuracy"]) for r in rows if (r["panel"], r["method"]) == (key, name)]
            assert len(values) == 60
            assert method["accuracy"]["mean"] == pytest.approx(np.mean(values))


def test_an_interrupted_run_resumes_to_the_same_bytes(analysis, tmp_path, finish, monkeypatch):
    main, arguments = analysis
    finish(main, tmp_path / "whole", *arguments)
    save = RunDirectory.save_block

    def interrupted(self, index, arrays, form):
        if index == 1:
            raise KeyboardInterrupt
        save(self, index, arrays, form)

    monkeypatch.setattr(RunDirectory, "save_block", interrupted)
    with pytest.raises(SystemExit) as ended:
        finish(main, tmp_path / "cut", *arguments)
    assert ended.value.code == 130
    assert not (tmp_path / "cut" / "results.json").exists()
    monkeypatch.setattr(RunDirectory, "save_block", save)
    finish(main, tmp_path / "cut", *arguments)
    for name in ("results.json", "episodes.csv", "protocol.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_another_protocol_is_refused(analysis, tmp_path, finish, refused):
    main, arguments = analysis
    finish(main, tmp_path / "run", *arguments)
    assert "another protocol" in refused(main, *arguments, "--seed", 2, "--output", tmp_path / "run")


def test_the_episodes_are_those_of_compare(own_features, tmp_path, finish):
    arguments = ["--features", own_features, *FAST]
    alone = finish(compare.main, tmp_path / "compare", *arguments, "--methods", "deepemd", "cosine-centroid")
    beside = finish(does_ot_matter.main, tmp_path / "beside", *arguments, "--regs", "0.1")
    for name in ("deepemd", "cosine-centroid"):
        assert beside["panels"]["all"]["methods"][name]["accuracy"] == alone["methods"][name]["accuracy"]


@pytest.mark.parametrize(
    ("main", "arguments", "said"),
    [
        (ablate_weights.main, ["--clusters", "0"], "--clusters"),
        (ablate_weights.main, ["--bandwidths", "wide"], "neither a number of at least 0 nor inf nor auto"),
        (ablate_weights.main, ["--bandwidths", "-1"], "--bandwidths"),
        (does_ot_matter.main, ["--regs", "0"], "--regs must be numbers above 0"),
        (does_ot_matter.main, ["--entropy-episodes", "0"], "--entropy-episodes"),
        (does_ot_matter.main, ["--episodes", "0"], "--episodes must be at least 1"),
        (does_ot_matter.main, ["--dataset", "nowhere"], "unknown data set 'nowhere'"),
        (shots.main, ["--shots", "0"], "--shots must be whole numbers of at least 1"),
        (shots.main, ["--heads", "tails"], "unknown shot_head 'tails'"),
        (shots.main, ["--baselines", "protonett"], "did you mean protonet"),
        (shots.main, ["--sfc-lr", "-1"], "--sfc-lr must be a number above 0, not -1.0."),
        (extractors.main, ["--nodes", "grid:0"], "grid:0"),
        (extractors.main, ["--nodes", "--methods", "deepemd"], "--nodes names nothing"),
        (extractors.main, ["--methods", "simpleshot"], "needs base classes"),
        (extractors.main, ["--solver", "guess"], "--solver"),
        (cross_domain.main, ["--methods", "all"], "name the methods"),
        (cross_domain.main, ["--datasets", "glyphs", "atlantis"], "unknown data set 'atlantis'"),
        (cross_domain.main, ["--way", "1"], "--way must be at least 2"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_sentence(main, arguments, said, refused, toy_backbone):
    assert said in refused(main, *arguments)


def test_commands_are_registered():
    names = {"ablate-weights", "cross-domain", "does-ot-matter", "extractors", "shots", "show-flows"}
    assert names <= set(otfew_command.COMMANDS)


def test_help_ends_well(capsys):
    for main in (ablate_weights.main, cross_domain.main, does_ot_matter.main, extractors.main, shots.main):
        with pytest.raises(SystemExit) as ended:
            run(lambda main=main: main(["--help"]))
        assert ended.value.code == 0
        assert "--resolution" in capsys.readouterr().out


def test_first_shots_are_nested_and_pair_the_episodes(own_features):
    features = load_feature_file(own_features)
    most = Sampler(Protocol("features", "", "file", shot=5, query=3), features.labels, features.classes)
    whole = most(3, 9)
    for k in (1, 2, 5):
        sampler = FirstShots(most, k)
        fewer = sampler(3, 9)
        assert sampler.protocol.shot == k
        np.testing.assert_array_equal(fewer.query, whole.query)
        np.testing.assert_array_equal(fewer.classes, whole.classes)
        np.testing.assert_array_equal(fewer.support, whole.support[:, :, :k])
    scores = evaluate([Ready("emd", METHODS["deepemd"](), features)], FirstShots(most, 2), 4)
    assert scores["emd"].correct.shape == (4, 5)
