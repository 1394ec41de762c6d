"""An episode of a run on the command line: tables, a page with pictures, one sentence for every mistake."""

from __future__ import annotations

import shutil

import pytest

from otfew.experiments import compare, episode

pytestmark = pytest.mark.usefixtures("surroundings")


@pytest.fixture
def arguments(toy_pictures):
    return ["--dataset", "image-folder", "--data-root", toy_pictures, "--query", 5, "--episodes", 8]


def test_an_episode_of_pictures(arguments, toy_backbone, toy_pictures, tmp_path, finish, capsys):
    finish(compare.main, tmp_path / "run", *arguments, "--methods", "knn", "protonet", "cosine-centroid")
    capsys.readouterr()
    page = tmp_path / "page.html"
    episode.main([str(tmp_path / "run"), "3", "--report", str(page), "--data-root", str(toy_pictures)])
    said = " ".join(capsys.readouterr().out.split())  # a narrow table wraps its title
    for word in (
        "episode 3 of image-folder, seed 1: 5-way 1-shot",
        "labelled 1",
        "- knn: ",
        " of 25 right",
        "page.html",
    ):
        assert word in said
    # Five labelled images and 25 queries.
    assert page.read_text().count("<img") == 30
    episode.main([str(tmp_path / "run"), "3", "--methods", "protonet"])
    said = capsys.readouterr().out
    assert "protonet: " in said
    assert "knn" not in said


def test_a_page_wants_the_images_of_the_run(arguments, toy_backbone, toy_pictures, tmp_path, finish, refused):
    finish(compare.main, tmp_path / "run", *arguments, "--methods", "knn")
    shutil.copytree(toy_pictures, tmp_path / "other")
    next((tmp_path / "other" / "test").rglob("*.png")).unlink()
    options = ["--report", tmp_path / "page.html", "--data-root"]
    said = refused(episode.main, tmp_path / "run", 3, *options, tmp_path / "other")
    assert "--data-root are others than those of the run (95 in 6 classes; the run had 96 in 6)" in said
    assert not (tmp_path / "page.html").exists()


def test_a_part_of_several(own_features, tmp_path, finish, refused, capsys):
    finish(
        compare.main, tmp_path / "run", "--features", own_features, "--methods", "knn", "--query", 4, "--episodes", 8,
        "--seeds", 1, 2,
    )  # fmt: skip
    assert "holds several panels: give --panel, one of seed-1, seed-2" in refused(episode.main, tmp_path / "run", 0)
    capsys.readouterr()
    episode.main([str(tmp_path / "run"), "0", "--panel", "seed-2"])
    assert "episode 0 of features, seed 2" in " ".join(capsys.readouterr().out.split())


def test_mistakes(own_features, tmp_path, finish, refused):
    finish(
        compare.main, tmp_path / "run", "--features", own_features, "--methods", "knn", "--query", 4, "--episodes", 8
    )
    assert "the run has episodes 0 to 7" in refused(episode.main, tmp_path / "run", 8)
    assert "must be a whole number" in refused(episode.main, tmp_path / "run", "x")
    assert "is not a folder" in refused(episode.main, tmp_path / "nowhere", 0)
    assert "must end in .html" in refused(episode.main, tmp_path / "run", 0, "--report", tmp_path / "x.pdf")
    assert "which did not run" in refused(episode.main, tmp_path / "run", 0, "--methods", "frn")
    (tmp_path / "run" / "answers.npz").unlink()
    assert "keeps no answers" in refused(episode.main, tmp_path / "run", 0)
