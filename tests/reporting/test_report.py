"""The record of a comparison: pairs, families of corrections, and what transport adds."""

import re

import numpy as np
import pytest

from otfew.evaluation.figures import compare
from otfew.evaluation.lineup import Entry
from otfew.evaluation.run import Scores
from otfew.reporting.cells import contrast_rows, difference_rows
from otfew.reporting.comparison import (
    contrast_lines,
    episodes_csv,
    markdown,
    protocol_lines,
    table,
    transport_lines,
    words,
)
from otfew.reporting.frames import rows
from otfew.statistics.intervals import estimate, holm, p_value

N = 400
rng = np.random.default_rng(0)
CLASSES = np.array([rng.permutation(12)[:5] for _ in range(N)])
CLASS_NAMES = [f"c{i}" for i in range(12)]
HARD = rng.integers(-2, 3, size=12)


def scores(shift):
    """Counts that depend on the class, shifted for everyone alike, with noise."""
    noise = rng.integers(-1, 2, size=(N, 5))
    return Scores(np.clip(8 + HARD[CLASSES] + shift + noise, 0, 15), 15, 2.0)


SCORES = {"cosine-centroid": scores(0), "chamfer": scores(2), "deepemd": scores(2), "grid": scores(4)}
ENTRIES = [
    Entry("cosine-centroid", "cosine-centroid", "fcn"),
    Entry("chamfer", "chamfer", "fcn"),
    Entry("deepemd", "deepemd", "fcn"),
    Entry("grid", "deepemd", "grid:2,3"),
]


@pytest.fixture(scope="module")
def record():
    return compare(ENTRIES, SCORES, CLASSES, CLASS_NAMES, "cosine-centroid")


def test_differences_are_paired_and_corrected_together(record):
    base = SCORES["cosine-centroid"].accuracy
    others = ["chamfer", "deepemd", "grid"]
    found = [estimate(SCORES[name].accuracy - base, CLASSES, CLASS_NAMES) for name in others]
    adjusted = holm([p_value(difference) for difference in found])
    for name, difference, p in zip(others, found, adjusted, strict=True):
        written = record["methods"][name]["difference"]
        assert written["to"] == "cosine-centroid"
        assert written["mean"] == pytest.approx(SCORES[name].accuracy.mean() - base.mean())
        assert written["class_ci"] == pytest.approx(difference.jackknife.half_width, abs=1e-8)
        assert written["p_holm"] == pytest.approx(p, abs=1e-8)
        assert written["verdict"] == "better"
    assert "difference" not in record["methods"]["cosine-centroid"]


def test_the_only_method_of_its_kind_is_compared_with_nobody():
    alone = compare([*ENTRIES[:2], Entry("grid", "sot", "grid:2,3")], SCORES, CLASSES, CLASS_NAMES, "cosine-centroid")
    assert "difference" in alone["methods"]["chamfer"]
    assert "difference" not in alone["methods"]["grid"]


PRIORS = [("ncm", ""), ("lst", "true"), ("pt-map", "uniform"), ("tim", "estimated")]
MIXED = {"protonet": scores(1), **{name: scores(shift) for shift, (name, _) in enumerate(PRIORS)}, **SCORES}


def transductive(name):
    """Make an entry of a transductive method; "ncm" stands for one that nobody knows."""
    return Entry(name, {"ncm": "laplacianshot"}.get(name, name), "fcn")


def test_transductive_methods_are_compared_among_themselves():
    entries = [*ENTRIES[:3], *(transductive(name) for name, _ in PRIORS)]
    found = compare(entries, MIXED, CLASSES, CLASS_NAMES, "chamfer")
    groups = {"chamfer": ["cosine-centroid", "deepemd"], "pt-map": ["ncm", "lst", "tim"]}
    for reference, others in groups.items():
        differences = [
            estimate(MIXED[name].accuracy - MIXED[reference].accuracy, CLASSES, CLASS_NAMES) for name in others
        ]
        for name, p in zip(others, holm([p_value(difference) for difference in differences]), strict=True):
            written = found["methods"][name]["difference"]
            assert written["to"] == reference
            assert written["p_holm"] == pytest.approx(p, abs=1e-8)
        assert "difference" not in found["methods"][reference]
    across = found["across_groups"]
    assert (across["method"], across["to"]) == ("pt-map", "chamfer")
    assert across["mean"] == pytest.approx(MIXED["pt-map"].accuracy.mean() - MIXED["chamfer"].accuracy.mean(), abs=1e-8)
    assert "verdict" not in across
    # A transductive method is not credited with what it gains over controls that see one query at a time.
    assert found["transport_adds"]["lst"] == {
        "contrasts": {},
        "reason": "lst:head=gmm and lst:head=kmeans did not run on nodes fcn",
    }
    assert list(found["transport_adds"]["deepemd"]["contrasts"]) == ["chamfer"]


def test_the_reference_of_either_group_can_be_named():
    entries = [ENTRIES[0], *(transductive(name) for name, _ in PRIORS)]
    found = compare(entries, MIXED, CLASSES, CLASS_NAMES, "tim")["methods"]
    assert {name for name, method in found.items() if "difference" not in method} == {"cosine-centroid", "tim"}
    assert found["pt-map"]["difference"]["to"] == "tim"


def test_a_run_of_one_group_is_recorded_as_ever():
    found = compare(ENTRIES[:3], SCORES, CLASSES, CLASS_NAMES, "cosine-centroid")
    assert set(found) == {"methods", "transport_adds"}
    assert set(found["methods"]["deepemd"]) == {"accuracy", "nodes", "transductive", "difference"}


def test_sentences_say_what_methods_were_told():
    entries = [ENTRIES[0], *(transductive(name) for name, _ in PRIORS)]
    found = compare(entries, MIXED, CLASSES, CLASS_NAMES, "cosine-centroid", dict(PRIORS))
    data = {"dataset": "toy", "variant": "", "split": "test", "classes": 1, "published_classes": 1, "images": 1}
    numbers = {"episodes": N, "way": 5, "shot": 1, "query": 15, "seed": 1, "query_balance": "dirichlet:0.5"}
    protocol = {"data": {**data, "notes": []}, "backbone": None, **numbers}
    lines = protocol_lines({**found, "protocol": protocol, "not_run": {}})
    (episodes,) = [line for line in lines if "episodes of 5-way" in line]
    assert "75 queries, divided among the classes" in episodes
    assert "parameter 0.5 (a class may have none)" in episodes
    assert "class prior uniform: told that each class has as many queries, which is false here: pt-map" in lines
    assert any(line.startswith("class prior true: ") and line.endswith("an oracle, since nobody knows them: lst")
               for line in lines)  # fmt: skip
    assert any(line.startswith("class prior estimated: ") and line.endswith(": tim") for line in lines)
    assert any(line.startswith("across the groups, not between like methods: pt-map") for line in lines)
    timings = {"methods": {name: {"ms_per_episode": 2.0} for name in MIXED}}
    names = [row[0] for row in table(found, timings)[1]]
    assert names[0] == "cosine-centroid"
    assert set(names[1:]) == {
        "ncm (transductive)",
        "lst (transductive, true prior: oracle)",
        "pt-map (transductive, uniform prior)",
        "tim (transductive, estimated prior)",
    }
    marked = difference_rows([{**found, "protocol": {"order": list(MIXED)[1:6], "reference": "cosine-centroid"}}])
    assert [row[0] for row in marked] == [
        "ncm (transductive), to pt-map",
        "lst (transductive, true prior: oracle), to pt-map",
        "tim (transductive, estimated prior), to pt-map",
    ]


def test_pairing_removes_the_difficulty_of_classes(record):
    assert record["methods"]["chamfer"]["difference"]["class_ci"] < record["methods"]["chamfer"]["accuracy"]["class_ci"]


def test_transport_is_credited_with_what_it_adds_to_its_controls(record):
    adds = record["transport_adds"]
    assert set(adds) == {"deepemd", "grid"}
    (over,) = adds["deepemd"]["contrasts"].values()
    assert over["control"] == "chamfer"
    gain = SCORES["deepemd"].accuracy.mean() - SCORES["chamfer"].accuracy.mean()
    assert over["mean"] == pytest.approx(gain, abs=1e-8)
    assert adds["deepemd"]["reason"] == "product-coupling did not run on nodes fcn"
    # Crops must not pass for transport: controls on other nodes do not count.
    assert adds["grid"] == {"contrasts": {}, "reason": "chamfer and product-coupling did not run on nodes grid:2,3"}
    first, second, remedy = transport_lines(record)
    assert re.fullmatch(
        r"what transport adds in deepemd: [+-]\d\.\d\d ± \d\.\d\d points over chamfer \(.*, p \S+\); "
        "product-coupling did not run on nodes fcn",
        first,
    )
    assert second == f"what transport adds in grid: unknown, {adds['grid']['reason']}"
    assert remedy.startswith("a control that did not run does so where it is named among the methods")


def test_transport_is_not_credited_with_seeing_all_queries():
    entries = [*ENTRIES[:2], Entry("deepemd", "sot", "fcn")]
    record = compare(entries, SCORES, CLASSES, CLASS_NAMES, "cosine-centroid")
    assert record["transport_adds"]["deepemd"] == {
        "contrasts": {},
        "reason": "sot:plan=softmax did not run on nodes fcn",
    }


BOTH = {**SCORES, "product-coupling": scores(0), "deepemd uniform": scores(2), "chamfer uniform": scores(1)}
UNIFORM = {"weights": "uniform"}
ALL = [
    *ENTRIES[:3],
    Entry("product-coupling", "product-coupling", "fcn"),
    Entry("deepemd uniform", "deepemd", "fcn", UNIFORM),
    Entry("chamfer uniform", "chamfer", "fcn", UNIFORM),
]


def test_all_contrasts_of_a_run_are_one_family():
    """Three differences are corrected for three, whatever else was compared with the reference."""
    adds = compare(ALL, BOTH, CLASSES, CLASS_NAMES, "cosine-centroid")["transport_adds"]
    pairs = {
        ("deepemd", "chamfer"): "chamfer",
        ("deepemd", "product-coupling"): "product-coupling",
        ("deepemd uniform", "chamfer"): "chamfer uniform",
    }
    found = [estimate(BOTH[a].accuracy - BOTH[b].accuracy, CLASSES, CLASS_NAMES) for (a, _), b in pairs.items()]
    for (name, control), difference, p in zip(pairs, found, holm([p_value(d) for d in found]), strict=True):
        written = adds[name]["contrasts"][control]
        assert written["control"] == pairs[name, control]
        assert written["p_holm"] == pytest.approx(p, abs=1e-8)
        assert written["class_ci"] == pytest.approx(difference.jackknife.half_width, abs=1e-8)
    assert sum(len(own["contrasts"]) for own in adds.values()) == 3


def test_a_sentence_names_both_controls_and_another_says_what_they_are():
    record = compare(ALL[:4], BOTH, CLASSES, CLASS_NAMES, "cosine-centroid")
    over = record["transport_adds"]["deepemd"]["contrasts"]
    parts = []
    for i, (name, one) in enumerate(over.items()):
        p = "<0.001" if one["p_holm"] < 0.001 else f"{one['p_holm']:.3f}"
        points = f"{100 * one['mean']:+.2f} ± {100 * one['class_ci']:.2f}{' points' if i == 0 else ''}"
        parts.append(f"{points} over {name} ({one['verdict']}, p {p})")
    assert list(over) == ["chamfer", "product-coupling"]
    assert transport_lines(record) == [f"what transport adds in deepemd: {', '.join(parts)}"]
    (line,) = contrast_lines([record, record])
    assert "chamfer (each node to its best match, no plan) and product-coupling (every node with every node)" in line
    assert "fixed beforehand" in line
    rows = contrast_rows(record, "birds")
    assert [row[:2] for row in rows] == [["deepemd, birds", "chamfer"], ["deepemd, birds", "product-coupling"]]
    assert rows[1][3] == words(over["product-coupling"])


OLD = {
    "control": "cr-pooled", "mean": 0.012, "episode_ci": 0.003, "class_ci": 0.005, "p": 0.001, "p_holm": 0.002,
    "verdict": "better",
}  # fmt: skip


def test_runs_of_the_old_format_are_named_as_such(record):
    old = {**record, "transport_adds": {"deepemd": OLD, "grid": {"control": None, "reason": "no control ran"}}}
    assert transport_lines(old) == [
        "what transport adds in deepemd: +1.20 ± 0.50 points over cr-pooled, best control on these episodes (old "
        "format) (better, p 0.002)",
        "what transport adds in grid: unknown, no control ran",
    ]
    (line,) = contrast_lines([old])
    assert "older format" in line
    assert "run the same command again" in line
    assert contrast_rows(old, "birds")[0][1] == "cr-pooled, best control on these episodes (old format)"
    row = next(row for row in rows(old) if row["method"] == "deepemd")
    assert (row["best_control"], row["adds_over_best_control"]) == ("cr-pooled", 0.012)
    assert row["adds_over_best_control_p_holm"] == 0.002
    assert not any(column.startswith("adds_over_chamfer") for column in row)


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (None, "better"), (0.0, "better (<0.001)"), (0.0009, "better (<0.001)"), (0.001, "better (0.001)"),
        (0.0094, "better (0.009)"), (0.5, "better (0.500)"),
    ],
)  # fmt: skip
def test_verdicts_come_with_holms_p(p, said):
    assert words({"verdict": "better", "p_holm": p}) == said


@pytest.mark.parametrize(
    ("accuracies", "told"),
    [
        ([(0.22, 0.01, 0.03)], True),
        ([(0.22, 0.03, None)], True),
        ([(0.22, 0.03, 0.01)], False),
        ([(0.22, 0.01, None)], False),
        ([(0.2, 0.01, 0.01), (0.5, 0.1, 0.1)], False),
    ],
)
def test_a_run_in_which_nothing_beats_a_guess_says_so(accuracies, told):
    """Of the two intervals that over classes decides, where there is one."""
    methods = {
        f"m{i}": {
            "transductive": False,
            "accuracy": {"mean": mean, "episode_ci": episodes, "class_ci": classes},
            "nodes": "fcn",
        }
        for i, (mean, episodes, classes) in enumerate(accuracies)
    }
    data = {"dataset": "toy", "variant": "", "split": "test", "classes": 1, "published_classes": 1, "images": 1}
    numbers = {"episodes": N, "way": 5, "shot": 1, "query": 15, "seed": 1}
    protocol = {"data": {**data, "notes": []}, "backbone": None, **numbers}
    lines = protocol_lines({"methods": methods, "protocol": protocol, "not_run": {}})
    said = [
        line for line in lines if line.startswith("no method is told apart from guessing, which is right in 20.00 %")
    ]
    assert len(said) == told


NOISE = "more than half the variance over classes is sampling noise in "


def noise_lines(shares):
    """Write the sentences of a run whose differences have these shares of noise; None where there is no interval."""
    accuracy = {"mean": 0.5, "episode_ci": 0.1, "class_ci": 0.1}
    differences = [{**accuracy, **({} if share is None else {"class_ci_noise_share": share})} for share in shares]
    methods = {f"m{i}": {"transductive": False, "accuracy": accuracy, "difference": d, "nodes": "fcn"}
               for i, d in enumerate(differences)}  # fmt: skip
    methods["reference"] = {"transductive": False, "accuracy": accuracy, "nodes": "fcn"}
    data = {"dataset": "toy", "variant": "", "split": "test", "classes": 1, "published_classes": 1, "images": 1}
    numbers = {"episodes": N, "way": 5, "shot": 1, "query": 15, "seed": 1}
    protocol = {"data": {**data, "notes": []}, "backbone": None, **numbers}
    return [
        line
        for line in protocol_lines({"methods": methods, "protocol": protocol, "not_run": {}})
        if line.startswith(NOISE)
    ]


def test_intervals_that_are_wide_for_want_of_episodes_are_pointed_out():
    wide = ": their intervals err wide, and more --episodes narrow them"
    assert noise_lines([0.51, 0.2, 0.9, None]) == [f"{NOISE}2 of 4 differences{wide}"]
    assert noise_lines([0.5, 0.2, None]) == []


def test_the_table_ranks_by_accuracy_and_marks_what_differs(record):
    timings = {"methods": {name: {"ms_per_episode": 2.0} for name in SCORES}}
    timings["methods"]["deepemd"]["ms_per_episode_with_extraction"] = 300.0
    head, rows = table(record, timings)
    assert rows[0][0] == "grid [grid:2,3]"
    ranked = [float(row[1].split()[0]) for row in rows]
    assert ranked == sorted(ranked, reverse=True)
    assert [len(row) for row in rows] == [len(head)] * 4
    assert {row[0]: row[-1] for row in rows}["deepemd [fcn]"] == "300"
    assert rows[0][-1] == "–"
    text = markdown(head, rows, ["a sentence"])
    assert all(line.count("|") == len(head) + 1 for line in text.splitlines() if line.startswith("|"))


def test_an_interval_that_cannot_be_had_comes_with_its_reason():
    few = np.tile(np.arange(5), (N, 1))
    record = compare(ENTRIES[:2], SCORES, few, CLASS_NAMES[:5], "cosine-centroid")
    accuracy = record["methods"]["chamfer"]["accuracy"]
    assert accuracy["class_ci"] is None
    assert "episodes lack class" in accuracy["class_ci_missing"]
    assert record["methods"]["chamfer"]["difference"]["verdict"] == "not assessed"


def test_csv_has_a_row_for_every_method_and_episode():
    lines = episodes_csv({name: SCORES[name].accuracy for name in ("deepemd", "chamfer")}).decode().splitlines()
    assert lines[0] == "method,episode,accuracy"
    assert len(lines) == 1 + 2 * N
    assert lines[1].startswith("deepemd,0,")
    assert float(lines[-1].split(",")[2]) == pytest.approx(SCORES["chamfer"].accuracy[-1])
