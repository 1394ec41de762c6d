"""The command on tiny problems: files, resuming, merging, one sentence for every mistake; its parts against oracles."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import otfew
from otfew.errors import UserError
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.experiments import __main__ as otfew_command
from otfew.experiments import compare
from otfew.experiments.common import setup
from otfew.experiments.common.cli import run
from otfew.experiments.solver_timings import clock, measure, problems, report, session
from otfew.experiments.solver_timings import command as solver_timings
from otfew.experiments.solver_timings.config import Config
from otfew.features.file import load_feature_file
from otfew.methods import METHODS
from otfew.transport.registry import SOLVERS, PointSolver, lookup

PNG = b"\x89PNG"
QUICK = ["--quick", "--call-seconds", "60", "--solvers", "exact", "opencv"]


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """Caches and default outputs in a folder of the test; thread settings as they were."""
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OTFEW_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "set_threads", lambda threads: 1)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Own features: 6 classes of 12 images, 4x4 nodes of 8 channels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 12)
    nodes = np.abs(rng.normal(size=(6, 1, 8))[labels] + 0.8 * rng.normal(size=(72, 16, 8)))
    path = tmp_path_factory.mktemp("features") / "features.npz"
    np.savez(path, nodes=nodes.astype(np.float32), labels=labels)
    return path


@pytest.fixture(scope="module")
def finished(features, tmp_path_factory):
    """One finished run of two solvers."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "set_threads", lambda threads: 1)
        run_ok(*QUICK, "--features", features, "--output", folder)
    return folder


def run_ok(*arguments):
    run(lambda: solver_timings.main([str(a) for a in arguments]))


def refused(capsys, *arguments):
    """Return the one line with which a command line is refused."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_ok(*arguments)
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_a_run_leaves_tables_figures_and_pictures(finished):
    rows = results_of(finished)["timings"]
    timed = [r for r in rows if "forward_ms" in r]
    assert {(r["panel"], r["n"], r["batch"]) for r in timed if r["solver"] == "exact"} >= {
        ("nodes", 4, 1), ("nodes", 9, 50), ("file", 16, 8), ("points", 20, 1)
    }  # fmt: skip
    assert all(r["forward_ms"] > 0 and r["backward_ms"] > 0 for r in timed)
    assert all(r["value_error"] <= 1e-6 for r in timed if r["panel"] in {"nodes", "file"})
    assert all(r["gap"] <= 1e-6 and r["marginal_error"] <= 1e-6 and r["not_converged"] == 0 for r in timed)
    with (finished / "timings.csv").open() as file:
        assert [row["solver"] for row in csv.DictReader(file)] == [r["solver"] for r in rows]
    said = (finished / "report.md").read_text()
    for word in ("which solver when", "Table 6", "paper's QPTH", "point clouds", "medians of interleaved turns"):
        assert word in said
    for name in ("solver-time-n.png", "solver-time-batch.png", "solver-points.png"):
        assert (finished / name).read_bytes().startswith(PNG)


@pytest.mark.slow
def test_accuracies_are_those_of_compare_on_the_same_episodes(finished, features, tmp_path):
    """Same features, same protocol: the same accuracy as the evaluator's own command."""
    arguments = ["--features", features, "--methods", "deepemd", "product-coupling", "--episodes", 10, "--query", 2]
    run(lambda: compare.main([str(a) for a in [*arguments, "--output", tmp_path / "compare"]]))
    expected = results_of(tmp_path / "compare")["methods"]
    found = results_of(finished)["episodes"]
    assert set(found) == {"pooled", "given"}
    assert found["given"]["exact"]["accuracy"] == expected["deepemd"]["accuracy"]["mean"]
    assert found["given"]["product-coupling"]["accuracy"] == expected["product-coupling"]["accuracy"]["mean"]
    assert found["given"]["exact"]["difference"] == 0


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_measures_nothing_twice(finished, features, tmp_path, monkeypatch, capsys):
    arguments = [*QUICK, "--features", features, "--output", tmp_path / "run"]
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    for index in range(2, 20):
        (tmp_path / "run" / "blocks" / f"{index:06d}.npz").unlink(missing_ok=True)
    calls = []
    measured = measure.measure_dense

    def counted(where, *rest):
        calls.append((where["panel"], where["n"], where["batch"]))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measured(where, *rest)

    monkeypatch.setattr(session, "measure_dense", counted)
    with pytest.raises(SystemExit) as ended:
        run_ok(*arguments)
    assert ended.value.code == 130
    assert not (tmp_path / "run" / "results.json").exists()
    run_ok(*arguments)
    assert calls.count(calls[3]) == 2
    assert all(calls.count(call) == 1 for call in calls if call != calls[3])
    before = results_of(tmp_path / "run")
    run_ok(*arguments)
    assert results_of(tmp_path / "run") == before
    assert "another protocol" in refused(capsys, *arguments, "--seed", 2)


@pytest.mark.slow
def test_a_damaged_block_is_measured_again(finished, features, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "blocks" / "000000.npz").write_bytes(b"?")
    run_ok(*QUICK, "--features", features, "--output", folder)
    assert "damaged" in capsys.readouterr().out


@pytest.mark.slow
def test_what_another_environment_measured_can_be_merged(finished, features, tmp_path):
    other = results_of(finished)
    for row in other["timings"]:
        row["solver"] = "qpth" if row["solver"] == "opencv" else row["solver"]
    other["kinds"] = {"exact": "exact", "qpth": "quadratic"}
    for rows in other["episodes"].values():
        rows["qpth"] = rows.pop("opencv")
    (tmp_path / "other.json").write_text(json.dumps(other))
    shutil.copytree(finished, tmp_path / "run")
    run_ok(*QUICK, "--features", features, "--merge", tmp_path / "other.json", "--output", tmp_path / "run")
    assert "qpth*" in (tmp_path / "run" / "report.md").read_text()
    assert "qpth" not in (tmp_path / "run" / "results.json").read_text()
    assert "qpth" in (tmp_path / "run" / "timings.csv").read_text()
    merged = report.merge(results_of(tmp_path / "run"), tmp_path / "other.json")
    assert merged["merged"]["solvers"] == ["qpth"]
    assert merged["merged"]["time_ratio_of_exact"] > 0
    assert merged["episodes"]["given"]["qpth"]["merged"]
    assert "merged" not in merged["episodes"]["given"]["exact"]


@pytest.mark.slow
def test_what_cannot_be_merged_is_refused_before_the_work(finished, features, tmp_path, capsys):
    arguments = [*QUICK, "--features", features, "--output", tmp_path / "run", "--merge", tmp_path / "other.json"]
    assert "cannot be read" in refused(capsys, *arguments)
    (tmp_path / "other.json").write_text("{}")
    assert "no results.json of solver-timings" in refused(capsys, *arguments)
    other = results_of(finished)
    other["protocol"]["episodes"]["seed"] = 7
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert "other episodes (seed is 7 there and 1 here)" in refused(capsys, *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sizes", "0", "4"], "--sizes must be positive"),
        (["--batches", "-1"], "--batches must be positive"),
        (["--point-sizes", "0"], "--point-sizes must be positive"),
        (["--regs", "0.1", "0"], "--regs must be positive"),
        (["--reg", "0"], "--reg must be above 0"),
        (["--call-seconds", "-1"], "--call-seconds must be above 0"),
        (["--episodes", "0"], "--episodes must be at least 1"),
        (["--way", "1"], "--way must be at least 2"),
        (["--solvers", "exakt"], "did you mean 'exact'"),
        (["--solvers"], "names no solver"),
        (["--dataset", "cubb"], "cubb"),
        (["--features", "missing.npz"], "missing.npz"),
        (["--device", "quantum"], "quantum"),
        (["--sises", "4"], "--sises"),
    ],
)
def test_mistakes_are_one_sentence(capsys, arguments, said):
    assert said in refused(capsys, *arguments)


def test_a_solver_asked_for_by_name_must_be_installed(capsys, monkeypatch):
    monkeypatch.setattr(problems, "installed", lambda solver: solver.name != "pot")
    assert "'pot' needs ot" in refused(capsys, "--solvers", "pot")
    chosen, missing = problems.choose(("all",))
    assert [s.name for s in missing] == ["pot"]
    assert {s.name for s in chosen} == SOLVERS.keys() - {"pot"}


def test_the_otfew_command_takes_hyphens_and_underscores(monkeypatch, capsys):
    for name in ("solver-timings", "solver_timings"):
        monkeypatch.setattr(sys, "argv", ["otfew", name, "--sizes", "0"])
        with pytest.raises(SystemExit) as ended:
            otfew_command.main()
        assert ended.value.code == 2
        assert "--sizes" in capsys.readouterr().err


# The parts.


def test_drawn_problems_are_cosines_with_cross_reference_weights():
    batch = problems.drawn(6, 3, "cpu")
    assert batch.cost.dtype == torch.float32
    assert batch.cost.shape == (3, 6, 6)
    assert ((batch.cost > 0) & (batch.cost < 1)).all()
    for side in (batch.a, batch.b):
        torch.testing.assert_close(side.sum(-1), torch.ones(3))
    first = problems.drawn(6, 1, "cpu")
    assert torch.equal(first.cost[0], batch.cost[0])


def test_real_problems_are_those_of_deepemd(features):
    data = load_feature_file(features)
    sampler = Sampler(Protocol("x", "", "test", way=3, query=2), data.labels, data.classes)
    batch = problems.real(data, sampler, 30, "cpu")
    value = otfew.solve(batch.cost, batch.a, batch.b).value
    episodes = sampler(0, 2)
    support, query = (data.nodes[torch.from_numpy(i)] for i in (episodes.support, episodes.query))
    logits = METHODS["deepemd"]()(support, query.flatten(1, 2))
    torch.testing.assert_close(12.5 * (1 - value).float(), logits.flatten()[:30])


def test_pooling_averages_cells_of_square_maps(features):
    data = load_feature_file(features)
    cells = problems.pooled(data, 2).nodes.view(72, 2, 2, 8)
    whole = data.nodes.view(72, 4, 4, 8)
    torch.testing.assert_close(cells[:, 1, 0], whole[:, 2:, :2].mean((1, 2)))
    assert problems.pooled(data, 4) is None
    assert problems.pooled(replace(data, nodes=data.nodes[:, :7]), 2) is None


def test_the_end_of_large_reg_is_the_product_coupling():
    batch = problems.drawn(5, 4, "cpu")
    worst = 0.0
    for cost, a, b in zip(batch.cost.numpy(), batch.a.numpy(), batch.b.numpy(), strict=True):
        product = (np.outer(a, b) * cost).sum()
        optimum = otfew.solve(cost.astype(float), a.astype(float), b.astype(float), solver="scipy").value
        worst = max(worst, (product - optimum) / (cost.max() - cost.min()))
    assert problems.product_error(batch) == pytest.approx(worst, abs=1e-5)


def test_predictions_take_the_nearest_cells():
    history = clock.History(power=2.0)
    assert history.predict(10, 10) is None
    history.seen = {(5, 1): 1.0, (5, 10): 4.0, (10, 1): 3.0}
    assert history.predict(5, 10) == 4.0
    assert history.predict(10, 10) == pytest.approx(min(3.0 * 10, 4.0 * 4))
    assert history.predict(20, 20) == pytest.approx(min(4.0 * 16 * 2, 3.0 * 4 * 20))
    assert history.predict(4, 1) is None


def test_turns_alternate_and_long_calls_are_timed_once():
    order = []

    def work(name, seconds):
        def call():
            order.append(name)
            clock.time.sleep(seconds)

        return call

    pace = clock.Pace(rounds=3, turn=0.0, budget=0.1)
    found = clock.take_turns({"a": work("a", 0.01), "b": work("b", 0.01), "long": work("long", 0.15)}, pace)
    assert order == ["a", "b", "long", *["a", "b"] * 3]
    assert [found[name].rounds for name in ("a", "b", "long")] == [3, 3, 1]
    assert found["long"].seconds >= 0.15


def test_what_would_take_too_long_or_fails_is_a_row_with_the_reason():
    class Broken(lookup("scipy")):
        def solve(self, problem):
            raise RuntimeError("out\nof order")

    batch = problems.drawn(4, 2, "cpu")
    histories = {"slow": clock.History(2.0, {(2, 2): 10.0}), "broken": clock.History(2.0)}
    contenders = {"slow": lookup("scipy")(), "broken": Broken()}
    where = {"panel": "nodes", "n": 4, "batch": 2}
    slow, broken = measure.measure_dense(where, batch, contenders, histories, clock.Pace())
    assert slow["skipped"] == "a call would take about 40 s"
    assert broken["skipped"] == "RuntimeError: out of order"
    assert "forward_ms" not in slow
    assert "forward_ms" not in broken


def test_a_backend_that_fails_one_problem_costs_its_own_row_only(tmp_path, monkeypatch):
    """Its episodes are left out with the reason, and those of the others are run; our own solver may not fail."""
    message = "opencv did not reach the optimum of 1 of 2500 problems"

    def failing(features, sampler, episodes, solvers, folder, *_):
        if "opencv" in solvers:
            raise otfew.ConvergenceError(message)
        return {name: {"accuracy": 0.5, "folder": folder.name} for name in solvers}

    run_of = session.Session.__new__(session.Session)
    run_of.config, run_of.features, run_of.sampler, run_of.identified = Config(), {"given": None}, None, {}
    run_of.device, run_of.watch = "cpu", SimpleNamespace(task=lambda _: nullcontext(lambda *_: None), note=print)
    chosen = {"exact": lookup("exact")(), "opencv": lookup("opencv")(), "scipy": lookup("scipy")()}
    monkeypatch.setattr(run_of, "_quick_enough", lambda *_: (dict(chosen), {}))
    monkeypatch.setattr(session, "run_episodes", failing)
    found = run_of.episodes(SimpleNamespace(path=tmp_path), [])["given"]
    assert found["opencv"] == {"skipped": f"ConvergenceError: {message}"}
    assert found["scipy"]["folder"] == "episodes-given-without-opencv"
    message = "exact did not reach the optimum of 1 of 2500 problems"
    with pytest.raises(otfew.ConvergenceError):
        run_of.episodes(SimpleNamespace(path=tmp_path), [])


def test_regularised_solvers_get_the_common_strength():
    for name in SOLVERS:
        solver = lookup(name)
        made = problems.construct(solver, 0.125)
        if solver.kind == "entropic":
            assert made.reg == 0.125
        else:
            assert made == solver()
        assert isinstance(made, PointSolver) == (solver.input == "points")


@pytest.mark.slow
def test_two_equal_runs_have_equal_times_when_merged(finished):
    rows = results_of(finished)["timings"]
    assert report._time_ratio(rows, [{**r, "forward_ms": 2 * r["forward_ms"]} for r in rows if "forward_ms" in r]) == 2
    assert report._time_ratio(rows, []) is None


def test_merging_leaves_a_user_error_about_broken_json(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        report.merge({"protocol": {"episodes": {}}}, tmp_path / "x.json")


def test_a_folder_with_other_files_is_refused(features, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("x")
    assert "other files" in refused(capsys, *QUICK, "--features", features, "--output", tmp_path / "run")
    assert not (tmp_path / "run" / "protocol.json").exists()
