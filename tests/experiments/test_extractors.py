"""Table 3: each method on each kind of nodes is what compare gives with these nodes."""

from __future__ import annotations

import pytest

from otfew.experiments import compare, extractors

pytestmark = pytest.mark.usefixtures("surroundings")

METHODS = ["deepemd", "cosine-centroid", "chamfer"]
NODES = ["fcn", "fcn:2,1", "grid:2", "sampling:3"]


def test_every_cell_is_that_of_compare(toy_pictures, toy_backbone, tmp_path, finish, capsys):
    arguments = ["--dataset", "image-folder", "--data-root", toy_pictures, "--query", 5, "--episodes", 60]
    results = finish(extractors.main, tmp_path / "all", *arguments, "--nodes", *NODES, "--methods", *METHODS)
    said = capsys.readouterr().out
    for word in ("4 nodes,", "4 views", "21 nodes,", "paper, deepemd", "66.50", "to controls without it"):
        assert word in said
    for spec in NODES:
        alone = finish(
            compare.main, tmp_path / spec, *arguments, "--nodes", spec, "--methods", *METHODS
        )  # fmt: skip
        assert results["by_nodes"][spec]["methods"] == alone["methods"]
        assert results["by_nodes"][spec]["transport_adds"] == alone["transport_adds"]
        for method in METHODS:
            assert results["by_method"][method][spec]["accuracy"] == alone["methods"][method]["accuracy"]
    gain = results["by_method"]["deepemd"]["grid:2"]
    first = results["by_method"]["deepemd"]["fcn"]["accuracy"]["mean"]
    assert gain["difference"]["to"] == "fcn"
    assert gain["difference"]["mean"] == pytest.approx(gain["accuracy"]["mean"] - first, abs=1e-7)


def test_nodes_that_are_the_same_count_once(toy_pictures, toy_backbone, tmp_path, finish):
    arguments = ["--dataset", "image-folder", "--data-root", toy_pictures, "--query", 5, "--episodes", 4]
    results = finish(
        extractors.main, tmp_path / "run", *arguments, "--nodes", "fcn:2", "fcn:2", "--methods", "cosine-centroid"
    )
    assert list(results["by_nodes"]) == ["fcn:2"]
