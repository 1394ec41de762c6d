"""The pretended device itself: values, refusals, counts, and that nothing of it stays behind."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from otfew import devices
from otfew.errors import UserError
from otfew.transport.cuda import machines
from otfew.transport.precision import in_full_precision

from .pretended import KIND, Elsewhere


def test_values_and_gradients_are_those_of_the_processor(pretended):
    x, y = torch.randn(4, 3, requires_grad=True), torch.randn(3, 5)

    def work(x, y):
        return ((x @ y).relu().softmax(-1) * torch.arange(5, device=x.device)).cumsum(0).sort(-1).values[1:, ::2]

    expected = work(x, y)
    expected.square().sum().backward()
    with pretended() as machine:
        there, other = machine.away((x, y))
        found = work(there, other)
        found.square().sum().backward()
    assert isinstance(found, Elsewhere)
    assert found.device == there.grad.device == machine.device
    torch.testing.assert_close(machine.home(found), expected.detach())
    torch.testing.assert_close(machine.home(there.grad), x.grad)


def test_views_share_memory_and_in_place_work_is_seen_through_them(pretended):
    with pretended() as machine:
        x = machine.away(torch.zeros(3, 4))
        x[1].add_(2)
        x.T[0, 2] = 5
        x.data.sub_(1)
        x[x > 3] = 7
    assert machine.home(x).tolist() == [[-1] * 4, [1] * 4, [7, -1, -1, -1]]


@pytest.mark.parametrize(
    "make",
    [
        lambda device: torch.tensor([1.0, 2.0], device=device),
        lambda device: torch.as_tensor(np.array([1.0, 2.0]), device=device),
        lambda device: torch.tensor([1.0, 2.0]).to(device),
        lambda device: torch.from_numpy(np.array([1.0, 2.0])).to(device, torch.float32),
        lambda device: torch.zeros(2, device=device).new_tensor([1.0, 2.0]),
        lambda device: torch.zeros(2, device=device).copy_(torch.tensor([1.0, 2.0])),
        lambda device: torch.full((2,), 1.0, device=device) + torch.arange(2, device=device),
        lambda device: torch.eye(2, device=device).sum(0).cumsum(0),
        lambda device: torch.nn.functional.one_hot(torch.tensor([1, 1]).to(device), 2).sum(0) + 1.0 - 1 + 0,
    ],
)
def test_tensors_are_made_there(pretended, make):
    with pretended() as machine:
        made = make(machine.device)
    assert isinstance(made, Elsewhere)
    assert machine.home(made).shape == (2,)
    assert machine.home(made)[1] == 3 - 1 * (machine.home(made)[0] == 1) or machine.home(made)[1] == 2


def test_modules_move_there_and_train(pretended):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    images = torch.randn(5, 3, 6, 6)
    state = {name: value.clone() for name, value in network.state_dict().items()}

    def step(network, images):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        checkpoint(network, images, use_reentrant=False).square().sum().backward()
        optimizer.step()
        return network.state_dict()

    expected = {name: value.clone() for name, value in step(network, images).items()}
    network.load_state_dict(state)
    network.zero_grad()
    with pretended() as machine:
        found = step(network.to(machine.device), machine.away(images))
    for name, value in expected.items():
        assert isinstance(found[name], Elsewhere)
        torch.testing.assert_close(machine.home(found[name]), value)


@pytest.mark.parametrize(
    "mix",
    [
        lambda there, here: there + here,
        lambda there, here: here + there,
        lambda there, here: there @ here,
        lambda there, here: torch.cat([there, here]),
        lambda there, here: torch.stack([there[0, 0], here[0, 0]]),
        lambda there, here: torch.where(there > 0, there, here),
        lambda there, here: here.add_(there[0, 0]),
        lambda there, here: there.index_select(0, torch.arange(2)),
        lambda there, here: there.gather(1, torch.zeros(3, 1, dtype=torch.int64)),
        lambda there, here: here[there[0].long()],
        lambda there, here: there.index_put((torch.arange(3),), here),
        lambda there, here: there.index_add_(0, torch.arange(3), there),
    ],
)
def test_devices_do_not_mix(pretended, mix):
    with pretended() as machine:
        there = machine.away(torch.zeros(3, 3))
        with pytest.raises(RuntimeError, match="same device"):
            mix(there, torch.zeros(3, 3))


def test_numbers_and_indices_may_come_from_the_host(pretended):
    with pretended() as machine:
        there = machine.away(torch.ones(3, 3))
        found = (there * torch.tensor(2.0) + 1)[torch.tensor([0, 2])].where(there[:2] > 0, torch.tensor(0.0))
        there[0, 0] = torch.tensor(4.0)
    assert machine.home(found).tolist() == [[3.0] * 3] * 2
    assert machine.home(there)[0, 0] == 4
    assert machine.waits == 0
    assert machine.uploads == 2


@pytest.mark.parametrize("take", [np.asarray, lambda x: x.numpy(), Elsewhere.numpy])
def test_memory_there_is_no_numpy_array(pretended, take):
    with pretended() as machine, pytest.raises(TypeError, match="numpy"):
        take(machine.away(torch.zeros(3)))


def test_addresses_are_asked_of_the_machine(pretended):
    with pretended() as machine, pytest.raises(RuntimeError, match="address"):
        machine.away(torch.zeros(3)).data_ptr()


def test_the_processors_generator_draws_nothing_there(pretended):
    generator = torch.Generator().manual_seed(0)
    with pretended() as machine:
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, generator=generator, device=machine.device)
        with pytest.raises(RuntimeError, match="generator"):
            machine.away(torch.rand(3)).uniform_(generator=generator)
        assert machine.draws == 0
        torch.rand(3, generator=generator)
        assert machine.draws == 0
        machine.away(torch.rand(3)).normal_()
        torch.randn(3, device=machine.device)
        assert machine.draws == 2


@pytest.mark.parametrize(
    ("work", "waits", "uploads"),
    [
        (lambda x: x.sum().item(), 1, 0),
        (lambda x: bool((x > 0).any()), 1, 0),
        (lambda x: float(x[0]), 1, 0),
        (lambda x: x.tolist(), 1, 0),
        (lambda x: x.cpu(), 1, 0),
        (lambda x: x.to("cpu", torch.float64), 1, 0),
        (lambda x: x.numpy(force=True), 1, 0),
        (lambda x: torch.zeros(3).copy_(x), 1, 0),
        (lambda x: x.nonzero(), 1, 0),
        (lambda x: x[x > 0], 1, 0),
        (lambda x: x.masked_select(x > 0), 1, 0),
        (lambda x: torch.equal(x, x), 1, 0),
        (lambda x: torch.allclose(x, x), 1, 0),
        (lambda x: x.unique(), 1, 0),
        (lambda x: x.long().bincount(minlength=4), 1, 0),
        (lambda x: torch.linalg.cholesky(x.diag()), 1, 0),
        (lambda x: torch.linalg.cholesky_ex(x.diag()), 0, 0),
        (lambda x: x.repeat_interleave(x.long()), 1, 0),
        (lambda x: x.repeat_interleave(2), 0, 0),
        (lambda x: x.double(), 0, 0),
        (lambda x: torch.where(x > 0, x, 0.0).sum(), 0, 0),
        (lambda x: x.masked_fill(x > 0, 1.0), 0, 0),
        (lambda x: x[[0, 1]], 0, 1),
        (lambda x: x + torch.ones(3).to(x.device), 0, 1),
        (lambda x: x + torch.ones(3).to(x.device, non_blocking=True), 0, 0),
        (lambda x: x + torch.tensor([1.0, 2.0, 3.0], device=x.device), 0, 1),
        (lambda x: x + x.new_tensor([1.0, 2.0, 3.0]), 0, 1),
        (lambda x: x.clone().copy_(torch.ones(3)), 0, 1),
    ],
)
def test_what_makes_the_host_wait_is_counted_once(pretended, work, waits, uploads):
    with pretended() as machine:
        work(machine.away(torch.tensor([1.0, 2.0, 3.0])))
    assert (machine.waits, machine.uploads) == (waits, uploads)
    assert machine.operations > 0


def test_every_count_has_its_line(pretended):
    with pretended() as machine:
        x = torch.ones(3, requires_grad=True)
        machine.clear()
        x = machine.away(x)
        assert machine.operations == 0
        x.exp().sum().backward()
        here = "test_pretended.py"
        assert all(re.fullmatch(rf".*{here}:\d+", line) for line in machine.where["operations"])
        float(x[0].detach())
        assert sum(machine.where["operations"].values()) == machine.operations
        assert [line for line in machine.where["waits"] if here in line]
        assert "1 waits" in machine.report()
        machine.clear()
        assert (machine.operations, machine.waits) == (0, 0)
        devices.pick(machine.device)
        assert [line.split(":")[0] for line in machine.where["waits"]] == ["otfew/devices.py"]


def test_autocast_is_left_inside_the_core(pretended):
    @in_full_precision
    def product(x, y):
        return x @ y

    with pretended() as machine:
        x = machine.away(torch.randn(3, 3))
        with torch.autocast("cpu", torch.bfloat16):
            assert product(x, x).dtype == torch.float32
        with torch.autocast(KIND, torch.bfloat16):
            assert torch.is_autocast_enabled(KIND)
            assert product(x.bfloat16(), x).dtype == torch.float32


def test_the_device_is_one_that_can_be_picked_only_while_it_is_pretended(pretended):
    with pretended() as machine:
        assert devices.pick(KIND) == machine.device
    with pytest.raises(UserError, match="cannot be used"):
        devices.pick(KIND)


def test_nothing_of_it_stays_behind(pretended):
    replaced = ("tensor", "as_tensor", "is_autocast_enabled", "autocast")
    before = [getattr(torch, name) for name in replaced]

    def broken():
        with pretended():
            assert torch.tensor is not before[0]
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert [getattr(torch, name) for name in replaced] == before
    assert torch.amp.autocast is before[-1]
    assert torch._C._len_torch_dispatch_stack() == 0
    assert machines.machine_for(torch.device(KIND)) is None


def test_tensors_that_the_pretence_cannot_see_are_refused(pretended):
    unseen = torch.empty(3, device=KIND)
    with pretended() as machine, pytest.raises(RuntimeError, match="could not see"):
        machine.away(torch.zeros(3)) + unseen


def test_inference_mode_hides_no_copy_and_no_view(pretended):
    """Torch hands operations over whole there, which it takes apart elsewhere."""
    table = torch.arange(6.0)
    with pretended() as machine:
        there = machine.away(table)
        with torch.inference_mode():
            x = torch.ones(6).to(machine.device) + there.view(6)
            y = torch.nn.functional.dropout(x.view(2, 3), training=False)
            assert x.cpu()[2] == 3
            assert (y.shape, y.device) == ((2, 3), machine.device)
        pooled = torch.nn.functional.adaptive_avg_pool2d(
            machine.away(torch.arange(16.0).view(1, 2, 2, 4)).to(memory_format=torch.channels_last), 1
        )
        assert (machine.uploads, machine.waits, machine.draws) == (1, 1, 0), machine.report()
    assert machine.home(pooled).flatten().tolist() == [3.5, 11.5]
