"""The evaluator: right counts, identical episodes, blocks that resume to the same bytes."""

import errno
import os

import numpy as np
import pytest
import torch

from otfew.baselines import BASELINES
from otfew.errors import UserError
from otfew.evaluation.blocks import CODE, code_of, form_of
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.evaluation.run import BLOCK, Ready, batch_episodes, evaluate
from otfew.features.extract import FeatureSet
from otfew.method import MethodBase
from otfew.methods import METHODS
from otfew.runs.blocks import Column, Form, opened, sealed
from otfew.runs.directory import RunDirectory, differences, to_json

N_CLASSES, PER_CLASS = 8, 12
LABELS = np.repeat(np.arange(N_CLASSES), PER_CLASS)
NAMES = tuple(f"c{i}" for i in range(N_CLASSES))
EPISODES = 2 * BLOCK + 7
X = Form({"x": Column((3,))}, code="")


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(N_CLASSES, 1, 6))
    rows = centres[LABELS] + 0.9 * rng.normal(size=(len(LABELS), 4, 6))
    return FeatureSet(torch.from_numpy(rows.astype(np.float32)), LABELS, NAMES)


@pytest.fixture
def sampler():
    return Sampler(Protocol("toy", "", "test", way=4, shot=2, query=3), LABELS, NAMES)


class Nearest(MethodBase):
    """Nearest mean; counts its calls."""

    name = "nearest"

    def __init__(self):
        self.episodes = 0

    def __call__(self, support, query, *, support_mask=None, class_prior=None):
        self.episodes += len(support)
        return -torch.cdist(query.mean(2), support.mean((2, 3)))


class First(MethodBase):
    """Always answers the first class."""

    name = "first"

    def __call__(self, support, query, *, support_mask=None, class_prior=None):
        return torch.tensor([1.0] + [0.0] * (support.shape[1] - 1)).expand(*query.shape[:2], -1)


def test_accuracies_equal_a_plain_loop(features, sampler):
    scores = evaluate([Ready("nearest", Nearest(), features)], sampler, EPISODES)["nearest"]
    rows = features.nodes.mean(1).numpy()
    for i in (0, 1, BLOCK, EPISODES - 1):
        episode = sampler(i, i + 1)
        means = [rows[support].mean(0) for support in episode.support[0]]
        right = [
            sum(np.argmin([np.linalg.norm(rows[image] - m) for m in means]) == c for image in images)
            for c, images in enumerate(episode.query[0])
        ]
        assert scores.correct[i].tolist() == right
        assert scores.accuracy[i] == pytest.approx(sum(right) / 12)
    assert len(scores.accuracy) == EPISODES


def test_uneven_queries_count_as_in_a_plain_loop(features):
    sampler = Sampler(Protocol("toy", "", "test", way=3, shot=1, query=3, query_balance="dirichlet:0.3"), LABELS, NAMES)
    scores = evaluate([Ready("nearest", Nearest(), features)], sampler, EPISODES)["nearest"]
    rows = features.nodes.mean(1).numpy()
    empty = 0
    for i in range(EPISODES):
        episode = sampler(i, i + 1)
        means = [rows[support].mean(0) for support in episode.support[0]]
        right, asked = [0, 0, 0], [0, 0, 0]
        for image in episode.query.ravel():
            truth = episode.classes[0].tolist().index(LABELS[image])
            asked[truth] += 1
            right[truth] += int(np.argmin([np.linalg.norm(rows[image] - m) for m in means]) == truth)
        assert asked == episode.counts[0].tolist()
        assert scores.correct[i].tolist() == right
        assert scores.accuracy[i] == pytest.approx(sum(right) / 9)
        empty += 0 in asked
    assert empty > 10


class Told(MethodBase):
    """Remembers what it is told of the classes' shares."""

    name = "told"

    def __init__(self, transductive):
        self.transductive = transductive
        self.priors = []

    def __call__(self, support, query, **told):
        self.priors.append(told)
        return torch.zeros(*query.shape[:2], support.shape[1])


@pytest.mark.parametrize("prior", ["uniform", "true", "estimated"])
def test_transductive_methods_are_told_the_prior(features, prior):
    sampler = Sampler(Protocol("toy", "", "test", way=3, shot=1, query=3, query_balance="dirichlet:1"), LABELS, NAMES)
    methods = {"inductive": Told(False), "transductive": Told(True)}
    evaluate([Ready(name, m, features, class_prior=prior) for name, m in methods.items()], sampler, 70)
    assert methods["inductive"].priors == [{}] * 3
    # After the warm-up: two blocks.
    told = methods["transductive"].priors[1:]
    if prior == "estimated":
        assert told == [{}, {}]
        return
    given = torch.cat([call["class_prior"] for call in told])
    assert given.dtype == torch.float32
    wanted = sampler(0, 70).counts / 9 if prior == "true" else np.full((70, 3), 1 / 3)
    np.testing.assert_allclose(given.numpy(), wanted, rtol=1e-6)


def test_a_constant_answer_is_right_by_chance(features, sampler):
    scores = evaluate([Ready("first", First(), features)], sampler, 10)["first"]
    assert scores.accuracy.tolist() == [0.25] * 10


def test_companions_do_not_matter(features, sampler):
    alone = evaluate([Ready("nearest", Nearest(), features)], sampler, EPISODES)
    other = FeatureSet(features.nodes[:, :2].clone(), LABELS, NAMES)
    contenders = [
        Ready("first", First(), features),
        Ready("other", Nearest(), other),
        Ready("nearest", Nearest(), features),
    ]
    together = evaluate(contenders, sampler, EPISODES)
    np.testing.assert_array_equal(alone["nearest"].correct, together["nearest"].correct)


class Dying(Nearest):
    """Is interrupted after so many calls."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def __call__(self, support, query, **kwargs):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return super().__call__(support, query, **kwargs)


def test_a_run_goes_on_after_an_interruption(tmp_path, features, sampler):
    directory = RunDirectory(tmp_path / "run", {"a": 1})
    with pytest.raises(KeyboardInterrupt):
        evaluate([Ready("nearest", Dying(3), features)], sampler, EPISODES, directory=directory)
    kept = len(list((tmp_path / "run" / "blocks").iterdir()))
    assert kept == 2
    method = Nearest()
    again = RunDirectory(tmp_path / "run", {"a": 1})
    resumed = evaluate([Ready("nearest", method, features)], sampler, EPISODES, directory=again)
    # One episode more than the missing block: the warm-up that no clock sees.
    assert method.episodes == EPISODES - kept * BLOCK + 1
    whole = evaluate([Ready("nearest", Nearest(), features)], sampler, EPISODES)
    np.testing.assert_array_equal(resumed["nearest"].correct, whole["nearest"].correct)


def test_a_damaged_block_is_computed_again(tmp_path, features, sampler):
    directory = RunDirectory(tmp_path, {"a": 1})
    contenders = [Ready("nearest", Nearest(), features)]
    first = evaluate(contenders, sampler, EPISODES, directory=directory)
    block = tmp_path / "blocks" / "000001.npz"
    block.write_bytes(block.read_bytes()[:100])
    notes = []
    again = evaluate(contenders, sampler, EPISODES, directory=directory, note=notes.append)
    np.testing.assert_array_equal(first["nearest"].correct, again["nearest"].correct)
    assert len(notes) == 1


def test_blocks_of_other_material_are_computed_again(tmp_path, features, sampler):
    directory = RunDirectory(tmp_path, {"a": 1})
    evaluate([Ready("nearest", Nearest(), features, "one")], sampler, EPISODES, directory=directory)
    method, notes = Nearest(), []
    evaluate([Ready("nearest", method, features, "other")], sampler, EPISODES, directory=directory, note=notes.append)
    assert method.episodes == EPISODES + 1
    assert all("other features" in note for note in notes)
    method = Nearest()
    evaluate([Ready("nearest", method, features, "other")], sampler, EPISODES, directory=directory)
    assert method.episodes == 0


def run_with(directory, sampler, features, note=pytest.fail):
    method = Nearest()
    scores = evaluate([Ready("nearest", method, features)], sampler, EPISODES, directory=directory, note=note)
    return scores["nearest"].correct, method.episodes


def tamper(path, change):
    """Change a block and mend its seal, as somebody who means it would."""
    arrays, code = opened(path.read_bytes())
    change(arrays)
    path.write_bytes(sealed(arrays, code))


CHANGES = {
    "more right answers than queries": lambda block: block["nearest.correct"].__setitem__((0, 0), 999),
    "one right answer too many": lambda block: block["nearest.correct"].__setitem__((0, 0), 4),
    "an array less": lambda block: block.pop("nearest.seconds"),
    "no setup": lambda block: block.pop("setup"),
    "episodes of another way": lambda block: block.update({"nearest.correct": np.zeros((BLOCK, 5), int)}),
    "fewer episodes": lambda block: block.update({"nearest.correct": block["nearest.correct"][1:]}),
    "another method": lambda block: block.update({"first.correct": block["nearest.correct"]}),
    "an answer that is no class": lambda block: block["nearest.predicted"].__setitem__((0, 0), 4),
    "answers as other numbers": lambda block: block.update(
        {"nearest.predicted": block["nearest.predicted"].astype(int)}
    ),
    "no process": lambda block: block["setup"].__setitem__(0, 0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_block_that_cannot_be_right_is_computed_again(tmp_path, features, sampler, change):
    directory = RunDirectory(tmp_path, {"a": 1})
    first, _ = run_with(directory, sampler, features)
    tamper(tmp_path / "blocks" / "000001.npz", CHANGES[change])
    notes = []
    again, episodes = run_with(directory, sampler, features, notes.append)
    np.testing.assert_array_equal(first, again)
    assert episodes == BLOCK + 1
    assert len(notes) == 1
    assert "000001.npz" in notes[0]
    assert run_with(directory, sampler, features)[1] == 0


def test_all_queries_of_an_uneven_episode_may_be_of_one_class(features):
    even, uneven = (
        Protocol("toy", "", "test", way=4, shot=2, query=3, query_balance=b) for b in ("balanced", "dirichlet:1")
    )
    assert form_of(["a"], 5, even, "setup", "").columns["a.correct"].most == 3
    assert form_of(["a"], 5, uneven, "setup", "").columns["a.correct"].most == 12


def test_blocks_of_other_code_are_computed_again_with_one_line(tmp_path, features, sampler, monkeypatch):
    directory = RunDirectory(tmp_path, {"a": 1})
    first, _ = run_with(directory, sampler, features)
    # As if a line of the evaluator had been changed.
    monkeypatch.setattr("otfew.evaluation.run.code_of", lambda _: "f00d")
    notes = []
    again, episodes = run_with(directory, sampler, features, notes.append)
    np.testing.assert_array_equal(first, again)
    assert episodes == EPISODES + 1
    assert len(notes) == 1
    assert "other code" in notes[0]


def test_the_code_of_a_block_is_that_of_its_methods(monkeypatch):
    """A user's method counts with its own file, ours with their package."""
    named = []
    monkeypatch.setattr("otfew.evaluation.blocks.code_digest", lambda *names: named.append(names) or "")
    code_of([Nearest(), METHODS["deepemd-fcn"]()])
    code_of([BASELINES["protonet"]()])
    assert set(CODE) <= set(named[0]) & set(named[1])
    assert set(named[0]) - set(CODE) == {__name__, "otfew.methods"}
    assert set(named[1]) - set(CODE) == {"otfew.baselines"}


def test_batches_are_a_function_of_shapes():
    assert batch_episodes(5, 1, 15, 1, 64) == BLOCK
    assert 1 <= batch_episodes(5, 1, 15, 25, 640) < BLOCK
    assert batch_episodes(20, 5, 15, 200, 2048) == 1


class Wrong(MethodBase):
    """Answers what it was told to."""

    def __init__(self, change):
        self.change = change

    def __call__(self, support, query, **_):
        return self.change(torch.zeros(*query.shape[:2], support.shape[1]))


@pytest.mark.parametrize(
    ("change", "said"), [(lambda t: t[..., :-1], "shape"), (lambda t: t * torch.nan, "NaN in episode 0")]
)
def test_wrong_answers_name_the_method(features, sampler, change, said):
    with pytest.raises(UserError, match=said) as caught:
        evaluate([Ready("wrong", Wrong(change), features)], sampler, 5)
    assert "'wrong'" in str(caught.value)


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError])
def test_a_fault_of_a_method_keeps_its_traceback(features, sampler, error):
    """Only ``UserError`` is a user's mistake: whoever mends a method must see where it broke."""

    def stumble(_):
        raise error("deep inside")

    with pytest.raises(error, match=r"^deep inside$") as caught:
        evaluate([Ready("wrong", Wrong(stumble), features)], sampler, 5)
    assert type(caught.value) is error
    assert "stumble" in [entry.name for entry in caught.traceback]


def test_a_sentence_of_the_method_itself_is_passed_on_as_it_is(features, sampler):
    def refuse(_):
        raise UserError("wrong: give other features.")

    with pytest.raises(UserError, match=r"^wrong: give other features\.$"):
        evaluate([Ready("wrong", Wrong(refuse), features)], sampler, 5)


def test_a_folder_of_another_protocol_is_refused_and_untouched(tmp_path):
    RunDirectory(tmp_path / "run", {"protocol": {"seed": 1}})
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    with pytest.raises(UserError, match=r"protocol.seed is 1 there and 2 here"):
        RunDirectory(tmp_path / "run", {"protocol": {"seed": 2}})
    assert before == {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}


def test_every_difference_is_named_once_the_most_telling_first():
    there = {"versions": {"numpy": "1"}, "p": {"sha256": "a" * 200, "seed": 1, "shot": 1, "deep": {"x": 1}, "b": None}}
    here = {"versions": {"numpy": "2"}, "p": {"sha256": "b" * 200, "seed": 2, "shot": 5, "b": {"name": "n"}, "c": 0.5}}
    assert differences(there, here) == [
        "p.shot is 1 there and 5 here",
        "p.seed is 1 there and 2 here",
        "p.b is None there and {'name': 'n'} here",
        "p.c is only here (0.5)",
        "p.deep is only there",
        f"p.sha256 is '{'a' * 39}...{'a' * 39}' there and '{'b' * 39}...{'b' * 39}' here",
        "versions.numpy is '1' there and '2' here",
    ]
    assert differences(here, here) == []


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="other files"):
        RunDirectory(tmp_path, {})
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", [b"", b"[" * 200_000, b"[1]", b'"x"', b"\xff", None])
def test_a_claim_that_is_none(tmp_path, content):
    claim = tmp_path / "protocol.json"
    claim.mkdir() if content is None else claim.write_bytes(content)
    with pytest.raises(UserError, match="give another folder" if claim.is_file() else "is a folder"):
        RunDirectory(tmp_path, {"a": 1})


def test_a_full_disk_keeps_what_a_run_has(tmp_path, monkeypatch):
    directory = RunDirectory(tmp_path / "run", {"a": 1})
    directory.write("results.json", b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for write in (
            lambda: directory.write("results.json", b"new"),
            lambda: directory.save_block(0, {"x": np.zeros(3)}, X),
            lambda: RunDirectory(tmp_path / "other", {}),
        ):
            with pytest.raises(UserError, match="no space left on device"):
                write()
    assert (tmp_path / "run" / "results.json").read_bytes() == b"old"
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    (tmp_path / "run" / "report.md").mkdir()
    with pytest.raises(UserError, match=r"report\.md"):
        directory.write("report.md", b"")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        RunDirectory(tmp_path / "file", {})


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot make `output`"):
        RunDirectory(tmp_path / "file" / "run", {})


def test_a_run_killed_while_it_claims_its_folder_goes_on(tmp_path):
    (tmp_path / ".protocol.json.4711").write_text("{")
    directory = RunDirectory(tmp_path, {"a": 1})
    directory.save_block(0, {"x": np.arange(3.0)}, X)
    assert (tmp_path / "protocol.json").read_bytes() == to_json({"a": 1})
    assert (RunDirectory(tmp_path, {"a": 1}).load_block(0, X, print) or {})["x"].tolist() == [0, 1, 2]


def test_a_check_writes_nothing(tmp_path):
    RunDirectory.check(tmp_path / "run", {"a": 1})
    assert not (tmp_path / "run").exists()


def test_equal_records_are_equal_bytes():
    assert to_json({"b": 1, "a": {"d": 0.1, "c": None}}) == to_json({"a": {"c": None, "d": 0.1}, "b": 1})
