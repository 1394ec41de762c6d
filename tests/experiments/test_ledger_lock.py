"""The lock of the claims: what it lists is what was, and nothing changes that it does not list."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from otfew.classifier import folder_rule
from otfew.errors import UserError
from otfew.experiments.reproduce import claims as ledger_claims
from otfew.experiments.reproduce import command as reproduce
from otfew.experiments.reproduce import lock as ledger_lock
from otfew.experiments.reproduce import verdict

LOCK = ledger_claims.CLAIMS.with_suffix(".lock")


@pytest.fixture(scope="module")
def ledger():
    return ledger_claims.load()


@pytest.fixture(scope="module")
def lock():
    return ledger_lock.load(LOCK)


def test_every_change_of_the_claims_is_listed(ledger, lock):
    assert ledger_lock.differences(ledger, lock) == {}


@pytest.mark.parametrize(
    ("change", "term"),
    [
        (lambda c: {"left": c.right, "right": c.left} if c.right else {"left": c.left[1:]}, "arms"),
        (lambda c: {"delta": c.delta + 0.5}, "margin"),
        (lambda c: {"level": 50.0 if c.level is None else c.level - 1}, "level"),
        (lambda c: {"training": not c.training}, "training"),
        (lambda c: {"table": "another family"}, "family"),
        (lambda c: {"ours": not c.ours}, "ours"),
        (lambda c: {"untestable": "" if c.untestable else "inconvenient"}, "untestable"),
    ],
)
def test_no_claim_changes_unlisted(ledger, lock, change, term):
    changed = {id_: replace(claim, **change(claim)) for id_, claim in ledger.claims.items()}
    found = ledger_lock.differences(replace(ledger, claims=changed), lock)
    with_arms = {id_ for id_, claim in ledger.claims.items() if claim.left or term != "arms"}
    assert {id_ for kind, id_ in found if kind == "claim"} == with_arms
    assert all(term in different for different in found.values())


def test_no_claim_and_no_run_comes_goes_or_runs_otherwise_unlisted(ledger, lock):
    claims, runs = dict(ledger.claims), dict(ledger.runs)
    gone, _ = claims.popitem()
    name, run = runs.popitem()
    runs["cub-5way-1"] = replace(runs["cub-5way-1"], arguments=("--episodes", "20"))
    runs["new"] = replace(run, name="new")
    found = ledger_lock.differences(replace(ledger, claims=claims, runs=runs), lock)
    # For which claims a paper's budget is asked is part of that rule.
    assert found.pop(("rule", "bears")) == ["digest"]
    assert found == {
        ("claim", gone): ["not there"],
        ("run", name): ["not there"],
        ("run", "new"): ["not in the lock"],
        ("run", "cub-5way-1"): ["command"],
    }


@pytest.mark.parametrize(("rule", "value"), [("LEVEL", 0.1), ("NETWORKS", 2), ("holm", list)])
def test_no_rule_of_verdicts_changes_unlisted(ledger, lock, monkeypatch, rule, value):
    monkeypatch.setattr(verdict, rule, value)
    with pytest.raises(
        UserError, match=r"rule 'verdicts' differs from claims\.lock: digest \(now [0-9a-f]{10}\); list"
    ):
        ledger_lock.check(ledger, lock)


def test_the_rule_of_folders_does_not_change_unlisted(ledger, lock, monkeypatch):
    monkeypatch.setattr(folder_rule, "MARGIN", 2.0)
    with pytest.raises(UserError, match=r"rule 'folders' differs from claims\.lock: digest \(now [0-9a-f]{10}\); list"):
        ledger_lock.check(ledger, lock)


def test_a_rule_that_other_pages_hold_to_is_written_down_and_no_more(ledger, lock):
    rule = lock["rule", "contrasts"]
    assert "digest" not in rule.terms
    assert ledger_lock.differences(ledger, {**lock, ("rule", "new"): replace(rule, id="new")}) == {}
    known = {("rule", "new"): replace(rule, id="new", terms={"digest": "0"})}
    assert ledger_lock.differences(ledger, {**lock, **known}) == {("rule", "new"): ["not there"]}


def test_the_two_that_were_turned_round_are_back(lock):
    for shot in ("1shot", "5shot"):
        entry = lock["claim", f"lst-unbalanced-kmeans-{shot}"]
        arms = [state["arms"] for state in entry.states()]
        assert arms[0] == arms[-1]
        assert arms[0].index("LST+MAP") < arms[0].index("LST+k-means")
        turned = [change for change in entry.changes if "arms" in change.terms]
        assert [change.known for change in turned] == ["yes", "yes"]
    assert sum("turned round: " in line for line in ledger_lock.section(lock)[-1].splitlines()) == 4


def test_changes_are_in_order_and_change_something(lock):
    for entry in lock.values():
        assert [change.on for change in entry.changes] == sorted(change.on for change in entry.changes)
        assert all(change.on > entry.on and change.why for change in entry.changes)
        states = entry.states()
        assert all(before != after for before, after in itertools.pairwise(states))


def test_the_command_refuses_an_unlisted_change(tmp_path, refused):
    claims = tmp_path / "claims.toml"
    text = ledger_claims.CLAIMS.read_text(encoding="utf-8")
    claims.write_text(text.replace("delta = 0.5", "delta = 0.4"), encoding="utf-8")
    (tmp_path / "claims.lock").write_bytes(LOCK.read_bytes())
    (tmp_path / "docs").mkdir()
    arguments = ("--suite", "report", "--docs", str(tmp_path / "docs"), "--claims", str(claims))
    assert "differs from claims.lock: margin" in refused(reproduce.main, *arguments)
    assert not list(Path(tmp_path / "docs").iterdir())
    (tmp_path / "claims.lock").write_text("[[claim]]")
    assert "can't be read" in refused(reproduce.main, *arguments)
    (tmp_path / "claims.lock").write_text(
        LOCK.read_text(encoding="utf-8").replace('known = "no"', 'known = "maybe"', 1)
    )
    assert "known must be one of" in refused(reproduce.main, *arguments)
