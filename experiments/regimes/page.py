"""docs/regimes.md, written from the record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from otfew.errors import UserError
from otfew.experiments.regimes.cells import CELLS, MAP, SETTINGS
from otfew.experiments.regimes.report import cell_tables, designed, prediction, settings_table
from otfew.experiments.regimes.rule import LEAST_EPISODES, MARGIN
from otfew.reporting.tables import markdown
from otfew.runs.files import parse_json, write_atomically

Record = Mapping[str, Any]

HOW = """\
What exact transport adds is `deepemd` minus `chamfer` and minus `product-coupling`: the same nodes, the same
weights, the same episodes. Chamfer takes the best match of each node without a plan's marginals; the product
coupling has the marginals and matches nothing. A figure is a difference of accuracies in points, with a 95 %
interval: the wider of that over episodes and that over classes, and over networks where there are three of a kind.
Log-odds are those of a right answer, first against Chamfer, then against the product coupling: near 0 or 100 % they
are not squeezed as points are.

A cell differs from its base in what its axis names and in nothing else; episodes have the same classes and images
where the images are the same. Bases: birds (CUB, 84 px, 25 nodes), CIFAR-FS and FC100 (32 px, 16 nodes), each with
a small network of its own; `-in` means an ImageNet network at 160 px (25 nodes) on 24 images of each class, which
has seen many of these classes. 5-way 1-shot with 15 queries a class; grocery photos with 5; fine and coarse 4-way.
Clutter and occlusion change all images, scale the queries alone: see `otfew.data.shifts`. At other resolutions than
that of its training a small network also sees images of an unusual scale."""

RULE = f"""\
Cells, settings and the rule were committed before any cell was computed, in
[claims.lock](../experiments/claims.lock) (`regimes`; what of it was known before stands there) and, in words and
code, in [rule.py](../experiments/regimes/rule.py). A setting is the mean over its cells, one for each data set.
Transport **pays** where it is above both controls, intervals and Holm's p over all {len(SETTINGS)} settings and both
controls included, whichever were run, and where no cell of the setting is missing. It **does not pay** where it adds
less than {MARGIN:g} point to one of them, its interval included; else that is open. Cells of fewer than
{LEAST_EPISODES} episodes decide nothing. The sentence is then put to the test on Fashion-MNIST, which has no part in
it. Data sets count as independent, which not all are: CIFAR-FS and FC100 share 5 of their 20 test classes, and FC100's
20 all lie in `cifar100-in` (all of CIFAR-100), so that intervals over both may be too narrow. Intervals speak of other
classes of these data sets, and of these networks where there are fewer than three. After a first pass the sentence and
two settings were put in other words, and the rule was made stricter: the family no longer shrinks to what was run, no
setting pays on a part of its cells, and networks have their part in the intervals of the test."""

DESIGNED = """\
The mosaics are made for transport: 5 x 5 tiles, each a real image of one of four classes; classes of mosaics differ
in how many tiles each part has and in nothing else, and all nodes weigh alike. Were tiles of a part alike and
others unlike, Chamfer would see no difference at all, the product coupling would prefer the most lopsided class,
and transport alone would be largest between equals. They show that the measurement finds transport's gain where it
must be, and nothing about photographs."""


def render(docs: Path, records: Path | None = None) -> None:
    """Write the page and its picture from the records of a folder.

    Args:
        docs: Where both go.
        records: Folder of the records; None takes ``results`` in it.

    Raises:
        UserError: There is none.
    """
    from otfew.experiments.regimes.plot import picture

    path = (records or docs / "results") / "regimes.json"
    if not path.is_file():
        raise UserError(f"{path} is not there: run the map with --docs first.")
    record = parse_json(path.read_bytes())
    write_atomically(docs / "regimes.png", picture(record))
    write_atomically(docs / "regimes.md", page(record).encode())


def page(record: Record) -> str:
    """Write the page.

    Args:
        record: As ``record.record`` makes it.
    """
    parts = [
        "# When does transport pay?",
        _sentence(record),
        "![What exact transport adds, by axis, against both controls](regimes.png)",
        f"    python -m experiments.regimes --episodes {record['episodes']} --photos PHOTOS --docs docs",
        "Records: [regimes.json](results/regimes.json), and the right answers of every episode in\n"
        "[regimes.npz](results/regimes.npz), from which a test computes every figure of this page anew.",
        "## What was measured",
        HOW,
        "## Settings, and the rule",
        RULE,
    ]
    if record["settings"]:
        parts.append(markdown(settings_table(record)).rstrip())
    parts += ["## Cells", f"{record['episodes']:,} episodes each."]
    for table in cell_tables(record):
        parts += [f"### {table.title.capitalize()}", markdown(table).rstrip()]
        if table.title == "designed control":
            parts.append(DESIGNED)
    if missing := _not_run(record):
        parts += ["## Not run", missing]
    return "\n\n".join(parts) + "\n"


def _sentence(record: Record) -> str:
    """Say the advice, how it was tested, and what it must not be taken for."""
    advice = record["advice"]
    said = [f"**{advice['text']}**", "", f"- {designed(advice['designed']).capitalize()}."]
    said.append(f"- H{prediction(record['held_back'], advice['control'])[1:]}.")
    ran = {cell["id"] for cell in record["cells"]}
    missing = [cell.id for cell in CELLS if cell.part == MAP and cell.id not in ran]
    if missing:
        said.append(
            f"- A first pass: {len(missing)} of the {sum(c.part == MAP for c in CELLS)} cells that decide were not run "
            "(below), so that the sentence is not the last word, and nothing rests on it yet."
        )
    return "\n".join(said)


def _not_run(record: Record) -> str:
    """List what was not run, by reason; networks by their names, cells by theirs."""
    reasons: dict[str, list[str]] = {}
    for name, why in record["not_run"].items():
        cell, _, network = name.partition(", network ")
        told = reasons.setdefault(why, [])
        if f"`{network or cell}`" not in told:
            told.append(f"`{network or cell}`")
    known = {cell["id"] for cell in record["cells"]} | {name.partition(", network ")[0] for name in record["not_run"]}
    if later := [f"`{cell.id}`" for cell in CELLS if cell.id not in known]:
        reasons["not yet"] = later
    return "\n".join(f"- {', '.join(names)}: {why}." for why, names in reasons.items())
