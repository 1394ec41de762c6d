"""Charts as they are drawn: no text on text, rows sorted, colours by role, arrows where bars are cut off."""

from __future__ import annotations

import copy
import itertools
import json
import re
from pathlib import Path

import pytest
from matplotlib.colors import to_hex

from otfew.errors import UserError
from otfew.experiments import draw
from otfew.experiments.common import drawing
from otfew.experiments.does_ot_matter.names import LP, PRODUCT, entropic
from otfew.experiments.does_ot_matter.plot import figure as does_ot_matter
from otfew.experiments.latent_space.plot import figure as latent_space
from otfew.experiments.regimes.plot import figure as regimes
from otfew.experiments.reproduce import plot as ledger_plot
from otfew.experiments.reproduce import report
from otfew.experiments.reproduce.claims import load as load_claims
from otfew.experiments.reproduce.labels import shorten
from otfew.experiments.reproduce.pages import Known
from otfew.experiments.solver_timings.plots import figures as solvers
from otfew.experiments.transfer import page as transfer
from otfew.reporting import accuracy_plot, canvas, forest_plot, joined_plot, severity_plot, shots_plot
from otfew.reporting.canvas import CONTROL, REFERENCE, RIVAL, TRANSPORT, Role
from otfew.reporting.forest_plot import CLIPPED, Column, Mark, Row

pytestmark = pytest.mark.usefixtures("surroundings")
DOCS = Path(__file__).parents[2] / "docs"
RESULTS = DOCS / "results"
PLAIN = Role("", "#123456", "o")


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_bytes())


def boxes(figure):
    """(text, extent in pixels) of everything that is written."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    texts = list(figure.texts) + [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        texts += [*axes.texts, axes.xaxis.label, axes.yaxis.label, axes.title, axes._left_title, axes._right_title]
        low, high = sorted(axes.get_xlim())
        texts += [t.label1 for t in axes.xaxis.get_major_ticks() if low <= t.get_loc() <= high]
        low, high = sorted(axes.get_ylim())
        texts += [t.label1 for t in axes.yaxis.get_major_ticks() if low <= t.get_loc() <= high]
        legend = axes.get_legend()
        texts += legend.get_texts() if legend else []
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text().strip()]


def collisions(figure):
    """Pairs of texts whose boxes overlap by more than a hair."""
    found = []
    for (one, a), (other, b) in itertools.combinations(boxes(figure), 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        if across > 1 and down > 1.5:
            found.append((one, other))
    return found


def test_text_on_text_is_seen():
    figure = canvas.blank((4, 1))
    for x, y, text in ((0.1, 0.5, "one text"), (0.15, 0.55, "another"), (0.1, 0.1, "a third")):
        figure.text(x, y, text)
    assert collisions(figure) == [("one text", "another")]


def labels(figure):
    """Labels of rows, from top to bottom; of a broken one the first line."""
    right = [text for text in figure.texts if text.get_ha() == "right"]
    least = min(text.get_position()[0] for text in right)
    lines = [text for text in right if text.get_position()[0] == pytest.approx(least)]
    return [text.get_text() for text in sorted(lines, key=lambda text: -text.get_position()[1])]


def colours(axes):
    """Colours of the markers, from top to bottom."""
    found = [
        (line.get_ydata()[0], to_hex(line.get_markerfacecolor())) for line in axes.lines if len(line.get_xdata()) == 1
    ]
    return [colour for y, colour in sorted(found) if y]


def measured(mean, episodes=0.005, classes=0.03):
    return {"mean": mean, "episode_ci": episodes, "class_ci": classes}


def comparison(count, transductive=0):
    """Results of so many methods, the first by transport, the second its control, the last the reference."""
    names = [f"method-{i}" for i in range(count)]
    methods = {}
    for i, name in enumerate(names):
        methods[name] = {
            "accuracy": measured(0.9 - 0.01 * i),
            "transductive": i >= count - transductive,
            "nodes": "fcn",
        }
        if i < count - 1:
            difference = {**measured(0.01 * (count - 1 - i), 0.003, 0.02), "to": names[-1], "verdict": "better"}
            methods[name]["difference"] = difference
    contrast = {**measured(0.0123, 0.002, 0.0045), "control": names[1], "verdict": "better"}
    protocol = {
        "backbone": {"name": "network"}, "data": {"dataset": "data", "split": "test", "classes": 20},
        "episodes": 1000, "way": 5, "shot": 1, "order": names, "reference": names[-1],
    }  # fmt: skip
    adds = {names[0]: {"contrasts": {"chamfer": contrast}}}
    return {"methods": methods, "protocol": protocol, "transport_adds": adds}


def timings(results):
    return {"methods": {name: {"ms_per_episode": 1.5 + i} for i, name in enumerate(results["methods"])}}


@pytest.mark.parametrize("count", [2, 25])
def test_a_comparison_is_sorted_and_can_be_read(count):
    results = comparison(count)
    names = list(results["methods"])
    shuffled = {**results, "methods": {name: results["methods"][name] for name in reversed(names)}}
    figure = accuracy_plot.figure(shuffled, timings(results))
    assert labels(figure) == names
    assert not collisions(figure)
    accuracy, difference = figure.axes
    right = accuracy.get_window_extent().x1
    assert all(box.x0 > right for text, box in boxes(figure) if text.endswith(f"{chr(160)}3.00"))
    assert colours(accuracy) == [TRANSPORT, CONTROL, *[RIVAL] * (count - 3), REFERENCE][:count]
    assert len(colours(difference)) == count - 1
    written = {text.get_text() for text in figure.texts}
    assert f"90.00{chr(160)}±{chr(160)}3.00" in written
    assert "reference" in written
    title = f"method-0 adds 1.23{chr(160)}±{chr(160)}0.45 points to method-1"
    assert figure.texts[0].get_text() == title


def test_what_is_not_known_is_left_out_and_what_is_no_number_stands_last():
    results = comparison(4)
    methods = results["methods"]
    methods["method-0"]["accuracy"]["class_ci"] = None
    methods["method-1"]["accuracy"] = measured(float("nan"), float("nan"), None)
    methods["a-method-of-a-very-long-name-with-many-options step=0.5 plan=unbalanced"] = methods.pop("method-2")
    results["protocol"]["data"]["dataset"] = "$x$ and $y"
    figure = accuracy_plot.figure(results, None)
    assert not collisions(figure)
    assert labels(figure)[-1] == "method-1"
    assert len(colours(figure.axes[0])) == 3
    bars = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2 and line.get_linewidth() < 2]
    # Two class intervals and no more, beside the grid of the axis.
    assert len([bar for bar in bars if bar.get_ydata()[0] == bar.get_ydata()[1]]) == 2


def test_without_transport_the_title_names_the_best_and_transductive_methods_stand_apart():
    results = {**comparison(5, transductive=2), "transport_adds": {}}
    figure = accuracy_plot.figure(results)
    assert figure.texts[0].get_text().startswith("method-0 has the highest mean: 90.00")
    assert "all queries at once (transductive)" in {text.get_text() for text in figure.texts}
    assert not collisions(figure)
    results["transport_adds"] = comparison(5)["transport_adds"]
    results["transport_adds"]["method-0"]["contrasts"]["chamfer"] |= {"verdict": "no difference shown", "mean": -0.001}
    assert "is not shown to differ from method-1 (\N{MINUS SIGN}0.10" in accuracy_plot.finding(results)
    results["transport_adds"]["method-0"]["contrasts"]["chamfer"] |= {"verdict": "worse", "mean": -0.01}
    assert "loses 1.00" in accuracy_plot.finding(results)


def test_without_intervals_over_classes_halves_are_over_episodes_and_nothing_was_assessed():
    results = comparison(3)
    contrast = results["transport_adds"]["method-0"]["contrasts"]["chamfer"]
    for record in (contrast, *(m[key] for m in results["methods"].values() for key in ("accuracy", "difference")
                               if key in m)):  # fmt: skip
        record["class_ci"] = None
    contrast |= {"verdict": "not assessed", "mean": 0.142}
    said = accuracy_plot.finding(results).replace("\N{NO-BREAK SPACE}", " ")
    assert said == "method-0 is not assessed against method-1 (+14.20 ± 0.20 points)"
    drawn = [text.get_text() for text in accuracy_plot.figure(results).texts]
    assert drawn.count("± episodes") == 2
    assert "± classes" not in drawn


def test_a_joined_run_has_a_column_each():
    records = [comparison(3), comparison(3)]
    figure = joined_plot.figure("on data", ["1-shot", "5-shot"], records, list(records[0]["methods"]))
    assert len(figure.axes) == 2
    assert not collisions(figure)
    assert labels(figure) == ["method-0", "method-1", "method-2"]
    assert figure.texts[0].get_text().startswith("1-shot: method-0 adds")


def arrows(axes):
    return [line for line in axes.lines if line.get_gid() == CLIPPED]


def test_a_huge_interval_is_cut_off_and_marked():
    rows = [Row(f"row {i}", PLAIN, (Mark(float(i), None, 1.0, f"{i}"),)) for i in range(5)]
    (axes,) = forest_plot.draw("title", "", rows, [Column("points", zero=0.0)]).axes
    assert not arrows(axes)
    rows.append(Row("huge", PLAIN, (Mark(2.0, None, 50.0, "2"),)))
    (axes,) = forest_plot.draw("title", "", rows, [Column("points", zero=0.0)]).axes
    low, high = axes.get_xlim()
    assert [line.get_xdata()[0] for line in arrows(axes)] == [low, high]
    assert low < -1 < 5 < high < 10
    # Where all are wide, none is.
    rows = [Row(f"row {i}", PLAIN, (Mark(float(i), None, 50.0),)) for i in range(5)]
    assert not arrows(forest_plot.draw("title", "", rows, [Column("points")]).axes[0])


@pytest.mark.parametrize("marks", [[], [Mark(float("nan"))], [Mark(3.0)], [Mark(0.0, 0.0, 0.0)]])
def test_an_axis_always_has_ends(marks):
    low, high = forest_plot.limits(marks)
    assert low < high
    assert all(low < mark.value < high for mark in marks if mark.value == mark.value)


def test_text_is_wrapped_to_what_it_measures():
    text = (
        "what transport adds over a control that is fixed beforehand, whatever came out, in a sentence of some length"
    )
    lines = canvas.wrapped(text, 3.0, canvas.TITLE, "bold")
    assert " ".join(lines) == text
    assert all(canvas.width_of(line, canvas.TITLE, "bold") <= 3.0 for line in lines)
    figure = canvas.blank((4, 1))
    line = figure.text(0, 0.5, lines[0], fontsize=canvas.TITLE, fontweight="bold", family="DejaVu Sans")
    drawn = line.get_window_extent(figure.canvas.get_renderer()).width / figure.dpi
    assert canvas.width_of(lines[0], canvas.TITLE, "bold") == pytest.approx(drawn, rel=0.03)
    assert canvas.wrapped("a" * 40, 0.5, canvas.TEXT)[0] == "aaaaaaaa"


@pytest.fixture(scope="module")
def known():
    ledger = load_claims()
    return ledger, Known.load(ledger, RESULTS)


@pytest.mark.parametrize(
    ("table", "cut"),
    [
        ("Batch-wise OT against other losses", 2), ("DeepEMD Table 2", 0), ("DeepEMD Table 6", 0),
        ("DeepEMD beside others on the nodes of Table 3", 0), ("OT weights against the meta set alone", 0),
    ],
)  # fmt: skip
def test_the_ledger_can_be_read(known, table, cut):
    ledger, figures = known
    claims = dict(ledger.tables())[table]
    judged = report.verdicts(ledger, figures.full, figures.quick)
    best = {c.id: figures.full.get(c.id) or figures.quick.get(c.id) for c in claims}
    rows = [(c, best[c.id] and best[c.id]["figure"], judged[c.id]) for c in claims]
    figure = ledger_plot.figure(table, rows)
    assert not collisions(figure)
    assert len(arrows(figure.axes[0])) == cut
    roles = {role.colour for role in ledger_plot.ROLES.values()}
    assert {to_hex(line.get_color()) for line in figure.axes[0].lines if line.get_linewidth() == 1.2} <= roles
    published = [claim for claim, found, _ in rows if found is not None and len(claim.paper) > (claim.unit != "points")]
    if published:
        diamonds = [line for line in figure.axes[1].lines if line.get_marker() == "D"]
        assert len(diamonds) == len([c for c in published if len(c.paper) == (2 if c.unit == "points" else 1)])
        assert all(line.get_markerfacecolor() == "white" for line in diamonds)
        said = " ".join(" ".join(text.get_text() for text in figure.texts).split())
        assert "published: " in said
        assert all(claim.on in said for claim in published)
    missing = [claim for claim, found, _ in rows if found is None]
    written = " ".join(text.get_text() for text in figure.texts)
    assert ("not run yet:" in written) == any(not claim.untestable for claim in missing)
    title = " ".join(text.get_text() for text in figure.texts[:2])
    counts = [
        int(n) for n in re.findall(r"(?:^|, |: )(\d+) (?:of \d+ )?(?:confirmed|equivalent|inconclusive|contra)", title)
    ]
    assert sum(counts) == len(rows) - len(missing) or len(rows) - len(missing) == 1


def test_labels_say_once_what_claims_share():
    claims = [f"DeepEMD is better than {rival} on the same network" for rival in ("ProtoNet", "a layer (cosine)")]
    short, shared = shorten([*claims, claims[0]])
    assert list(short.values()) == ["ProtoNet", "a layer (cosine)"]
    assert shared == "DeepEMD is better than \N{HORIZONTAL ELLIPSIS} on the same network"
    inside = [f"{left}, trained alike, is as good as its {n} %" for left, n in (("A", 1), ("B", 2), ("C", 3))]
    assert list(shorten(inside)[0].values()) == ["A: 1 %", "B: 2 %", "C: 3 %"]
    # One of four alone begins otherwise: it keeps its words.
    mixed = [*(f"ours is better than {x}" for x in "abc"), "theirs is worse"]
    assert list(shorten(mixed)[0].values()) == ["a", "b", "c", "theirs is worse"]
    assert shorten(["one claim"]) == ({"one claim": "one claim"}, "one claim")
    assert shorten(["one", "another thing"]) == ({"one": "one", "another thing": "another thing"}, "")


@pytest.mark.parametrize("name", ["does-ot-matter-cub", "does-ot-matter-cifar-fs"])
def test_does_ot_matter_is_a_line_of_plans(name):
    record = read(name)
    line = {reg: entropic(reg) for reg in record["settings"]["regs"]}
    panel = record["panels"]["all"]
    figure = does_ot_matter(panel, record["timings"]["all"]["methods"], record["plans"], line, LP, PRODUCT)
    assert not collisions(figure)
    assert labels(figure)[: len(line) + 2] == [f"LP ({LP})", *line.values(), PRODUCT]
    assert colours(figure.axes[0])[: len(line) + 2] == [REFERENCE, *[TRANSPORT] * len(line), CONTROL]
    beside = [panel["methods"][name]["difference"]["mean"] for name in labels(figure)[len(line) + 2 :]]
    assert beside == sorted(beside, reverse=True)
    title = " ".join(text.get_text() for text in figure.texts[:3])
    assert ("deepemd uniform" in title) == (panel["methods"]["deepemd uniform"]["difference"]["verdict"] == "worse")


def test_shots_are_columns_and_the_title_is_computed():
    record = read("shots-cub")
    panels = {k: record["panels"][f"shot-{k}"] for k in record["settings"]["shots"]}
    figure = shots_plot.figure(panels, record["heads_against_mean"])
    assert len(figure.axes) == len(panels)
    assert not collisions(figure)
    assert "no head is shown to differ from the mean" in shots_plot.finding(panels, record["heads_against_mean"])
    changed = copy.deepcopy(record["heads_against_mean"])
    changed["shot-10"]["deepemd nn"]["verdict"] = "worse"
    assert "from the mean of the shots differ deepemd nn" in shots_plot.finding(panels, changed)


def test_solvers_have_one_look_in_all_pictures():
    record = read("solver-timings")
    drawn = solvers(record)
    assert set(drawn) == {f"solver-{name}.png" for name in ("time-n", "time-batch", "points", "reg")}
    for name, figure in drawn.items():
        assert not collisions(figure), name
    ours = {
        to_hex(line.get_color())
        for name, figure in drawn.items()
        for axes in figure.axes
        for line in axes.lines
        if name != "solver-reg.png" and line.get_linewidth() > 2
    }
    assert ours == {TRANSPORT}
    title = " ".join(text.get_text() for text in drawn["solver-time-n.png"].texts[:2])
    rows = [r for r in record["timings"] if r["panel"] == "nodes" and "forward_ms" in r]
    shown = [r for r in rows if r["n"] in record["protocol"]["sizes"] and r["batch"] in record["protocol"]["batches"]]
    exact = {(r["n"], r["batch"]): r["forward_ms"] for r in shown if r["solver"] == "exact"}
    ratios = [r["forward_ms"] / exact[r["n"], r["batch"]] for r in shown if r["solver"] == "pot"]
    assert f"pot takes {min(ratios):.2g} to {max(ratios):.0f}" in title


def test_the_latent_space_the_map_and_shifts_can_be_read():
    record = read("latent-space-cifar-fs")["picture"]
    figure = latent_space(record)
    assert not collisions(figure)
    right = [space["right"] for space in record["spaces"]]
    assert all(
        f"{100 * share:.0f}{chr(160)}±" in figure.texts[0].get_text() + figure.texts[1].get_text() for share in right
    )
    assert not collisions(regimes(read("regimes")))
    records = [transfer.load(RESULTS / f"transfer-{name}.json") for name in ("birds", "clothes")]
    figure = severity_plot.figure(records, [transfer.drawn(record) for record in records], transfer.found(records))
    assert not collisions(figure)
    lines = [line for axes in figure.axes for line in axes.lines if line.get_linewidth() > 1.5]
    assert {to_hex(line.get_color()) for line in lines} == {TRANSPORT}
    assert severity_plot.finding({"effects": {}}).startswith("Accuracy against")


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("cub-1shot", "results"), ("does-ot-matter-cub", "analyses"), ("does-ot-matter-cifar-fs", "analyses"),
        ("shots-cub", "analyses"), ("shots-cifar-fs", "analyses"),
    ],
)  # fmt: skip
def test_records_of_runs_that_were_not_kept_are_the_tables_of_their_page(name, page):
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    numbers = {number.lstrip("+-") for number in re.findall(r"[+-]?\d+\.\d+", text)}

    def means(found):
        if isinstance(found, dict):
            for key, value in found.items():
                if key in {"mean", "episode_ci", "class_ci"} and value is not None:
                    yield f"{100 * abs(value):.2f}"
                elif isinstance(value, dict):
                    yield from means(value)

    record = read(name)
    assert record["source"].startswith(f"transcribed from the table of docs/{page}.md")
    found = set(means(record))
    assert len(found) > 20
    assert found <= numbers


def test_pictures_are_drawn_again_from_records(tmp_path, rendered, capsys):
    record = RESULTS / "does-ot-matter-cub.json"
    draw.main([str(record), "--output", str(tmp_path)])
    picture = tmp_path / "does-ot-matter-cub.png"
    assert str(picture) in capsys.readouterr().out.replace("\n", "")
    before = picture.read_bytes()
    assert before.startswith(b"\x89PNG")
    # The same figures in a run's folder are the same bytes.
    kept = read("does-ot-matter-cub")
    (tmp_path / "timings.json").write_text(json.dumps(kept.pop("timings")))
    (tmp_path / "results.json").write_text(json.dumps(kept))
    assert drawing.draw([tmp_path]) == [tmp_path / "does-ot-matter.png"]
    assert (tmp_path / "does-ot-matter.png").read_bytes() == before


def test_all_records_of_docs_are_drawn_again(tmp_path):
    names = ["cub-1shot", "does-ot-matter-cifar-fs", "latent-space-cifar-fs", "shots-cub", "shots-cifar-fs"]
    drawn = drawing.draw([RESULTS / f"{name}.json" for name in [*names, "solver-timings"]], tmp_path)
    assert {path.name for path in drawn} == {
        *(f"{name}.png" for name in names),
        *(f"solver-{name}.png" for name in ("time-n", "time-batch", "points", "reg")),
    }
    assert all((DOCS / path.name).is_file() for path in drawn)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not there: give the folder of a finished run"),
        ("{}", "is of no command with pictures: give a run of compare, does-ot-matter, latent-space, long-tail, shots"),
        ("[", "is damaged"),
        ('{"command": "shots"}', "is damaged .* run the same command again"),
        ('{"command": "compare", "pooled": {}}', "holds several comparisons: give the folder"),
        ('{"command": "latent-space"}', "kept no points for its picture"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, content, said):
    path = tmp_path / "record.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=said):
        drawing.draw([path])
    with pytest.raises(UserError, match="is not a folder"):
        drawing.draw([RESULTS / "cub-1shot.json"], tmp_path / "missing")
