"""The scripts in examples do what their pages say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

import otfew
from otfew.baselines import BASELINES
from otfew.conformance import check
from otfew.methods import METHODS

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("runs in a checkout only", allow_module_level=True)


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a script under its own name, so that it can be named as a plug-in."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_a_method_against_sixteen_ends_with_what_follows(monkeypatch, capsys):
    example = script("my_method_against_sixteen", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["x", "--episodes", "25", "--query", "2"])
    example.main()
    printed = capsys.readouterr().out
    assert len(set(example.SIXTEEN)) == 16
    for name in (*example.SIXTEEN, "long-matches"):
        assert f"| {name} |" in printed
    assert "long-matches is number " in printed
    kinds = {**METHODS, **BASELINES}
    assert not any(kinds[name].transductive for name in example.SIXTEEN)


def test_what_follows_is_what_was_found(monkeypatch):
    example = script("my_method_against_sixteen", monkeypatch)
    accuracies = {"mine": 0.5, "good": 0.7, "bad": 0.2, "like": 0.51}
    verdicts = {"good": "better", "bad": "worse", "like": "no difference shown"}

    found = SimpleNamespace(
        results={"methods": {name: {"accuracy": {"mean": mean}} for name, mean in accuracies.items()}},
        differences={name: {"verdict": verdict} for name, verdict in verdicts.items()},
    )
    assert example.conclusion(found, "mine") == [
        "mine is number 3 of 4, at 50.00 %.",
        "1 ahead of it: good.",
        "1 behind it: bad.",
        "1 not told apart from it: like.",
    ]


def test_the_method_keeps_the_laws_and_is_its_formula(monkeypatch):
    example = script("my_method_against_sixteen", monkeypatch)
    assert not check("my_method_against_sixteen:LongMatches", "method").failures
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randn(size, generator=generator) for size in ((1, 2, 1, 3, 4), (1, 1, 3, 4)))
    logits = example.LongMatches(2.0)(support, query)[0, 0]
    u = query[0, 0].double().numpy()
    for c in range(2):
        v = support[0, c, 0].double().numpy()
        cosines = (u @ v.T) / np.linalg.norm(u, axis=1)[:, None] / np.linalg.norm(v, axis=1)
        there = sum(np.linalg.norm(u[i]) * cosines[i].max() for i in range(3)) / np.linalg.norm(u, axis=1).sum()
        back = sum(np.linalg.norm(v[j]) * cosines[:, j].max() for j in range(3)) / np.linalg.norm(v, axis=1).sum()
        assert float(logits[c]) == pytest.approx(there + back, rel=1e-5)


def test_the_transport_loss_falls_and_is_proven(monkeypatch, capsys):
    example = script("transport_loss", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["x", "--steps", "24"])
    losses, largest = example.train(24)
    assert losses[-1] < 0.6 * losses[0]
    assert largest < 1e-9
    example.main()
    assert capsys.readouterr().out.count("transport cost of held-out digits") == 14


def test_the_gradient_of_the_loss_is_that_of_finite_differences(monkeypatch):
    example = script("transport_loss", monkeypatch)
    torch.manual_seed(0)
    ink, places = example.digits()
    dots = torch.rand(2, 5, 2, dtype=torch.float64, requires_grad=True)
    ink, places = ink[:2].double(), places.double()
    (gradient,) = torch.autograd.grad(example.transport_loss(dots, ink, places)[0], dots)
    for place in [(0, 0, 0), (1, 3, 1)]:
        step = torch.zeros_like(dots)
        step[place] = 1e-6
        with torch.no_grad():
            up, down = (example.transport_loss(dots + sign * step, ink, places)[0] for sign in (1, -1))
        assert float(gradient[place]) == pytest.approx(float(up - down) / 2e-6, abs=1e-6)


def test_the_loss_is_that_of_a_loop(monkeypatch):
    example = script("transport_loss", monkeypatch)
    torch.manual_seed(0)
    ink, places = example.digits()
    dots = torch.rand(3, 5, 2)
    values = [
        float(otfew.solve(torch.cdist(each, places).square(), b=one / one.sum(), solver="scipy").value)
        for each, one in zip(dots, ink[:3], strict=True)
    ]
    assert float(example.transport_loss(dots, ink[:3], places)[0]) == pytest.approx(np.mean(values), rel=1e-5)


def test_their_page_names_every_script():
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f"examples/{path.name}" not in page] == []
