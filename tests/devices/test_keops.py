"""KeOps on a device, without either: what it is asked for, read as formulas are read, on the pretended device."""

import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import pytest
import torch

import otfew
from otfew.transport.backends import keops, keops_reductions, keops_trial
from otfew.transport.backends.keops_reductions import KeOpsReductions
from otfew.transport.entropic.reductions import Metric

from .pretended import Elsewhere


def evaluated(formula, variables, reduction, given):
    """Evaluate a formula of KeOps on all pairs: an oracle for what it does with it."""
    names = {
        name: z[..., :, None, :] if kind == "Vi" else z[..., None, :, :]
        for (name, kind, _), z in zip(variables, given, strict=True)
    }
    functions = {
        "SqDist": lambda x, y: (x - y).square().sum(-1, keepdim=True),
        "Sum": lambda x: x.sum(-1, keepdim=True),
        "Sqrt": torch.sqrt,
        "Rsqrt": lambda x: torch.where(x > 0, x.rsqrt(), 0.0),
        "Exp": torch.exp,
        "Log": torch.log,
        "Abs": torch.abs,
        "Sign": torch.sign,
        "IntCst": float,
    }
    terms = eval(formula, names | functions)
    return terms.logsumexp(-2) if reduction == "LogSumExp" else terms.sum(-2)


@pytest.fixture
def asked(monkeypatch):
    """Put the oracle in KeOps' place, and keep what it is asked for: keywords, devices, whether arithmetic is fast."""
    calls = []

    def compiled(formula, variables, reduction, fast):
        def run(*given, **where):
            assert all(
                z.is_contiguous() and z.shape[-1] == size for z, (_, _, size) in zip(given, variables, strict=True)
            )
            calls.append((where, {z.device.type for z in given}, {z.dtype for z in given}, fast))
            return evaluated(formula, variables, reduction, given)

        return run

    monkeypatch.setattr(keops_reductions, "_compiled", compiled)
    monkeypatch.setattr(keops_reductions, "compiling", lambda *_: nullcontext())
    monkeypatch.setattr(keops, "obstacle", lambda device: None)
    return calls


def clouds(size, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(size, n, 3, generator=generator, dtype=torch.float64).to(dtype) for n in (6, 8))
    a, b = (torch.rand(size, n, generator=generator, dtype=torch.float64).to(dtype) + 0.1 for n in (6, 8))
    return x, y, a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)


def work(given, backend, cost):
    inputs = [z.requires_grad_() for z in given]
    options = otfew.KeOps(reg=0.2, tol=1e-9, backend=backend)
    result = otfew.solve_points(*inputs, cost=cost, solver=options)
    (result.value.sum() + result.value_linear.sum()).backward()
    return result, [result.value, result.value_linear, result.plan.dense(), *(z.grad for z in inputs)]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "lp:3"])
def test_sums_run_where_the_points_are(cost, size, asked, pretended):
    _, expected = work(clouds(size), "torch", cost)
    assert not asked
    with pretended() as machine:
        result, found = work(machine.away(clouds(size)), "auto", cost)
        assert all(isinstance(z, Elsewhere) for z in found)
        found = machine.home(found)
    assert result.solver == "keops"
    for z, like in zip(found, expected, strict=True):
        torch.testing.assert_close(z, like.detach(), rtol=1e-6, atol=1e-8)
    assert len(asked) > 20
    for where, devices, dtypes, fast in asked:
        assert where == {"backend": "GPU_1D", "device_id": 0}
        assert (devices, dtypes, fast) == ({"meta"}, {torch.float64}, False)


def test_points_on_the_processor_stay_there(asked):
    result, _ = work(clouds(2, torch.float32), "keops", "sqeuclidean")
    assert result.solver == "keops"
    assert {(*where.items(), *devices, *dtypes, fast) for where, devices, dtypes, fast in asked} == {
        (("backend", "CPU"), "cpu", torch.float32, True)
    }


def test_points_go_in_as_they_are(asked, pretended):
    """No copy of them, no detour over the host, and the second GPU's stay with the second."""
    x, y, r, c = clouds(2)
    sums = KeOpsReductions(Metric("power"))
    with pretended() as machine:
        x, y, r, c = machine.away((x, y, r, c))
        machine.clear()
        sums.logsumexp(x, y, c)
        sums.apply(x, y, r, c, y)
        sums.gradient(x, y, r, c, (r, c))
        assert (machine.waits, machine.uploads) == (0, 0), machine.report()


class Cloud:
    """Stands for points on the second GPU."""

    is_cpu, dtype, device, shape = False, torch.float64, torch.device("cuda", 1), (1, 6, 3)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self

    def to(self, dtype):
        return self

    def contiguous(self):
        return self

    def double(self):
        return torch.zeros(6, 1)


def test_the_second_gpu_is_asked_for_by_number(monkeypatch):
    asked = []
    monkeypatch.setattr(
        keops_reductions, "_compiled", lambda *_: lambda *given, **where: asked.append(where) or given[0]
    )
    monkeypatch.setattr(keops_reductions, "compiling", lambda *key: asked.append(key[-1]) or nullcontext())
    KeOpsReductions(Metric("power"))._run("{C}", "Sum", {"x": Cloud()}, {"y": Cloud()})
    assert asked == ["cuda:1", {"backend": "GPU_1D", "device_id": 1}]


@pytest.mark.parametrize(
    ("cuda", "headers", "said"),
    [(False, None, "NVRTC"), (True, None, "CUDA_HOME"), (True, "/include", None), (True, "/include", "the signal 11")],
)
def test_what_cuda_lacks_is_named(cuda, headers, said, monkeypatch):
    ends = said if said and "signal" in said else None
    monkeypatch.setattr(keops_reductions.keops_trial, "ends_badly", lambda: ends)
    monkeypatch.setattr(keops_reductions.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(keops_reductions, "import_quietly", lambda: None)
    module = ModuleType("keopscore.config")
    module.config = SimpleNamespace(get_cxx_compiler=lambda: "c++")
    module.cuda_config = SimpleNamespace(get_use_cuda=lambda: cuda, get_cuda_include_path=lambda: headers)
    monkeypatch.setitem(sys.modules, "keopscore", ModuleType("keopscore"))
    monkeypatch.setitem(sys.modules, "keopscore.config", module)
    reason = keops_reductions.obstacle.__wrapped__("cuda")
    assert reason is None if said is None else said in reason
    assert keops_reductions.obstacle.__wrapped__("cpu") is None


def test_fast_arithmetic_is_a_choice_of_ours(monkeypatch):
    made = []
    module = ModuleType("pykeops.torch")
    module.Genred = lambda formula, aliases, **options: made.append((aliases, options)) or len(made)
    monkeypatch.setitem(sys.modules, "pykeops", ModuleType("pykeops"))
    monkeypatch.setitem(sys.modules, "pykeops.torch", module)
    monkeypatch.setattr(keops_reductions, "import_quietly", lambda: None)
    for fast in (True, False):
        keops_reductions._compiled.__wrapped__("x", (("x", "Vi", 3),), "Sum", fast)
    assert made == [
        (["x = Vi(3)"], {"reduction_op": "Sum", "axis": 1, "use_fast_math": fast}) for fast in (True, False)
    ]


def test_other_devices_take_the_sums_in_torch_and_say_so_once(pretended):
    # Without it that is what is said instead.
    pytest.importorskip("pykeops")
    keops._say_once.cache_clear()
    with pretended() as machine:
        given = machine.away(clouds(1))
        with pytest.warns(RuntimeWarning, match="KeOps does not work on meta: torch takes the sums") as caught:
            results = [otfew.solve_points(*given, solver=otfew.KeOps(reg=0.2)) for _ in range(2)]
    assert len(caught) == 1
    assert {result.solver for result in results} == {"keops[torch]"}
    keops._say_once.cache_clear()


@pytest.mark.parametrize(
    ("trial", "said"),
    [
        ("pass", None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the signal 11"),
        ("assert False, 'a wrong sum'", "a wrong sum"),
        ("import time; time.sleep(60)", "did not end"),
    ],
)
def test_a_first_formula_is_tried_once_and_apart(trial, said, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(keops_trial, "TRIAL", trial)
    monkeypatch.setattr(keops_trial, "SECONDS", 1 if said == "did not end" else 20)
    monkeypatch.setattr(keops_trial, "_setting", lambda: "here")
    monkeypatch.setattr(keops_trial.kept, "home", lambda: tmp_path)
    reason = keops_trial.ends_badly()
    assert reason is None if said is None else said in reason
    monkeypatch.setattr(keops_trial, "TRIAL", "raise SystemExit('again')")
    monkeypatch.setattr(keops_trial, "SECONDS", 20)
    # What may pass is tried again.
    lasts = said is None or "signal" in said
    assert (keops_trial.ends_badly() == reason) == lasts
    assert capsys.readouterr().err.count("this happens once") == (1 if lasts else 2)
