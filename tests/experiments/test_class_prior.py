"""Commands with unbalanced queries, and what transductive methods are told of them."""

import pytest
import torch

from otfew import baselines
from otfew.experiments import compare, cross_domain, shots
from otfew.method import MethodBase


class Toy(MethodBase):
    """Nearest mean, shifted by the logarithm of the shares that it is told or, told nothing, that it counts."""

    transductive = True
    pools = True

    def __init__(self, class_prior="uniform"):
        self.class_prior = class_prior

    def __call__(self, support, query, *, support_mask=None, class_prior=None):
        logits = -torch.cdist(query.mean(2), support.mean((2, 3)))
        if class_prior is None:
            assert self.class_prior == "estimated"
            class_prior = torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).double().mean(1)
        return logits + (class_prior[:, None].to(logits) + 0.01).log()


class Deaf(Toy):
    """Transductive, without use for shares."""

    def __init__(self):
        super().__init__("estimated")


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setitem(baselines.BASELINES, "toy", type("Toy", (Toy,), {"name": "toy"}))
    monkeypatch.setitem(baselines.BASELINES, "deaf", type("Deaf", (Deaf,), {"name": "deaf"}))


@pytest.fixture
def arguments(own_features, surroundings, toys):
    methods = ["--methods", "cosine-centroid", "protonet", "toy", "deaf"]
    return ["--features", own_features, "--episodes", 60, "--query", 3, "--query-balance", "dirichlet:0.40", *methods]


@pytest.mark.parametrize("prior", ["uniform", "true", "estimated"])
def test_compare_says_what_it_told(arguments, prior, finish, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # names are not broken
    results = finish(compare.main, tmp_path / "run", *arguments, "--class-prior", prior)
    assert results["protocol"]["query_balance"] == "dirichlet:0.4"
    assert results["protocol"]["class_prior"] == prior
    assert results["methods"]["toy"]["class_prior"] == prior
    assert "class_prior" not in results["methods"]["deaf"]
    assert "class_prior" not in results["methods"]["protonet"]
    assert results["methods"]["deaf"]["difference"]["to"] == "toy"
    assert results["methods"]["protonet"]["difference"]["to"] == "cosine-centroid"
    said = " ".join(capsys.readouterr().out.split())
    assert "15 queries, divided among the classes" in said
    assert f"toy (transductive, {prior} prior{': oracle' if prior == 'true' else ''})" in said
    assert "deaf (transductive)" in said
    assert "across the groups" in said


def test_what_is_told_makes_a_difference(arguments, finish, tmp_path):
    means = {
        prior: finish(compare.main, tmp_path / prior, *arguments, "--class-prior", prior)["methods"]["toy"]["accuracy"]
        for prior in ("uniform", "true")
    }
    assert means["true"]["mean"] > means["uniform"]["mean"]


def test_a_balanced_run_of_inductive_methods_is_recorded_as_ever(own_features, surroundings, finish, tmp_path):
    methods = ["--methods", "cosine-centroid", "protonet"]
    results = finish(compare.main, tmp_path / "run", "--features", own_features, "--episodes", 40, *methods)
    assert not {"query_balance", "class_prior"} & set(results["protocol"])
    assert "across_groups" not in results


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--query-balance", "dirichlet"], "--query-balance 'dirichlet' is neither"),
        (["--class-prior", "flat"], "--class-prior must be uniform, true or estimated, not 'flat'"),
        (["--class-prior", "true", "--methods", "protonet", "deaf"], "no method of this run makes use of it"),
        (["--query", "4"], "has 20 images, but an episode may need 21"),
    ],
)
def test_mistakes_are_one_sentence(arguments, more, said, refused, tmp_path):
    assert said in refused(compare.main, *arguments, *more, "--output", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_table_marks_transductive_methods(own_features, surroundings, toys, finish, tmp_path, capsys):
    arguments = ["--features", own_features, "--episodes", 40, "--query", 2, "--query-balance", "dirichlet:1"]
    arguments += ["--shots", 1, 3, "--heads", "mean", "--baselines", "cosine-centroid", "toy", "deaf"]
    results = finish(shots.main, tmp_path / "run", *arguments)
    assert set(results["panels"]) == {"shot-1", "shot-3"}
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("toy (transductive, uniform prior)") == 1
    assert "deaf (transductive), to toy" in said


def test_other_data_sets_compare_in_groups_too(
    toy_pictures, toy_backbone, surroundings, toys, finish, tmp_path, capsys
):
    arguments = ["--datasets", "image-folder", "--data-root", toy_pictures, "--episodes", 40, "--query", 2]
    results = finish(
        cross_domain.main, tmp_path / "run", *arguments, "--methods", "cosine-centroid", "toy", "deaf", "--way", 3
    )
    (panel,) = results["panels"].values()
    assert panel["across_groups"]["to"] == "cosine-centroid"
    said = " ".join(capsys.readouterr().out.split())
    assert "deaf (transductive), to toy" in said
