"""Episodes by groups and by views, nodes averaged, and the command on toy pictures: resumed, extended, refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from otfew.backbones import zoo
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.evaluation.episodes import Protocol
from otfew.evaluation.study import Study
from otfew.experiments.common.cli import run as run_command
from otfew.experiments.regimes import cells, command, material, record, run
from otfew.experiments.regimes.cells import Cell, Images
from otfew.experiments.regimes.material import averaged, first_images, superclasses
from otfew.experiments.regimes.sampling import Grouped
from otfew.nodes import parse

GROUPS = {f"c{i}": f"g{i // 5}" for i in range(20)}
LABELS = np.repeat(np.arange(20), 8)
PROTOCOL = Protocol("toys", "", "test", way=4, shot=1, query=3)


@pytest.mark.parametrize("ways", ["within", "across"])
def test_classes_by_group(ways):
    sampler = Grouped(PROTOCOL, LABELS, list(GROUPS), GROUPS, ways)
    found = sampler(0, 400)
    groups = found.classes // 5
    counts = [len(set(row)) for row in groups.tolist()]
    assert counts == [1 if ways == "within" else 4] * 400
    assert all(len(set(row)) == 4 for row in found.classes.tolist())
    # Every class as often as any other, and images of the class that is said.
    assert np.bincount(found.classes.ravel()).min() > 40
    assert np.array_equal(LABELS[found.support[:, :, 0]], found.classes)
    assert np.array_equal(LABELS[found.query], np.repeat(found.classes[:, :, None], 3, 2))
    images = np.concatenate([found.support, found.query], 2).reshape(400, -1)
    assert all(len(set(row)) == 16 for row in images.tolist())
    again = sampler(100, 103)
    assert np.array_equal(again.query, found.query[100:103])


def test_groups_that_are_too_small():
    with pytest.raises(UserError, match="'c19' belongs to no group"):
        Grouped(PROTOCOL, LABELS, list(GROUPS), {k: v for k, v in GROUPS.items() if k != "c19"}, "within")
    for ways, groups in (("within", {name: name for name in GROUPS}), ("across", dict.fromkeys(GROUPS, "all"))):
        with pytest.raises(UserError, match=f"more classes {ways} groups"):
            Grouped(PROTOCOL, LABELS, list(GROUPS), groups, ways)


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_averaged_maps_are_the_nodes_of_that_name(side):
    maps = torch.rand(7, 1, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    nodes = parse("fcn").nodes(maps)
    torch.testing.assert_close(averaged(nodes, side), parse(f"fcn:{side},nomap").nodes(maps))
    with pytest.raises(UserError, match="25 nodes is not averaged to 6"):
        averaged(nodes, 6)
    with pytest.raises(UserError, match="24 nodes"):
        averaged(nodes[:, :24], 2)


def test_superclasses_are_twenty_of_five():
    groups = superclasses()
    counts = np.unique(list(groups.values()), return_counts=True)[1]
    assert (len(groups), len(counts), set(counts.tolist())) == (100, 20, {5})


TOYS = (
    Cell("toys/plain", "data set", "plain", "map", "plain", "toys", "toys", 16, way=3),
    Cell("toys/small", "nodes", "4-nodes", "map", "few-nodes", "toys", "toys", 16, pool=2, way=3),
    Cell("toys/clutter", "clutter", "clutter-2", "map", "clutter", "toys", "toys", 16, way=3, view="clutter:2"),
    Cell("toys/scale", "scale of queries", "scale-2", "map", "scale", "toys", "toys", 16, way=3, query_view="scale:2"),
    Cell("toys/shots", "shots", "2-shot", "map", "five-shots", "toys", "toys", 16, way=3, shot=2),
    Cell("toys/equal", "designed control", "equal", "control", "control", "toys", "toys", 16, way=3, weights="uniform"),
    Cell("toys/absent", "network", "full", "beside", "", "toys", "absent", 16),
)


@pytest.fixture
def toys(surroundings, monkeypatch, toy_pictures, toy_backbone):
    """A small table of cells on one-coloured pictures; returns the words that every command line has."""
    monkeypatch.setattr(cells, "CELLS", TOYS)
    monkeypatch.setattr(record, "CELLS", TOYS)
    monkeypatch.setattr(cells, "IMAGES", {"toys": Images("image-folder", per_class=10, most=2, query=4)})
    monkeypatch.setattr(material, "IMAGES", cells.IMAGES)
    monkeypatch.setattr(run, "IMAGES", cells.IMAGES)
    monkeypatch.setattr(cells, "NETWORKS", {"toys": (), "absent": ()})
    monkeypatch.setattr(material, "load_backbone", lambda spec: toy_backbone)
    return ["--data-root", str(toy_pictures), "--device", "cpu", "--networks", "toys=toys.py:parts"]


def mapped(folder, *words):
    run_command(lambda: command.main([*words, "--output", str(folder)]))
    return json.loads((folder / "regimes.json").read_bytes())


def test_a_map_is_resumed_and_extended_cell_by_cell(toys, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "map"
    first = mapped(folder, *toys, "--episodes", "60", "--cells", "toys/plain", "scale")
    assert [cell["id"] for cell in first["cells"]] == ["toys/plain", "toys/scale"]
    assert first["cells"][0]["images"] == 60
    evaluated = []
    true = Study.evaluate
    monkeypatch.setattr(Study, "evaluate", lambda self: evaluated.append(self.identity["cell"]) or true(self))
    found = mapped(folder, *toys, "--episodes", "60")
    assert len(evaluated) == 4
    assert [cell["id"] for cell in found["cells"]] == [cell.id for cell in TOYS[:6]]
    assert found["cells"][:1] == first["cells"][:1]
    assert found["cells"][3] == first["cells"][1]
    assert list(found["not_run"]) == ["toys/absent"]
    assert "decide nothing" in capsys.readouterr().out
    assert "toys/scale" in (folder / "regimes.md").read_text()
    assert (folder / "regimes.png").is_file()
    answers = (folder / "regimes.npz").read_bytes()
    assert json.loads(json.dumps(record.again(found, answers))) == found
    mapped(folder, *toys, "--episodes", "60")
    assert len(evaluated) == 4
    assert (folder / "regimes.npz").read_bytes() == answers
    # A part of the cells is run, and the record has all that are finished with as many episodes.
    docs = tmp_path / "docs"
    part = mapped(folder, *toys, "--episodes", "60", "--cells", "toys/plain", "--docs", str(docs))
    assert part["cells"] == found["cells"]
    assert (docs / "results/regimes.npz").read_bytes() == answers
    other = mapped(folder, *toys, "--episodes", "20", "--cells", "toys/plain")
    assert [cell["id"] for cell in other["cells"]] == ["toys/plain"]
    assert len(evaluated) == 5
    # What is damaged is computed again where it is asked for, to the same answers.
    kept = next(folder.glob("cells/toys-clutter-*/right.npz"))
    kept.write_bytes(kept.read_bytes()[:-9])
    part = mapped(folder, *toys, "--episodes", "60", "--cells", "toys/plain")
    assert "damaged" in part["not_run"]["toys/clutter, network toys"]
    assert len(part["cells"]) == 5
    assert len(evaluated) == 5
    mapped(folder, *toys, "--episodes", "60")
    assert len(evaluated) == 6
    assert (folder / "regimes.npz").read_bytes() == answers


def test_cells_of_the_same_images_ask_the_same(toys, tmp_path):
    folder = tmp_path / "map"
    mapped(folder, *toys, "--episodes", "20", "--cells", "map")
    table = record.from_bytes((folder / "regimes.npz").read_bytes())
    classes = [counted[0].classes for counted in table.values()]
    assert len(classes) == 5
    assert all(np.array_equal(classes[0], other) for other in classes)
    # Changed images are other images: the toys' colours are hidden by patches.
    assert table["toys/clutter"][0].right[0].sum() < table["toys/plain"][0].right[0].sum()


def test_support_of_fewer_shots_is_the_beginning_of_that_of_more(toys, toy_pictures):
    opener = material.Opener(material.Places(toy_pictures, None), run.ConsoleWatch(None))
    one, two = (opener.sampler(TOYS[k], 1)(0, 9) for k in (0, 4))
    assert np.array_equal(two.support[:, :, :1], one.support)
    assert np.array_equal(two.query, one.query)
    scaled = opener.sampler(TOYS[3], 1)(0, 9)
    assert np.array_equal(scaled.query, one.query + 60)


def test_equal_weights_go_to_all_three_methods(toys):
    nodes = material.CellMaterial(None, None, 0)
    for cell, weights in ((TOYS[0], "cross_reference"), (TOYS[5], "uniform")):
        entries = run.entries(cell, nodes)
        assert [entry.method for entry in entries] == ["deepemd", "chamfer", "product-coupling"]
        assert [entry.options for entry in entries] == [{"weights": weights}] * 3


def test_first_images_of_each_class_do_not_depend_on_their_order(toys, toy_pictures):
    images = material.Opener(material.Places(toy_pictures, None), run.ConsoleWatch(None)).images("toys")
    assert np.bincount(images.labels).tolist() == [10] * 6
    turned = replace(images, labels=images.labels[::-1].copy(), names=images.names[::-1])
    assert set(first_images(turned, 4).names) == set(first_images(images, 4).names)


def test_what_is_missing_is_named_and_the_rest_is_run(toys, tmp_path, refused):
    assert "no cell could be run" in refused(command.main, *toys, "--cells", "toys/absent", "--episodes", "5")
    assert "fits no cell" in refused(command.main, "--cells", "nowhere")
    assert "NAME=BACKBONE" in refused(command.main, *toys, "--networks", "toys")
    assert "--docs" in refused(command.main, "--render")
    assert "regimes.json is not there" in refused(command.main, "--render", "--docs", str(tmp_path))
    assert "--quick gives no figures" in refused(command.main, *toys, "--quick", "--docs", str(tmp_path))


def test_a_page_is_made_anew_from_its_right_answers_alone(toys, tmp_path, refused):
    docs = tmp_path / "docs"
    mapped(tmp_path / "map", *toys, "--episodes", "20", "--cells", "toys/plain", "nodes", "--docs", str(docs))
    paths = [docs / "regimes.md", docs / "regimes.png", docs / "results/regimes.json"]
    before = [path.read_bytes() for path in paths]
    stale = json.loads(before[2])
    stale["rule"], stale["cells"][0]["accuracy"]["deepemd"] = "another", 1.0
    paths[2].write_text(json.dumps(stale))
    paths[0].unlink()
    run_command(lambda: command.main(["--render", "--docs", str(docs)]))
    assert [path.read_bytes() for path in paths] == before
    del stale["cells"][0]
    paths[2].write_text(json.dumps(stale))
    assert "do not belong together" in refused(command.main, "--render", "--docs", str(docs))
    (docs / "results/regimes.npz").write_bytes(b"no answers")
    assert "do not belong together" in refused(command.main, "--render", "--docs", str(docs))


def test_the_list_has_every_cell(capsys):
    run_command(lambda: command.main(["--list"]))
    said = capsys.readouterr().out
    assert all(cell.id.split("/")[0] in said for cell in cells.CELLS)


def test_a_network_is_added_to_its_kind():
    found = cells.networks(("birds=my/own.safetensors",))
    assert found["birds"][-1] == "my/own.safetensors"
    assert run.absent("cub-resnet12-quarter-seed3") == (zoo.find("cub-resnet12-quarter-seed3") is None)
    assert not run.absent(cells.IMAGENET)
    assert not run.absent("my/own.safetensors")


def test_views_and_images_of_the_table_are_there():
    from otfew.data.shifts import parse as parse_view

    for cell in cells.CELLS:
        assert cell.images in cells.IMAGES
        assert cell.network in cells.NETWORKS
        Preparation(cell.resolution)
        for view in filter(None, (cell.view, cell.query_view)):
            parse_view(view)
