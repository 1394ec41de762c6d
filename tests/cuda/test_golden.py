"""The bits of a GPU are those that the kernels' own source gives on a CPU: the golden files of tests/transport/cuda."""

from __future__ import annotations

import pytest

from otfew.transport.cuda.machines import machine_for

from ..transport.cuda import entropic_golden, golden  # noqa: TID252
from .places import on_each

EXACT, ENTROPIC = dict(golden.cases()), dict(entropic_golden.cases())


class Carried:
    """A machine for tensors on the CPU: each is copied to a place, and back after the launch.

    Args:
        place: Whose machine runs kernels.
    """

    def __init__(self, place):
        self.place, self.machine = place, machine_for(place.device)
        self.copies = []

    def address(self, tensor):
        copy = self.place.away(tensor)
        self.copies.append((tensor, copy))
        return self.machine.address(copy)

    def launch(self, kernel, problems, arguments):
        self.machine.launch(kernel, problems, arguments)
        for tensor, copy in self.copies:
            tensor.copy_(self.place.home(copy))
        self.copies.clear()


@pytest.fixture
def kernels(place):
    """Skip where no kernel runs."""
    if not place.real and machine_for(place.device) is None:
        pytest.skip("there is no C++ compiler: kernels cannot run on the CPU")


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("place", "name"), on_each(list(EXACT), list(EXACT)[:1]), indirect=["place"])
def test_of_exact_transport(name, place):
    assert golden.answer(Carried(place), EXACT[name]) == golden.stored()[name]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("place", "name"), on_each(list(ENTROPIC), list(ENTROPIC)[:2]), indirect=["place"])
def test_of_entropic_transport(name, place):
    expected = entropic_golden.stored()[name]
    *tensors, reg, rhos = ENTROPIC[name]
    found = entropic_golden.answer(machine_for(place.device), (*place.away(tensors), reg, rhos))
    # Values are sums by torch, whose order is its own; all else is what the kernel wrote.
    values, wanted = ([float.fromhex(x) for x in each.pop("values")] for each in (found, expected))
    assert values == pytest.approx(wanted, rel=1e-12)
    assert found == expected
