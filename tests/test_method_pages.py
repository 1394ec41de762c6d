"""What the pages of methods say: every name has one, options and defaults are those of the code, examples run."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
import torch

from otfew import baselines, methods, node_weights
from otfew.baselines import BASELINES
from otfew.experiments.long_tail import arms
from otfew.experiments.metric_learning.losses import LOSSES
from otfew.methods import METHODS

FOLDER = Path(__file__).parents[1] / "docs" / "methods"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in sorted(FOLDER.glob("*.md"))}
INDEX = PAGES["index"]
OPTIONS = re.compile(r"^### Options of (`[^\n]+`)\n(.*?)(?=^#|\Z)", re.DOTALL | re.MULTILINE)
HEAD = ["| option | default | what it does |", "|---|---|---|"]
RESULTS = {"PairTransport", "Reweighting"}
"""What losses and weights return; nobody constructs them."""
NAMED = {**METHODS, **BASELINES}
EXPORTED = {
    name: vars(module).get(name) or getattr(module, name)
    for module in (methods, baselines)
    for name in module.__all__
    if name not in {"METHODS", "BASELINES", *RESULTS}
}
OBJECTS = {**EXPORTED, "KMeans": node_weights.KMeans, "MeanShift": node_weights.MeanShift}


def signature(kind):
    """The constructor's parameters: those of a dataclass or of ``__init__``."""
    return {} if kind.__init__ is object.__init__ else dict(inspect.signature(kind).parameters)


def tables():
    """(page, name, rows) of each name that heads a table of options."""
    found = []
    for page, text in PAGES.items():
        for names, below in OPTIONS.findall(text):
            lines = [line for line in below.splitlines() if line.startswith("|")]
            rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
            found += [(page, name, lines[:2], rows) for name in re.findall(r"`([^`]+)`", names)]
    return found


def prose(text):
    """The text without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def formulas(text):
    """Inline ones and those on lines of their own."""
    text = re.sub(r"`[^`\n]*`", "", prose(text))
    blocks = re.findall(r"^\$\$\n(.*?)^\$\$$", text, re.DOTALL | re.MULTILINE)
    return blocks + re.findall(r"\$([^$\n]+)\$", re.sub(r"^\$\$\n.*?^\$\$$", "", text, flags=re.DOTALL | re.MULTILINE))


def test_every_method_and_class_with_options_has_one_table_of_them():
    headed = sorted(name for _, name, _, _ in tables())
    assert len(headed) == len(set(headed))
    classes = {name for name, kind in EXPORTED.items() if kind not in NAMED.values() and signature(kind)}
    assert set(headed) == {*NAMED, *classes, "KMeans", "MeanShift"}


@pytest.mark.parametrize(
    ("page", "name", "head", "rows"), tables(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_options_and_defaults_are_the_constructor_s(page, name, head, rows):
    assert head == HEAD
    parameters = signature(NAMED.get(name) or OBJECTS[name])
    assert sorted(option.strip("`") for option, _, _ in rows) == sorted(parameters)
    for option, default, _ in rows:
        there = parameters[option.strip("`")].default
        if there is inspect.Parameter.empty:
            assert default == "required"
            continue
        written = ast.literal_eval(default.strip("`"))
        assert (type(written), written) == (type(there), there), option


def test_classes_are_named_on_pages_that_show_them():
    text = "\n".join(text for page, text in PAGES.items() if page != "index")
    for name in {*EXPORTED, *RESULTS}:
        if name not in {"DeepEMDFCN", "DeepEMDGrid", "DeepEMDSampling"}:  # presets, which are named as methods
            assert f"`{name}`" in text or f".{name}`" in text, name


def test_the_index_has_a_line_for_each_method():
    """In bold where it transports, below the heading that says what an answer rests on."""
    below = dict(re.findall(r"^### (.+?)\n(.*?)(?=^#|\Z)", INDEX, re.DOTALL | re.MULTILINE))
    for name, kind in NAMED.items():
        line = f"| **`{name}`** |" if name in METHODS else f"| `{name}` |"
        found = [heading for heading, text in below.items() if f"\n{line}" in text]
        kinds = "Nodes of an image, one query at a time", "One vector an image, one query at a time"
        assert found == ["All queries of an episode at once" if kind.transductive else kinds[kind.pools]], name
        assert INDEX.count(f"{line}") == 1


def test_the_index_links_to_every_page():
    for page in PAGES:
        assert page == "index" or f"]({page}.md" in INDEX


def test_losses_and_arms_are_named():
    for name in LOSSES:
        assert f"`{name}`" in PAGES["batchwise-ot"]
    for name in [*arms.ARMS, *arms.POST_HOC]:
        assert f"`{name}`" in PAGES["ot-reweighting"]


@pytest.mark.parametrize("page", [page for page in PAGES if page != "index"])
def test_examples_run(page):
    """All blocks of a page, one after the other; they hold assertions that the formulas are what the code computes."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)
    assert any("assert" in block for block in blocks)
    torch.manual_seed(0)
    there = {}
    for block in blocks:
        exec(compile(block, f"{page}.md", "exec"), there)


@pytest.mark.parametrize("page", PAGES)
def test_formulas_are_written_so_that_both_github_and_the_site_show_them(page):
    """GitHub takes a backslash before punctuation away and refuses some macros."""
    text = PAGES[page]
    for formula in formulas(text):
        assert not re.search(r"\\[,;:!{}|#_&]|\\operatorname|\\arg\b", formula), formula
        assert formula.count("{") == formula.count("}"), formula
    for line in prose(text).splitlines():
        assert line == "$$" or "$$" not in line
        assert re.sub(r"`[^`]*`", "", line).count("$") % 2 == 0, line
        assert not line.startswith("|") or all("|" not in inside for inside in re.findall(r"\$([^$]+)\$", line))


def test_the_site_can_show_every_formula():
    """What the converter does not know, it leaves as it is."""
    converter = pytest.importorskip("latex2mathml.converter")
    for text in PAGES.values():
        for formula in formulas(text):
            assert "\\" not in converter.convert(formula), formula


@pytest.mark.parametrize("page", [page for page in PAGES if page != "index"])
def test_every_page_has_all_parts(page):
    headings = re.findall(r"^## (.+)$", PAGES[page], re.MULTILINE)
    wanted = ["Formula", "Example", "Options", "Cost", "What (?:it|they) assumes?", "What was measured here"]
    wanted += ["Where (?:it|they|this) departs? from (?:the|a) papers?", "Source"]
    found = [next((place for place, h in enumerate(headings) if re.match(w, h)), None) for w in wanted]
    assert None not in found, headings
    assert found == sorted(found), headings
