"""The ledger: claims are read strictly, figures equal plain ones, verdicts follow their rules, files repeat."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from otfew import statistics
from otfew.errors import UserError
from otfew.experiments import _ledger_claims, _ledger_report, reproduce
from otfew.experiments._ledger_claims import Arm, Claim, Run
from otfew.experiments._ledger_evidence import Evidence
from otfew.experiments._ledger_figures import (
    EpisodeReader,
    Figure,
    LongTailReader,
    MetricReader,
    RetrievalReader,
    SolverReader,
    difference,
    level,
)
from otfew.experiments._ledger_verdict import KINDS, judge

pytestmark = pytest.mark.usefixtures("surroundings")
REPOSITORY = Path(__file__).parents[2]

CLAIMS = """
[[run]]
name = "small-{{seed}}"
seeds = ["one", "two"]
command = "compare"
arguments = [
    "--features", "{features}", "--query", "4", "--episodes", "150", "--seed", "1",
    "--methods", "deepemd", "chamfer", "cosine-centroid",
]
quick = ["--episodes", "100"]

[[run]]
name = "weights"
command = "ablate-weights"
arguments = ["--features", "{features}", "--query", "4", "--episodes", "60", "--clusters", "1", "--bandwidths", "inf"]

[[run]]
name = "lost"
command = "compare"
arguments = ["--features", "nowhere.npz"]
quick = []

[[table]]
name = "Table 1, small"
source = "A paper"
delta = 1.0
on = "other data"
claims = [
    {{ id = "chamfer", says = "wins", left = "small-{{seed}} / deepemd", right = "small-{{seed}} / chamfer", {paper} }},
    {{ id = "over-equal", says = "wins", left = "weights / all / deepemd", right = "weights / all / deepemd uniform" }},
    {{ id = "level", says = "reaches 20 %", left = "small-1 / deepemd", level = 20.0 }},
    {{ id = "elsewhere", says = "wins elsewhere", untestable = "there is no elsewhere" }},
    {{ id = "lost", says = "is found", left = "lost / deepemd", right = "lost / chamfer" }},
]

[summary]
lines = ["- DeepEMD and Chamfer: {{chamfer}}."]
"""


@pytest.fixture
def place(tmp_path, own_features):
    """A checkout with claims of its own: returns the arguments that name it."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (tmp_path / "claims.toml").write_text(CLAIMS.format(features=own_features, paper="paper = [60, 58]"))
    (tmp_path / "README.md").write_text(f"# Title\n\n{reproduce.BEGIN}\nold\n{reproduce.END}\n\nThe rest.\n")
    return ["--docs", str(docs), "--claims", str(tmp_path / "claims.toml")]


def snapshot(folder):
    """All files below a folder, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_quick_twice_gives_the_same_bytes(place, tmp_path, capsys):
    reproduce.main(["--suite", "quick", "--runs", str(tmp_path / "a"), *place])
    said = " ".join(capsys.readouterr().out.split())
    assert "not run: lost: " in said
    first = snapshot(tmp_path / "docs")
    assert {"reproduction.md", "results/claims.json", "results/figures-quick.json"} <= first.keys()
    assert {"results/quick/small-1.json", "reproduction/table-1-small.png"} <= first.keys()
    reproduce.main(["--suite", "quick", "--runs", str(tmp_path / "b"), *place])
    assert snapshot(tmp_path / "docs") == first
    claims = json.loads(first["results/claims.json"])
    assert claims["elsewhere"]["verdict"] == "not testable here"
    assert claims["lost"]["verdict"] == claims["over-equal"]["verdict"] == "not run yet"
    assert claims["level"]["verdict"] == "confirmed on this checkpoint"
    assert claims["chamfer"]["evidence"] == ["quick/small-1.json", "quick/small-2.json"]
    readme = (tmp_path / "README.md").read_text()
    assert "- DeepEMD and Chamfer: " in readme
    assert " episodes" in readme
    assert "old" not in readme
    assert readme.endswith("The rest.\n")


def test_full_goes_before_quick_and_keeps_it_beside(place, tmp_path):
    for suite in ("quick", "full"):
        reproduce.main(["--suite", suite, "--runs", str(tmp_path / suite), *place])
    claims = json.loads((tmp_path / "docs/results/claims.json").read_bytes())
    assert set(claims["chamfer"]) > {"full", "quick"}
    assert "full" in claims["over-equal"]
    assert "quick" not in claims["over-equal"]
    before = snapshot(tmp_path / "docs")
    reproduce.main(["--suite", "report", *place])
    assert snapshot(tmp_path / "docs") == before
    page = before["reproduction.md"].decode()
    assert "60.00 - 58.00 (other data)" in page
    assert " against " in page
    assert "wins elsewhere: not testable here, since there is no elsewhere" in page
    # What is not run again stays.
    reproduce.main(["--suite", "full", "--only", "weights", "--runs", str(tmp_path / "full"), *place])
    assert snapshot(tmp_path / "docs") == before


def test_figures_are_those_of_plain_loops(place, tmp_path):
    reproduce.main(["--suite", "full", "--only", "small", "weights", "--runs", str(tmp_path / "full"), *place])
    results = json.loads((tmp_path / "full/small-1/results.json").read_bytes())
    with (tmp_path / "full/small-1/episodes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    values = {m: np.array([float(r["accuracy"]) for r in rows if r["method"] == m]) for m in ("deepemd", "chamfer")}
    one = EpisodeReader(tmp_path / "full/small-1")
    found = difference([((one, "deepemd"), (one, "chamfer"))], "")
    assert found.mean == pytest.approx(100 * (values["deepemd"] - values["chamfer"]).mean())
    by_command = results["methods"]["deepemd"]["difference"]
    to = by_command["to"]
    same = difference([((one, "deepemd"), (one, to))], "")
    assert same.mean == pytest.approx(100 * by_command["mean"], abs=1e-5)
    assert same.intervals["episodes"] == pytest.approx(100 * by_command["episode_ci"], abs=1e-5)
    assert same.intervals["classes"] == pytest.approx(100 * by_command["class_ci"], abs=1e-5)
    assert same.p == pytest.approx(by_command["p"], abs=1e-6)
    # In panels as well.
    weights = EpisodeReader(tmp_path / "full/weights")
    by_panel = json.loads((tmp_path / "full/weights/results.json").read_bytes())["panels"]["all"]["methods"]
    uniform = difference([((weights, "all / deepemd uniform"), (weights, "all / deepemd"))], "")
    assert uniform.mean == pytest.approx(100 * by_panel["deepemd uniform"]["difference"]["mean"], abs=1e-5)
    assert level([(weights, "all / deepemd")], "").mean == pytest.approx(
        100 * by_panel["deepemd"]["accuracy"]["mean"], abs=1e-5
    )


def episodes_run(folder, accuracies, classes, names):
    """A folder with what the reader needs of a run of compare."""
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"class_names": names, "protocol": {}}))
    with (folder / "episodes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "episode", "accuracy"])
        writer.writerows((name, i, a) for name, each in accuracies.items() for i, a in enumerate(each))
    with (folder / "classes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["episode", "class 1", "class 2"], *((i, *row) for i, row in enumerate(classes))])
    return EpisodeReader(folder)


def test_several_networks_are_averaged_episode_by_episode(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(8)]
    drawn = np.array([rng.permutation(8)[:2] for _ in range(200)])
    classes = [[names[i] for i in row] for row in drawn]
    tables = [{"a": rng.random(200) + 0.3, "b": rng.random(200)} for _ in range(3)]
    readers = [episodes_run(tmp_path / str(i), table, classes, names) for i, table in enumerate(tables)]
    found = difference([((r, "a"), (r, "b")) for r in readers], "")
    each = np.array([table["a"] - table["b"] for table in tables])
    plain = statistics.estimate(each.mean(0), drawn, names)
    assert found.seeds == 3
    assert found.mean == pytest.approx(100 * plain.mean)
    assert found.intervals["classes"] == pytest.approx(100 * plain.jackknife.half_width)
    # Student's t with two degrees of freedom: 4.3027.
    spread = 4.302653 * 100 * each.mean(1).std(ddof=1) / np.sqrt(3)
    assert found.intervals["networks"] == pytest.approx(spread, rel=1e-5)
    assert found.p == statistics.p_value(plain)
    assert level([(r, "a") for r in readers], "").p is None
    other = episodes_run(tmp_path / "other", tables[0], classes[::-1], names)
    with pytest.raises(UserError, match="saw other episodes"):
        difference([((readers[0], "a"), (other, "b"))], "")
    with pytest.raises(UserError, match="no arm 'c'"):
        level([(readers[0], "c")], "")


def test_metric_learning_is_paired_by_seed(tmp_path):
    maps = {
        "ot": {1: [0.1, 0.5, 0.7], 2: [0.1, 0.4, 0.6], 3: [0, 0.9, 0.9]},
        "all": {1: [0, 0.4, 0.7], 2: [0, 0.1, 0.4]},
    }
    losses = {
        loss: {"seeds": {str(s): [{"figures": {"map": m}} for m in run] for s, run in seeds.items()}}
        for loss, seeds in maps.items()
    }
    (tmp_path / "results.json").write_text(json.dumps({"losses": losses, "protocol": {}}))
    reader = MetricReader(tmp_path)
    found = reader.difference("ot", reader, "all", "mean_of_epochs")
    assert found.mean == pytest.approx(100 * np.mean([0.05, 0.25]))
    assert found.intervals["seeds"] == pytest.approx(12.7062 * 100 * 0.1, rel=1e-4)
    assert found.seeds == 2
    assert reader.difference("ot", reader, "all", "first_epoch").mean == pytest.approx(20)
    assert reader.level("ot", "last_epoch").mean == pytest.approx(100 * 2.2 / 3)
    with pytest.raises(UserError, match="no arm 'ot by no measure'"):
        reader.level("ot", "")


def test_long_tails_and_retrieval_are_read_as_written(tmp_path):
    pair = {"arm": "ot", "rival": "ce", "error_difference": -2.5, "image_ci": 0.5, "class_ci": 1.5, "p": 0.01}
    error = {"error": 55.0, "image_ci": 0.9, "class_ci": None}
    settings = {"setting": {"factor": 100}, "stage2": "classifier", "seeds": 3, "ot": {}}
    (tmp_path / "results.json").write_text(json.dumps({"errors": {"ot": error}, "comparisons": [pair], **settings}))
    tails = LongTailReader(tmp_path)
    assert tails.protocol() == settings
    assert tails.difference("ot", tails, "ce", "") == Figure(2.5, {"images": 0.5, "classes": 1.5}, 0.01)
    assert tails.level("ot", "") == Figure(45.0, {"images": 0.9})
    with pytest.raises(UserError, match="ce against ot"):
        tails.difference("ce", tails, "ot", "")
    record = {"mean": 0.02, "query_ci": 0.005, "class_ci": 0.01, "p": 0.03}
    method = {"metrics": {"map_at_r": {**record, "mean": 0.4}}, "difference": {"to": "global", "map_at_r": record}}
    adds = {"deepemd [x]": {"control": "chamfer [x]", "map_at_r": {**record, "mean": -0.01}}}
    (tmp_path / "results.json").write_text(json.dumps({"methods": {"deepemd [x]": method}, "transport_adds": adds}))
    found = RetrievalReader(tmp_path)
    assert found.difference("deepemd [x]", found, "global", "").mean == pytest.approx(2)
    assert found.difference("deepemd [x]", found, "chamfer [x]", "").mean == pytest.approx(-1)
    assert found.level("deepemd [x]", "").intervals == pytest.approx({"queries": 0.5, "classes": 1.0})
    with pytest.raises(UserError, match="cr-pooled"):
        found.difference("deepemd [x]", found, "cr-pooled [x]", "")


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
        readers.append(SolverReader(tmp_path / name))
    found = level([(reader, "qpth over exact") for reader in readers], "")
    assert (found.mean, found.seeds, found.p) == (150, 3, None)
    assert found.intervals["runs"] == pytest.approx(4.3027 * 50 / 3**0.5, rel=1e-4)
    assert readers[0].level("qpth over exact", "") == Figure(100.0)
    with pytest.raises(UserError, match="no arm 'qpth over opencv'"):
        readers[0].level("qpth over opencv", "")
    with pytest.raises(UserError, match="claim a level of one"):
        readers[0].difference("qpth over exact", readers[1], "qpth over exact", "")


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
        (Figure(3, {"classes": 1, "networks": 4}, 0.001, 3), {}, "inconclusive"),
        (Figure(-3, {"classes": 1}, 0.001, 3), {}, "contradicted"),
        (Figure(0.4, {"classes": 0.2}, 0.001, 3), {}, "confirmed, by less than 1"),
        (Figure(0.4, {"classes": 0.5}, 0.2, 3), {}, "equivalent within 1"),
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


def test_holm_counts_the_claims_of_a_table():
    claims = [claim(id=str(i)) for i in range(3)]
    figures = {str(i): Figure(3, {"classes": 1}, p, 3) for i, p in enumerate((0.01, 0.02, 0.04))}
    found = judge(claims, figures)
    assert [found[str(i)].p_holm for i in range(3)] == pytest.approx([0.03, 0.04, 0.04])
    assert judge(claims[2:], figures)["2"].p_holm == pytest.approx(0.04)


def test_quick_options_replace_those_of_the_full_suite():
    run = Run("r", "compare", ("--way", "5", "--methods", "a", "b", "--episodes", "2000"), ("--episodes", "200"))
    assert run.spelled(False) == run.arguments
    assert run.spelled(True) == ("--way", "5", "--methods", "a", "b", "--episodes", "200")


def test_a_missing_checkpoint_is_trained(place, tmp_path, monkeypatch):
    text = (
        (tmp_path / "claims.toml")
        .read_text()
        .replace(
            'arguments = ["--features", "nowhere.npz"]',
            'arguments = ["--dataset", "glyphs", "--backbone", "own-deepemd"]',
        )
    )
    trainings = """
[[training]]
name = "own"
command = "pretrain"
arguments = ["--dataset", "glyphs", "--backbone", "resnet12-quarter"]

[[training]]
name = "own-deepemd"
command = "metatrain"
arguments = ["--dataset", "glyphs", "--backbone", "own"]
"""
    (tmp_path / "claims.toml").write_text(text + trainings)
    called = []

    def call(command, arguments, config):
        called.append((command, arguments))
        if command == "compare":
            raise UserError("enough")

    monkeypatch.setattr(reproduce, "_call", call)
    with pytest.raises(UserError, match="none of the 1 runs ran; the first: enough"):
        reproduce.main(["--suite", "full", "--only", "lost", "--runs", str(tmp_path / "runs"), *place])
    checkpoints = tmp_path / "runs/checkpoints"
    assert [command for command, _ in called] == ["pretrain", "metatrain", "compare"]
    assert called[0][1][-4:] == ["--name", "own", "--output", str(checkpoints / "own")]
    assert str(checkpoints / "own/own.safetensors") in called[1][1]
    assert str(checkpoints / "own-deepemd/own-deepemd.safetensors") in called[2][1]


def test_the_quick_suite_trains_nothing(place, tmp_path):
    text = (tmp_path / "claims.toml").read_text().replace('"--features", "nowhere.npz"', '"--backbone", "own"')
    training = '[[training]]\nname = "own"\ncommand = "pretrain"\narguments = []\n'
    (tmp_path / "claims.toml").write_text(text + training)
    with pytest.raises(UserError) as caught:
        reproduce.main(["--only", "lost", "--runs", str(tmp_path / "runs"), *place])
    said = str(caught.value)
    assert "none of the 1 runs ran; the first: the checkpoint own is not there; --suite full trains it." in said


def test_an_arm_that_is_not_there_costs_its_claim_only(place, tmp_path, capsys):
    text = (tmp_path / "claims.toml").read_text().replace('"small-1 / deepemd", level', '"small-1 / sinkhorn", level')
    (tmp_path / "claims.toml").write_text(text)
    reproduce.main(["--only", "small", "--runs", str(tmp_path / "a"), *place])
    said = " ".join(capsys.readouterr().out.split())
    assert "not run: level: " in said
    assert "has no arm 'sinkhorn'" in said
    claims = json.loads((tmp_path / "docs/results/claims.json").read_bytes())
    assert claims["level"]["verdict"] == "not run yet"
    assert claims["chamfer"]["verdict"] != "not run yet"


def test_damaged_evidence_of_a_run_is_named(place, tmp_path):
    arguments = ["--only", "small", "--runs", str(tmp_path / "a"), *place]
    reproduce.main(arguments)
    (tmp_path / "docs/results/quick/small-1.json").write_text("{")
    with pytest.raises(UserError, match=r"small-1\.json is damaged"):
        reproduce.main(arguments)


def test_figures_of_other_arms_are_forgotten(place, tmp_path):
    reproduce.main(["--only", "small", "--runs", str(tmp_path / "a"), *place])
    text = (tmp_path / "claims.toml").read_text().replace("{seed} / chamfer", "{seed} / cosine-centroid")
    (tmp_path / "claims.toml").write_text(text)
    reproduce.main(["--suite", "report", *place])
    claims = json.loads((tmp_path / "docs/results/claims.json").read_bytes())
    assert claims["chamfer"]["verdict"] == "not run yet"
    assert claims["level"]["verdict"] != "not run yet"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('command = "compare"', 'command = "guess"', "no command of otfew"),
        ('right = "small-{seed} / chamfer"', 'right = "small-1 / chamfer"', "as many arms on both sides"),
        ('left = "lost / deepemd"', 'left = "gone / deepemd"', "unknown runs: ['gone']"),
        ('left = "lost / deepemd"', 'left = "lost"', "must be RUN / ARM"),
        ('id = "lost"', 'id = "level"', "is there twice"),
        ("delta = 1.0", "delta = 1.0\ncolour = 3", "unknown keys: ['colour']"),
        ("[[table]]", "[[table", "can't be read"),
        ('name = "weights"', "", "lacks 'name'"),
        ("{chamfer}", "{hammer}", "unknown claims: ['hammer']"),
        (', untestable = "there is no elsewhere"', "", "has no arms"),
    ],
)
def test_claims_that_make_no_sense_are_refused(place, tmp_path, refused, old, new, said):
    text = (tmp_path / "claims.toml").read_text()
    assert old in text
    (tmp_path / "claims.toml").write_text(text.replace(old, new))
    assert said in refused(reproduce.main, "--suite", "report", *place)


def test_bad_input(place, tmp_path, refused):
    assert "--docs nowhere is not there" in refused(reproduce.main, "--docs", "nowhere")
    assert "no run of the suite quick begins so" in refused(reproduce.main, "--only", "weights", *place)
    (tmp_path / "docs/results").mkdir()
    figures = tmp_path / "docs/results/figures-full.json"
    figures.write_text("{")
    assert "is damaged" in refused(reproduce.main, "--suite", "report", *place)
    figures.write_text('{"other": {"arms": "a / b"}}')
    assert "holds figures of other claims" in refused(reproduce.main, "--suite", "report", *place)


def test_every_claim_has_a_record_and_every_record_its_files():
    results = REPOSITORY / "docs/results"
    ledger = _ledger_claims.load()
    records = json.loads((results / "claims.json").read_bytes())
    assert records.keys() == ledger.claims.keys()
    for id_, record in records.items():
        found = ledger.claims[id_]
        assert (record["says"], record["table"]) == (found.says, found.table)
        assert bool(record["evidence"]) == ("full" in record or "quick" in record)
        for name in record["evidence"]:
            arms = json.loads((results / name).read_bytes())["arms"]
            run = Path(name).stem
            for arm in (*found.left, *found.right):
                assert arm.run != run or (f"{arm.key}, {found.measure}" if found.measure else arm.key) in arms
    named = {f"{run}.json" for claim in ledger.claims.values() for run in claim.runs}
    assert {path.name for path in results.rglob("*.json")} <= named | {
        "claims.json",
        "figures-full.json",
        "figures-quick.json",
    }


def test_the_page_is_what_the_evidence_gives(tmp_path):
    docs = REPOSITORY / "docs"
    ledger = _ledger_claims.load()
    full, quick = (Evidence(docs / "results", suite).load(ledger) for suite in ("full", "quick"))
    record = json.loads((docs / "results/claims.json").read_bytes())
    assert record == json.loads(json.dumps(_ledger_report.records(ledger, full, quick)))
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert _ledger_report.summary(ledger, full, quick) in readme
    page = (docs / "reproduction.md").read_text(encoding="utf-8")
    pictures = {path.name for path in (docs / _ledger_report.PICTURES).iterdir()}
    assert pictures == {line.split("/")[-1].rstrip(")") for line in page.splitlines() if line.startswith("![")}
    (tmp_path / "docs").mkdir()
    for name in ("figures-full.json", "figures-quick.json"):
        if (docs / "results" / name).exists():
            (tmp_path / "docs/results").mkdir(exist_ok=True)
            (tmp_path / "docs/results" / name).write_bytes((docs / "results" / name).read_bytes())
    reproduce.main(["--suite", "report", "--docs", str(tmp_path / "docs")])
    assert (tmp_path / "docs/reproduction.md").read_bytes() == (docs / "reproduction.md").read_bytes()
