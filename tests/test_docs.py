"""What the README and the pages of docs say: links lead somewhere, figures stand in records, pictures may be shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from otfew.experiments.reproduce import claims
from otfew.experiments.reproduce.claims import PLACE

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OF_THE_ROOT = [
    path for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY") if (path := ROOT / f"{name}.md").exists()
]
PAGES = [*OF_THE_ROOT, *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
NUMBER = re.compile(r"[+-]?\d+\.\d+")
README = ROOT / "README.md"
PHOTOGRAPHS = {"flows.png", "flows-photos.png", "reconstruction-photos.png", "own-photos-why.png"}
"""Pictures of the photographs in docs/photos and examples/photos, whose licence allows it. full-flows-photos.png shows
small parts of the former, too few to be told from a chart."""


def prose(path):
    """The text without its blocks of code."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return "\n".join(line for line in text.splitlines() if not line.startswith("    "))


def links(path):
    """What the page points to."""
    return LINK.findall(re.sub(r"`[^`]*`", "", prose(path)))


def anchors(path):
    """The names of headings, as GitHub makes them and, by a hook, the site does: of those alike the first alone."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in links(page):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name) if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_every_picture_is_shown_somewhere():
    shown = {(page.parent / target).resolve() for page in PAGES for target in links(page)}
    assert set(DOCS.rglob("*.png")) <= shown


def test_no_picture_shows_photographs_that_nobody_may_show():
    """Charts have few colours for their size, photographs many."""
    many = set()
    for path in DOCS.rglob("*.png"):
        pixels = cv2.imread(str(path)).reshape(-1, 3).astype(np.int32) @ (1, 256, 65536)
        seen = np.zeros(1 << 24, bool)
        seen[pixels] = True
        if seen.sum() > 0.04 * len(pixels):
            many.add(path.name)
    assert many == PHOTOGRAPHS
    photographs = {path.name for path in DOCS.rglob("*.jp*g")}
    assert photographs == {"garlic-a.jpg", "garlic-b.jpg", "own-photos-page.jpg"}
    assert "Copyright (c) 2019 Marcus Klasson" in (DOCS / "photos" / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((DOCS / "reports").glob("*.html")), ids=lambda path: path.name)
def test_a_report_is_one_file_that_needs_nothing_else(path):
    page = path.read_text(encoding="utf-8")
    assert len(page) < 2_000_000
    fetched = re.findall(r"(?:src|srcset|poster|data|action)\s*=\s*[\"']([^\"']*)", page)
    fetched += re.findall(r"<(?:link|image|use)\b[^>]*href\s*=\s*[\"']([^\"']*)", page)
    fetched += re.findall(r"url\(\s*[\"']?([^\"')]*)", page) + re.findall(r"@import\s*[\"']([^\"']*)", page)
    assert fetched
    assert all(address.startswith(("data:", "#")) for address in fetched)
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|https?://(?!www\.w3\.org/)", page)
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|work|Users)/", page)


def test_the_readme_is_one_screen():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    table = [line for line in lines if line.startswith("|")]
    assert len(table) - 2 == len(claims.load().answers) <= 8
    assert sum(line.startswith("![") for line in lines) == 1


def test_code_in_the_readme_runs():
    """The block on transport as it stands; that on photographs with made-up ones and a method that needs no weights."""
    photos, transport = re.findall(
        r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    found = {}
    exec(compile(transport, "README.md", "exec"), found)
    assert float(found["result"].gap.abs().max()) < 1e-6
    assert float(found["cost"].grad.sum()) == pytest.approx(375, rel=1e-5)
    images = list(np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8))
    given = {"photos": images[:4], "labels": ["a", "a", "a", "b"], "more_photos": images[4:]}
    exec(compile(photos.replace("efficientnet-lite0", "glyphs-resnet12-quarter"), "README.md", "exec"), given)
    assert set(given["classifier"].classes_) == {"a", "b"}


def test_code_of_the_page_on_losses_runs():
    """All of it, in order, in one namespace: it asserts what it says. Small enough for every run of the tests."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", (DOCS / "loss.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) >= 6
    found = {}
    for block in blocks:
        exec(compile(block, "loss.md", "exec"), found)
    assert found["after"] > found["before"] + 0.4
    assert float(found["result"].gap.max()) < 1e-9
    assert [tuple(plan.shape) for plan in found["plans"]] == [(3, 4), (5, 2)]
    assert all(cost.grad is not None for cost in found["costs"])


def test_figures_from_other_pages_stand_there():
    ledger = claims.load()
    rows = [row for each in ledger.elsewhere.values() for row in each]
    assert len(rows) >= 60
    for row in rows:
        numbers = NUMBER.findall((DOCS / row.page).read_text(encoding="utf-8"))
        written = {number.lstrip("+-") for number in numbers}
        for number in NUMBER.findall(f"{row.left} {row.right} {row.difference}"):
            assert number.lstrip("+-") in written, (row, number)


def test_figures_typed_into_the_summaries_stand_in_the_pages():
    """Those of the README's table and of the page's lines that are no claim's."""
    names = ("results.md", "retrieval.md", "analyses.md")
    written = {n.lstrip("+-") for name in names for n in NUMBER.findall((DOCS / name).read_text(encoding="utf-8"))}
    ledger = claims.load()
    for line in [*(answer.finding for answer in ledger.answers), *ledger.summary]:
        for number in NUMBER.findall(re.sub(PLACE, "", line)):
            assert number.lstrip("+-") in written, (line, number)


def test_the_table_beside_ott_jax_is_its_record():
    def milliseconds(row, name):
        times = (1e3 * row[clock][name] for clock in ("wall", "cpu"))
        return " / ".join(f"{time:,.0f}" if time >= 100 else f"{time:.3g}" for time in times)

    record = json.loads((DOCS / "results/ott-peers.json").read_bytes())
    page = (DOCS / "solvers.md").read_text(encoding="utf-8")
    assert f"ott-jax {record['versions']['ott-jax']} with jax {record['versions']['jax']}," in page
    for row in record["rows"]:
        others = {name: seconds for name, seconds in row["wall"].items() if name != "otfew"}
        best = min(others, key=others.__getitem__)
        line = next(line for line in page.splitlines() if line.startswith(f"| {row['title']} |"))
        _, _, ours, _, theirs, ratio, compiling, _ = (cell.strip() for cell in line.split("|"))
        assert ours == milliseconds(row, "otfew")
        assert theirs == f"{milliseconds(row, best)} ({best.removeprefix('ott, ')})"
        assert ratio == f"{others[best] / row['wall']['otfew']:.2f}"
        assert compiling == f"{row['compiling'][best]:.1f} s"


def test_every_variant_is_a_row():
    """Retrieval with the ImageNet network on all nodes and at both sizes; Tables 1 and 2 on its features."""
    elsewhere = claims.load().elsewhere
    differences = {row.difference.split()[0] for row in elsewhere["DeepEMD Table 8"]}
    assert differences == {"-3.86", "-6.25", "+0.80", "+7.10", "+4.90"}
    for table, least in (("DeepEMD Table 1, 5-way", 18), ("DeepEMD Table 2", 15), ("DeepEMD Table 3", 5)):
        assert len(elsewhere[table]) >= least
