"""Parts of the ledger: readers of finished runs against plain arithmetic, rules of verdicts, rows of the page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from otfew.errors import UserError
from otfew.experiments.long_tail.arms import COMPARISONS
from otfew.experiments.reproduce import claims as ledger_claims
from otfew.experiments.reproduce import report
from otfew.experiments.reproduce.answers import Answers, gather
from otfew.experiments.reproduce.budget import Bearing
from otfew.experiments.reproduce.claims import Arm, Claim, Elsewhere, Run
from otfew.experiments.reproduce.figures import (
    EpisodeReader,
    Figure,
    LongTailReader,
    RetrievalReader,
    difference,
    level,
    reader_of,
)
from otfew.experiments.reproduce.runs_of_page import Kept
from otfew.experiments.reproduce.verdict import KINDS, basis, judge
from otfew.statistics import intervals as statistics


def answers_of(accuracies, classes, names, **terms):
    """Answers to 1,000 queries an episode, of methods by name with (episodes,) accuracies."""
    panel = {"methods": list(accuracies), "class_names": names, "classes": "c", "right": "r", "queries": 1000}
    same = {"way": 2, "shot": 1, "query": 500, "seed": 1, "query_balance": None, "data": {"split": "test"}}
    right = np.rint(1000 * np.array(list(accuracies.values()))).astype(np.uint16)
    about = {"kind": "episodes", "panels": {"": {**panel, **same, **terms}}}
    return Answers(about, {"c": np.array(classes), "r": right})


def episodes_run(accuracies, classes, names, **terms):
    """A reader of such answers."""
    return EpisodeReader(answers_of(accuracies, classes, names, **terms), "made up")


def test_several_networks_are_averaged_episode_by_episode():
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(8)]
    drawn = np.array([rng.permutation(8)[:2] for _ in range(200)])
    tables = [{"a": rng.integers(300, 1000, 200) / 1000, "b": rng.integers(0, 700, 200) / 1000} for _ in range(3)]
    readers = [episodes_run(table, drawn, names) for table in tables]
    found = difference([((r, "a"), (r, "b")) for r in readers], "")
    each = np.array([table["a"] - table["b"] for table in tables])
    plain = statistics.estimate(each.mean(0), drawn, names)
    assert found.seeds == 3
    assert found.mean == pytest.approx(100 * plain.mean)
    assert found.intervals["classes"] == pytest.approx(100 * plain.jackknife.half_width)
    assert found.degrees == {"classes": 7}
    # Student's t with two degrees of freedom: 4.3027.
    spread = 4.302653 * 100 * each.mean(1).std(ddof=1) / np.sqrt(3)
    assert found.intervals["networks"] == pytest.approx(spread, rel=1e-5)
    assert found.p == pytest.approx(statistics.p_value(plain))
    # Both at once: Welch and Satterthwaite's sum of the two variances.
    errors = [plain.jackknife.standard_error * 100, spread / 4.302653]
    degrees = (errors[0] ** 2 + errors[1] ** 2) ** 2 / (errors[0] ** 4 / 7 + errors[1] ** 4 / 2)
    both = stats.t.ppf(0.975, degrees) * np.hypot(*errors)
    decides = basis(found)
    assert decides.over == ("classes", "networks")
    assert decides.half_width == pytest.approx(max(both, *found.intervals.values()), rel=1e-5)
    assert decides.p >= found.p
    assert level([(r, "a") for r in readers], "").p is None
    assert level([(readers[0], "a")], "").p is None  # a level is no difference, whatever zero means for it
    other = episodes_run(tables[0], drawn[::-1], names)
    with pytest.raises(UserError, match="saw other episodes"):
        difference([((readers[0], "a"), (other, "b"))], "")
    with pytest.raises(UserError, match="no arm 'c'"):
        level([(readers[0], "c")], "")
    with pytest.raises(UserError, match="no arm 'there / a'"):
        level([(readers[0], "there / a")], "")


def test_metric_learning_is_paired_by_seed(tmp_path):
    maps = {
        # The last epoch of the third seed is not its best.
        "ot": {1: [0.1, 0.5, 0.7], 2: [0.1, 0.4, 0.6], 3: [0, 1.0, 0.8]},
        "all": {1: [0, 0.4, 0.7], 2: [0, 0.1, 0.4]},
        "lost": {},
    }
    reader = metric_run(tmp_path, maps, {"dataset": "x"})
    found = reader.difference("ot", reader, "all", "mean_of_epochs")
    assert found.mean == pytest.approx(100 * np.mean([0.05, 0.25]))
    assert found.intervals["seeds"] == pytest.approx(12.7062 * 100 * 0.1, rel=1e-4)
    assert found.seeds == 2
    assert basis(found).p == found.p
    assert reader.difference("ot", reader, "all", "first_epoch").mean == pytest.approx(20)
    assert reader.level("ot", "last_epoch").mean == pytest.approx(100 * 2.1 / 3)
    with pytest.raises(UserError, match="no arm 'ot by no measure'"):
        reader.level("ot", "")
    with pytest.raises(UserError, match="diverged with every seed"):
        reader.level("lost", "last_epoch")


def metric_run(folder, maps, protocol):
    """A reader of a folder with what is read of a run of metric learning."""
    losses = {
        loss: {"seeds": {str(s): [{"figures": {"map": m}} for m in run] for s, run in seeds.items()}}
        for loss, seeds in maps.items()
    }
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps({"losses": losses, "protocol": protocol}))
    return reader_of(gather("metric-learning", folder), folder.name)


def test_metric_learning_of_other_images_is_not_compared(tmp_path):
    maps = {"ot": {1: [0.1, 0.2]}}
    protocols = {"one": {"dataset": "x"}, "same": {"dataset": "x"}, "other": {"dataset": "y"}}
    readers = {name: metric_run(tmp_path / name, maps, protocol) for name, protocol in protocols.items()}
    assert readers["one"].difference("ot", readers["same"], "ot", "last_epoch").mean == 0
    with pytest.raises(UserError, match="saw other images"):
        readers["one"].difference("ot", readers["other"], "ot", "last_epoch")
    with pytest.raises(UserError, match="no run of metric learning"):
        readers["one"].difference("ot", episodes_run({"a": [1.0]}, [[0, 1]], ["a", "b"]), "ot", "last_epoch")


@pytest.mark.parametrize("term", ["seed", "shot", "query", "way", "query_balance", "data"])
def test_only_runs_on_the_same_episodes_are_paired(term):
    """The same classes do not make the same episodes: images are drawn by seed, shots and queries."""
    names, drawn, table = ["a", "b", "c"], [[0, 1], [1, 2], [0, 2]], {"m": [0.1, 0.2, 0.4]}
    one, two, other = (episodes_run(table, drawn, names, **more) for more in ({}, {}, {term: 7}))
    assert difference([((one, "m"), (two, "m"))], "").mean == 0
    with pytest.raises(UserError, match="saw other episodes"):
        difference([((one, "m"), (other, "m"))], "")


def tail_run(rng, right, test="t"):
    """A reader of a long tail of which each arm's seeds got so many images right, with those images."""
    images = 200
    found = {name: np.array([rng.permutation(images) < each for each in seeds]) for name, seeds in right.items()}
    about = {"kind": "long-tail", "arms": {name: name for name in right}, "images": images, "same": {"test": test}}
    return LongTailReader(Answers(about, {k: np.packbits(v, axis=1) for k, v in found.items()}), "tail"), found


def test_long_tails_are_judged_over_images_and_first_stages():
    """Classes are fixed by design: no interval over them is there to decide."""
    rng = np.random.default_rng(0)
    runs = [tail_run(rng, {"ot": (120, 130, 125), "ce": (100,)}) for _ in range(3)]
    reader, right = runs[0]
    found = reader.difference("ot", reader, "ce", "")
    each = right["ot"].mean(0) - right["ce"].mean(0)
    half = 1.96 * 100 * each.std(ddof=1) / np.sqrt(200)
    assert found.mean == pytest.approx(12.5)
    assert found.intervals == {"images": pytest.approx(half)}
    assert found.p == pytest.approx(2 * stats.norm.sf(1.96 * 12.5 / half), rel=1e-4)
    assert basis(found).half_width == pytest.approx(half)
    assert judge([claim()], {"c": found})["c"].text == "confirmed on this checkpoint"
    assert reader.level("ce", "").mean == pytest.approx(50)
    several = difference([((r, "ot"), (r, "ce")) for r, _ in runs], "")
    assert several.seeds == 3
    assert basis(several).over == ("images", "networks")
    assert judge([claim()], {"c": several})["c"].text in {"confirmed", "inconclusive"}
    other, _ = tail_run(rng, {"ce": (100,)}, "another test set")
    with pytest.raises(UserError, match="saw other episodes or images"):
        difference([((reader, "ot"), (other, "ce"))], "")
    with pytest.raises(UserError, match="no arm 'focal'"):
        reader.level("focal", "")


def test_a_figure_of_a_long_tail_never_rests_on_classes():
    found = basis(Figure(1.0, {"images": 0.5, "classes": 3.0}, 0.001))
    assert (found.over, found.half_width) == (("images",), 0.5)
    assert basis(Figure(1.0, {"episodes": 0.5}, 0.001)).half_width is None


def test_retrieval_is_judged_over_classes():
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(6), 20)
    values = rng.integers(0, 10**8, (2, 120)).astype(np.uint32)
    about = {"kind": "retrieval", "rankings": ["global", "deepemd [x]"], "class_names": list("abcdef"), "same": {}}
    reader = RetrievalReader(Answers(about, {"classes": classes, "map_at_r": values}), "birds")
    found = reader.difference("deepemd [x]", reader, "global", "")
    plain = statistics.estimate((values[1] / 1e8 - values[0] / 1e8), classes[:, None], list("abcdef"))
    assert found.mean == pytest.approx(100 * plain.mean)
    assert found.intervals["classes"] == pytest.approx(100 * plain.jackknife.half_width)
    assert (found.p, found.degrees) == (pytest.approx(statistics.p_value(plain)), {"classes": 5})
    with pytest.raises(UserError, match="no arm 'chamfer"):
        reader.level("chamfer [x]", "")


def test_solver_times_are_ratios_over_runs(tmp_path):
    readers = []
    for name, slow in (("1", 200.0), ("2", 300.0), ("3", 400.0)):
        cells = [("nodes", 9, 50, 1.0, slow), ("nodes", 25, 50, 2.0, slow), ("nodes", 25, 1, 1.0, 1.0)]
        cells += [("file", 49, 50, 1.0, 1.0)]
        rows = [
            {"panel": panel, "n": n, "batch": batch, "solver": solver, "forward_ms": ms}
            for panel, n, batch, *times in cells
            for solver, ms in zip(("exact", "qpth"), times, strict=True)
        ]
        rows.append({"panel": "nodes", "n": 100, "batch": 50, "solver": "qpth", "skipped": "a call would take long"})
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps({"timings": rows, "protocol": {}}))
        readers.append(reader_of(gather("solver-timings", tmp_path / name), name))
    found = level([(reader, "qpth over exact") for reader in readers], "")
    assert (found.mean, found.seeds, found.p) == (150, 3, None)
    assert found.intervals["runs"] == pytest.approx(4.3027 * 50 / 3**0.5, rel=1e-4)
    assert readers[0].level("qpth over exact", "") == Figure(100.0)
    assert readers[0].level("exact at 25 over exact at 9", "") == Figure(2.0)
    assert readers[0].level("qpth at 9 over exact at 25", "") == Figure(100.0)
    with pytest.raises(UserError, match="no arm 'qpth at 16 over"):
        readers[0].level("qpth at 16 over exact at 16", "")
    with pytest.raises(UserError, match="no arm 'qpth over opencv'"):
        readers[0].level("qpth over opencv", "")
    with pytest.raises(UserError, match="claim a level of one"):
        readers[0].difference("qpth over exact", readers[1], "qpth over exact", "")
    with pytest.raises(UserError, match="can't be averaged"):
        level([(readers[0], "a"), (episodes_run({"a": [1.0]}, [[0, 1]], ["a", "b"]), "a")], "")


def claim(**given):
    """A claim about a difference within one point."""
    return Claim(
        **{
            "id": "c",
            "table": "t",
            "says": "s",
            "left": (Arm("r", "a"),),
            "right": (Arm("r", "b"),),
            "delta": 1.0,
            **given,
        }
    )


@pytest.mark.parametrize(
    ("figure", "given", "expected"),
    [
        (Figure(3, {"classes": 1}, 0.001, 3), {}, "confirmed"),
        (Figure(3, {"classes": 1}, 0.001, 1), {}, "confirmed on this checkpoint"),
        (Figure(3, {"classes": 1, "networks": 4}, 0.001, 3, {"classes": 19}), {}, "inconclusive"),
        (Figure(-3, {"classes": 1}, 0.001, 3), {}, "contradicted"),
        (Figure(0.4, {"classes": 0.2}, 0.001, 3), {}, "confirmed, by less than 1"),
        (Figure(0.4, {"classes": 0.5}, 0.2, 3), {}, "equivalent within 1"),
        (Figure(0.5, {"classes": 0.5}, 0.2, 3), {}, "equivalent within 1"),
        (Figure(-0.5, {"classes": 0.5}, 0.2, 3), {}, "equivalent within 1"),
        (Figure(1, {"classes": 1}, 0.001, 3), {}, "inconclusive"),
        (Figure(0.4, {"classes": 0.7}, 0.2, 3), {}, "inconclusive"),
        (Figure(3, {"classes": 1}, 0.06, 3), {}, "inconclusive"),
        (Figure(3, {}, None, 1), {}, "inconclusive"),
        (Figure(0.1, {"episodes": 0.2}, None, 3), {}, "inconclusive"),
        (Figure(99, {"episodes": 0.1}), {"level": 98.8, "right": ()}, "inconclusive"),
        (
            Figure(3, {"classes": 1}, 0.001, 2),
            {"left": (Arm("r", "a"), Arm("s", "a"))},
            "confirmed on these checkpoints",
        ),
        (Figure(98, {"classes": 0.1}), {"level": 98.8, "right": ()}, "confirmed on this checkpoint"),
        (Figure(97, {"classes": 0.1}), {"level": 98.8, "right": ()}, "contradicted on this checkpoint"),
        (Figure(97.8, {"classes": 0.3}), {"level": 98.8, "right": ()}, "inconclusive"),
        (None, {}, "not run yet"),
        (None, {"untestable": "no data", "left": ()}, "not testable here"),
    ],
)
def test_verdicts(figure, given, expected):
    found = judge([claim(**given)], {} if figure is None else {"c": figure})
    assert found["c"].text == expected
    assert found["c"].kind in KINDS
    assert found["c"].few == ("checkpoint" in expected)


def test_two_seeds_are_no_checkpoint():
    found = judge([claim()], {"c": Figure(3, {"seeds": 1}, 0.001, 2)})["c"]
    assert (found.text, found.few) == ("confirmed with 2 seeds", True)


@pytest.mark.parametrize(
    ("figure", "given", "expected"),
    [
        (Figure(3, {"classes": 1}, 0.001, 1), {}, "inconclusive: 1 of 3 networks"),
        (Figure(-3, {"classes": 1}, 0.001, 2), {}, "inconclusive: 2 of 3 networks"),
        (Figure(0.1, {"classes": 0.2}, 0.5, 1), {}, "inconclusive: 1 of 3 networks"),
        (Figure(3, {"seeds": 1}, 0.001, 2), {}, "inconclusive: 2 of 3 seeds"),
        (Figure(97, {"classes": 0.1}), {"level": 98.8, "right": ()}, "inconclusive: 1 of 3 networks"),
        (Figure(0.4, {"classes": 0.7}, 0.2, 1), {}, "inconclusive"),
        (Figure(3, {"classes": 1}, 0.001, 3), {}, "confirmed"),
        (Figure(3, {"seeds": 1}, 0.001, 5), {}, "confirmed"),
        (None, {}, "not run yet"),
    ],
)
def test_fewer_than_three_networks_judge_no_way_of_training(figure, given, expected):
    found = judge([claim(training=True, **given)], {} if figure is None else {"c": figure})["c"]
    assert (found.text, found.few) == (expected, False)
    assert found.kind in KINDS


def test_holm_counts_the_claims_of_a_table():
    claims = [claim(id=str(i)) for i in range(3)]
    figures = {str(i): Figure(3, {"classes": 1}, p, 3) for i, p in enumerate((0.01, 0.02, 0.04))}
    found = judge(claims, figures)
    assert [found[str(i)].p_holm for i in range(3)] == pytest.approx([0.03, 0.04, 0.04])
    assert judge(claims[2:], figures)["2"].p_holm == pytest.approx(0.04)
    # A level has no share in the correction, whatever its figure holds.
    levels = [claim(id=name, level=1.0, right=()) for name in ("3", "4")]
    beside = judge([*claims, *levels], {**figures, **dict.fromkeys("34", Figure(3, {"classes": 1}, 0.001, 3))})
    assert [beside[str(i)].p_holm for i in range(4)] == [*(pytest.approx(p) for p in (0.03, 0.04, 0.04)), None]


def test_quick_options_replace_those_of_the_full_suite():
    run = Run("r", "compare", ("--way", "5", "--methods", "a", "b", "--episodes", "2000"), ("--episodes", "200"))
    assert run.spelled(False) == run.arguments
    assert run.spelled(True) == ("--way", "5", "--methods", "a", "b", "--episodes", "200")


def test_seeds_fill_names_and_arguments():
    runs = ledger_claims.load().runs
    assert runs["solver-times-2"].arguments[-2:] == ("--seed", "2")
    assert "cifar-fs-resnet12-quarter-seed3-turned" in runs["cifar-fs-turned-3"].arguments


def test_long_tails_compare_what_claims_name():
    ledger = ledger_claims.load()
    tails = [c for c in ledger.claims.values() if c.runs and ledger.runs[c.runs[0]].command == "long-tail"]
    assert tails
    assert {(c.left[0].key, c.right[0].key) for c in tails} <= set(COMPARISONS)


@pytest.mark.parametrize(
    ("given", "published", "shown"),
    [
        ({"paper": (66.0, 60.5)}, "66.00 - 60.50", "+98.00 ± 0.50 classes"),
        ({"level": 97.5, "right": ()}, "97.50", "+0.50 ± 0.50 classes"),
        ({"level": 97.5, "right": (), "ours": True}, "", "+0.50 ± 0.50 classes"),
        ({"level": 97.5, "right": (), "unit": "times", "paper": (430.0,)}, "430.00", "+98.00 ± 0.50 classes"),
    ],
)
def test_rows_of_levels_and_ratios(given, published, shown):
    """A level in points is shown as what is beyond it, a ratio as it is; our own questions were never published."""
    one = claim(**given)
    figure = Figure(98, {"classes": 0.5}, None, 3)
    ledger = ledger_claims.Ledger({}, {}, {"c": one}, {"t": "A paper"}, {"t": ()}, ("{c}",), ())
    found = {"c": {"figure": figure, "left": figure}}
    page = report.page(ledger, found, {}, {"c": Bearing()}, Kept()).decode()
    (row,) = (line for line in page.splitlines() if line.startswith("| s |"))
    assert "no claim: " not in page.split("## t", 1)[1]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert (cells[2], cells[4]) == (published, shown)
    assert report.summary(ledger, found, {})[0].startswith(shown[:3])


def test_rows_from_other_pages_stand_under_the_claims():
    """A difference is that of the page or, without one, that of the levels; nothing is judged."""
    rows = (
        Elsewhere("s too", "other data", "60.50 (± 1.00)", "62.25 (± 1.50)", "results.md"),
        Elsewhere("s too", "more data", "60.50 (± 1.00)", "62.25 (± 1.50)", "results.md", "-1.70 ± 0.40 classes"),
    )
    ledger = ledger_claims.Ledger({}, {}, {"c": claim()}, {"t": "A paper"}, {"t": rows}, (), ())
    page = report.page(ledger, {}, {}, {claim().id: Bearing()}, Kept()).decode()
    found = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| s")]
    assert [cells[4] for cells in found] == ["", "-1.75", "-1.70 ± 0.40 classes"]
    assert found[1][3] == "60.50 (± 1.00) against 62.25 (± 1.50)"
    assert [cells[8] for cells in found] == ["not run yet"] + 2 * ["no claim: [results.md](results.md)"]
    assert "not run yet | 1 | 0 |" in page
