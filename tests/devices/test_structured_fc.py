"""The structured FC fitted by kernels: against the fit on the CPU, lane by lane, and where it is left to the CPU."""

import ctypes
import dataclasses

import numpy as np
import pytest
import torch

import otfew
from otfew.methods import METHODS, StructuredFC, _sfc_device
from otfew.scores.emd import EMDScore
from otfew.scores.node_weights import CrossReference, Uniform

EXACT = otfew.Exact()
SCORES = {
    "cross-reference": EMDScore(EXACT, CrossReference()),
    "uniform": EMDScore(EXACT, Uniform()),
    "gradient of the weights": EMDScore(EXACT, CrossReference(), weight_gradient=True),
}


@pytest.fixture
def emulated(pretended):
    """A pretended device with kernels, entered; where there is no compiler for them, the test is skipped."""
    with pretended() as machine:
        if not machine.emulates:
            pytest.skip("needs a C++ compiler")
        yield machine


@pytest.fixture
def support(episodes):
    def draw(**options):
        return episodes(**{"shot": 3} | options)[0].detach()

    return draw


def fitted(machine, head, support, score, mask=None):
    machine.clear()
    found = head.fit(machine.away(support), None if mask is None else machine.away(mask), score, 12.5)
    assert found.device == machine.device
    return machine.home(found)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 1},
        {"batch_size": 50},
        {"epochs": None, "iterations": 7, "seed": 3},
        {"lr": 5.0},
    ],
    ids=str,
)
def test_the_fit_is_that_of_the_cpu(emulated, support, score, options):
    head = StructuredFC(**{"epochs": 4, "batch_size": 4} | options)
    nodes = support()
    expected = head.fit(nodes, None, SCORES[score], 12.5)
    found = fitted(emulated, head, nodes, SCORES[score])
    steps = len([*head.batches(9)])
    assert emulated.launches == {"sfc_pose_f64": steps, "exact_1_1_f64": steps, "sfc_move_f64": steps}
    assert emulated.waits == 1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert (found - nodes.mean(2)).abs().max() > 1e-2


@pytest.mark.parametrize(
    "shape",
    [{"nodes": 1}, {"nodes": 33, "n": 1}, {"way": 2, "channels": 2}, {"way": 35, "shot": 2, "n": 1}, {"n": 1}],
    ids=str,
)
def test_sizes(emulated, support, shape):
    """More nodes, and more classes, than a warp has lanes among them."""
    head, nodes, score = StructuredFC(epochs=2), support(**shape), SCORES["gradient of the weights"]
    expected = head.fit(nodes, None, score, 12.5)
    torch.testing.assert_close(fitted(emulated, head, nodes, score), expected, rtol=0, atol=1e-10)
    assert emulated.launches


def test_float32(emulated, support):
    head, nodes, score = StructuredFC(epochs=3), support(dtype=torch.float32), SCORES["gradient of the weights"]
    expected = head.fit(nodes, None, score, 12.5)
    found = fitted(emulated, head, nodes, score)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_nodes_without_direction_stay_where_they_are(emulated, support):
    head, nodes = StructuredFC(epochs=3), support()
    nodes[0, 1, :, 2] = 0.5
    expected = head.fit(nodes, None, SCORES["cross-reference"], 12.5)
    found = fitted(emulated, head, nodes, SCORES["cross-reference"])
    assert torch.equal(found[0, 1, 2], nodes[0, 1, 0, 2])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_uneven_shots(emulated, support, uneven):
    head, nodes, score = StructuredFC(epochs=3), support(shot=2), SCORES["cross-reference"]
    expected = head.fit(nodes, uneven, score, 12.5)
    torch.testing.assert_close(fitted(emulated, head, nodes, score, uneven), expected, rtol=0, atol=1e-10)
    # One look at the mask, and one at the end of either group's fit.
    assert emulated.waits == 3


def test_an_episode_does_not_depend_on_those_that_are_fitted_with_it(emulated, support, monkeypatch):
    head, nodes, score = StructuredFC(epochs=2), support(n=3), SCORES["gradient of the weights"]
    together = fitted(emulated, head, nodes, score)
    monkeypatch.setattr(_sfc_device, "_BYTES", 1)
    apart = fitted(emulated, head, nodes, score)
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-13)
    assert emulated.waits == 1


@pytest.mark.parametrize("score", SCORES)
def test_lanes_do_not_meet_in_memory_and_their_order_changes_no_bit(pretended, support, score):
    head, nodes = StructuredFC(epochs=1), support(n=1, nodes=5)
    found = []
    for options in ({}, {"watched": True}, {"last_lane_first": True}):
        with pretended(**options) as machine:
            if not machine.emulates:
                pytest.skip("needs a C++ compiler")
            found.append(fitted(machine, head, nodes, SCORES[score]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_arguments_are_laid_out_as_the_kernels_read_them(emulated):
    emulator = machine_of(emulated)
    step = _sfc_device.FitStep(m=7, batch=5)
    for kernel in (_sfc_device.pose(torch.float32), _sfc_device.move(torch.float32, 35, 7)):
        assert emulator.sizes(kernel, step) == (ctypes.sizeof(step), kernel.shared_bytes)


def machine_of(machine):
    from otfew.transport.cuda.machines import machine_for

    return machine_for(machine.device).emulator


def test_what_does_not_end_well_is_fitted_by_the_cpu(emulated, support):
    """Which then says what is wrong, as it does for tensors that are there."""
    nodes, head = support(), StructuredFC(epochs=1)
    score = dataclasses.replace(SCORES["cross-reference"], solver=otfew.Exact(max_iter=1))
    with pytest.raises(otfew.ConvergenceError) as here:
        head.fit(nodes, None, score, 12.5)
    with pytest.raises(otfew.ConvergenceError) as there:
        fitted(emulated, head, nodes, score)
    assert str(here.value) == str(there.value)


def test_without_kernels_and_beyond_them_the_cpu_fits_by_hand(pretended, support, monkeypatch):
    head, nodes, score = StructuredFC(epochs=2), support(), SCORES["cross-reference"]
    expected = head.fit(nodes, None, score, 12.5)
    with pretended(kernels=False) as machine:
        assert torch.equal(fitted(machine, head, nodes, score), expected)
        assert machine.waits == 3
    monkeypatch.setattr(_sfc_device.programs, "ROOM", 64)
    with pretended() as machine:
        assert torch.equal(fitted(machine, head, nodes, score), expected)
        assert not machine.launches


def test_the_fit_is_no_dearer_than_it_was(pretended, episodes):
    """Two episodes, 5-way 3-shot: 10,612 operations and 6 waits before there were kernels, 61,699 by autograd."""
    inputs = [x.detach() for x in episodes(way=5, shot=3, nodes=9, channels=16)]
    method = METHODS["deepemd"](shot_head="sfc")
    expected = method(*inputs)
    with pretended() as machine:
        found = method(*machine.away(inputs))
    np.testing.assert_allclose(machine.home(found), expected, rtol=0, atol=1e-6)
    if machine.emulates:
        assert machine.operations <= 1_500
        assert machine.waits <= 2
        assert machine.uploads == 0
