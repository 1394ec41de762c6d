"""Nothing waits for the device that need not: streams, graphs, devices, and what happens without memory."""

from __future__ import annotations

import pytest
import torch

import otfew
from otfew.transport.cuda.machines import machine_for

from .places import on_each

BLIND = {"validate": False, "on_fail": "ignore"}
"""With which nobody looks at what a solve came to."""

on_a_card = pytest.mark.cuda


@pytest.fixture
def kernels(place):
    """Skip where no kernel runs."""
    if not place.real and machine_for(place.device) is None:
        pytest.skip("there is no C++ compiler: kernels cannot run on the CPU")


def tracked(*tensors):
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def step(leaves, **options):
    """One forward and backward."""
    result = otfew.solve(*leaves, **options)
    return result, torch.autograd.grad(result.value.sum(), leaves)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("place", "n"), on_each([25, 49, 100], [25]), indirect=["place"])
def test_no_wait_where_nobody_looks(n, dtype, place, problems):
    leaves = place.away([x.requires_grad_() for x in problems("bar", 3, n, dtype=dtype)])
    step(leaves, **BLIND)  # compiles and loads
    with place.waits(0):
        result, gradients = step(leaves, **BLIND)
        kept = (result.plan, *result.potentials, result.gap, result.marginal_error, result.status, result.n_iter)
    assert all(x.device == place.device for x in (*kept, *gradients))


@pytest.mark.usefixtures("kernels")
def test_shared_and_missing_weights_wait_no_more(place, problems):
    cost, a, _ = place.away(problems("bar", 4, 16))
    for given in ((cost,), (cost, a), (cost[0], a), (cost[:, None].expand(4, 2, 16, 16),)):
        otfew.solve(*given, **BLIND)
        with place.waits(0):
            otfew.solve(*given, **BLIND)


@pytest.mark.usefixtures("kernels")
def test_two_waits_where_somebody_looks(place, problems):
    """The flag is one; a GPU cannot count, so only the pretended one says so."""
    leaves = place.away([x.requires_grad_() for x in problems("bar", 3, 25)])
    step(leaves)
    with place.waits(2):
        step(leaves)


@on_a_card
def test_the_current_stream_is_used(problems):
    """Costs are made, solved and read on a second stream, behind work that keeps it busy, while the first is idle."""
    given = [x.cuda() for x in problems("bar", 200, 25, dtype=torch.float32)]
    expected = otfew.solve(*given).value
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(5):
            torch.cuda._sleep(20_000_000)
            late = given[0] * 1.0  # known only once the stream has slept
            value = otfew.solve(late, *given[1:], **BLIND).value
            late.fill_(torch.nan)
            torch.testing.assert_close(value, expected, rtol=0, atol=0)


@on_a_card
def test_tensors_may_be_freed_before_the_kernel_has_run(problems):
    given = [x.cuda() for x in problems("bar", 500, 25, dtype=torch.float32)]
    expected = otfew.solve(*given).value
    torch.cuda._sleep(50_000_000)
    found = otfew.solve(*(x.clone() for x in given), **BLIND).value
    junk = [torch.full((500, 25, 25), torch.nan, device="cuda") for _ in range(8)]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    del junk


@on_a_card
def test_threads_solve_side_by_side(problems):
    from concurrent.futures import ThreadPoolExecutor

    given = [x.cuda() for x in problems("bar", 300, 25, dtype=torch.float32)]
    expected = otfew.solve(*given).value

    def work(_):
        with torch.cuda.stream(torch.cuda.Stream()):
            return otfew.solve(*given).value.cpu()

    torch.cuda.synchronize()
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(work, range(40)):
            torch.testing.assert_close(found, expected.cpu(), rtol=0, atol=0)


@on_a_card
def test_a_second_card(problems):
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    given = problems("bar", 20, 25, dtype=torch.float32)
    first, second = (
        otfew.solve(*(x.to(f"cuda:{k}") for x in given)) for k in range(2)
    )  # the current device is the first
    assert second.value.device.index == 1
    torch.testing.assert_close(first.value.cpu(), second.value.cpu(), rtol=0, atol=0)
    leaves = tracked(*(x.to("cuda:1") for x in given))
    assert all(x.device.index == 1 for x in step(leaves)[1])


@on_a_card
@pytest.mark.parametrize("n", [25, 49, 100])
def test_a_graph_is_captured_and_replayed_with_other_problems(n, problems):
    given = [x.cuda() for x in problems("bar", 60, n, dtype=torch.float32)]
    leaves = tracked(*given)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(leaves, **BLIND)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result, gradients = step(leaves, **BLIND)
        plan, gap, status = result.plan, result.gap, result.status
        value = result.value.detach()
    others = [x.cuda() for x in problems("correlated", 60, n, dtype=torch.float32, seed=3)]
    with torch.no_grad():
        for leaf, other in zip(leaves, others, strict=True):
            leaf.copy_(other)
    graph.replay()
    again, slopes = step(tracked(*others))
    torch.testing.assert_close(value, again.value.detach(), rtol=0, atol=0)
    torch.testing.assert_close(plan, again.plan, rtol=0, atol=0)
    torch.testing.assert_close(gap, again.gap, rtol=0, atol=0)
    assert (status == otfew.Status.OPTIMAL).all()
    for x, y in zip(gradients, slopes, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


@on_a_card
def test_no_memory_is_torchs_error_and_nothing_is_lost(problems):
    cost, a, b = (x.cuda() for x in problems("bar", 3, 25, dtype=torch.float32))
    expected = otfew.solve(cost, a, b).value
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 2**22) / total))
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            otfew.solve(cost[:1].expand(400_000, 25, 25), a[:1], b[:1])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    torch.testing.assert_close(otfew.solve(cost, a, b).value, expected, rtol=0, atol=0)


@on_a_card
def test_results_are_pickled_and_read_where_there_is_no_card(problems, tmp_path):
    result = otfew.solve(*(x.cuda() for x in problems("bar", 3, 5)))
    torch.save({"plan": result.plan, "value": result.value}, tmp_path / "result.pt")
    loaded = torch.load(tmp_path / "result.pt", map_location="cpu")
    torch.testing.assert_close(loaded["plan"], result.plan.cpu())
