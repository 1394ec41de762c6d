"""Counts on the page of the ledger: independent networks, verdicts of before, commands whose networks are not here."""

from __future__ import annotations

import json

import pytest

from otfew.backbones.zoo import IN_CHECKOUT
from otfew.errors import UserError
from otfew.experiments.reproduce import tallies
from otfew.experiments.reproduce.budget import Bearing
from otfew.experiments.reproduce.claims import Arm, Claim, Ledger, Training, load
from otfew.experiments.reproduce.figures import Figure
from otfew.experiments.reproduce.runs_of_page import EXTERNAL, Kept, lacking, runs_section
from otfew.experiments.reproduce.verdict import judge, kind_of, surviving

CLAIMS = [
    Claim(id_, "t", f"says {id_}", left=(Arm("r", "a"),), right=(Arm("r", "b"),), delta=1.0, ours=id_ == "c")
    for id_ in "abc"
]
LEDGER = Ledger({}, {}, {claim.id: claim for claim in CLAIMS}, {"t": "A paper"}, {"t": ()}, (), ())
FIGURES = {
    "a": Figure(3.0, {"classes": 1.0, "networks": 0.5}, 1e-9, 3, {"classes": 19}),
    "b": Figure(3.0, {"classes": 1.0}, 1e-9, 1, {"classes": 19}),
    "c": Figure(2.0, {"seeds": 0.5}, 1e-9, 5),
}
BEARS = {
    "a": Bearing(True, (), (), frozenset({"one", "two", "three"})),
    "b": Bearing(True, (), ("width",), frozenset({"one"})),
    "c": Bearing(False, (), (), frozenset({"net on x, 10 epochs"})),
}


def table(lines, start):
    """The cells of the rows of a table whose first cell begins so."""
    rows = [line for line in lines if line.startswith(f"| {start}")]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]


def test_networks_that_are_shared_count_once_and_seeds_each():
    judged = judge(CLAIMS, FIGURES)
    survivors = surviving(CLAIMS, FIGURES, judged)
    lines = "\n".join(tallies.counts(LEDGER, judged, BEARS, FIGURES, survivors)).splitlines()
    assert table(lines, "confirmed |") == [["confirmed", "1", "1", "1", "2", "8"]]
    assert table(lines, "confirmed (few") == [["confirmed (few networks)", "1", "0", "0", "1", "1"]]
    assert (
        "all 3 rows with a figure stand 8 independent networks: 3 pre-trained ones (one, three, two), 0 first stages"
        in lines[-1]
    )
    assert "and 5 seeds of metric learning" in lines[-1]


def test_verdicts_before_and_after_stand_beside_each_other():
    before = {"a": "confirmed", "b": "inconclusive"}
    lines = tallies.changes(LEDGER, judge(CLAIMS, FIGURES), BEARS, FIGURES, {"b"}, before)
    rows = "\n".join(lines).splitlines()
    assert table(rows, "confirmed |") == [["confirmed", "1", "1", "", "", "1"]]
    assert table(rows, "inconclusive |") == [["inconclusive", "1", "", "1", "", ""]]
    (changed,) = table(rows, "says")
    assert changed[0] == "says b"
    assert changed[2:5] == ["inconclusive", "confirmed on this checkpoint", "not at this budget"]
    assert changed[5:] == ["+3.00 ± 1.00 over classes, p 1e-09", "yes", "1"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("confirmed", "confirmed"),
        ("confirmed, by less than 1 on these checkpoints", "confirmed (few networks)"),
        ("equivalent within 0.5 with 2 seeds", "equivalent (few networks)"),
        ("inconclusive: 2 of 3 seeds", "inconclusive"),
        ("confirmed on one machine", "confirmed (few networks)"),
    ],
)
def test_words_of_old_verdicts_are_sorted(text, kind):
    assert kind_of(text) == kind


def test_damaged_verdicts_of_before_are_named(tmp_path):
    assert tallies.load(tmp_path) == ("", {})
    (tmp_path / tallies.BEFORE).write_text(json.dumps({"on": "now", "verdicts": {"a": "confirmed"}}))
    assert tallies.load(tmp_path) == ("now", {"a": "confirmed"})
    (tmp_path / tallies.BEFORE).write_text("[]")
    with pytest.raises(UserError, match=r"verdicts-before\.json is damaged"):
        tallies.load(tmp_path)


def test_commands_say_which_networks_are_not_here():
    ledger = load()
    lines = runs_section(ledger, Kept(frozenset({"cub-5way-1"})))
    assert "    # cub-5way-1; answers kept" in lines
    assert "    # cub-deepemd" in lines
    needs = "needs cub-resnet12-quarter-protonet, whose weights are not here and are trained below"
    assert f"    # cub-protonet; {needs}" in lines
    for run in ledger.runs.values():
        for name in lacking(run):
            assert name not in {*IN_CHECKOUT, *EXTERNAL}
            trained = [line for line in lines if line.endswith(f"--output checkpoints/{name}")]
            assert len(trained) == (name in ledger.trainings)
    (meta,) = (line for line in lines if "--name cifar-fs-resnet12-quarter-seed2-deepemd " in line)
    assert "--backbone checkpoints/cifar-fs-resnet12-quarter-seed2/cifar-fs-resnet12-quarter-seed2.safetensors" in meta


def test_metric_learning_names_its_checkpoints_itself():
    training = Training("own-seed1", "metric-learning", ("--losses", "snr"))
    ledger = Ledger({}, {"own-seed1": training}, {}, {}, {}, (), ())
    assert runs_section(ledger, Kept())[-1] == (
        "    python -m experiments.metric_learning --losses snr --output checkpoints/own-seed1"
    )
