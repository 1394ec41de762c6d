"""Whether a verdict bears on a paper's claim: one rule, tried on both sides of each of its parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from otfew.backbones.zoo import zoo
from otfew.experiments.reproduce.budget import NO, YES, Bearing, Own, bearing, bearings, named, owns, rising
from otfew.experiments.reproduce.claims import Arm, Claim, Spent, load

RESULTS = Path(__file__).parents[2] / "docs" / "results"
LEVEL = (70.0,) * 20
PAPER = Spent("resnet12", 1.0, 120, 5000, None, 84, ("cub",), ("cub",))
ENOUGH = Own("resnet12", 0.5, 60, 2500, None, 42, ("cub",), ("cub",), "base", "", (LEVEL,), "fcn", "fcn")
CLAIM = Claim("c", "t", "s", left=(Arm("r", "a"),), right=(Arm("r", "b"),))


def judge(*found: Own, paper: Spent | None = PAPER, claim: Claim = CLAIM) -> Bearing:
    return bearing(claim, paper, found)


def test_half_of_everything_is_enough() -> None:
    assert judge(ENOUGH).bears
    assert judge(ENOUGH).text == YES
    assert judge(ENOUGH).budget == (
        "resnet12", "width 0.5 of 1", "60 of 120 epochs", "2,500 of 5,000 episodes of meta-training", "42 of 84 px",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        ({"width": 0.25}, "width 0.25 of 1"),
        ({"epochs": 59}, "59 of 120 epochs"),
        ({"meta_episodes": 2499}, "2,499 of 5,000 episodes of meta-training"),
        ({"resolution": 41}, "41 of 84 px"),
        ({"data": ("cifar-fs",)}, "cifar-fs for cub"),
        ({"learned": ("cifar-fs",)}, "trained on cifar-fs for cub"),
        ({"partial": "22 of 50 classes"}, "22 of 50 classes"),
        ({"nodes": "grid"}, "tested on grid, trained on fcn nodes"),
        ({"curves": ()}, "validation curve not kept"),
        ({"curves": (LEVEL, (*LEVEL[:18], 71.0, 71.0))}, "validation still rising (+1.0 points)"),
        ({"curves": ((70.0,) * 3,)}, "too few epochs for a curve"),
        ({"network": "efficientnet-lite0", "width": None}, "efficientnet-lite0 for resnet12"),
    ],
)
def test_one_thing_that_is_missing_is_named(changed: dict[str, object], missing: str) -> None:
    """One network of several is enough to keep a row from bearing."""
    found = judge(ENOUGH, replace(ENOUGH, **changed))  # type: ignore[arg-type]
    assert not found.bears
    assert found.missing == (missing,)
    assert found.text == f"{NO}: {missing}"


def test_what_a_paper_does_not_say_is_not_asked() -> None:
    assert judge(Own("net", epochs=1), paper=Spent(data=())).bears


def test_the_network_that_training_starts_from_need_not_be_trained_so() -> None:
    before = replace(ENOUGH, meta_episodes=0)
    assert judge(ENOUGH, before).bears
    assert judge(before, before).missing == ("0 of 5,000 episodes of meta-training",)


def test_questions_of_ours_bear_on_no_paper_and_times_rest_on_no_budget() -> None:
    assert judge(ENOUGH, claim=replace(CLAIM, ours=True)) == Bearing(
        False,
        ("resnet12", "width 0.5", "60 epochs", "2,500 episodes of meta-training", "42 px"),
        (),
        frozenset({"base"}),
    )
    assert judge(Own(), paper=None).bears
    assert judge().text == ""


def test_a_curve_rises_by_its_last_tenth() -> None:
    assert rising([0.0] * 90 + [10.0] * 10) == 10.0
    assert rising([5.0, 5.0, 6.0, 8.0]) == pytest.approx(2.0)
    assert rising([1.0, 2.0, 3.0]) == float("inf")


def test_widths_are_read_from_names() -> None:
    assert named("resnet12-quarter") == ("resnet12", 0.25)
    assert named("efficientnet-lite0") == ("efficientnet-lite0", 1.0)


def test_a_data_set_is_called_as_budgets_call_it() -> None:
    claim = replace(CLAIM, right=())
    paper = Spent("conv4", data=("omniglot with rotated classes",))
    for dataset, bears in (("omniglot-rotated", True), ("omniglot", False)):
        protocol = {
            "backbone": {"name": "mine", "architecture": "conv4", "training_data": f"{dataset} train (vinyals)"},
            "data": {"dataset": dataset}, "resolution": 28,
        }  # fmt: skip
        assert judge(*owns(claim, {"r": protocol}, {}), paper=paper, claim=claim).bears == bears


def test_committed_records_say_what_was_spent() -> None:
    """Every arm of every claim that has run says what it rests on."""
    ledger, cards = load(), zoo()
    protocols = {
        path.stem: json.loads(path.read_bytes())["protocol"]
        for path in RESULTS.glob("*.json")
        if path.stem in ledger.runs
    }
    found = bearings(ledger, protocols, cards)
    for claim in ledger.claims.values():
        if set(claim.runs) <= protocols.keys() and not claim.untestable:
            assert len(owns(claim, protocols, cards)) == len({*claim.left, *claim.right})
    assert found["t1-own-protonet-cub"].missing == (
        "width 0.25 of 1", "500 of 5,000 episodes of meta-training", "validation curve not kept",
        "cub for miniimagenet", "22 of 50 classes",
    )  # fmt: skip
    assert found["t7-fcn-grid-cifar-fs"].missing[-1] == "tested on grid, trained on fcn nodes"
    assert found["t6-solver-time"].bears
    assert found["t1-own-protonet-cub"].bases == {"cub-resnet12-quarter"}
