"""torch.compile goes around ``solve``; vmap, torch.func and forward mode are refused in one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.autograd import forward_ad

import otfew

REFUSED = r"otfew\.solve does not work under torch\.vmap or the transforms of torch\.func: give it the whole batch"


@pytest.fixture
def cost(batch):
    return torch.from_numpy(batch()[0])


def value(cost):
    return otfew.solve(cost).value


TRANSFORMS = {
    "vmap": torch.vmap(value),
    "vmap over a weight": lambda cost: torch.vmap(lambda b: otfew.solve(cost[0], None, b).value)(torch.ones(3, 5)),
    "vmap over something else": lambda cost: torch.vmap(lambda x: x * value(cost[0]))(torch.ones(3)),
    "grad": lambda cost: torch.func.grad(value)(cost[0]),
    "jacrev": torch.func.jacrev(value),
    "jacfwd": torch.func.jacfwd(value),
    "jvp": lambda cost: torch.func.jvp(value, (cost,), (cost,)),
    "certify": torch.vmap(lambda c: otfew.certify(torch.ones(7, 5) / 35, c).gap),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_are_refused_in_one_sentence(transform, cost):
    with pytest.raises(RuntimeError, match=REFUSED) as caught:
        TRANSFORMS[transform](cost)
    assert "\n" not in str(caught.value)


def test_forward_mode_is_refused(cost):
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match=r"otfew\.solve has no forward-mode derivative"):
        value(forward_ad.make_dual(cost, cost))
    with forward_ad.dual_level():
        assert value(cost).shape == (6,)


def test_batches_of_gradients_are_refused(cost):
    cost.requires_grad_()
    with pytest.raises(RuntimeError, match=r"otfew\.solve takes one gradient at a time"):
        torch.autograd.grad(value(cost), cost, torch.eye(6, dtype=torch.float64), is_grads_batched=True)
    with pytest.raises(RuntimeError, match=r"otfew\.solve takes one gradient at a time"):
        torch.autograd.functional.jacobian(value, cost, vectorize=True)
    jacobian = torch.autograd.functional.jacobian(value, cost)
    torch.testing.assert_close(jacobian.sum(1), otfew.solve(cost).plan)


def test_compile_breaks_its_graph_and_gives_the_same(cost):
    def loss(cost):
        return (otfew.solve(torch.relu(2 * cost)).value * 3).sum()

    torch.compiler.reset()
    compiled = torch.compile(loss, backend="eager")
    for size in (6, 6, 3):
        inputs = [cost[:size].clone().requires_grad_() for _ in range(2)]
        values = compiled(inputs[0]), loss(inputs[1])
        torch.testing.assert_close(*values, rtol=0, atol=0)
        torch.testing.assert_close(*(torch.autograd.grad(v, x)[0] for v, x in zip(values, inputs, strict=True)))
    with pytest.raises(ValueError, match="cost holds NaN"):
        compiled(cost * torch.nan)


def test_compile_leaves_the_solvers_code_alone(cost):
    """One graph before the solver and one after it: numpy code is not traced."""
    from torch._dynamo.testing import CompileCounter

    torch.compiler.reset()
    counter = CompileCounter()
    compiled = torch.compile(lambda cost: value(torch.relu(cost)).square(), backend=counter)
    for _ in range(3):
        compiled(cost)
    assert counter.frame_count == 2


def test_fullgraph_says_why_not(cost):
    torch.compiler.reset()
    with pytest.raises(Exception, match="otfew solves outside of compiled graphs"):
        torch.compile(value, backend="eager", fullgraph=True)(cost)


def test_importing_otfew_does_not_import_dynamo():
    code = "import sys, otfew; assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
