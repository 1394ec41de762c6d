"""The site of the docs: built strictly, whole, and readable where there is no network.

`make docs` runs this on the site that it has just built (`OTFEW_SITE`), in an environment that has none of our
libraries; `make browser` asks that site's search, in one that has no mkdocs. Elsewhere it is built here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NEEDED = ("mkdocs", "material", "mkdocstrings", "latex2mathml")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]


def need_mkdocs():
    if MISSING:
        pytest.skip(f"no {', '.join(MISSING)}: make docs")


LOADS = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "link": ("href",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
}
"""Attributes by which a browser fetches something unasked."""
NOT_FETCHED = {"canonical", "prev", "next", "alternate"}
REMOTE = re.compile(r"(?:https?:)?//")
STYLE_ADDRESS = re.compile(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)")


class Read(HTMLParser):
    """What a page fetches, points to, and can be pointed to; its style sheets' text."""

    def __init__(self):
        super().__init__()
        self.fetched, self.links, self.ids, self.styles = [], [], set(), []
        self.tags = Counter()
        self._in_style = False

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags[tag] += 1
        self._in_style = tag == "style"
        if given.get("id"):
            self.ids.add(given["id"])
        if given.get("style"):
            self.styles.append(given["style"])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "link" and given.get("rel") in NOT_FETCHED:
            return
        self.fetched += [given[name] for name in LOADS.get(tag, ()) if given.get(name)]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_data(self, data):
        if self._in_style:
            self.styles.append(data)

    def handle_endtag(self, tag):
        self._in_style = False


def read(path):
    page = Read()
    page.feed(path.read_text(encoding="utf-8"))
    return page


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    given = os.environ.get("OTFEW_SITE")
    if given:
        assert Path(given, "index.html").is_file(), "OTFEW_SITE is no built site"
        return Path(given)
    need_mkdocs()
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="session")
def pages(site):
    """Path from the site's root -> what it says, of every page; 404.html is for servers, which know their root."""
    found = {path.relative_to(site).as_posix(): read(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(found) > 25
    return found


@pytest.fixture(scope="session")
def hooks():
    """The hooks of the site by name."""
    need_mkdocs()

    def load(name):
        spec = importlib.util.spec_from_file_location(f"hook_{name}", DOCS / "hooks" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return {name: load(name) for name in ("pages", "formulas", "tables")}


@pytest.fixture(scope="session")
def settings():
    need_mkdocs()
    import yaml

    return yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def leaves(entry):
    if isinstance(entry, str):
        return [entry]
    return [leaf for part in (entry.values() if isinstance(entry, dict) else entry) for leaf in leaves(part)]


def test_every_page_is_in_the_navigation_or_named_as_left_out(site, settings, hooks):
    listed = leaves(hooks["pages"].expand(settings["nav"]))
    left_out = {line.lstrip("/") for line in settings["not_in_nav"].split()}
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    of_the_root = {page for name, page in hooks["pages"].ROOT_PAGES.items() if (ROOT / name).exists()}
    assert len(listed) == len(set(listed))
    assert written | of_the_root == set(listed) - left_out
    for page in listed:
        assert (site / page).with_suffix(".html").is_file(), page


def test_nothing_is_fetched_from_a_network(site, pages):
    for name, page in pages.items():
        for address in page.fetched:
            assert not REMOTE.match(address.strip()), (name, address)
        for address in STYLE_ADDRESS.findall("\n".join(page.styles)):
            assert not REMOTE.match("".join(address)), (name, address)
    sheets = list(site.rglob("*.css"))
    assert sheets
    for path in sheets:
        for address in STYLE_ADDRESS.findall(path.read_text(encoding="utf-8")):
            assert not REMOTE.match("".join(address)), (path.name, address)


def test_the_theme_would_fetch_only_what_no_page_asks_for(site, pages):
    """Its script names one library for diagrams and one for old browsers; fonts would be named in the pages."""
    for path in site.rglob("*.js"):
        named = set(re.findall(r"https://(?:unpkg|cdn|fonts|polyfill)[\w./@:-]*", path.read_text(encoding="utf-8")))
        assert {address.split("/")[3].partition("@")[0] for address in named} <= {"mermaid", "resize-observer-polyfill"}
    assert not any(re.search(r'class="[^"]*\bmermaid\b', (site / name).read_text("utf-8")) for name in pages)


def test_what_pages_name_is_there(site, pages):
    """Files and anchors, in the pages as built: also what templates and docstrings made."""
    missing = []
    for name, page in pages.items():
        for address in page.links + page.fetched:
            path, _, anchor = unquote(address).partition("#")
            if re.match(r"[a-z]+:", path):
                continue
            target = (site / name).parent / path.partition("?")[0] if path else site / name
            if target.is_dir():
                target /= "index.html"
            key = os.path.relpath(target, site).replace(os.sep, "/")
            if not target.is_file() or (anchor and key in pages and anchor not in pages[key].ids):
                missing.append((name, address))
    assert not missing


def test_formulas_are_markup_and_need_no_script(site, pages, hooks):
    assert any(page.tags["math"] for page in pages.values())
    for name in pages:
        assert "arithmatex" not in (site / name).read_text(encoding="utf-8"), name
    made = hooks["formulas"].on_page_content(
        r'a <span class="arithmatex">\(x &lt; y\)</span> b <div class="arithmatex">\[' "\nz\n" r"\]</div>",
        page=None, config=None, files=None,
    )  # fmt: skip
    assert made.count("<math") == 2
    assert "&lt;" in made or "&#x0003C;" in made
    assert 'display="block"' in made
    assert "<munder>" in hooks["formulas"].line(r"\min_{P} \sum_i P_i")
    assert (
        hooks["formulas"].markup(r"\lVert x \rVert^2").count('<mo stretchy="false">\N{DOUBLE VERTICAL LINE}</mo>') == 2
    )
    for formula, spaces in {r"P \log P": 2, r"\log(P)": 0, r"T \cos(q, p)": 1, r"\log_2 x": 1, r"a + b": 0}.items():
        assert hooks["formulas"].markup(formula).count("<mspace") == spaces, formula


def test_columns_are_as_wide_as_what_is_in_them(hooks):
    right = ' style="text-align: right;"'
    head = f"<tr><th>claim</th><th{right}>n</th><th{right}>spent</th></tr>"
    row = f"<tr><td>a<b>b</b></td><td{right}>1.25 ± 0.10</td><td{right}>{'word ' * 30}</td></tr>"
    made = hooks["tables"].readable(f"<table>{head}{row * 3}</table>")
    assert re.findall(r'<th style="([^"]*)">(\w+)', made) == [
        ("text-align: left; min-width: min(3ch, 45vw)", "claim"),
        ("text-align: right; min-width: min(12ch, 45vw)", "n"),
        ("text-align: left; min-width: min(44ch, 45vw)", "spent"),
    ]
    assert made.count("white-space: nowrap") == 6
    assert made.startswith('<div class="table">')
    assert made.count("<b>b</b>") == 3
    assert hooks["tables"].readable(f"<table>{head}{row * 20}</table>").startswith('<div class="long-table">')


def test_the_search_knows_every_page(site, pages):
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    known = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {name for name in pages if not name.startswith(("source/", "reports/"))} <= known
    assert (site / "search" / "search_index.js").read_text(encoding="utf-8").startswith("var __index = {")


def test_the_search_answers_from_a_file(site):
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: make browser")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium: make browser")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        asked, wrong = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((site / "using.html").as_uri())
        page.click("input.md-search__input")
        page.keyboard.type("barycenter", delay=20)
        page.wait_for_selector(".md-search-result__item", timeout=30_000)
        assert "barycenter" in page.inner_text(".md-search-result__list").lower()
        assert not wrong
        assert all(address.startswith(("file:", "data:", "about:", "blob:")) for address in asked)
        browser.close()


def test_pages_of_the_root_are_taken_in_and_their_links_hold(site, pages):
    for name in ("changelog", "contributing"):
        assert f"{name}.html" in pages
    assert "architecture.html" in {link.partition("#")[0] for link in pages["contributing.html"].links}
    assert "contributing.html" in {link.partition("#")[0] for link in pages["architecture.html"].links}
    assert "class" in (site / "source/experiments/regimes/rule.py.txt").read_text(encoding="utf-8")


def test_docstrings_are_plain_text(site):
    """What stands between angle brackets or stars is no tag and no emphasis."""
    known = {
        *("ul", "li", "ol", "p", "code", "pre", "span", "a", "div", "strong", "b", "small", "h2", "h3", "h4", "h5", "h6"),
        *("table", "tr", "td", "th", "thead", "tbody", "details", "summary", "button", "math", "nav", "label"),
    }
    for page in sorted((site / "api").glob("*.html")):
        text = page.read_text(encoding="utf-8")
        for contents in re.findall(r'<div class="doc doc-contents[ \w-]*">.*?(?=<h2|</article>)', text, re.DOTALL):
            found = {tag.lower() for tag in re.findall(r"<([A-Za-z]\w*)", contents)}
            assert found <= known, f"{page.name}: {sorted(found - known)}"
    assert "&lt;plan, cost&gt;" in (site / "api" / "answers.html").read_text(encoding="utf-8")


def test_the_api_is_read_from_the_sources_and_nothing_imported(site, pages):
    ids = {identifier for page in pages.values() for identifier in page.ids}
    assert {"otfew.solve", "otfew.methods.DeepEMD", "otfew.FewShotClassifier", "otfew.baselines.ProtoNet"} <= ids


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda path: path.relative_to(DOCS).as_posix())
def test_a_page_reads_on_the_site_as_on_github(page, site, pages):
    """As many tables, items of lists, blocks of code, pictures and headings as CommonMark finds."""
    if "::: " in page.read_text(encoding="utf-8"):
        pytest.skip("made of docstrings")
    markdown_it = pytest.importorskip("markdown_it", reason="no markdown-it-py: make docs")
    reader = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")
    wanted = Read()
    wanted.feed(reader.render(page.read_text(encoding="utf-8")))
    built = (site / page.relative_to(DOCS)).with_suffix(".html").read_text(encoding="utf-8")
    article = Read()
    article.feed(built.partition("<article")[2].partition("</article>")[0].partition('<aside class="md-source')[0])
    for tag in ("table", "tr", "li", "pre", "img", "h1", "h2", "h3", "h4", "blockquote"):
        assert article.tags[tag] == wanted.tags[tag], tag


def test_the_extra_and_the_environment_name_the_same():
    """The environment installs nothing of ours, so it can't ask for the extra; every library of it is pinned."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = {re.split(r"[<>=]", line)[0] for line in project["optional-dependencies"]["docs"]}
    section = (ROOT / "tox.ini").read_text(encoding="utf-8").partition("[testenv:docs]")[2].partition("\n[")[0]
    deps = {line.strip() for line in section.partition("deps =")[2].partition("set_env")[0].split("\n") if line.strip()}
    assert extra <= deps
    pins = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    assert {name.partition("[")[0] for name in deps} <= pins


def test_anchors_are_named_as_github_names_them(hooks):
    slug = hooks["pages"].slug
    assert slug("Batch-wise OT, part 2: the plan") == "batch-wise-ot-part-2-the-plan"
    assert slug("A - B (C)") == "a---b-c"


def test_links_are_pointed_to_where_their_files_lie(hooks):
    class Here:
        class file:  # noqa: N801
            src_uri = "methods/deepemd.md"

    text = "[a](../gpu.md#figures) [b](../../CONTRIBUTING.md) [c](../../LICENSE) [d](#x) [e](https://x.y) `[f](../z)`"
    made = hooks["pages"].on_page_markdown(text, page=Here, config=None, files=None)
    assert made == (
        "[a](../gpu.md#figures) [b](../contributing.md) [c](../source/LICENSE.txt) [d](#x) [e](https://x.y) `[f](../z)`"
    )
