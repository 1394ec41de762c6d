"""What folders say together, against plain loops; the rule; the page."""

import json

import numpy as np
import pytest

from otfew.classifier import folder_rule
from otfew.classifier.folder_study import packed, unpacked
from otfew.classifier.folder_summary import FAILS, HERE, PASSES, bits, expected_error, summary, verdict
from otfew.classifier.folder_tables import BEGIN, END, lines, tables, write_page
from otfew.errors import UserError
from otfew.statistics.clusters import Clustered

KINDS = (("cosine-centroid", 8, "fcn"), ("deepemd", 8, "fcn"), ("deepemd", 16, "fcn"), ("knn", 8, "grid:2,3"))


def folder(number):
    """Figures of a folder, drawn."""
    rng = np.random.default_rng(number)
    way, each = 4, 3
    count = way * each

    def text(share, length=count):
        return "".join("01"[int(value < share)] for value in rng.random(length))

    settled = number % 4 == 3  # one resolution: nothing is larger there
    rows = [
        {"method": method, "resolution": side, "nodes": nodes}
        for method, side, nodes in KINDS
        if not (settled and side == 16)
    ]
    calibrated = rng.uniform(0.3, 1, count)
    return {
        "number": number,
        "source": f"source {number % 4}",
        "labelled": [3, 3, 3, 3] if number % 2 else [1, 5, 3, 3],
        "classes": [f"c{(number // 4 + i) % 6}" for i in range(way)],
        "truth": packed(np.repeat(np.arange(way), each)),
        "choice": {"chosen": int(rng.integers(len(rows))), "moved": bool(number % 3 == 0), "candidates": rows},
        "held_out": None if number == 5 else {"mean": 0.7, "low": 0.5, "high": 0.8},
        "right": {f"{r['method']} on {r['nodes']} at {r['resolution']} px": text(0.7) for r in rows},
        "confidence": {
            "before": {"largest": packed(rng.uniform(0.2, 0.4, count)), "log_loss": packed(rng.uniform(1, 2, count))},
            "after": {"largest": packed(calibrated), "log_loss": packed(rng.uniform(0, 1, count))},
        },
        "refusal": {
            "auroc": 0.5 + 0.01 * number,
            "0.05": None,
            "0.1": None if number % 2 else {"known": text(0.1), "unknown": text(0.4, 8)},
            "0.2": {"known": text(0.2), "unknown": ""},
        },
        "sets": {
            "auto": None,
            "cosine-centroid": {
                "photos": "0 2 4 11", "p": "1 1 1 1",
                "sizes": {"0.2": "1 2 1 2"}, "hits": {"0.2": text(0.8, 4)},
            },
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def found():
    return [folder(number) for number in range(24)]


@pytest.fixture(scope="module")
def record(found):
    return json.loads(json.dumps({"summary": summary(found)}))


def chosen(one):
    row = one["choice"]["candidates"][one["choice"]["chosen"]]
    return one["right"][f"{row['method']} on {row['nodes']} at {row['resolution']} px"]


def share(text):
    return text.count("1") / len(text)


def test_accuracy_and_differences_are_means_over_folders(found, record):
    told = record["summary"]
    auto = [share(chosen(one)) for one in found]
    assert told["accuracy"]["mean"] == pytest.approx(100 * np.mean(auto))
    fixed = [share(one["right"]["deepemd on fcn at 8 px"]) for one in found]
    against = told["against"]["deepemd on fcn"]
    assert against["difference"]["mean"] == pytest.approx(100 * (np.mean(auto) - np.mean(fixed)))
    assert against["worst"] == pytest.approx(100 * min(np.subtract(auto, fixed)))
    larger = told["against"]["deepemd on fcn larger"]
    assert larger["folders"] == 18
    those = [i for i in range(24) if i % 4 != 3]
    assert larger["accuracy"] == pytest.approx(
        100 * np.mean([share(found[i]["right"]["deepemd on fcn at 16 px"]) for i in those])
    )
    assert told["by_source"]["source 2"]["auto"] == pytest.approx(100 * np.mean(auto[2::4]))
    assert sum(told["chosen"].values()) == 24
    assert told["moved"] == 8
    for name, own in (("equal", [one for i, one in enumerate(auto) if i % 2 and i != 5]), ("unequal", auto[::2])):
        held = told["held_out"][name]
        assert held["folders"] == len(own)
        assert held["inside"] == sum(0.5 <= one <= 0.8 for one in own)
        assert held["found"] == pytest.approx(100 * np.mean(own))
        assert held["told"] == pytest.approx(70)


def test_refusals_and_sets_are_shares(found, record):
    told = record["summary"]
    assert told["refusal"]["0.05"] == {"folders": 0, "known": None, "unknown": None}
    able = [one["refusal"]["0.1"] for one in found if one["refusal"]["0.1"]]
    assert told["refusal"]["0.1"]["folders"] == 12
    assert told["refusal"]["0.1"]["known"]["mean"] == pytest.approx(
        100 * np.mean([share(one["known"]) for one in able])
    )
    assert told["refusal"]["0.1"]["unknown"] == pytest.approx(100 * np.mean([share(one["unknown"]) for one in able]))
    assert told["refusal"]["0.2"]["unknown"] is None
    kept = told["sets"]["cosine-centroid"]["0.2"]
    hits = [share(one["sets"]["cosine-centroid"]["hits"]["0.2"]) for one in found]
    assert kept["covered"]["mean"] == pytest.approx(100 * np.mean(hits))
    assert (kept["folders"], kept["photos"], kept["size"]) == (24, 96, 1.5)
    assert told["sets"]["auto"]["0.1"]["covered"] is None


def test_the_calibration_error_against_a_loop(found, record):
    bins = {}
    for one in found:
        sure = unpacked(one["confidence"]["after"]["largest"])
        for p, right in zip(sure, bits(chosen(one)), strict=True):
            bins.setdefault(min(int(10 * p), 9), []).append(p - right)
    expected = sum(abs(sum(apart)) for apart in bins.values()) / sum(map(len, bins.values()))
    assert record["summary"]["confidence"]["after"]["error"] == pytest.approx(100 * expected)


def test_a_perfect_forecaster_has_no_calibration_error():
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    assert expected_error(p, (rng.random(len(p)) < p).astype(float), np.ones(len(p))) < 0.005
    assert expected_error(np.ones(4), np.zeros(4), np.ones(4)) == 1


@pytest.mark.parametrize(
    ("within", "across", "said"),
    [(-0.9, -0.8, PASSES), (-0.9, -1.0, HERE), (-1.0, 3.0, FAILS), (-0.9, None, PASSES)],
)
def test_the_rule(within, across, said):
    wide = None if across is None else (across, 9.0)
    assert verdict(Clustered(1.0, (within, 9.0), wide)) == said


def test_the_rule_s_digest_changes_with_it(monkeypatch):
    before = folder_rule.rule_digest()
    monkeypatch.setattr(folder_rule, "verdict", lambda found: verdict(found, 2.0))
    assert folder_rule.rule_digest() != before


def test_the_page_has_the_tables_between_its_marks(record, tmp_path):
    page, kept = tmp_path / "own-photos.md", tmp_path / "folders.json"
    kept.write_text(json.dumps(record))
    page.write_text(f"Before.\n\n{BEGIN}\nstale\n{END}\n\nAfter.\n")
    write_page(page, kept)
    text = page.read_text()
    assert text.startswith("Before.\n\n")
    assert text.endswith(f"{END}\n\nAfter.\n")
    assert "stale" not in text
    assert f"| {record['summary']['accuracy']['mean']:.1f} |" in text
    assert all(table.title in text for table in tables(record))
    assert len(lines(record)) == 5
    write_page(page, kept)
    assert page.read_text() == text
    page.write_text("no marks")
    with pytest.raises(UserError, match="lacks its marks"):
        write_page(page, kept)
    with pytest.raises(UserError, match="is not there"):
        write_page(page, tmp_path / "none.json")


def test_numbers_come_back():
    values = [0.0, 1.0, 0.12346, 1e-5, 17.0]
    np.testing.assert_allclose(unpacked(packed(values)), values, rtol=1e-4)
