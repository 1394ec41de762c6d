"""The comparison as a function, and runs read back."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import otfew
from otfew.errors import UserError
from otfew.experiments import compare, shots
from otfew.experiments.common.cli import run
from otfew.features.material import FileMaterial
from otfew.method import MethodBase
from otfew.methods import DeepEMD

FAST = {"episodes": 60, "query": 4}
METHODS = ["protonet", "cosine-centroid", "cr-pooled", "deepemd"]


@pytest.fixture
def own(tmp_path):
    """Own features: 8 classes of 12 images, 3 nodes of 5 channels."""
    rng = np.random.default_rng(0)
    labels = np.repeat([f"class | {i}" for i in range(8)], 12)
    nodes = np.abs(rng.normal(size=(8, 1, 5)).repeat(12, 0) + 0.9 * rng.normal(size=(96, 3, 5)))
    np.savez(tmp_path / "own.npz", nodes=nodes.astype(np.float32), labels=labels)
    return tmp_path / "own.npz"


def test_the_function_computes_what_the_command_does(own, tmp_path):
    found = otfew.compare(features=own, methods=METHODS, output=tmp_path / "function", **FAST)
    options = [word for key, value in FAST.items() for word in (f"--{key}", str(value))]
    arguments = ["--features", str(own), *options, "--methods", *METHODS, "--output", str(tmp_path / "command")]
    run(lambda: compare.main([*arguments, "--threads", "1"]))
    for name in ("results.json", "episodes.csv", "protocol.json", "classes.csv"):
        assert (tmp_path / "function" / name).read_bytes() == (tmp_path / "command" / name).read_bytes()
    assert found.folder == tmp_path / "function"
    assert found.results == json.loads((tmp_path / "command" / "results.json").read_text())


def test_nothing_is_kept_unless_a_folder_is_given(own, tmp_path, monkeypatch, capsys):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = otfew.compare(features=str(own), methods="protonet", **FAST)
    assert found.folder is None
    assert list((tmp_path / "here").iterdir()) == []
    assert capsys.readouterr().out == ""
    saved = found.save(tmp_path / "kept")
    assert saved.folder == tmp_path / "kept"
    assert otfew.load(tmp_path / "kept").results == found.results
    # The folder is that of a run: the same call with it as output goes on there.
    again = otfew.compare(features=str(own), methods="protonet", output=tmp_path / "kept", **FAST)
    assert again.results == found.results
    with pytest.raises(UserError, match="another protocol"):
        otfew.compare(features=str(own), methods="knn", **FAST).save(tmp_path / "kept")


def test_what_is_shown(own):
    found = otfew.compare(features=own, methods=METHODS, **FAST)
    assert set(found.differences) == {"protonet", "cr-pooled", "deepemd"}
    gain = found.episodes["deepemd"].mean() - found.episodes["cosine-centroid"].mean()
    assert found.differences["deepemd"]["mean"] == pytest.approx(gain, abs=1e-8)
    assert found.to_markdown().count("\n") == 5
    assert "| deepemd |" in found.to_markdown()
    assert any(line.startswith("what transport adds in deepemd: ") for line in found.lines)
    for part in (found.to_markdown(), *found.lines):
        assert part in str(found)
    page = found._repr_html_()
    assert page.count("<tr>") == 5
    assert "<td>deepemd</td>" in page
    assert "Holm&#x27;s p" in page


@dataclass(frozen=True)
class Nearest(MethodBase):
    """Nearest mean of one channel."""

    channel: int = 0
    name = "nearest"

    def __call__(self, support, query, *, support_mask=None, class_prior=None):
        return -(query.mean(2)[:, :, None, self.channel] - support.mean((2, 3))[:, None, :, self.channel]).abs()


class Unknown(Nearest):
    """Tells nothing of itself."""

    __repr__ = object.__repr__


def test_methods_as_names_with_options_and_as_objects(own, tmp_path):
    methods = ["deepemd", ("deepemd", {"temperature": 1.0}), Nearest(), ("second", Nearest(1))]
    found = otfew.compare(features=own, methods=methods, output=tmp_path / "run", **FAST)
    alone = otfew.compare(features=own, methods=Nearest(), **FAST)
    np.testing.assert_array_equal(alone.episodes["nearest"], found.episodes["nearest"])
    described = found.results["protocol"]["methods"]
    assert described["deepemd"] == {"nodes": "file", "options": {"solver": "exact"}}
    assert described["deepemd temperature=1.0"] == {
        "method": "deepemd", "nodes": "file", "options": {"solver": "exact", "temperature": 1.0},
    }  # fmt: skip
    assert described["nearest"]["method"] == "Nearest(channel=0)"
    assert described["second"]["method"] == "Nearest(channel=1)"
    # A temperature changes no order, and transport is transport under any name.
    np.testing.assert_array_equal(found.episodes["deepemd"], found.episodes["deepemd temperature=1.0"])
    assert set(found.results["transport_adds"]) == {"deepemd", "deepemd temperature=1.0"}
    with pytest.raises(UserError, match="another protocol"):
        otfew.compare(features=own, methods=[*methods[:3], ("second", Nearest(2))], output=tmp_path / "run", **FAST)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": []}, "`methods` names no method"),
        ({"methods": ["protonett"]}, "did you mean protonet"),
        ({"methods": [("protonett", {})]}, "did you mean protonet"),
        ({"methods": [("deepemd", {"heat": 1})]}, "has no option 'heat'"),
        ({"methods": [()]}, "a tuple is a name, then options or an object"),
        ({"methods": [("deepemd", {}, 1)]}, "a tuple is a name, then options or an object"),
        (
            {"methods": [Nearest()], "reference": "knn"},
            "`reference` 'knn' is not among the methods",
        ),
        ({"methods": [Nearest(0), Nearest(1)]}, "two methods of this run are called 'nearest'"),
        ({"methods": [Nearest]}, "give an object of it"),
        ({"methods": [3]}, "give the name of one, or an object"),
        ({"way": 1}, "`way` must be at least 2, not 1"),
        ({"way": "5"}, "`way` must be a whole number, not '5'"),
        ({"shot": 1.5}, "`shot` must be a whole number, not 1.5"),
        ({"seed": 1.5}, "`seed` must be a whole number, not 1.5"),
        ({"episodes": 2.5}, "`episodes` must be a whole number, not 2.5"),
        ({"output": Path(__file__)}, "`output` "),
        ({"solver": 3}, "`solver`: "),
        ({"features": None, "crop": "middle"}, "unknown `crop` 'middle'"),
        ({"features": None, "resolution": 0}, "`resolution` must be at least 1 pixel, not 0"),
        ({"episodes": 0}, "`episodes` must be at least 1, not 0"),
        ({"solver": "exactt"}, "`solver`: "),
        ({"device": "quantum"}, "`device` 'quantum'"),
        ({"query_balance": "even"}, "`query_balance` 'even' is neither"),
        ({"class_prior": "true", "methods": ["protonet"]}, "`class_prior` true is without effect"),
        ({"features": None, "split": "exam"}, "exam"),
        ({"features": "missing.npz"}, "missing.npz"),
    ],
)
def test_mistakes_name_arguments(own, given, said):
    with pytest.raises(UserError) as caught:
        otfew.compare(**{"features": own, "methods": ["protonet"], **FAST, **given})
    assert said in str(caught.value)
    assert " --" not in str(caught.value)


def test_an_object_that_tells_nothing_of_itself_is_not_kept(own, tmp_path):
    """Its folder would be gone on with by an object with other options."""
    with pytest.raises(UserError, match="Unknown has no __repr__ that tells its options"):
        otfew.compare(features=own, methods=[Unknown()], output=tmp_path / "run", **FAST)
    assert not (tmp_path / "run").exists()
    assert len(otfew.compare(features=own, methods=[Unknown()], **FAST).episodes["nearest"]) == 60


class Leaky(FileMaterial):
    """Says that its backbone has seen classes."""

    overlap = "backbone 'x' was trained on 3 of the 8 classes of split 'test' of 'toy'"


def test_an_object_of_ours_that_is_not_kept_can_be_given_by_name(own, tmp_path):
    """Nobody can be told to write a ``__repr__`` for a class of the library."""
    with pytest.raises(UserError, match=r"give it as \('deepemd', \{OPTION: VALUE\}\), or leave `output` out\.$"):
        otfew.compare(features=own, methods=[DeepEMD(temperature=2.0)], output=tmp_path / "run", **FAST)
    assert not (tmp_path / "run").exists()
    otfew.compare(features=own, methods=[("deepemd", {"temperature": 2.0})], output=tmp_path / "run", **FAST)


def test_seen_classes_are_refused_in_python_too(own):
    with pytest.raises(UserError, match=r"3 of the 8 classes of split 'test' of 'toy': .* `allow_overlap` to go on"):
        otfew.compare(features=Leaky(own), methods="protonet", **FAST)
    found = otfew.compare(features=Leaky(own), methods="protonet", allow_overlap=True, **FAST)
    assert found.results["protocol"]["allow_overlap"] is True


def test_progress_is_told_to_whoever_watches(own):
    told = []

    class Watch:
        def note(self, text):
            told.append(text)

        def task(self, title):
            told.append(title)
            return self

        def __enter__(self):
            return lambda done, total, what="": told.append((done, total, what))

        def __exit__(self, *_):
            told.append("end")

    otfew.compare(features=own, methods=["protonet", "knn"], watch=Watch(), **FAST)
    assert (told[0], told[-1]) == ("episodes", "end")
    steps = told[1:-1]
    assert [done for done, _, _ in steps] == sorted({done for done, _, _ in steps})
    assert steps[-1][:2] == (120, 120)
    assert {what for _, _, what in steps} == {"episodes: protonet", "episodes: knn"}


def test_a_solver_may_be_an_object(own):
    exact = otfew.compare(features=own, methods="deepemd", solver=otfew.Exact(), **FAST)
    named = otfew.compare(features=own, methods="deepemd", **FAST)
    np.testing.assert_array_equal(exact.episodes["deepemd"], named.episodes["deepemd"])
    assert exact.results["protocol"]["solver"] == repr(otfew.Exact())


NAMES = np.array(["=cmd()", "+1", 'a,"b"', "c | d", "é"])
"""Classes whose names CSV writes in another way."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Folder of a finished run."""
    root = tmp_path_factory.mktemp("kept")
    rng = np.random.default_rng(0)
    np.savez(
        root / "own.npz", nodes=np.abs(rng.normal(size=(60, 2, 4))).astype(np.float32), labels=NAMES[np.arange(60) % 5]
    )
    arguments = {"features": root / "own.npz", "episodes": 40, "query": 3, "way": 3}
    otfew.compare(methods=["protonet", "knn"], output=root / "run", **arguments)
    return root / "run"


def test_a_run_is_read_back_as_it_was(kept):
    found = otfew.load(str(kept))
    arguments = {"features": kept.parent / "own.npz", "episodes": 40, "query": 3, "way": 3}
    wanted = otfew.compare(methods=["protonet", "knn"], **arguments)
    assert found.results == wanted.results
    np.testing.assert_array_equal(found.classes, wanted.classes)
    for name in ("protonet", "knn"):
        np.testing.assert_allclose(found.episodes[name], wanted.episodes[name], atol=1e-8)
    assert found.folder == kept


def edited(change):
    """Return a function that changes a run's results.json."""

    def spoil(folder):
        results = json.loads((folder / "results.json").read_text())
        change(results)
        (folder / "results.json").write_text(json.dumps(results))

    return spoil


def written(name, data):
    """Return a function that puts something in place of a file."""
    return lambda folder: (folder / name).write_bytes(data)


def shortened(name):
    """Return a function that cuts the last line off."""
    return lambda folder: (folder / name).write_text("".join((folder / name).read_text().splitlines(True)[:-1]))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "results.json").unlink(), "results.json cannot be read"),
        (lambda folder: (folder / "episodes.csv").unlink(), "episodes.csv cannot be read"),
        (lambda folder: (folder / "timings.json").unlink(), "timings.json cannot be read"),
        (written("results.json", b""), "results.json is damaged"),
        (written("results.json", b"[1]"), "results.json is damaged"),
        (written("results.json", b"["), "results.json is damaged"),
        (written("results.json", b"\xff"), "results.json is damaged"),
        (written("results.json", b"[" * 100_000), "results.json is damaged"),
        (written("timings.json", b"{}"), "is damaged"),
        (written("episodes.csv", b""), "is damaged"),
        (written("episodes.csv", b"method,episode,accuracy\nprotonet,1,0.5\n"), "out of order"),
        (shortened("episodes.csv"), "is damaged"),
        (shortened("classes.csv"), "classes.csv has another number"),
        (written("classes.csv", b"\xff"), "is damaged"),
        (written("classes.csv", b"episode,a\rb\n"), "is damaged"),
        (written("episodes.csv", b"method,episode,accuracy\nprotonet,0,0\r5\n"), "is damaged"),
        (edited(lambda r: r.update(panels={"all": None})), "results.json is damaged"),
        (edited(lambda r: r.pop("protocol")), "has no 'protocol'"),
        (edited(lambda r: r["methods"].pop("knn")), "is damaged"),
        (edited(lambda r: r["methods"]["knn"]["accuracy"].update(mean=0.99)), "disagree on knn"),
        (edited(lambda r: r["methods"]["knn"]["accuracy"].update(mean=None)), "is damaged"),
        (edited(lambda r: r.update(methods=3)), "is damaged"),
    ],
)
def test_a_damaged_run_is_a_sentence(kept, tmp_path, spoil, said):
    shutil.copytree(kept, tmp_path / "run")
    spoil(tmp_path / "run")
    with pytest.raises(UserError) as caught:
        otfew.load(tmp_path / "run")
    assert said in str(caught.value)
    assert str(tmp_path / "run") in str(caught.value)


def test_what_is_no_run_is_a_sentence(tmp_path, kept):
    with pytest.raises(UserError, match="is not a folder: give the folder of a run"):
        otfew.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"results\.json cannot be read .*give the folder of a finished run"):
        otfew.load(tmp_path)
    with pytest.raises(UserError, match="holds one comparison and no panel 'x'"):
        otfew.load(kept, panel="x")


def test_a_panel_of_an_analysis_is_a_comparison(own, tmp_path):
    arguments = ["--features", str(own), "--shots", "1", "2", "--heads", "mean", "--baselines", "cosine-centroid"]
    arguments += ["--episodes", "40", "--query", "4", "--threads", "1", "--output", str(tmp_path / "run")]
    run(lambda: shots.main(arguments))
    with pytest.raises(UserError, match="holds several panels: give `panel`, one of shot-1, shot-2"):
        otfew.load(tmp_path / "run")
    with pytest.raises(UserError, match="has no panel 'shot-3'"):
        otfew.load(tmp_path / "run", panel="shot-3")
    found = otfew.load(tmp_path / "run", panel="shot-2")
    assert found.results["protocol"]["shot"] == 2
    record = found.results["methods"]["deepemd mean"]
    assert found.episodes["deepemd mean"].mean() == pytest.approx(record["accuracy"]["mean"], abs=1e-7)
    assert "| deepemd mean |" in found.to_markdown()


def test_the_example_of_the_docs_runs(own, tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[1] / "docs" / "using.md"
    if not page.exists():
        pytest.skip("runs in a checkout only")
    (example,) = [block for block in page.read_text().split("```") if "otfew.compare(" in block]
    monkeypatch.chdir(tmp_path)
    with np.load(own) as file:
        np.savez("features.npz", nodes=np.tile(file["nodes"], (2, 1, 1)), labels=np.tile(file["labels"], 2))
    *lines, last = example.removeprefix("python\n").strip().splitlines()
    names = {}
    exec("\n".join(lines), names)
    assert eval(last, names) is True
    assert "deepemd shot_head=nn" in capsys.readouterr().out


def test_torch_threads_are_left_alone(own):
    before = torch.get_num_threads()
    otfew.compare(features=own, methods="protonet", **FAST)
    assert torch.get_num_threads() == before
