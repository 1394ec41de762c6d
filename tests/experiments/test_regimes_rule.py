"""Effects against plain arithmetic, the rule on made-up maps whose truth is known, records that prove themselves."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from otfew import data
from otfew.experiments.regimes import effects, page, record, rule
from otfew.experiments.regimes.cells import CELLS, CONTROL, HELD_BACK, MAP, SETTINGS
from otfew.experiments.regimes.effects import CONTROLS, Counted, Effect, averaged, log_odds, points, together
from otfew.runs.directory import to_json
from otfew.runs.files import DamagedError
from otfew.statistics.crossed import Spread, summed
from otfew.statistics.intervals import class_jackknife, holm

NAMES = tuple(f"c{i}" for i in range(12))
REPOSITORY = Path(__file__).parents[2]


def drawn(rng, adds=(0.0, 0.0), *, episodes=200, network="net", names=NAMES, level=0.6, classes=None):
    """What methods get right where transport adds so many points to Chamfer and to the product coupling."""
    if classes is None:
        classes = np.argsort(rng.random((episodes, len(names))), axis=1)[:, :5]
    easy = rng.normal(size=len(names))[classes].mean(1) / 20
    shares = np.stack([level + easy, *(level + easy - add / 100 for add in adds)])
    return Counted(network, rng.binomial(750, np.clip(shares, 0, 1)), 750, classes, names)


def made_up(adds, *, seed=0, episodes=200, left_out=()):
    """A whole map: setting -> what transport adds; 0 for those that are not named, 8 for the designed control."""
    rng = np.random.default_rng(seed)
    mapped, held = (np.argsort(rng.random((episodes, n)), axis=1)[:, :5] for n in (len(NAMES), 10))
    table = {}
    for cell in CELLS:
        if cell.id in left_out:
            continue
        own = (8.0, 8.0) if cell.part == CONTROL else adds.get(cell.setting, (0.0, 0.0))
        own = adds.get(cell.id, own)
        shared = {"names": NAMES[:10], "classes": held} if cell.part == HELD_BACK else {"classes": mapped}
        table[cell.id] = [drawn(rng, own, episodes=episodes, **shared)]
    return table


def test_points_are_the_paired_difference_with_the_jackknife_over_classes():
    one = drawn(np.random.default_rng(0), (2.0, -1.0))
    for k, control in enumerate(CONTROLS, start=1):
        values = 100 * (one.right[0] - one.right[k]) / one.queries
        found, jackknife = points([one], control), class_jackknife(values, one.classes, one.names)
        assert found.mean == pytest.approx(values.mean())
        assert found.episodes == pytest.approx(1.96 * values.std(ddof=1) / math.sqrt(len(values)))
        assert found.classes.standard_error == pytest.approx(jackknife.standard_error)
        assert found.half == pytest.approx(max(found.episodes, jackknife.half_width), rel=1e-6)
        assert found.networks is None


def test_three_networks_widen_the_interval_by_what_they_differ():
    rng = np.random.default_rng(1)
    first = drawn(rng, (2.0, 2.0))
    nets = [drawn(rng, (add, 2.0), classes=first.classes, network=str(add)) for add in (0.0, 2.0, 4.0)]
    two, three = points(nets[:2], "chamfer"), points(nets, "chamfer")
    assert two.networks is None
    means = [points([net], "chamfer").mean for net in nets]
    assert three.mean == pytest.approx(np.mean(means))
    assert three.networks.standard_error == pytest.approx(np.std(means, ddof=1) / math.sqrt(3))
    assert three.networks.degrees == 2
    assert three.half > three.networks.half_width - 1e-9 > two.half
    with pytest.raises(ValueError, match="same episodes"):
        points([nets[0], drawn(rng)], "chamfer")


def test_log_odds_and_their_error_by_brute_force():
    one = drawn(np.random.default_rng(2), (3.0, 3.0), level=0.9)

    def odds(right):
        p = right.sum() / (one.queries * len(right))
        return math.log(p / (1 - p))

    found = log_odds([one], "chamfer")
    assert found.mean == pytest.approx(odds(one.right[0]) - odds(one.right[1]))
    # The leave-one-class-out jackknife of the log-odds themselves, not of their linear part.
    kept = [~(one.classes == c).any(1) for c in range(len(NAMES))]
    theta = np.array([odds(one.right[0][rows]) - odds(one.right[1][rows]) for rows in kept])
    error = math.sqrt((len(NAMES) - 1) / len(NAMES) * ((theta - theta.mean()) ** 2).sum())
    assert found.classes.standard_error == pytest.approx(error, rel=0.05)
    always = replace(one, right=np.full_like(one.right, one.queries))
    assert log_odds([always], "chamfer") is None


def test_data_sets_weigh_alike_and_their_variances_add():
    one, two = Effect(1.0, 0.3, Spread(0.4, 9)), Effect(3.0, 0.4, Spread(0.3, 19), Spread(0.2, 2))
    found = averaged([one, two])
    assert found.mean == 2.0
    assert found.episodes == pytest.approx(0.25)
    assert found.classes.standard_error == pytest.approx(0.25)
    assert found.classes.degrees == pytest.approx(summed([one.classes, two.classes]).degrees)
    assert found.networks == Spread(pytest.approx(0.1), pytest.approx(2))
    assert averaged([one, replace(two, classes=None)]).half is None
    with pytest.raises(ValueError, match="no effect"):
        averaged([])


def test_cells_of_one_data_set_are_averaged_episode_by_episode():
    rng = np.random.default_rng(3)
    first = drawn(rng, (1.0, 1.0))
    second = drawn(rng, (3.0, 3.0), classes=first.classes)
    found = together([[first], [second]], "chamfer")
    values = 50 * (first.shares[0] - first.shares[1] + second.shares[0] - second.shares[1])
    assert found.mean == pytest.approx(values.mean())
    jackknife = class_jackknife(values, first.classes, NAMES)
    assert found.classes.standard_error == pytest.approx(jackknife.standard_error)
    with pytest.raises(ValueError, match="other classes"):
        together([[first], [drawn(rng)]], "chamfer")


def disagreeing(rng, classes, adds=(-6.0, 6.0, 18.0), names=NAMES):
    """A cell whose three networks agree on no more than the mean of what transport adds."""
    return [drawn(rng, (add, add), classes=classes, names=names, network=f"seed {k}") for k, add in enumerate(adds)]


def test_networks_that_cells_share_are_averaged_one_by_one_and_spread():
    rng = np.random.default_rng(5)
    classes = drawn(rng).classes
    cells = [disagreeing(rng, classes), disagreeing(rng, classes, (-2.0, 2.0, 3.0))]
    found = together(cells, "chamfer")
    means = np.array([[points([net], "chamfer").mean for net in cell] for cell in cells])
    assert found.mean == pytest.approx(means.mean())
    assert found.networks.standard_error == pytest.approx(means.mean(0).std(ddof=1) / math.sqrt(3))
    assert found.networks.degrees == 2
    assert found.low < 0 < found.mean < 6
    # One cell is the same question as ``points`` asks.
    assert together(cells[:1], "chamfer") == points(cells[0], "chamfer")
    # A cell on a network of another kind has a third of the weight, and nothing to say of other networks.
    other = drawn(rng, classes=classes, network="another kind")
    mixed = together([cells[0], [other], cells[1]], "chamfer")
    assert mixed.networks.standard_error == pytest.approx(found.networks.standard_error * 2 / 3)
    # Two kinds of three are independent.
    kinds = [cells[0], [replace(net, network=f"other {net.network}") for net in cells[1]]]
    errors = means.std(axis=1, ddof=1) / math.sqrt(3)
    assert together(kinds, "chamfer").networks.standard_error == pytest.approx(math.hypot(*errors) / 2)
    # Cells that share some are still of one kind, which the networks of all of them tell.
    assert together([cells[0], cells[1][:2]], "chamfer").networks is None
    assert together([cell[:2] for cell in cells], "chamfer").networks is None


def test_networks_of_one_name_are_not_taken_for_one():
    rng = np.random.default_rng(6)
    cell = [replace(net, network="last") for net in disagreeing(rng, drawn(rng).classes)]
    assert together([cell, cell], "chamfer").networks == points(cell, "chamfer").networks


def test_held_back_networks_that_disagree_leave_the_advice_open():
    table = made_up({"clutter": (6.0, 6.0)})
    advice = rule.advise(table)
    held = table["fashion/clutter-2"][0]
    assert rule.put_to_test(advice, table).verdict == "held"
    table["fashion/clutter-2"] = disagreeing(np.random.default_rng(7), held.classes, names=held.names)
    tested = rule.put_to_test(advice, table)
    assert tested.paying["chamfer"].mean == pytest.approx(6.0, abs=1.5)
    assert tested.verdict == "left open"


def effect(mean, error):
    return Effect(mean, error, Spread(error, 1000))


@pytest.mark.parametrize(
    ("means", "p", "expected"),
    [
        ((2.0, 2.0), (0.01, 0.01), "pays"),
        ((2.0, 2.0), (0.01, 0.06), "open"),
        ((2.0, 0.5), (0.01, 0.01), "open"),  # an interval that reaches below zero and above the margin
        ((2.0, -0.5), (0.01, 0.01), "does not pay"),
        ((-2.0, 5.0), (0.01, 0.01), "does not pay"),
    ],
)
def test_verdicts(means, p, expected):
    found = dict(zip(CONTROLS, (effect(mean, 0.4) for mean in means), strict=True))
    corrected = dict(zip(CONTROLS, p, strict=True))
    assert rule.verdict(found, corrected) == expected
    assert rule.verdict(found, corrected, complete=False) == ("open" if expected == "pays" else expected)


def test_what_has_no_interval_is_open():
    unknown = Effect(5.0, 0.1, None)
    assert rule.verdict(dict.fromkeys(CONTROLS, unknown), dict.fromkeys(CONTROLS, 1.0)) == "open"


def test_the_sentence_finds_where_transport_pays_and_is_tested_there():
    table = made_up({"clutter": (6.0, 6.0), "scale": (6.0, 6.0)})
    advice = rule.advise(table)
    assert advice.paying == ("clutter", "scale")
    assert advice.text.startswith(
        "Take exact transport under clutter and where queries are of another scale; elsewhere"
    )
    assert advice.designed == "pays"
    by_name = {one.setting: one for one in advice.settings}
    assert by_name["plain"].verdict == "does not pay"
    assert by_name["clutter"].cells == ("birds/clutter-2", "cifar/clutter-2", "fc100/clutter-2")
    raw = [one.effects[control].p for one in advice.settings for control in CONTROLS]
    told = [one.corrected[control] for one in advice.settings for control in CONTROLS]
    assert told == holm(raw)
    tested = rule.put_to_test(advice, table)
    assert tested.verdict == "held"
    assert len(tested.cells) == sum(cell.part == HELD_BACK for cell in CELLS)
    assert tested.paying["chamfer"].mean == pytest.approx(6.0, abs=0.6)
    assert tested.others.mean == pytest.approx(0.0, abs=0.5)


def test_the_sentence_fails_where_held_back_data_say_otherwise():
    wrong = {f"fashion/{level}": (-4.0, -4.0) for level in ("clutter-2", "scale-2")}
    table = made_up({"clutter": (6.0, 6.0), "scale": (6.0, 6.0), **wrong})
    assert rule.put_to_test(rule.advise(table), table).verdict == "failed"
    everywhere = {cell.id: (4.0, 4.0) for cell in CELLS if cell.part == HELD_BACK}
    table = made_up(everywhere)
    advice = rule.advise(table)
    assert advice.paying == ()
    assert advice.text.startswith("In no setting of this map")
    assert rule.put_to_test(advice, table).verdict == "failed"


@pytest.mark.parametrize(
    ("paying", "others", "expected"),
    [
        ((2.0, 2.0), 0.0, "held"),
        ((2.0, 0.3), 0.0, "left open"),
        ((2.0, 2.0), 0.9, "left open"),
        ((2.0, -2.0), 0.0, "failed"),
        ((), 3.0, "failed"),
        ((), 0.0, "held"),
        ((), None, ""),
    ],
)
def test_how_held_back_data_judge(paying, others, expected):
    assert rule.tested([effect(m, 0.2) for m in paying], None if others is None else effect(others, 0.2)) == expected


def test_the_advised_control_is_the_harder_one_to_beat():
    assert rule.advise(made_up(dict.fromkeys(SETTINGS, (3.0, -3.0)))).control == "product-coupling"
    assert rule.advise(made_up(dict.fromkeys(SETTINGS, (-3.0, 3.0)))).control == "chamfer"


def test_few_episodes_decide_nothing_and_missing_cells_are_named():
    few = rule.advise(made_up({"clutter": (6.0, 6.0)}, episodes=rule.LEAST_EPISODES - 1))
    assert (few.settings, few.control, few.text) == ((), "", "No setting was judged.")
    advice = rule.advise(made_up({}, left_out=("birds/clutter-2",)))
    assert {one.setting: one.missing for one in advice.settings}["clutter"] == ("birds/clutter-2",)


def test_transport_pays_nowhere_on_a_part_of_the_cells():
    pays = {"clutter": (6.0, 6.0), "plain": (-6.0, -6.0)}
    assert rule.advise(made_up(pays)).paying == ("clutter",)
    advice = rule.advise(made_up(pays, left_out=("birds/clutter-2", "birds/plain")))
    by_name = {one.setting: one for one in advice.settings}
    assert by_name["clutter"].effects["chamfer"].low > 0
    assert all(p < 0.001 for p in by_name["clutter"].corrected.values())
    assert (by_name["clutter"].verdict, by_name["plain"].verdict) == ("open", "does not pay")
    assert advice.paying == ()


def test_the_family_is_all_settings_and_both_controls_whatever_was_run():
    table = made_up({"clutter": (1.2, 1.6)})
    alone = {cell.id: table[cell.id] for cell in CELLS if cell.setting == "clutter" and cell.part == MAP}
    (one,) = rule.advise(alone).settings
    small, large = sorted(one.effects[control].p for control in CONTROLS)
    expected = [min(1.0, 2 * len(SETTINGS) * small), min(1.0, (2 * len(SETTINGS) - 1) * large)]
    assert 0 < expected[0] < 1
    assert sorted(one.corrected.values()) == pytest.approx([expected[0], max(expected)])
    # A question without p stays in the family too: one episode class is no interval over classes.
    single = {i: [replace(c[0], names=NAMES[:5], classes=np.tile(np.arange(5), (200, 1)))] for i, c in table.items()}
    advice = rule.advise({**table, **{i: c for i, c in single.items() if i.endswith("/plain")}})
    assert {one.setting: one.corrected for one in advice.settings}["plain"] == dict.fromkeys(CONTROLS, 1.0)


def test_each_setting_has_one_cell_a_data_set_and_held_back_cells_have_settings():
    for setting in SETTINGS:
        own = [cell for cell in CELLS if cell.part == MAP and cell.setting == setting]
        assert own
        assert len({cell.images.removesuffix("-24") for cell in own}) == len(own)
    assert {cell.setting for cell in CELLS if cell.part == HELD_BACK} <= set(SETTINGS)
    fashion = [cell for cell in CELLS if cell.images.startswith("fashion")]
    assert all(cell.part == HELD_BACK for cell in fashion)
    assert len({cell.id for cell in CELLS}) == len(CELLS)


def recorded(table, not_run=()):
    about = {i: {"nodes": "fcn", "images": 9, "classes": 12, "crop": "none", "notes": ["a note"]} for i in table}
    return record.record(record.Ran(dict(table), about, dict(not_run), 200, 1))


def test_a_record_is_made_anew_from_its_right_answers():
    table = made_up({"clutter": (6.0, 6.0)}, left_out=("birds/plain",))
    table["cifar/plain"] = [replace(table["cifar/plain"][0], network=str(k)) for k in range(3)]
    written = json.loads(to_json(recorded(table, {"birds/plain": "no data"})))
    answers = record.to_bytes(table)
    assert record.to_bytes(record.from_bytes(answers)) == answers
    assert json.loads(to_json(record.again(written, answers))) == written
    table["cifar/plain"][0].right[0, 0] -= 1
    assert json.loads(to_json(record.again(written, record.to_bytes(table)))) != written


def test_damaged_answers_are_refused():
    table = {"birds/plain": [drawn(np.random.default_rng(4))]}
    with pytest.raises(DamagedError):
        record.from_bytes(record.to_bytes(table)[:-40])
    bad = replace(table["birds/plain"][0], queries=3)
    with pytest.raises(DamagedError, match="shapes"):
        record.from_bytes(record.to_bytes({"birds/plain": [bad]}))


def test_page_and_picture_of_a_made_up_map(tmp_path):
    table = made_up({"clutter": (6.0, 6.0)}, left_out=("birds/plain",))
    (tmp_path / "results").mkdir()
    (tmp_path / "results/regimes.json").write_bytes(to_json(recorded(table, {"birds/plain": "no data"})))
    page.render(tmp_path)
    text = (tmp_path / "regimes.md").read_text()
    assert "**Take exact transport under clutter; elsewhere" in text
    assert "A first pass: 1 of the" in text
    assert "`birds/plain`: no data" in text
    assert all(f"| {cell.id}" in text for cell in CELLS if cell.id != "birds/plain")
    assert cv2.imread(str(tmp_path / "regimes.png")).shape[1] > 1000


def test_the_committed_page_is_what_the_right_answers_give():
    results = REPOSITORY / "docs/results"
    written = json.loads((results / "regimes.json").read_bytes())
    found = record.again(written, (results / "regimes.npz").read_bytes())
    assert json.loads(to_json(found)) == written
    assert (REPOSITORY / "docs/regimes.md").read_text(encoding="utf-8") == page.page(written)


def test_the_page_knows_which_classes_data_sets_share():
    splits = Path(data.__file__).parent / "splits"
    one, other = (set(json.loads((splits / f"{name}.json").read_bytes())["test"]) for name in ("cifar-fs", "fc100"))
    assert f"share {len(one & other)} of their {len(one)} test classes, and FC100's\n{len(other)} all lie" in page.RULE


def test_effects_know_their_methods():
    assert effects.METHODS == ("deepemd", "chamfer", "product-coupling")
