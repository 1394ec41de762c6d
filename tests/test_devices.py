"""Names of devices: what torch has here, or one sentence."""

import pytest
import torch

from otfew import devices
from otfew.errors import UserError
from otfew.experiments.common import setup


@pytest.mark.parametrize("name", ["cpu", torch.device("cpu"), "cpu:0"])
def test_the_processor_is_always_there(name):
    assert devices.pick(name).type == "cpu"


@pytest.mark.parametrize(
    "name", ["meta", torch.device("meta"), "nonsense", "", "cuda:99", "cpu:x", "xla", "hpu", "vulkan", None, 3.5]
)
def test_what_cannot_compute_is_refused_in_one_sentence(name):
    with pytest.raises(UserError, match="cannot be used: choose auto, cpu") as caught:
        devices.pick(name)
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there_is_told_what_is(monkeypatch):
    monkeypatch.setattr(devices, "_present", lambda kind: False)
    with pytest.raises(UserError, match=r"choose auto, cpu \(torch finds no accelerator here\)\.$"):
        devices.pick("nonsense")
    monkeypatch.setattr(devices, "_present", lambda kind: kind == "cuda")
    with pytest.raises(UserError, match=r"choose auto, cpu, cuda\.$"):
        devices.pick("nonsense")


@pytest.mark.parametrize("name", ["meta", "nonsense", "cuda:99", ""])
def test_commands_name_their_option(name):
    with pytest.raises(UserError, match=f"^`device` '{name}' cannot be used"):
        setup.pick_device(name)


@pytest.mark.parametrize(
    ("cuda", "mps", "among", "kind"),
    [
        (True, True, ("cuda", "mps"), "cuda"),
        (False, True, ("cuda", "mps"), "mps"),
        (False, True, ("cuda",), "cpu"),
        (False, False, ("cuda", "mps"), "cpu"),
    ],
)
def test_auto_takes_the_best_that_is_there(monkeypatch, cuda, mps, among, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    asked = []
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda n, device: asked.append(device.type) or ones(n))
    assert devices.pick("auto", among=among).type == kind
    assert asked == [kind]


def test_commands_leave_out_what_has_no_float64(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert setup.pick_device("auto") == "cpu"
