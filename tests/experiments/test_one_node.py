"""Where an image has one node, tables and reports say that transport has nothing to choose."""

import numpy as np
import pytest

from otfew import api
from otfew.experiments.retrieve import command as retrieve
from otfew.reporting.sentences import one_node_lines

METHODS = ["cosine-centroid", "deepemd", "chamfer", "lst"]


@pytest.fixture
def features(tmp_path):
    """(nodes an image) -> a file of 8 classes of 10 images."""

    def make(nodes):
        rng = np.random.default_rng(0)
        labels = np.repeat(np.arange(8), 10)
        rows = np.abs(rng.normal(size=(8, 1, 6))[labels] + rng.normal(size=(80, nodes, 6)))
        path = tmp_path / f"{nodes}.npz"
        np.savez(path, nodes=rows.astype(np.float32), labels=labels)
        return path

    return make


def compared(path, **more):
    return api.compare(features=path, methods=METHODS, query=4, episodes=30, device="cpu", **more)


def test_one_node_is_said_in_the_table_and_below_it(features):
    found = compared(features(1))
    _, rows = found.cells()
    names = [row[0] for row in rows]
    assert "deepemd (one node: trivial)" in names
    assert "chamfer" in names
    (line,) = (line for line in found.lines if line.startswith("one node an image"))
    # LST transports between images, of which there are many.
    assert "trivial in deepemd and" in line
    assert not any("what transport adds in deepemd" in line for line in found.lines)
    # Which is true: there is one plan, so that its value is the cost between the two nodes.
    accuracies = found.results["methods"]
    assert accuracies["deepemd"]["accuracy"]["mean"] == accuracies["chamfer"]["accuracy"]["mean"]


def test_of_more_nodes_nothing_is_said(features):
    found = compared(features(4))
    assert not any("one node" in line for line in found.lines)
    assert not any("one_node" in record for record in found.results["methods"].values())
    assert any("what transport adds in deepemd" in line for line in found.lines)


def test_retrieval_says_it_too(features, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--rerank", "5", "--scores", "deepemd", "deepemd-equal", "pooled-cosine", "--output"]
    retrieve.main(["--features", str(features(1)), *words, "one"])
    said = capsys.readouterr().out
    assert "transport is trivial in deepemd [file], deepemd-equal [file] and" in " ".join(said.split())
    retrieve.main(["--features", str(features(3)), *words, "three"])
    assert "one node" not in capsys.readouterr().out


def test_no_names_no_words():
    assert one_node_lines([]) == []
