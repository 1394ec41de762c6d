"""The ledger's check: what is committed passes, and whatever is changed afterwards is found and named."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from otfew.experiments.reproduce import command as reproduce
from otfew.experiments.reproduce.answers import Answers

pytestmark = pytest.mark.usefixtures("surroundings")

CLAIMS = """
[[run]]
name = "one"
command = "compare"
arguments = ["--seed", "1"]
quick = []

[[run]]
name = "old"
command = "compare"
arguments = ["--seed", "2"]

[[table]]
name = "Table 1"
source = "A paper"
delta = 1.0
claims = [
    { id = "wins", says = "wins", left = "one / deepemd", right = "one / chamfer" },
    { id = "level", says = "reaches 20 %", left = "one / deepemd", level = 20.0 },
    { id = "recorded", says = "won once", left = "old / deepemd", right = "old / chamfer" },
]
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A checkout with evidence of one run, and of one from before answers were kept."""
    root = tmp_path_factory.mktemp("checkout")
    run = finished_run(root / "run")
    (root / "docs" / "results").mkdir(parents=True)
    (root / "claims.toml").write_text(CLAIMS)
    from otfew.experiments.reproduce.claims import load
    from otfew.experiments.reproduce.evidence import Evidence

    ledger = load(root / "claims.toml")
    evidence = Evidence(root / "docs" / "results", "full")
    assert evidence.keep(ledger, "old", run) == {}
    assert evidence.keep(ledger, "one", run) == {}
    (evidence.answers / "old.npz").unlink()
    reproduce.main(["--suite", "report", *where(root)])
    return root


def finished_run(folder):
    """A run's folder, as compare leaves it."""
    from otfew.evaluation.answers import Answers as Asked
    from otfew.evaluation.answers import to_bytes

    rng = np.random.default_rng(0)
    classes = np.array([rng.permutation(6)[:2] for _ in range(150)], dtype=np.uint8)
    labels = np.repeat(np.arange(6), 10).astype(np.uint8)
    images = np.array([[[c * 10 + i for i in rng.permutation(10)[:5]] for c in row] for row in classes])
    truth = np.repeat(np.arange(2), 4)
    predicted = np.stack([np.where(rng.random((150, 8)) < share, truth, 1 - truth) for share in (0.8, 0.6)])
    asked = Asked(
        ("deepemd", "chamfer"),
        tuple("abcdef"),
        tuple(f"image {i}" for i in range(60)),
        labels,
        classes,
        images[:, :, :1].astype(np.uint8),
        images[:, :, 1:].reshape(150, 8).astype(np.uint8),
        predicted.astype(np.uint8),
    )
    folder.mkdir()
    (folder / "answers.npz").write_bytes(to_bytes(asked))
    data = {"dataset": "x", "variant": "", "split": "test", "notes": []}
    protocol = {"way": 2, "shot": 1, "query": 4, "seed": 1, "data": data, "backbone": None, "resolution": None}
    (folder / "results.json").write_text(json.dumps({"protocol": protocol, "class_names": list("abcdef")}))
    right = (predicted == truth).mean(2)
    np.save(folder / "right.npy", right)
    return folder


def where(root):
    """The arguments that name a checkout."""
    return ["--docs", str(root / "docs"), "--claims", str(root / "claims.toml")]


@pytest.fixture
def checkout(written, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(written, tmp_path / "checkout")


def test_all_is_computed_again(checkout, capsys):
    reproduce.main(["--suite", "check", *where(checkout)])
    said = " ".join(capsys.readouterr().out.split())
    assert "suite full: 3 claims with figures, 2 of them computed again from the answers of 1 runs" in said
    assert "suite full, recorded figures only: 1: recorded" in said
    figures = json.loads((checkout / "docs/results/figures-full.json").read_bytes())
    right = 100 * np.load(checkout / "run/right.npy")
    assert figures["wins"]["figure"]["mean"] == pytest.approx((right[0] - right[1]).mean(), abs=1e-6)
    half = 1.96 * (right[0] - right[1]).std(ddof=1) / np.sqrt(150)
    assert figures["wins"]["figure"]["intervals"]["episodes"] == pytest.approx(half, abs=1e-6)
    page = (checkout / "docs/reproduction.md").read_text()
    assert "Answers are kept of 1 of 2 runs" in page
    assert "# one; answers kept" in page


def test_answers_are_the_same_bytes_and_small(written, tmp_path):
    path = written / "docs/results/answers/one.npz"
    again = Answers.read(path)
    assert again.to_bytes() == path.read_bytes()
    # Two methods and two classes of 150 episodes: four bytes each at most, and a page of names.
    assert path.stat().st_size < 150 * 4 + 1500


def edit(root, name, change):
    """Change a file of JSON below docs/results."""
    path = root / "docs/results" / name
    record = json.loads(path.read_bytes())
    change(record)
    path.write_text(json.dumps(record))


def test_a_changed_answer_is_found(checkout, refused):
    path = checkout / "docs/results/answers/one.npz"
    answers = Answers.read(path)
    answers.arrays["right-0"][0, :3] = 0
    path.write_bytes(answers.to_bytes())
    assert "one.json, deepemd, intervals, " in refused(reproduce.main, "--suite", "check", *where(checkout))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("figures-full.json", lambda r: r["wins"]["figure"].update(mean=30.0), "wins, figure, mean: committed 30.0"),
        ("figures-full.json", lambda r: r["wins"]["figure"].update(p=0.9), "wins, figure, p: committed 0.9"),
        ("figures-full.json", lambda r: r.pop("wins"), "lacks wins, although the answers of its runs are there"),
        ("figures-full.json", lambda r: r["recorded"]["figure"].update(p=0.9), "recorded, figure: p is 0.9, but its"),
        ("figures-full.json", lambda r: r["recorded"]["figure"]["intervals"].update(classes=99.0), "but its interval"),
        ("figures-full.json", lambda r: r["recorded"]["figure"].update(degrees={}), "no degrees of freedom"),
        ("claims.json", lambda r: r["wins"].update(verdict="contradicted"), "wins, verdict: committed 'contradicted'"),
        ("claims.json", lambda r: r["wins"].update(p_holm=0.5), "wins, p_holm: committed 0.5, computed again"),
        ("claims.json", lambda r: r["recorded"].update(missing=["much"]), "recorded, missing: committed"),
        ("one.json", lambda r: r["arms"]["deepemd"].update(mean=99.0), "one.json, deepemd, mean: committed 99.0"),
        ("one.json", lambda r: r.update(command="python -m other"), "is of another command than the answers"),
    ],
)
def test_whatever_is_changed_is_named(checkout, refused, name, change, said):
    edit(checkout, name, change)
    assert said in refused(reproduce.main, "--suite", "check", *where(checkout))


def test_a_changed_page_and_stray_or_damaged_answers_are_named(checkout, refused):
    page = checkout / "docs/reproduction.md"
    text = page.read_text()
    page.write_text(text.replace("confirmed on this checkpoint", "confirmed, plainly", 1))
    said = refused(reproduce.main, "--suite", "check", *where(checkout))
    assert "reproduction.md, line " in said
    assert "plainly" in said
    page.write_text(text + "more\n")
    assert "reproduction.md" in refused(reproduce.main, "--suite", "check", *where(checkout))
    page.write_text(text)
    answers = checkout / "docs/results/answers"
    shutil.copy(answers / "one.npz", answers / "stray.npz")
    assert "stray.npz holds answers of no run" in refused(reproduce.main, "--suite", "check", *where(checkout))
    (answers / "stray.npz").unlink()
    (answers / "one.npz").write_bytes(b"PK")
    assert "one.npz is damaged" in refused(reproduce.main, "--suite", "check", *where(checkout))
    (answers / "one.npz").unlink()
    # What was computed again is a recorded figure without its answers: the page says otherwise.
    assert "line " in refused(reproduce.main, "--suite", "check", *where(checkout))


def test_a_run_without_answers_is_refused(written, tmp_path):
    from otfew.errors import UserError
    from otfew.experiments.reproduce.answers import gather

    folder = shutil.copytree(written / "run", tmp_path / "run")
    (folder / "answers.npz").unlink()
    with pytest.raises(UserError, match="holds no answers of compare"):
        gather("compare", folder)


SEVERAL = """
[[run]]
name = "net-{seed}"
seeds = ["x", "y", "z"]
command = "compare"
arguments = ["--backbone", "{backbone}"]

[[table]]
name = "Table 1"
source = "A paper"
delta = 1.0
claims = [
    { id = "both", says = "wins on each", left = "net-{seed} / deepemd", right = "net-{seed} / chamfer" },
]
"""


@pytest.fixture
def several(written, tmp_path):
    """A checkout of a claim on three networks, none of which has run, with a folder that is a run of each."""
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "claims.toml").write_text(SEVERAL)
    shutil.copytree(written / "run", tmp_path / "run")
    return tmp_path


def keep(root, name):
    """Keep a run of the checkout and write its page; returns the recorded figure."""
    from otfew.experiments.reproduce.claims import load
    from otfew.experiments.reproduce.evidence import Evidence

    assert Evidence(root / "docs" / "results", "full").keep(load(root / "claims.toml"), name, root / "run") == {}
    reproduce.main(["--suite", "report", *where(root)])
    reproduce.main(["--suite", "check", *where(root)])
    figures = root / "docs/results/figures-full.json"
    return json.loads(figures.read_bytes())["both"] if figures.exists() else None


def test_a_row_fills_as_its_networks_come_in_their_order(several):
    # The second before the first is no figure of the first networks.
    assert keep(several, "net-2") is None
    found = keep(several, "net-1")
    assert (found["figure"]["seeds"], found["arms"].count("net-")) == (2, 4)
    (several / "docs/results/answers/net-2.npz").unlink()
    # A figure of more networks than there are answers of stands as it was recorded.
    assert keep(several, "net-1") == found
    assert keep(several, "net-3") == found
    assert keep(several, "net-2")["figure"]["seeds"] == 3


def test_one_network_of_three_is_said_to_be_one(several, refused):
    assert keep(several, "net-1")["figure"]["seeds"] == 1
    (row,) = (line for line in (several / "docs/reproduction.md").read_text().splitlines() if "wins on each" in line)
    assert "| 1 of 3 |" in row
    assert "confirmed on this checkpoint" in row
    claims = json.loads((several / "docs/results/claims.json").read_bytes())
    assert claims["both"]["evidence"] == ["net-1.json"]
    figures = several / "docs/results/figures-full.json"
    one = figures.read_bytes()
    keep(several, "net-2")
    figures.write_bytes(one)
    # Nobody stays with the network that suits a claim.
    assert "both, figure" in refused(reproduce.main, "--suite", "check", *where(several))


def test_answers_that_came_from_elsewhere_are_measured_by_report(several, written, tmp_path_factory):
    keep(several, "net-1")
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(several, other, dirs_exist_ok=True)
    keep(other, "net-2")
    for name in ("net-2.json", "answers/net-2.npz"):
        shutil.copy(other / "docs/results" / name, several / "docs/results" / name)
    reproduce.main(["--suite", "report", *where(several)])
    reproduce.main(["--suite", "check", *where(several)])
    for name in ("results/figures-full.json", "results/claims.json", "reproduction.md"):
        assert (several / "docs" / name).read_bytes() == (other / "docs" / name).read_bytes()
