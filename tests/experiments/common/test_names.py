"""Lists of names say what the library says of itself, though they read it without importing it."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from otfew.baselines import BASELINES
from otfew.data import DATASETS
from otfew.experiments import compare
from otfew.experiments import list as listing
from otfew.experiments.common import names, source
from otfew.methods import METHODS
from otfew.nodes import EXTRACTORS
from otfew.transport import solvers
from otfew.transport.registry import SOLVERS, lookup


def said(documented):
    return (documented.__doc__ or "").strip().partition("\n")[0]


def test_lines_are_those_of_the_docstrings():
    listed = names.names()
    assert listed["nodes"] == [(name, said(EXTRACTORS[name])) for name in EXTRACTORS]
    assert listed["methods with transport"] == [(name, said(METHODS[name])) for name in sorted(METHODS)]
    assert listed["baselines and controls"] == [(name, said(BASELINES[name])) for name in sorted(BASELINES)]
    assert all(line for rows in listed.values() for _, line in rows)


def test_solvers_are_described_as_they_describe_themselves():
    expected = [
        (
            s["name"],
            f"{s['kind']}; gradients: {s['gradients']}; on {', '.join(s['devices'])}"
            + ("" if s["installed"] else "; not installed"),
        )
        for s in solvers()
    ]
    assert names.names()["solvers"] == expected


def test_data_sets_are_described_as_they_describe_themselves(monkeypatch):
    described = [(name, f"{d.summary}, {d.resolution} px") for name, d in DATASETS.items()]
    assert names.names()["data sets"] == described
    monkeypatch.setitem(DATASETS, "mine", replace(DATASETS["cub"], summary="my birds", resolution=7))
    assert names.names()["data sets"] == [*described, ("mine", "my birds, 7 px")]


@pytest.mark.parametrize("name", SOLVERS)
def test_attributes_read_are_attributes_had(name):
    solver = lookup(name)
    read = source.constants(SOLVERS[name])
    assert {"name", "kind", "requires"} <= read.keys()
    assert {key: getattr(solver, key) for key in read} == read
    assert source.bases(SOLVERS[name]) == [solver.__base__.__name__]


def test_an_entry_that_somebody_has_put_in(monkeypatch):
    class Mine:
        """A method of mine."""

    monkeypatch.setitem(METHODS, "mine", Mine)
    assert ("mine", "A method of mine.") in names.names()["methods with transport"]


def test_what_is_not_there_is_not_found():
    with pytest.raises(LookupError, match="defines no Nothing"):
        source.first_line("otfew.methods.lst:Nothing")
    with pytest.raises(LookupError, match="assigns no Nothing"):
        source.arguments("otfew.data.cub:Nothing", ["name"])
    with pytest.raises(LookupError, match="keeps no call's result as FOLDER"):
        source.arguments("otfew.data.omniglot:FOLDER", ["name"])


def test_list_prints_what_compare_prints(monkeypatch, capsys):
    listing.main([])
    one = capsys.readouterr().out
    compare.main(["--list"])
    assert capsys.readouterr().out == one
    assert all(word in one for word in ("cifar-fs", "deepemd-fcn", "protonet", "sampling", "pot-sinkhorn"))


def test_brackets_are_text():
    console = Console(file=io.StringIO(), width=100)
    names._print(console, "backbones", [("x", 'run pip install "otfew[pretrained]"')])
    assert 'run pip install "otfew[pretrained]"' in console.file.getvalue()
