"""What 32 lanes do to one memory: any order gives the same bits, and nothing is missing that a GPU would need."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace

import pytest
import torch

from otfew.transport.cuda import programs
from otfew.transport.cuda.arguments import ExactProblems, PlanTimes

from . import emulator, golden, running, suite
from .emulator import Emulator, LanesMetError, compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")

F32, F64 = torch.float32, torch.float64
EXACT = [kernel for kernel in programs.all_kernels() if kernel.arguments is ExactProblems]


def watched(seed, size, shapes):
    machine = Emulator(watched=True)
    for note, (cost, a, b) in suite.batches(seed, size, shapes, (F32,)):
        try:
            found = running.exact(machine, cost, a, b)
        except LanesMetError as error:
            raise AssertionError(f"{note}: {error}") from None
        running.plan_times(machine, found, None, *cost.shape[1:], F32)
        plain = running.exact(Emulator(), cost, a, b)
        assert found.bits() == plain.bits(), note


def test_lanes_meet_only_across_barriers():
    watched(0, 1, ((1, 1), (3, 5), (25, 25), (30, 9), (7, 32)))
    watched(1, 1, ((40, 33),))


@pytest.mark.slow
def test_lanes_of_all_kernels_meet_only_across_barriers():
    sides = (9, 31, 50, 70)
    watched(2, 2, tuple((n, m) for n in sides for m in sides))
    watched(3, 1, ((128, 128), (125, 125), (100, 3)))


def test_unsound_and_unfinished_problems_keep_to_their_places_too():
    cost, a, b = suite.batch(4, 3, 6, 9, "random", "random", "random", F64)
    machine = Emulator(watched=True)
    running.exact(machine, cost, a, b, max_iter=2)
    a[1, 2] = -1
    running.plan_times(machine, running.exact(machine, cost, a, b), None, 6, 9, F64)


@pytest.mark.parametrize("shape", [(25, 25), (49, 20)])
def test_the_order_of_the_lanes_does_not_matter(shape):
    for _, (cost, a, b) in suite.batches(5, 3, (shape,), (F32,)):
        first, last = (running.exact(Emulator(last_lane_first=order), cost, a, b) for order in (False, True))
        assert first.bits() == last.bits()


FAULTS = {
    "two writers": "store(shared, Lanes<int>(0), lane_index(), lane_index() < 2);",
    "read before a barrier": "store(shared, lane_index(), lane_index()); load(shared, lane_index() ^ 1);",
    "written before a barrier": "store(shared, lane_index(), lane_index()); sync_lanes(); load_one(shared, 3); "
    "store(shared, lane_index(), lane_index());",
    "read before it was written": "load(shared, lane_index());",
    "read before a barrier: lanes 0 and 1": "store(shared, lane_index(), lane_index()); sync_lanes(); "
    "store_least((u32*)shared, Lanes<int>(0), Lanes<u32>(5u), lane_index() < 2); load(shared, Lanes<int>(0));",
    "written beyond": "store(shared, lane_index() + 8, lane_index());",
}
RIGHT = "store(shared, lane_index(), lane_index()); sync_lanes(); load(shared, lane_index() ^ 1); sync_lanes(); " * 2


def with_memory(body):
    """A kernel of 32 numbers a warp."""
    code = f"int* shared = (int*)memory; {body}"
    instance = f"KERNEL(faulty, PlanTimes, 128, ({{ {code} }}))"
    return replace(programs.plan_times(F32), name="faulty", instance=instance, shared_bytes=128)


@pytest.mark.parametrize("fault", list(FAULTS))
def test_the_watch_sees_what_lanes_must_not_do(fault):
    with pytest.raises(LanesMetError, match=fault):
        Emulator(watched=True).launch(with_memory(FAULTS[fault]), 1, PlanTimes(problems=1))


def test_the_watch_lets_pass_what_is_right():
    Emulator(watched=True).launch(with_memory(RIGHT), 1, PlanTimes(problems=1))


class Edited(Emulator):
    """A watched emulator of the exact kernel's text as it is edited."""

    def __init__(self, text, monkeypatch):
        super().__init__(watched=True)
        monkeypatch.setattr(emulator, "source", lambda _parts: text)
        self._edit = f" // {hash(text)}"

    def launch(self, kernel, problems, arguments):
        super().launch(replace(kernel, instance=kernel.instance + self._edit), problems, arguments)


def met(machine, tensors):
    """Whether lanes met where they must not."""
    try:
        running.exact(machine, *tensors)
    except LanesMetError:
        return True
    return False


BARRIER = "sync_lanes();"


@pytest.mark.slow
def test_every_barrier_is_needed_and_missed(monkeypatch):
    """Without any one of them the watch speaks up: so it would about one that nobody thought of."""
    kinds = (
        ("random", "random", "random"), ("ties", "uniform", "uniform"), ("random", "zeros", "zeros"),
        ("wide", "random", "random"), ("offset", "integers", "wild"),
    )  # fmt: skip
    # The larger ones, whose kernel takes longer to compile, only where the others show nothing.
    shapes = ((12, 9), (20, 20), (40, 20))
    problems = [suite.batch(k, 2, n, m, *kind, F32) for n, m in shapes for k, kind in enumerate(kinds)]
    text = programs.source(tuple(part for part in programs.exact(12, 12, F32).parts if part != "warp.h"))
    places = [match.start() for match in re.finditer(re.escape(BARRIER), text)]
    assert len(places) > 12
    for place in places:
        machine = Edited(text[:place] + text[place + len(BARRIER) :], monkeypatch)
        assert any(met(machine, tensors) for tensors in problems), text[place - 300 : place]


FAST = {"exact_1_1_f32", "exact_1_1_f64", "exact_2_2_f32"}
"""Kernels that are compiled for these tests; others take a few seconds each."""


def parametrised(kernels):
    return [pytest.param(x, id=x.name, marks=() if x.name in FAST else pytest.mark.slow) for x in kernels]


@pytest.mark.parametrize("kernel", parametrised(EXACT))
def test_answers_are_the_golden_ones(kernel):
    """An intended change of answers renews the file: see golden.py."""
    mine = {name: x for name, x in golden.cases() if programs.exact(*x[0].shape[1:], x[0].dtype).name == kernel.name}
    assert mine
    for name, tensors in mine.items():
        assert golden.answer(Emulator(), tensors) == golden.stored()[name], name


@pytest.mark.parametrize("kernel", parametrised(EXACT))
def test_sizes_are_the_same_in_python(kernel):
    rows, columns = (32 * int(x) for x in kernel.name.split("_")[1:3])
    machine = Emulator()
    for n, m in ((rows, columns), (rows // 2 + 1, columns // 2 + 1), (rows - 1, columns)):
        here = programs.exact(n, m, F32 if kernel.name.endswith("f32") else F64)
        assert here.name == kernel.name
        size, room = machine.sizes(kernel, ExactProblems(n=n, m=m))
        assert size == ctypes.sizeof(ExactProblems)
        assert room == here.shared_bytes
        assert room % 16 == 0


def test_plans_arguments_have_the_same_size_in_python():
    for dtype in (F32, F64):
        assert Emulator().sizes(programs.plan_times(dtype), PlanTimes())[0] == ctypes.sizeof(PlanTimes)
