"""The command of the ledger: claims are read strictly, figures are those of its runs, files repeat."""

from __future__ import annotations

import csv
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from otfew.errors import UserError
from otfew.experiments.commands import module_of
from otfew.experiments.common.setup import make_console
from otfew.experiments.reproduce import claims as ledger_claims
from otfew.experiments.reproduce import command as reproduce
from otfew.experiments.reproduce import pages, process, report, suite
from otfew.experiments.reproduce.answers import gather
from otfew.experiments.reproduce.config import Config
from otfew.experiments.reproduce.evidence import Evidence
from otfew.experiments.reproduce.figures import difference, level, reader_of

pytestmark = pytest.mark.usefixtures("surroundings", "in_this_process")
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
rows = [["Does it win?", "compare --features FILE", "DeepEMD and Chamfer: {{chamfer}}.", "few episodes"]]
"""


@pytest.fixture
def in_this_process(request, monkeypatch):
    """Run commands here, which is quicker, unless a test asks for processes."""

    def call(command, arguments):
        try:
            importlib.import_module(module_of(command)).main(arguments)
        except UserError as error:
            return str(error)
        return ""

    if "processes" not in request.keywords:
        monkeypatch.setattr(process, "run", call)


@pytest.fixture
def place(tmp_path, own_features):
    """A checkout with claims of its own: returns the arguments that name it."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (tmp_path / "claims.toml").write_text(CLAIMS.format(features=own_features, paper="paper = [60, 58]"))
    (tmp_path / "README.md").write_text(f"# Title\n\n{pages.BEGIN}\nold\n{pages.END}\n\nThe rest.\n")
    return ["--docs", str(docs), "--claims", str(tmp_path / "claims.toml")]


def snapshot(folder):
    """All files below a folder, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_quick_twice_gives_the_same_bytes(place, tmp_path, capsys, rendered):
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
    assert "| Does it win? | DeepEMD and Chamfer: " in readme
    assert "\n- DeepEMD and Chamfer: " in (tmp_path / "docs/reproduction.md").read_text()
    assert " episodes" in readme
    assert "old" not in readme
    assert readme.endswith("The rest.\n")


@pytest.mark.slow
@pytest.mark.processes
def test_runs_are_processes_and_a_failed_one_is_not_the_end(place, tmp_path, capfd):
    reproduce.main(["--suite", "full", "--only", "lost", "small-1", "--runs", str(tmp_path / "a"), *place])
    said = " ".join(capfd.readouterr().out.split())
    assert said.count("nowhere.npz does not exist") == 2  # where it happened, and at the end
    assert "150 episodes" in said  # the table of the other run is shown
    claims = json.loads((tmp_path / "docs/results/claims.json").read_bytes())
    assert claims["level"]["verdict"] != "not run yet"
    record = json.loads((tmp_path / "docs/results/small-1.json").read_bytes())
    assert "protocol" in record


def test_every_run_is_told_its_threads_and_where_data_lie(place, tmp_path, monkeypatch):
    called, more = [], ["--runs", "r", "--download"]
    monkeypatch.setattr(process, "run", lambda command, words: called.append((command, words)) or "enough")
    with pytest.raises(UserError, match="enough"):
        reproduce.main(
            [
                "--suite",
                "full",
                "--only",
                "lost",
                "--threads",
                "3",
                "--data-root",
                "there",
                "--runs",
                "r",
                *place,
                *more,
            ]
        )
    (command, words) = called[0]
    assert command == "compare"
    assert words[-7:] == ["--output", "r/lost", "--threads", "3", "--data-root", "there", "--download"]


def test_an_interrupted_suite_writes_its_page(place, tmp_path, monkeypatch):
    def interrupted(command, words):
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reproduce.main(["--only", "small", "--runs", "r", *place])
    assert "not run yet" in (tmp_path / "docs/reproduction.md").read_text()


def test_several_processes_are_refused(place, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="start one"):
        reproduce.main(["--suite", "report", *place])


def test_help_needs_neither_torch_nor_scipy():
    """The package's own import apart, which is not this command's."""
    code = """
import sys, types, importlib.util
package = types.ModuleType("otfew")
package.__path__ = list(importlib.util.find_spec("otfew").submodule_search_locations)
sys.modules["otfew"] = package
from otfew.experiments.reproduce.command import main
try:
    main(["--help"])
except SystemExit as ended:
    assert not ended.code
heavy = {"torch", "scipy", "numba", "numpy", "cv2", "sklearn", "matplotlib", "rich.progress", "kornia"}
sys.stderr.write(" ".join(sorted(heavy & set(sys.modules))))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert "--suite" in found.stdout
    assert found.stderr == ""


def test_full_goes_before_quick_and_keeps_it_beside(place, tmp_path):
    for each in ("quick", "full"):
        reproduce.main(["--suite", each, "--runs", str(tmp_path / each), *place])
    claims = json.loads((tmp_path / "docs/results/claims.json").read_bytes())
    assert set(claims["chamfer"]) > {"full", "quick"}
    assert "full" in claims["over-equal"]
    assert "quick" not in claims["over-equal"]
    before = snapshot(tmp_path / "docs")
    reproduce.main(["--suite", "report", *place])
    assert snapshot(tmp_path / "docs") == before
    page = before["reproduction.md"].decode()
    assert "60.00 - 58.00 (other data)" in page
    assert re.search(r"\d+\.\d\d \(± \d+\.\d\d\) against \d+\.\d\d \(± \d+\.\d\d\)", page)
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
    one = reader_of(gather("compare", tmp_path / "full/small-1"), "small-1")
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
    weights = reader_of(gather("ablate-weights", tmp_path / "full/weights"), "weights")
    by_panel = json.loads((tmp_path / "full/weights/results.json").read_bytes())["panels"]["all"]["methods"]
    uniform = difference([((weights, "all / deepemd uniform"), (weights, "all / deepemd"))], "")
    assert uniform.mean == pytest.approx(100 * by_panel["deepemd uniform"]["difference"]["mean"], abs=1e-5)
    assert level([(weights, "all / deepemd")], "").mean == pytest.approx(
        100 * by_panel["deepemd"]["accuracy"]["mean"], abs=1e-5
    )


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

    monkeypatch.setattr(suite, "_call", call)
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
    assert "none of the 1 runs ran; the first: the weights of own are not here; --suite full trains them." in said


def test_the_quick_suite_leaves_out_runs_of_weights_that_are_not_here(place, tmp_path, capsys):
    text = (tmp_path / "claims.toml").read_text().replace('"--features", "nowhere.npz"', '"--backbone", "own"')
    training = '[[training]]\nname = "own"\ncommand = "pretrain"\narguments = []\n'
    (tmp_path / "claims.toml").write_text(text + training)
    ledger = ledger_claims.load(tmp_path / "claims.toml")
    console = make_console()
    full = suite._chosen(Config(suite="full"), ledger, console)
    assert "lost" in [run.name for run in full]
    assert capsys.readouterr().out == ""
    quick = suite._chosen(Config(suite="quick"), ledger, console)
    assert "lost" not in [run.name for run in quick]
    assert quick
    assert "left out, since the weights of their checkpoints are not here" in capsys.readouterr().out
    asked = suite._chosen(Config(suite="quick", only=("lost",)), ledger, console)
    assert [run.name for run in asked] == ["lost"]


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
        reproduce.main(["--suite", "report", *place])


def test_a_run_of_another_command_is_no_evidence(place, tmp_path):
    """A folder left by other arguments must not be paired with a new run."""
    arguments = ["--runs", str(tmp_path / "a"), *place]
    reproduce.main(["--only", "small", *arguments])
    before = json.loads((tmp_path / "docs/results/claims.json").read_bytes())["chamfer"]
    ledger = ledger_claims.load(tmp_path / "claims.toml")
    evidence = Evidence(tmp_path / "docs/results", "quick")
    assert set(evidence.readers(ledger)) == {"small-1", "small-2"}
    assert set(Evidence(tmp_path / "docs/results", "full").readers(ledger)) == set()
    text = (
        (tmp_path / "claims.toml").read_text().replace('quick = ["--episodes", "100"]', 'quick = ["--episodes", "90"]')
    )
    (tmp_path / "claims.toml").write_text(text)
    reproduce.main(["--only", "small-1", "--runs", str(tmp_path / "b"), *place])
    after = json.loads((tmp_path / "docs/results/claims.json").read_bytes())["chamfer"]
    assert after["quick"] == before["quick"]


def test_figures_of_other_arms_are_forgotten(place, tmp_path):
    reproduce.main(["--only", "small", "--runs", str(tmp_path / "a"), *place])
    before = json.loads((tmp_path / "docs/results/claims.json").read_bytes())
    text = (tmp_path / "claims.toml").read_text()
    (tmp_path / "claims.toml").write_text(text.replace("{seed} / chamfer", "{seed} / cosine-centroid"))
    reproduce.main(["--suite", "report", *place])
    claims = json.loads((tmp_path / "docs/results/claims.json").read_bytes())
    # The answers are there, of the other arms too.
    readers = Evidence(tmp_path / "docs/results", "quick").readers(ledger_claims.load(tmp_path / "claims.toml"))
    pairs = [((r, "deepemd"), (r, "cosine-centroid")) for r in (readers["small-1"], readers["small-2"])]
    assert claims["chamfer"]["quick"]["figure"] == difference(pairs, "").to_json()
    assert claims["chamfer"]["quick"] != before["chamfer"]["quick"]
    # Without them a recorded figure is of the arms that it was recorded of.
    for path in (tmp_path / "docs/results/answers/quick").iterdir():
        path.unlink()
    (tmp_path / "claims.toml").write_text(text)
    reproduce.main(["--suite", "report", *place])
    claims = json.loads((tmp_path / "docs/results/claims.json").read_bytes())
    assert claims["chamfer"]["verdict"] == "not run yet"
    assert claims["level"]["verdict"] != "not run yet"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('command = "compare"', 'command = "guess"', "no command of otfew"),
        ('command = "compare"', 'command = "list"', "list measures nothing"),
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
    ledger = ledger_claims.load()
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
    pages = {"claims.json", "figures-full.json", "figures-quick.json", "verdicts-before.json"}
    # Of no claim of a paper's: what docs/gpu.md and docs/own-photos.md show.
    others = {"folders.json", "large-exact.json", "ott-peers.json", "near-duplicates.json", "refusal-scores.json"}
    others |= {"regimes.json", "shapes-within.json", "shapes-across.json", "shapes-rendering.json"}
    # What pictures are drawn from.
    others |= {"cub-1shot.json", "latent-space-cifar-fs.json", "solver-timings.json"}
    others |= {f"{kind}-{data}.json" for kind in ("does-ot-matter", "shots") for data in ("cub", "cifar-fs")}
    beside = {path for path in results.glob("*.json") if path.name.startswith(("device-", "own-photos-", "transfer-"))}
    assert {path.name for path in set(results.rglob("*.json")) - beside} <= named | pages | others


def test_what_is_committed_follows_from_what_it_rests_on(capsys):
    reproduce.main(["--suite", "check", "--docs", str(REPOSITORY / "docs")])
    said = " ".join(capsys.readouterr().out.split())
    assert "computed again from the answers of" in said
    page = (REPOSITORY / "docs/reproduction.md").read_text(encoding="utf-8")
    pictures = {path.name for path in (REPOSITORY / "docs" / report.PICTURES).iterdir()}
    assert pictures == {line.split("/")[-1].rstrip(")") for line in page.splitlines() if line.startswith("![")}
    sizes = [path.stat().st_size for path in (REPOSITORY / "docs/results/answers").rglob("*.npz")]
    assert sum(sizes) < 8_000_000
