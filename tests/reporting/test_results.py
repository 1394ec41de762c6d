"""Results as data: DataFrames, CSV, LaTeX, episodes; names from anywhere break none of them."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import otfew
from otfew.errors import UserError
from otfew.evaluation.answers import FILE, from_bytes
from otfew.reporting import frames
from otfew.reporting.tables import Table, latex

METHODS = ["chamfer", "knn", "deepemd", ("deepemd", {"temperature": 2.0}), "pt-map"]
NAMES = ["=cmd()", r"a\b_{c}", "<b>x</b>", "50 % & $1", "é|~", "plain"]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Own features: 6 classes of 14 images with names that formats take for something else."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 14)
    rows = np.abs(rng.normal(size=(6, 1, 5))[labels] + 0.9 * rng.normal(size=(84, 3, 5)))
    path = tmp_path_factory.mktemp("own") / "own.npz"
    np.savez(path, nodes=rows.astype(np.float32), labels=np.array(NAMES)[labels])
    return path


@pytest.fixture(scope="module")
def run(own, tmp_path_factory):
    """A finished run, and its folder."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return otfew.compare(features=own, methods=METHODS, episodes=60, query=4, output=folder)


def test_a_table_is_a_dataframe_of_the_results(run):
    pytest.importorskip("pandas")
    table = run.table()
    _, printed = run.cells()
    assert [re.sub(r" \(trans.*", "", row[0]) for row in printed] == table.index.tolist()
    for name, record in run.results["methods"].items():
        row = table.loc[name]
        for key in ("mean", "episode_ci", "class_ci"):
            column = "accuracy" if key == "mean" else f"accuracy_{key}"
            assert row[column] == record["accuracy"][key] or np.isnan(row[column])
        if "difference" in record:
            for key in ("to", "p", "p_holm", "verdict"):
                assert row[key] == record["difference"][key]
            assert row["difference"] == record["difference"]["mean"]
        else:
            assert np.isnan(row["difference"])
        assert row["nodes"] == "file"
        assert row["ms_per_episode"] == run.timings["methods"][name]["ms_per_episode"]
    adds = run.results["transport_adds"]["deepemd"]
    over = adds["contrasts"]["chamfer"]
    for key in ("episode_ci", "class_ci", "p", "p_holm", "verdict"):
        assert table.loc["deepemd", f"adds_over_chamfer_{key}"] == over[key] or np.isnan(over[key] or np.nan)
    assert table.loc["deepemd", "adds_over_chamfer"] == over["mean"]
    assert table.loc["deepemd", "adds_missing"] == adds["reason"]
    assert np.isnan(table.loc["knn", "adds_over_chamfer"])
    assert table["transductive"].sum() == 1


def test_csv_has_the_figures_of_the_table(run, tmp_path):
    text = run.to_csv(tmp_path / "kept.csv")
    assert (tmp_path / "kept.csv").read_bytes() == text.encode() == (run.folder / "table.csv").read_bytes()
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(text))}
    assert list(rows) == [row["method"] for row in frames.rows(run.results)]
    for name, record in run.results["methods"].items():
        assert float(rows[name]["accuracy"]) == record["accuracy"]["mean"]
    assert "ms_per_episode" not in text


def braces(text):
    """Count open braces, those that are escaped apart, and see that none closes too much."""
    depth = 0
    for sign in re.sub(r"\\[{}\\]", "", text):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    return depth


def check_latex(text):
    """Check what makes a tabular compile: environments, columns, rows, braces, and characters that act."""
    blocks = re.findall(r"\\begin\{tabular\}\{(l(?:r*))\}\n(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert len(blocks) == text.count(r"\begin{tabular}") > 0
    for columns, body in blocks:
        lines = body.splitlines()
        assert (lines[0], lines[2], lines[-1]) == (r"\toprule", r"\midrule", r"\bottomrule")
        for line in (lines[1], *lines[3:-1]):
            assert line.endswith(r" \\")
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
            assert not re.search(r"(?<!\\)[%#_^~]", line)
            assert len(re.findall(r"(?<!\\)\$", line)) % 2 == 0
    assert braces(text) == 0
    for line in re.sub(r"\\begin\{tabular\}.*?\\end\{tabular\}", "", text, flags=re.DOTALL).splitlines():
        assert line == "" or line.startswith("% ")


def test_latex_is_sound(run, tmp_path):
    text = run.to_latex(tmp_path / "kept.tex")
    assert (tmp_path / "kept.tex").read_text() == text == (run.folder / "table.tex").read_text()
    check_latex(text)
    assert text.startswith("% \\usepackage{booktabs}\n")
    assert len(text.splitlines()) == 6 + len(METHODS) + 1
    assert "deepemd temperature=2.0" in text
    assert "ms per" not in text


def test_latex_takes_any_name():
    check_latex(latex(Table("", ["method", r"a & b"], [[name, "1 ± 2 – 3"] for name in [*NAMES, "[x]", "--", "*"]])))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_latex_compiles(run, tmp_path):
    # What the page says beside accents is in every LaTeX; names in other scripts want fonts of their own.
    text = latex(Table("", ["method", "%"], [[name, "1 ± 2"] for name in [*NAMES, "[x]", "--", "*"]]))
    head = r"\documentclass{article}\usepackage{booktabs}\begin{document}"
    body = rf"{head}{run.to_latex()}\par {text}\end{{document}}"
    (tmp_path / "x.tex").write_text(body, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


def test_pandas_is_asked_for_in_a_sentence(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for ask, name in ((run.table, "table"), (lambda: run.predictions, "predictions")):
        with pytest.raises(UserError, match=rf'^`{name}` needs pandas: pip install "otfew\[pandas\]"\.$'):
            ask()
    assert all([run.to_csv(), run.to_latex(), run.to_markdown()])


def test_predictions_are_every_answer(run):
    pytest.importorskip("pandas")
    found = run.predictions
    assert len(found) == len(METHODS) * 60 * 20
    shares = found.groupby(["method", "episode"], observed=True)["right"].mean()
    for name, values in run.episodes.items():
        np.testing.assert_allclose(shares[name].to_numpy(), values)
    assert set(found["label"]) <= set(NAMES)
    assert ((found["label"].astype(str) == found["predicted"].astype(str)) == found["right"]).all()
    assert "logit" not in found


def test_logits_are_kept_where_they_are_asked_for(own, run, tmp_path):
    pytest.importorskip("pandas")
    given = {"features": own, "methods": METHODS, "episodes": 60, "query": 4}
    found = otfew.compare(**given, logits=True, output=tmp_path / "run")
    logits = from_bytes((tmp_path / "run" / FILE).read_bytes()).logits
    assert logits.shape == (len(METHODS), 60, 20, 5)
    np.testing.assert_array_equal(logits.argmax(-1), found.answers.predicted)
    table = found.predictions
    np.testing.assert_allclose(table["logit"], logits.max(-1).ravel())
    assert (table["margin"] >= 0).all()
    # What is found does not depend on it; the protocol says it, so that folders are told apart.
    assert found.results["methods"] == run.results["methods"]
    assert found.results["protocol"].pop("logits") is True
    assert found.results["protocol"] == run.results["protocol"]


def test_a_run_read_back_has_the_same_answers(run):
    back = otfew.load(run.folder)
    np.testing.assert_array_equal(back.answers.predicted, run.answers.predicted)
    assert str(back.episode(17)) == str(run.episode(17))
    assert back.to_csv() == run.to_csv()
    assert back.plot()._repr_png_().startswith(b"\x89PNG")


def test_a_run_of_the_old_format_is_read_and_named_as_such(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    file = tmp_path / "run" / "results.json"
    results = json.loads(file.read_text())
    assert results["format"] == 2
    for name, own in results["transport_adds"].items():
        none = {"control": None, "reason": "no transductive control ran on nodes file"}
        results["transport_adds"][name] = own["contrasts"].get("chamfer", none)
    file.write_text(json.dumps({**results, "format": 1}))
    back = otfew.load(tmp_path / "run")
    said = str(back)
    assert "over chamfer, best control on these episodes (old format)" in said
    assert "in this run of an older format" in said
    assert "adds_over_best_control" in back.to_csv()
    page = back.save(tmp_path / "again")
    assert "difference to the best control on these episodes (old format)" in (page.folder / "report.html").read_text()


def test_a_run_of_a_later_format_is_refused(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    file = tmp_path / "run" / "results.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 3}))
    with pytest.raises(UserError, match=r"made by a later otfew \(format 3; this one reads 1 to 2\): update otfew\.$"):
        otfew.load(tmp_path / "run")


@pytest.mark.parametrize("spoil", ["cut", "other", "gone", "swapped"])
def test_answers_that_cannot_be_believed(run, tmp_path, spoil):
    shutil.copytree(run.folder, tmp_path / "run")
    file = tmp_path / "run" / FILE
    if spoil == "gone":
        file.unlink()
    elif spoil == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        arrays = dict(np.load(file))
        if spoil == "other":
            arrays["classes"] = arrays["classes"][::-1]
        else:
            arrays["predicted"] = (arrays["predicted"] + 1) % 5
        np.savez(file, **arrays)
    back = otfew.load(tmp_path / "run")  # its figures are there all the same
    with pytest.raises(UserError, match="run the same command again"):
        back.episode(0)


def test_an_episode_counts_what_the_run_counted(run):
    for index in (0, 17, 59):
        episode = run.episode(index)
        for line, name in zip(episode.lines, run.episodes, strict=True):
            assert line == f"{name}: {round(20 * run.episodes[name][index])} of 20 right"
        labelled, asked = episode.tables()
        assert [row[0] for row in labelled.rows] == [run.results["class_names"][c] for c in run.classes[index]]
        assert len(asked.rows) == 20
        rights = [sum(row[2 + m] == "right" for row in asked.rows) for m in range(len(METHODS))]
        assert rights == [round(20 * run.episodes[name][index]) for name in run.episodes]
    one = run.episode(17).only(["knn"])
    assert one.lines == [next(line for line in run.episode(17).lines if line.startswith("knn"))]
    with pytest.raises(UserError, match="`methods` has 'frn', which did not run"):
        one.only(["frn"])
    for wrong in (60, -1, 1.5, True):
        with pytest.raises(UserError, match="the run has episodes 0 to 59"):
            run.episode(wrong)


def test_an_episode_as_a_page_and_in_a_notebook(run, tmp_path):
    episode = run.episode(3)
    episode.save(tmp_path / "episode.html")
    page = (tmp_path / "episode.html").read_text()
    for text in (page, episode._repr_html_()):
        assert "<b>x" not in text
        assert "&lt;b&gt;x&lt;/b&gt;" in text
        assert "✓" in text
    assert "The pictures are not at hand" in page
    assert "<img" not in page
    with pytest.raises(UserError, match=r"must end in \.html"):
        episode.save(tmp_path / "episode.pdf")


def test_a_run_of_features_has_no_images(run):
    assert not run.of_images
    with pytest.raises(UserError, match="was of 'features', which has no images"):
        run.reopen()


def test_images_of_a_run_are_shown(tmp_path):
    found = otfew.compare("glyphs", "cosine-centroid", episodes=2, query=1, output=tmp_path / "run")
    with_pictures = found.episode(0).page()
    assert with_pictures.count("<img") == 5 + 5
    assert found.episode(0)._repr_html_().count("<img") == 10
    back = otfew.load(tmp_path / "run")
    assert "<img" not in back.episode(0).page()
    assert back.reopen().episode(0).page() == with_pictures


def test_seeds_shots_and_features_in_one_run(own, tmp_path):
    arrays = dict(np.load(own))
    rng = np.random.default_rng(1)
    better = np.abs(arrays["nodes"] + 0.1 * rng.normal(size=arrays["nodes"].shape)).astype(np.float32)
    np.savez(tmp_path / "better_$.npz", nodes=better, labels=arrays["labels"])
    given = {"methods": ["cosine-centroid", "knn", "pt-map"], "episodes": 60, "query": 4}
    files = [own, tmp_path / "better_$.npz"]
    joined = otfew.compare_over(seeds=[1, 7], shots=[1, 3], features=files, output=tmp_path / "run", **given)
    assert set(joined.panels) == {f"{f}-shot-{k}-seed-{s}" for f in ("own", "better_") for k in (1, 3) for s in (1, 7)}
    # A part is what compare gives alone.
    alone = otfew.compare(features=files[1], shot=3, seed=7, **given)
    part = joined.panels["better_-shot-3-seed-7"]
    assert part.results == {**alone.results, "protocol": part.results["protocol"]}
    assert part.results["protocol"] == alone.results["protocol"]
    # Features of the same images are asked the same, and paired.
    other = joined.panels["own-shot-3-seed-7"]
    np.testing.assert_array_equal(part.answers.query, other.answers.query)
    np.testing.assert_array_equal(part.answers.support, other.answers.support)
    gains = [
        joined.panels[f"better_-shot-3-seed-{s}"].episodes["knn"]
        - joined.panels[f"own-shot-3-seed-{s}"].episodes["knn"]
        for s in (1, 7)
    ]
    found = joined.results["between"]["3"]["better_"]["knn"]
    assert found["mean"] == pytest.approx(np.mean(gains), abs=1e-8)
    assert found["episode_ci"] == pytest.approx(1.96 * np.std(gains, ddof=1) / 120**0.5, rel=1e-4)
    ps = [d["p"] for d in joined.results["between"]["3"]["better_"].values()]
    assert found["p_holm"] is None or found["p_holm"] >= min(p for p in ps if p is not None)
    # The files.
    text = (tmp_path / "run" / "results.json").read_text()
    assert str(tmp_path) not in text
    assert "ms_per" not in text
    check_latex((tmp_path / "run" / "table.tex").read_text())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "run" / "table.csv").read_text())))
    assert len(rows) == 2 * 2 * (1 + 2) * 3
    row = next(r for r in rows if (r["features"], r["shot"], r["seed"], r["method"]) == ("own", "3", "7", "knn"))
    assert float(row["accuracy"]) == other.results["methods"]["knn"]["accuracy"]["mean"]
    assert (tmp_path / "run" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    back = otfew.load_joined(tmp_path / "run")
    assert back.results == json.loads(text) == joined.results
    assert (back.to_csv(), str(back)) == (joined.to_csv(), str(joined))
    assert otfew.load(tmp_path / "run", panel="own-shot-3-seed-7").results["protocol"] == other.results["protocol"]
    page = joined._repr_html_()
    assert page.count("<table>") == 3
    pytest.importorskip("pandas")
    assert joined.table().index.names == ["features", "shot", "seed", "method"]
    shares = joined.predictions.groupby(["features", "shot", "seed", "method"], observed=True)["right"].mean()
    assert shares["own", 3, 7, "knn"] == pytest.approx(other.episodes["knn"].mean())


def test_an_axis_of_one_value_has_no_part_in_names(own):
    given = {"methods": ["cosine-centroid", "knn"], "episodes": 10, "query": 4}
    assert list(otfew.compare_over(features=[own], **given).panels) == ["all"]
    joined = otfew.compare_over(features=[own], shots=[2, 1], **given)
    assert list(joined.panels) == ["shot-2", "shot-1"]
    assert len(joined.tables()) == 2
    assert "features" not in joined.rows()[0]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda labels: labels[:-1], "83 images where own has 84"),
        (lambda labels: np.where(labels == "plain", "other", labels), "other classes than own"),
        (lambda labels: labels[np.r_[13, 14, 0:13, 15:84]], "image 1 of another class than own"),
    ],
)
def test_features_of_other_images_are_refused(own, tmp_path, spoil, said):
    arrays = dict(np.load(own))
    labels = spoil(arrays["labels"])
    np.savez(tmp_path / "b.npz", nodes=arrays["nodes"][: len(labels)], labels=labels)
    with pytest.raises(UserError, match=f"`features` b has {said}: give features of the same images"):
        otfew.compare_over(features=[own, tmp_path / "b.npz"], methods="knn", episodes=4, query=4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seeds": [1, 2], "seed": 5}, "`seeds` comes in place of `seed`"),
        ({"shots": [1, 2], "shot": 5}, "`shots` comes in place of `shot`"),
        ({"shotz": 1}, "`shotz` is no argument of compare"),
        ({"shots": [1, 0]}, "`shot` must be at least 1, not 0"),
        ({"seeds": [1, 1.5]}, "`seed` must be a whole number, not 1.5"),
        ({"dataset": "glyphs"}, "so that `dataset` is without effect"),
        ({"backbone": "resnet12"}, "so that `backbone` is without effect"),
        ({"resolution": 84}, "so that `resolution` is without effect"),
    ],
)
def test_mistakes_are_sentences(own, given, said):
    with pytest.raises(UserError, match=said):
        otfew.compare_over(**{"features": [own], "methods": "knn", **given})


def test_what_is_no_joined_run(run, tmp_path):
    with pytest.raises(UserError, match="has no 'axes': give a run over seeds, shots or features"):
        otfew.load_joined(run.folder)


def test_equal_stems_are_told_apart(own, tmp_path):
    (tmp_path / "b").mkdir()
    shutil.copy(own, tmp_path / "b" / "own.npz")
    joined = otfew.compare_over(features=[own, tmp_path / "b" / "own.npz"], methods="knn", episodes=4, query=4)
    assert list(joined.panels) == ["own-1", "own-2"]
    assert joined.results["between"]["1"]["own-2"]["knn"]["mean"] == 0
