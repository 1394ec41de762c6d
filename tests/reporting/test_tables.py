"""Tables in five formats: in none can a name do more than be read."""

import csv
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from otfew.reporting.canvas import caption, make_figure
from otfew.reporting.comparison import classes_csv
from otfew.reporting.comparison import markdown as table_and_lines
from otfew.reporting.console import PlainConsole
from otfew.reporting.plain import plain
from otfew.reporting.tables import (
    Markdown,
    Table,
    bullets,
    heading,
    latex,
    markdown,
    sections,
    terminal,
    to_csv,
    to_html,
)

NAMES = [
    "<script>alert(1)</script>",
    "two\nlines\r\nor three\u2028",
    "red \x1b[31mtext\x1b[0m \x9b2J \x07",
    "=cmd()|' /C calc'!A0",
    "+1+cmd()",
    "-1+cmd()",
    "@SUM(A1)",
    "\t=cmd()",
    "| a |",
    "a\\|b\\",
    "[red]bold[/red]",
    "[link](javascript:alert(1))",
    "![picture](x) [a]: b",
    ":dog: **bold** _it_ __it__ `code` ~~gone~~ $x^2$ &lt; &#65; <!-- -->",
    r"\input{/etc/passwd} {} $&#_%^~ --x \\",
    "[5pt] after the end of a row",
    "*also",
    "鳥" * 60,
    "long " * 60,
    "\u202egnp.exe",
    "lost\udc80byte",
    "",
]
ORDINARY = [
    "deepemd [fcn]",
    "pt-map (transductive, uniform prior)",
    "better (<0.001)",
    "+1.24 ± 0.31*",
    "resnet12_quarter_x",
    "many > 100, few < 20",
    "R & D",
    "C:\\data",
    "--rerank",
    "–",
]


class Words(HTMLParser):
    """Collects the text of each cell, item and heading, and the tags."""

    def __init__(self, html):
        super().__init__()
        self.found, self.tags, self.open = [], set(), False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag in {"td", "th", "li", "h2"}:
            self.found.append("")
            self.open = True

    def handle_endtag(self, tag):
        self.open = self.open and tag not in {"td", "th", "li", "h2"}

    def handle_data(self, data):
        if self.open:
            self.found[-1] += data


def read(text):
    """Read Markdown as GitHub would."""
    return Words(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))


def squeezed(text):
    return " ".join(plain(text).split())


def on_screen(thing, width=200, console=Console):
    screen = console(file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor")
    screen.print(thing)
    return screen.file.getvalue()


def without_styles(text):
    """Take away rich's own styles of titles and heads."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_a_name_as_it_is(name):
    table = Table(name, ["head", name], [[name, 1.5], ["x", None]])
    words = read(markdown(table))
    assert words.tags == {"table", "thead", "tbody", "tr", "th", "td"}
    assert [w.strip() for w in words.found] == ["head", squeezed(name), squeezed(name), "1.5", "x", ""]
    words = read(bullets([f"{name} is a name", f"called {name}", name]))
    assert words.tags <= {"ul", "li"}
    assert [squeezed(w) for w in words.found] == [squeezed(t) for t in (f"{name} is a name", f"called {name}", name)]
    assert read(heading(f"on {name}")).found == [squeezed(f"on {name}")]


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=12) | st.text("<a/>!|\\[]():`*_~$&;#=+-@.1 \n>", max_size=12))
def test_markdown_shows_any_text_as_it_is(text):
    # Spaces that are none of ASCII's are trimmed or kept as the reader likes.
    words = read(markdown(Table("", ["head", "other"], [[f"x{text}x", text]])))
    assert words.tags == {"table", "thead", "tbody", "tr", "th", "td"}
    assert [squeezed(w) for w in words.found[2:]] == [squeezed(f"x{text}x"), squeezed(text)]
    words = read(bullets([text, "end"]))
    assert [squeezed(w) for w in words.found] == [squeezed(text), "end"]
    assert words.tags == {"ul", "li"}


def test_what_is_harmless_in_markdown_stays_as_it_is():
    text = sections([Table("title", ["name", "two\nlines"], [[name, 1] for name in ORDINARY])], ORDINARY)
    assert text.splitlines() == [
        "## title", "", "| name | two lines |", "|---|---:|", *(f"| {name} | 1 |" for name in ORDINARY), "", "",
        *(f"- {name}" for name in ORDINARY),
    ]  # fmt: skip


def test_markdown_of_our_own_stays():
    cell = Markdown("[page](page.md), `code | more`")
    assert markdown(Table("", ["a"], [[cell]])).splitlines()[-1] == r"| [page](page.md), `code \| more` |"


@pytest.mark.parametrize("name", NAMES)
def test_csv_has_a_row_for_a_row_and_no_formula(name):
    data = to_csv(["method", "value", name], [[name, -0.5, "-0.5"], ["next", None, True]])
    rows = list(csv.reader(io.StringIO(data.decode())))
    assert data.count(b"\n") == 3
    assert b"\x1b" not in data
    assert rows[0][2] == rows[1][0]
    assert rows[1][0].lstrip("'") == plain(name).lstrip("'")
    assert not rows[1][0].lstrip().startswith(("=", "+", "-", "@"))
    assert rows[1][1:] == ["-0.5", "-0.5"]
    assert rows[2] == ["next", "", "True"]


@pytest.mark.parametrize("name", [name for name in ORDINARY if name[0] not in "+-"] + ["1-shot", "don't", 'a "b", c'])
def test_ordinary_names_are_the_same_in_csv(name):
    assert next(csv.reader(io.StringIO(to_csv([name], []).decode()))) == [name]


@pytest.mark.parametrize("name", NAMES)
def test_terminal_shows_a_name_as_it_is(name):
    text = on_screen(terminal(Table("a title", ["head", "x"], [[name, "figure"]])), width=400)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", without_styles(text))
    (shown,) = [line for line in without_styles(text).splitlines() if line.rstrip().endswith("figure")]
    assert " ".join(shown.split()) == f"{squeezed(name)} figure".strip()
    titled = without_styles(on_screen(terminal(Table(name, [name, "x"], [["a", "b"]])), width=700))
    assert squeezed(titled).count(squeezed(name)) >= 2


def test_wide_names_keep_columns_in_line():
    rows = [["鳥" * 90, "1"], ["x", "2"], ["é" * 300, "3"]]
    lines = without_styles(on_screen(terminal(Table("", ["name", "figure"], rows)), width=80)).splitlines()
    assert all(cell_len(line) <= 80 for line in lines)
    assert {cell_len(line) for line in lines if line.rstrip()[-1:] in set("123")} == {cell_len(lines[-2])}


def test_a_console_prints_text():
    text = on_screen("[red]x[/red] :dog: \x1b[2J [link=http://a]b\nnext", console=PlainConsole)
    assert without_styles(text) == "[red]x[/red] :dog: \\x1b[2J [link=http://a]b\nnext\n"


LATEX = {
    "a_b & c": r"a\_b \& c",
    "50 % of $x": r"50 \% of \$x",
    r"\input{x}": r"\textbackslash{}input\{x\}",
    "#1~2^3": r"\#1\textasciitilde{}2\textasciicircum{}3",
    "<b> | c": r"\textless{}b\textgreater{} \textbar{} c",
    "+1.24 ± 0.31": r"+1.24 $\pm$ 0.31",
    "-1.24": r"$-$1.24",
    "pt-map --rerank 1-2": "pt-map -{}-rerank 1-2",
    "[5pt]": "{}[5pt]",
    "* x": "{}* x",
    "two\nlines": "two lines",
    "\x1b[0m": r"\textbackslash{}x1b[0m",
}


@pytest.mark.parametrize(("name", "written"), LATEX.items())
def test_latex_escapes_what_it_would_act_on(name, written):
    lines = latex(Table("", ["head", "two\nlines"], [[name, 2]])).splitlines()
    assert lines[:4] == [r"\begin{tabular}{lr}", r"\toprule", r"head & two lines \\", r"\midrule"]
    assert lines[4:] == [rf"{written} & 2 \\", r"\bottomrule", r"\end{tabular}"]


@pytest.mark.parametrize("name", NAMES)
def test_latex_has_no_command_but_its_own(name):
    (row,) = latex(Table("", ["head", "x"], [[name, "x"]])).splitlines()[4:-2]
    cell = row[: -len(r" & x \\")]
    known = r"\\text(backslash|asciicircum|asciitilde|less|greater|bar|endash|asciigrave)\{\}|\\[{}$&#%_]|\$(\\pm|-)\$"
    assert not re.search(r"[\\$&#%_^~]", re.sub(known, "", cell))


@pytest.mark.parametrize("name", ["cost in $ and $", r"a\$b$", "$\\frac", "_hidden", "two\nlines", "\x1b[31m"])
def test_pictures_show_a_name_as_it_is(name):
    figure, ((axes,),) = make_figure(1, 1, (3, 2))
    axes.set_title(caption(name))
    axes.plot([0, 1], [0, 1], label=caption(name))
    (entry,) = axes.legend().get_texts()
    for text in (axes.title, entry):
        shown, is_math = text._preprocess_math(text.get_text())
        assert not is_math
        assert shown.strip() == squeezed(name)
    figure.canvas.draw()
    assert np.asarray(figure.canvas.buffer_rgba()).any()


def test_files_of_a_comparison_hold_names_and_no_more():
    names = ["<script>x</script>", "=cmd()", "two\nlines", "\x1b[31m", "| a |", "ordinary"]
    data = classes_csv(np.array([[0, 1, 2], [3, 4, 5]]), names)
    assert data.decode().splitlines() == [
        "episode,class 1,class 2,class 3", "0,<script>x</script>,'=cmd(),two lines", r"1,\x1b[31m,| a |,ordinary",
    ]  # fmt: skip
    text = table_and_lines(["method", "accuracy"], [[name, "1.00"] for name in names], [f"data: {n}" for n in names])
    words = read(text)
    assert words.tags == {"table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert [squeezed(w) for w in words.found[2::2][:6]] == [squeezed(name) for name in names]
    assert [squeezed(w) for w in words.found[-6:]] == [squeezed(f"data: {name}") for name in names]


class Cells(HTMLParser):
    """Collects tags, and the text between them."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("name", NAMES)
def test_html_shows_a_name_as_it_is_and_no_escape_sequence(name):
    page = to_html(Table(name, [name, "x"], [[name, 2]]), [name])
    assert page.isprintable()
    cells = Cells()
    cells.feed(page)
    assert [tag for tag, _ in cells.tags] == ["table", "caption", "tr", "th", "th", "tr", "td", "td", "ul", "li"]
    assert not any(attrs for _, attrs in cells.tags)
    said = [plain(name), plain(name), "x", plain(name), "2", plain(name)]
    assert cells.texts == [text for text in said if text]
