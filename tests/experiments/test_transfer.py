"""The command transfer: what is chosen, what is paired, and what its page and rule say."""

import json

import numpy as np
import pytest
import torch

from otfew import backbones
from otfew.backbones.zoo import zoo
from otfew.data import find as find_data
from otfew.data.preparation import default_crop
from otfew.errors import UserError
from otfew.evaluation.shift_gain import CLEAN, Part
from otfew.experiments.common.cli import run
from otfew.experiments.transfer import answers, command, page, rule
from otfew.experiments.transfer.config import SEVERITIES, SHIFTS, Config
from otfew.features import material as materials

SMALL = [
    "--dataset", "glyphs", "--shifts", "blur", "--choice-shifts", "blur", "dark", "--severities", "1", "3",
    "--episodes", "50", "--choice-episodes", "4", "--images", "6", "--shot", "1", "--query", "1",
    "--transport", "protonet", "cosine-nodes", "--controls", "cosine-centroid", "laplacianshot", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def network():
    """A network that takes no time."""
    card = backbones.Card("quarters", "quarters", resolution=16, training_data="toys", training_classes=("toy",))
    found = backbones.Backbone(torch.nn.AdaptiveAvgPool2d(2), card, "quarters")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(materials, "load_backbone", lambda spec, dataset, trained_on=None: found)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("transfer") / "run"
    run(lambda: command.main([*SMALL, "--output", str(output)]))
    return output


@pytest.fixture(scope="module")
def record(folder):
    return json.loads((folder / "record.json").read_text())


def accuracies(folder):
    found = {}
    for row in (folder / "episodes.csv").read_text().splitlines()[1:]:
        view, name, _, value = row.split(",")
        found.setdefault(view, {}).setdefault(name, []).append(float(value))
    return {view: {name: np.array(v) for name, v in own.items()} for view, own in found.items()}


def test_the_choice_is_by_the_other_shift_on_other_classes(folder, record):
    choice = json.loads((folder.with_name("run-choice") / "results.json").read_text())
    assert set(choice["accuracies"]) == {"blur:1", "blur:3", "dark:1", "dark:3"}
    assert {panel["data"]["split"] for panel in choice["panels"].values()} == {"val"}
    reached = {
        name: np.mean([choice["accuracies"][view][name] for view in ("dark:1", "dark:3")])
        for name in choice["accuracies"]["dark:1"]
    }
    left, right = record["effects"]["pairs"]["blur"]
    assert left == max(["protonet", "cosine-nodes"], key=reached.get)
    assert right == max(["cosine-centroid", "laplacianshot"], key=reached.get)


def test_figures_are_of_the_paired_episodes(folder, record):
    found = accuracies(folder)
    assert set(found) == {"clean", "blur-1", "blur-3"}
    left, right = record["effects"]["pairs"]["blur"]
    clean = found["clean"][left] - found["clean"][right]
    gains = {view: found[f"blur-{view}"][left] - found[f"blur-{view}"][right] for view in (1, 3)}
    effects = record["effects"]
    assert effects["views"]["blur:0"]["gain"]["mean"] == pytest.approx(clean.mean(), abs=1e-7)
    assert effects["views"]["blur:3"]["gain"]["mean"] == pytest.approx(gains[3].mean(), abs=1e-7)
    assert effects["views"]["blur:3"]["effect"]["mean"] == pytest.approx((gains[3] - clean).mean(), abs=1e-7)
    whole = (gains[1] + gains[3]) / 2 - clean
    assert effects["all"]["mean"] == pytest.approx(whole.mean(), abs=1e-7)
    assert effects["all"]["episode_ci"] == pytest.approx(1.96 * whole.std(ddof=1) / 50**0.5, abs=1e-7)
    assert effects["shifts"]["blur"] == effects["all"]
    # The same episodes in every view, and in the ordinary run of the same images.
    panels = folder / "panels"
    kept = [np.load(panels / view / "answers.npz") for view in ("clean", "blur-1", "blur-3")]
    images = len(kept[0]["images"])
    for other in kept[1:]:
        assert np.array_equal(other["support"], kept[0]["support"])
        assert np.array_equal(other["query"].astype(int) - images, kept[0]["query"])
    assert (folder / "severity.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_says_what_it_is(folder, record):
    said = (folder / "report.md").read_text()
    assert "exploratory, outside the rule fixed beforehand: quarters on glyphs is none of its cells" in said
    assert "6 images of each class" in said
    assert "under the other shifts among blur and dark" in said
    assert "domain-transport" not in said
    assert record["off_rule"] == "quarters on glyphs is none of its cells"
    assert record["left_out"] == {}
    assert str(folder) not in (folder / "record.json").read_text()


@pytest.mark.slow
def test_the_same_command_goes_on(folder, capsys):
    before = (folder / "results.json").read_bytes()
    run(lambda: command.main([*SMALL, "--output", str(folder)]))
    assert (folder / "results.json").read_bytes() == before
    assert "gain under shift less gain without" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--shifts", "fog"], "unknown view 'fog:1'"),
        (["--severities", "4"], "must be 1"),
        (["--choice-shifts", "blur"], "--choice-shifts has none beside blur"),
        (["--choice-split", "test"], "--choice-split test is what is evaluated"),
        (["--controls", "cosine-centroid", "nothing"], "unknown method 'nothing'"),
        (["--images", "5"], "may need 6"),
        (["--images", "-1"], "--images must be 0"),
    ],
)
def test_refused_in_one_line(tmp_path, capsys, more, said):
    with pytest.raises(SystemExit) as ended:
        run(lambda: command.main([*SMALL, *more, "--output", str(tmp_path / "run")]))
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_methods_alone_without_a_choice(tmp_path, capsys):
    words = [*SMALL[:-8], "--methods", "protonet", "cosine-centroid", "--device", "cpu"]
    run(lambda: command.main([*words, "--output", str(tmp_path / "run"), "--query-balance", "balanced"]))
    found = json.loads((tmp_path / "run" / "record.json").read_text())
    assert found["effects"] == {}
    assert found["order"] == ["protonet", "cosine-centroid"]
    assert not (tmp_path / "run-choice").exists()
    assert "no method was judged" in " ".join(capsys.readouterr().out.split())


def test_the_defaults_are_the_rule():
    config = Config()
    settings = {name: list(v) if isinstance(v := getattr(config, name), tuple) else v for name in rule.TERMS}
    birds, other = {"dataset": "cub", "variant": "feat"}, {"dataset": "cifar-fs", "variant": ""}
    ours = ("cub-resnet12-quarter", birds, 84)
    assert rule.follows(settings, *ours) == ""
    assert rule.follows(settings, *ours, {"pt-map": "why"}, "center") == ""
    assert rule.follows(settings, "efficientnet-lite0", birds, 96, crop="center") == ""
    assert rule.follows(settings, "efficientnet-lite0", other, 96, crop="none") == ""
    assert "resolution" in rule.follows(settings, "efficientnet-lite0", birds, 224)
    assert "episodes" in rule.follows({**settings, "episodes": 300}, *ours)
    assert "none of its cells" in rule.follows(settings, "cub-resnet12-quarter", other, 84)
    assert rule.follows(settings, *ours, {"coral": "why", "pt-map": "why"}) == "without coral"
    assert "class split" in rule.follows(settings, ours[0], {**birds, "variant": "closerlook"}, 84)
    assert "crop" in rule.follows(settings, *ours, crop="none")
    assert "crop" in rule.follows(settings, "efficientnet-lite0", other, 96, crop="center")


def test_the_rules_images_are_those_of_a_run_without_options():
    for dataset, (variant, crop) in rule.IMAGES.items():
        assert crop == default_crop(find_data(dataset).resolution)
        assert variant == ("feat" if dataset == "cub" else "")
    for network, side in rule.RESOLUTION.items():
        assert side == (96 if network == "efficientnet-lite0" else zoo()[network].resolution)


@pytest.mark.parametrize(
    ("name", "value"),
    [("NETWORKS", {"cub-resnet12-quarter": ("cub",)}), ("TERMS", {**rule.TERMS, "shot": 1}), ("pooled", None)],
)
def test_nothing_of_the_rule_changes_unnoticed(monkeypatch, name, value):
    before = rule.rule_digest()
    pool = rule.pooled
    monkeypatch.setattr(rule, name, value or (lambda parts: pool(parts[:1])))
    if name == "NETWORKS":
        monkeypatch.setitem(value, "efficientnet-lite0", ("cub",))
    assert rule.rule_digest() != before


def cell(network, dataset, mean, error=0.004):
    """A record of a cell of the rule, with made-up figures."""
    told = {"mean": mean, "episode_ci": 0.01, "class_ci": 0.02, "class_error": error, "degrees": 9}
    names = ["cosine-centroid", "coral", "domain-transport plan=exact step=1.0"]
    views = [CLEAN, *(f"{shift}:{severity}" for shift in SHIFTS for severity in SEVERITIES)]
    accuracy = {**told, "transductive": False}
    return {
        "command": "transfer", "format": 1, "network": network,
        "data": {"dataset": dataset, "variant": "feat" if dataset == "cub" else ""},
        "resolution": rule.RESOLUTION[network],
        "settings": {**rule.TERMS, "views": {view: view for view in views}}, "off_rule": "", "left_out": {},
        "order": names, "methods": {view: dict.fromkeys(names, accuracy) for view in views},
        "effects": {
            "pairs": {shift: [names[2], names[1]] for shift in SHIFTS}, "all": told,
            "shifts": dict.fromkeys(SHIFTS, told),
            "views": {view: {"gain": told, "effect": told} for view in views[1:]},
        },
    }  # fmt: skip


@pytest.fixture
def docs(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "transfer.md").write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    return tmp_path


def test_the_page_is_made_of_records(docs, capsys):
    run(lambda: command.main(["--page", "--docs", str(docs)]))
    text = (docs / "transfer.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "Nothing has been measured yet" in text
    cells = {("cub-resnet12-quarter", "cub"): 0.03, ("cifar-fs-resnet12-quarter", "cifar-fs"): 0.001}
    for (network, dataset), mean in cells.items():
        (docs / "results" / f"transfer-{dataset}.json").write_text(json.dumps(cell(network, dataset, mean)))
    page.write(docs)
    text = (docs / "transfer.md").read_text()
    assert "old" not in text
    assert "| cub-resnet12-quarter | cub | +3.00 ± 1.00 ± 0.90 | <0.001 | better |" in text.replace("0.000", "<0.001")
    assert "| efficientnet-lite0 | cub, cifar-fs, fashion-mnist | – | – | not tested |" in text
    assert "- cub-resnet12-quarter (cub): transport helps across domains, beyond what it gains without a shift" in text
    assert "cifar-fs-resnet12-quarter is not tested: no run on fashion-mnist. It counts as one of 3" in text
    assert "efficientnet-lite0 is not tested: no run on cub, cifar-fs and fashion-mnist." in text
    assert "### Exploratory" not in text
    # What a record shows counts, whatever it says of itself.
    lacking = {**cell("cub-resnet12-quarter", "cub", 0.03), "left_out": {"coral": "why"}}
    (docs / "results" / "transfer-cub.json").write_text(json.dumps(lacking))
    heads = {**cell("efficientnet-lite0", "cub", 0.0), "effects": {}, "off_rule": "other shot than the rule's"}
    (docs / "results" / "transfer-heads.json").write_text(json.dumps(heads))
    page.write(docs)
    text = (docs / "transfer.md").read_text()
    assert "cub-resnet12-quarter is not tested" in text
    exploratory = text.partition("### Exploratory")[2]
    assert "outside the rule fixed beforehand: without coral" in exploratory
    assert "#### cub, efficientnet-lite0 at 96 px, 5-shot" in exploratory
    assert exploratory.count("| method | clean | edges:1 | edges:2 |") == 2
    assert (docs / "transfer.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_or_record_that_is_none(docs):
    (docs / "results" / "transfer-x.json").write_text("{}")
    with pytest.raises(UserError, match=r"transfer-x\.json is no record of experiments\.transfer"):
        page.write(docs)
    (docs / "results" / "transfer-x.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        page.write(docs)
    (docs / "transfer.md").write_text("nothing")
    with pytest.raises(UserError, match="lacks its marks"):
        page.write(docs)


def test_networks_are_one_family():
    parts = {(n, d): Part(0.03, 0.001, 0.01, 9) for n, ds in rule.NETWORKS.items() for d in ds}
    one = {("cub-resnet12-quarter", "cub"): Part(0.03, 0.001, 0.01, 9)}
    (alone,), family = rule.tests(one), rule.tests(parts)
    unknown = rule.tests({**one, ("cub-resnet12-quarter", "cub"): Part(0.03, 0.001, None, 9)})
    assert [(test.p, test.p_holm, test.verdict) for test in unknown] == [(None, None, "not assessed")]
    assert [test.network for test in family] == list(rule.NETWORKS)
    assert alone.p_holm == pytest.approx(3 * alone.p)  # networks that are not there count
    assert alone.verdict == "better" if 3 * alone.p < 0.05 else "no difference shown"
    assert family[0].p_holm == pytest.approx(family[0].p)  # the largest of three stays as it is
    assert family[2].p_holm == pytest.approx(3 * family[2].p)
    assert family[2].found.jackknife.standard_error == pytest.approx(0.01 / 3**0.5)


@pytest.mark.parametrize(
    ("mean", "said"),
    [
        (0.03, "helps across domains, beyond what it gains without a shift (+3.00 ± 1.15 points)"),
        (0.005, "no difference shown"),
        (-0.03, "transport hurts: under a shift it has less over its control than without one (-3.00"),
    ],
)
def test_a_verdict_in_a_sentence(mean, said):
    (test,) = rule.tests({("cub-resnet12-quarter", "cub"): Part(mean, 0.001, 0.0051, 9)})
    assert said in answers.verdict(test)


def test_where_transport_is_below_doing_nothing():
    record = cell("cub-resnet12-quarter", "cub", 0.5)
    left = record["effects"]["pairs"]["blur"][0]

    def reaches(view, mean):
        own = record["methods"][view]
        record["methods"][view] = {**own, left: {**own[left], "mean": mean}}

    said = answers.below_nothing([record])
    assert "in 0 of 9 views" in said
    assert "is lower on 0 of 1" in said
    assert len(answers.unchanged([record])) == 1  # all views are made up alike
    for view, mean in (("blur:1", 0.47), ("blur:2", 0.49), ("dark:1", 0.51), (CLEAN, 0.4)):
        reaches(view, mean)
    said = answers.below_nothing([record])
    assert "in 1 (cub (cub-resnet12-quarter) blur:1 by 3.00) of 9 views" in said
    assert "in 1 (cub (cub-resnet12-quarter) blur:2 by 1.00)" in said
    assert "is lower on 1 (cub (cub-resnet12-quarter)) of 1" in said
    assert answers.unchanged([record]) == []
