"""Pictures of metric learning: figures are those of the records, five losses are chosen by a rule, titles say it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.colors import to_hex

from otfew.errors import UserError
from otfew.experiments.common import drawing
from otfew.experiments.metric_learning import plot, record_picture
from otfew.experiments.metric_learning.names import OT, PAIRS, REFERENCE, role_of, short
from otfew.experiments.metric_learning.report import summarise
from otfew.reporting.canvas import CONTROL, RIVAL, TRANSPORT

RESULTS = Path(__file__).parents[2] / "docs" / "results"
FIGURES = ("map", "r_precision", "map_at_r", "p_at_1", "nn", "ft", "st", "e", "dcg", "knn", "linear")


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_bytes())


def words(figure):
    return " ".join(text.get_text() for text in figure.texts).replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture(params=["metric-cifar10", "metric-fashion-mnist"])
def records(request):
    arms = {name: arm for end in record_picture.PARTS for name, arm in read(request.param + end)["arms"].items()}
    found = record_picture.differences(read("claims"), request.param)
    return arms, found, read(request.param)["protocol"]


def test_five_losses_with_the_figures_of_the_records(records):
    arms, found, protocol = records
    figure = record_picture.five(arms, found, protocol)
    said = words(figure)
    last = {name.removesuffix(", last_epoch"): arm for name, arm in arms.items() if name.endswith(", last_epoch")}
    rivals = sorted((loss for loss in last if role_of(loss).colour == RIVAL), key=lambda loss: -last[loss]["mean"])
    shown = [OT, REFERENCE, PAIRS, *rivals[:2]]
    for loss in shown:
        assert short(loss).replace("\N{NO-BREAK SPACE}", " ") in said
        assert f"{last[loss]['mean']:.1f} ± {last[loss]['intervals']['seeds']:.1f}" in said
    assert short(rivals[2]) not in said
    levels, ahead = figure.axes
    marks = {round(line.get_xdata()[0], 4): line for line in levels.lines if len(line.get_xdata()) == 1}
    for loss in shown:
        mark = marks[round(last[loss]["mean"], 4)]
        assert to_hex(mark.get_markerfacecolor()) == role_of(loss).colour.lower()
    leads = {round(line.get_xdata()[0], 4) for line in ahead.lines if len(line.get_xdata()) == 1}
    for loss in shown[1:]:
        assert round(found[OT, loss]["full"]["figure"]["mean"], 4) in leads


def test_the_title_is_what_the_claims_say(records):
    _, found, _ = records
    best = "snr" if (OT, "snr") in found else ""
    said = record_picture.finding(found, best).replace("\N{NO-BREAK SPACE}", " ")
    plan, pairs = found[OT, REFERENCE], found[REFERENCE, PAIRS]
    for claim in (plan, pairs):
        assert f"{claim['full']['figure']['mean']:.1f} ± {claim['decides']['half_width']:.1f} points" in said
    rival = found[OT, best]
    assert said.endswith(rival["verdict"])
    assert ("above" in said) == (rival["full"]["figure"]["mean"] < 0)


def test_all_losses_are_in_the_second_picture(records):
    arms, _, protocol = records
    said = words(record_picture.everything(arms, protocol))
    for name in arms:
        loss = name.rpartition(", ")[0]
        assert short(loss).replace("\N{NO-BREAK SPACE}", " ") in said


def test_roles_and_names():
    assert [role_of(loss).colour for loss in (OT, REFERENCE, PAIRS, "snr")] == [TRANSPORT, CONTROL, CONTROL, RIVAL]
    assert role_of("batchwise-ot:reg_inverse=10,weighting=softmax").colour == CONTROL
    assert short("batchwise-ot:reg_inverse=5").endswith("5")
    assert short("triplet-batch-hard:margin=0.2") == "batch-hard triplets (margin=0.2)"
    names = {
        short(name.rpartition(", ")[0]) for end in record_picture.PARTS for name in read(f"metric-cifar10{end}")["arms"]
    }
    assert len(names) == 15


def test_records_are_drawn_by_draw(tmp_path, monkeypatch):
    monkeypatch.setattr(record_picture.canvas, "to_png", lambda figure: b"drawn")
    written = drawing.draw([RESULTS / "metric-cifar10.json"], tmp_path)
    assert [path.name for path in written] == ["metric-learning-cifar10.png", "metric-learning-cifar10-all.png"]
    alone = tmp_path / "metric-cifar10.json"
    alone.write_bytes((RESULTS / "metric-cifar10.json").read_bytes())
    with pytest.raises(UserError, match=r"claims\.json is not there"):
        drawing.draw([alone])


def histories(levels, seeds=(1, 2, 3)):
    """Losses that rise to a level."""
    return {
        loss: {
            seed: [
                {
                    "epoch": epoch,
                    "figures": dict.fromkeys(FIGURES, level * epoch / 4 + 0.001 * seed),
                    "seconds": 2.0,
                    "cpu_seconds": 2.0,
                    "diagnostics": {},
                }
                for epoch in range(5)
            ]
            for seed in seeds
        }
        for loss, level in levels.items()
    }


LEVELS = {
    PAIRS: 0.2,
    REFERENCE: 0.3,
    OT: 0.4,
    "batchwise-ot:reg_inverse=5": 0.35,
    "snr": 0.5,
    "arcface": 0.45,
    "n-pair": 0.1,
}


def test_curves_are_of_five_losses():
    summary = summarise(histories(LEVELS), REFERENCE)
    assert plot.chosen(summary) == ["snr", "arcface", OT, REFERENCE, PAIRS]
    figure = plot.curves(histories(LEVELS), summary, REFERENCE, "data, network")
    epochs, seconds = figure.axes
    ends = [line.get_ydata()[-1] for line in epochs.lines]
    assert ends == pytest.approx([100 * summary[loss]["map"]["last_epoch"]["mean"] for loss in plot.chosen(summary)])
    assert all(line.get_xdata()[-1] == 10.0 for line in seconds.lines)
    assert len({(line.get_color(), line.get_marker()) for line in epochs.lines}) == 5
    names = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert names == {short(loss) for loss in plot.chosen(summary)}


def test_the_title_of_curves_is_computed():
    summary = summarise(histories(LEVELS), REFERENCE)
    said = plot.finding(summary, REFERENCE).replace("\N{NO-BREAK SPACE}", " ")
    assert said.startswith("SNR ends with the highest mAP, 50.2 %")
    assert "against all pairs alike: +10.0 ±" in said
    alone = summarise(histories({"snr": 0.5}), "")
    assert plot.finding(alone, "") == "SNR ends with the highest mAP, 50.2 %"
    assert plot.chosen(alone) == ["snr"]
