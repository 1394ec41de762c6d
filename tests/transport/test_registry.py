"""The table of solvers."""

from __future__ import annotations

import pytest

import otfew


def test_solvers_lists_what_there_is():
    rows = {row["name"]: row for row in otfew.solvers()}
    assert list(rows) == list(otfew.transport.SOLVERS)
    assert {"exact", "pot", "scipy"} <= set(rows)
    for row in rows.values():
        assert row["kind"] in {"exact", "entropic"}
        assert set(row["dtypes"]) <= {"float32", "float64"}
        assert "cpu" in row["devices"]
        assert isinstance(row["batch_coupled"], bool)
        assert isinstance(row["installed"], bool)
        assert row["gradients"]
        assert row["input"]
    for name in ("exact", "pot", "scipy"):
        assert rows[name]["kind"] == "exact"
        assert not rows[name]["batch_coupled"]


def test_a_library_that_is_not_there_is_reported_not_raised(monkeypatch):
    monkeypatch.setattr(otfew.POT, "requires", "no_such_module_at_all")
    installed = {row["name"]: row["installed"] for row in otfew.solvers()}
    assert installed["pot"] is False
    assert installed["exact"] is True


@pytest.mark.parametrize("solver", [otfew.Exact, otfew.POT, otfew.SciPy])
def test_a_name_means_its_defaults(solver, batch):
    problem = batch(size=2)
    by_name, by_options = otfew.solve(*problem, solver=solver.name), otfew.solve(*problem, solver=solver())
    assert by_name.solver == by_options.solver == solver.name
    assert by_name.value.tobytes() == by_options.value.tobytes()


@pytest.mark.parametrize("method", ["highs", "highs-ds", "highs-ipm"])
def test_scipy_methods_agree(method, batch):
    problem = batch(size=2)
    found = otfew.solve(*problem, solver=otfew.SciPy(method=method)).value
    assert abs(found - otfew.solve(*problem).value).max() <= 1e-9
