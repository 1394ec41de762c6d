"""Our batched Sinkhorn: entropic transport in torch, each problem to its own end, differentiable in everything."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from otfew.transport.arguments import flat_batch, flat_weights
from otfew.transport.cuda.machines import machine_for
from otfew.transport.cuda.sinkhorn import Entropic, solve_entropic
from otfew.transport.entropic.apart import SolveSome, forbids, solve_apart
from otfew.transport.entropic.gradient import Make, attach_linear, attach_plan, attach_value
from otfew.transport.entropic.newton import Rhos
from otfew.transport.entropic.solved import (
    Solved,
    dual_value,
    entropic_gap,
    feasible_potentials,
    marginal_error,
    primal_value,
    round_all,
    times,
)
from otfew.transport.entropic.solving import all_optimal, normalised, solve_from, solve_whole
from otfew.transport.entropic.support import Support
from otfew.transport.entropic.unrolled import unroll
from otfew.transport.options import check_count
from otfew.transport.problem import Potentials, Status, check_values, rounding_of
from otfew.transport.registry import TensorSolver
from otfew.transport.result import Parts, check_range
from otfew.transport.sending import send

Gradient = Literal["implicit", "unrolled"]


@dataclass(frozen=True)
class Sinkhorn(TensorSolver):
    """Entropic transport: min <P, cost> + reg KL(P | a b' / total) over P with row sums a and column sums b.

    KL(P | Q) = sum P log(P / Q) - P + Q. The plan is P_ij = a_i b_j / total exp((f_i + g_j - cost_ij) / reg), with the
    potentials f and g in the units of the cost and sum_j g_j b_j = 0.

    Problems whose costs lie within 170 reg of their mean are scaled in the plain domain (Cuturi 2013), in the cost's
    dtype up to 20 reg and beyond in float64, from some iterations on extrapolated (Anderson 1965); those that have not
    converged after a hundred iterations, and all others, by damped Newton steps on the dual in the log domain, in
    float64, along a regularisation that falls from the range of the costs to reg. Each problem stops by itself, so an
    answer does not depend on batch-mates.

    On a GPU a kernel solves small problems, up to 128 x 128 or with few rows or columns, one warp a problem: in the
    plain domain for 64 iterations at most, in the cost's dtype and not extrapolated, then by Newton's method. There an
    answer is the same whatever its batch-mates, bit for bit. All others are solved by operations of torch.

    ``warm`` starts the iterations from the potentials of an earlier result: in the plain domain from its g, in the log
    domain at a regularisation as high as a first step at reg would move them. What does not converge from there is
    solved afresh. Kernels of a GPU ignore it.

    ``value`` is computed from the potentials, as the dual value: it misses the optimum by the square of what the
    marginals miss. ``gap`` is the value of a plan with exact marginals minus the dual value, so it bounds the error of
    ``value`` on either side. Gradients of ``value`` are the envelope's: plan for the cost, f and g for the weights.
    Those of ``value_linear`` and ``plan`` are implicit: one linear system of size min(n, m) a problem, in float64.
    Weights that are zero have finite gradients, the limits from above. Potentials are constants for autograd.

    With ``round=True`` the plan has exact marginals (Altschuler, Weed and Rigollet 2017), ``value_linear`` is its cost,
    ``potentials`` are feasible for the linear program (c-transforms of the entropic ones: f_i + g_j <= cost_ij), and
    ``gap`` = value_linear - (f a + g b) bounds how far ``value_linear`` is above the optimum of the linear program.
    ``value`` remains that of the regularised problem; gradients are those of the plan before it was rounded.

    Forbidden pairs, at costs of +inf or under a mask, carry nothing: the problem is the limit of costs that rise for
    ever, and the divergence runs over all pairs, of which those without mass add a_i b_j / total. What is said above
    holds for all allowed pairs. Where no plan uses an allowed pair, as above the diagonal of a triangle of equal
    weights, scalings creep towards the plan for ever; such pairs are found by flows and left out, so plans are zero
    there too, problems converge like others and are ``OPTIMAL``, and the potentials leave to these pairs a density of
    at most e^-37. If the pairs that plans use fall apart, each part has a constant of its own in f and g, in which
    gradients of weights are those along changes that keep the parts' totals. Nodes without weight that no node with
    some may serve have potentials and gradients of zero. A problem without any plan is ``INFEASIBLE``.

    With ``unbalanced`` the marginals are free at a price: value = <P, cost> + reg KL(P | a b' / s) + rho_a KL(P 1 | a)
    + rho_b KL(P' 1 | b), where s is the geometric mean of the totals of a and b, which may differ. Then P_ij = a_i b_j
    / s exp((f_i + g_j - cost_ij) / reg), P 1 = a exp(-f / rho_a), P' 1 = b exp(-g / rho_b), and ``marginal_error`` is
    the largest deviation from these two conditions, relative to s; a hard side keeps P 1 = a. A problem is then
    infeasible where a node with weight of a hard side is allowed none with weight of the other; a node of a soft side
    that nothing serves has a potential of 750 times its price, at which exp(-f / rho_a) is zero.

    Args:
        reg: Regularisation, in the units of the cost.
        tol: Largest deviation of a marginal, relative to the total, at which a problem has converged.
        max_iter: Iterations a problem may take, those in the plain domain and Newton's together.
        gradient: "implicit", as said above, or "unrolled": autograd through every iteration, in float64 and without
            any short cut, as a check.
        round: Round the plan to exact marginals and certify it for the linear program.
        unbalanced: None for hard marginals, or rho in the units of the cost, or (rho_a, rho_b), in which None makes
            one side hard.

    Raises:
        ValueError: An option is out of range, or ``round`` together with ``unbalanced``.
    """

    reg: float = 0.1
    tol: float = 1e-6
    max_iter: int = 1000
    gradient: Gradient = "implicit"
    round: bool = False
    unbalanced: float | tuple[float | None, float | None] | None = None

    name: ClassVar[str] = "sinkhorn"
    kind: ClassVar[Literal["exact", "entropic"]] = "entropic"
    requires: ClassVar[str] = "numba"
    install: ClassVar[str] = "pip install numba"
    forbids: ClassVar[bool] = True
    gradients: ClassVar[str] = "value in cost, a, b (envelope); value_linear and plan (implicit)"
    warm: ClassVar[Literal["tree", "potentials"] | None] = "potentials"

    def __post_init__(self) -> None:
        for name in ("reg", "tol"):
            if not _positive(getattr(self, name)):
                raise ValueError(f"Sinkhorn: {name} must be a positive finite number, got {getattr(self, name)!r}")
        check_count("Sinkhorn", "max_iter", self.max_iter)
        if self.gradient not in get_args(Gradient):
            raise ValueError(f"Sinkhorn: gradient must be 'implicit' or 'unrolled', got {self.gradient!r}")
        given = self.unbalanced if isinstance(self.unbalanced, tuple) else (self.unbalanced,) * 2
        if len(given) != 2 or not all(rho is None or _positive(rho) for rho in given):
            raise ValueError(
                "Sinkhorn: unbalanced must be None, a positive finite number or a pair of these, "
                f"got {self.unbalanced!r}"
            )
        if self.round and not self.equal_totals:
            raise ValueError("Sinkhorn: round needs hard marginals, so unbalanced must be None")

    @property
    def rhos(self) -> Rhos:
        """Weights of the KL terms of the two marginals, None for a hard one."""
        return self.unbalanced if isinstance(self.unbalanced, tuple) else (self.unbalanced, self.unbalanced)

    @property
    def equal_totals(self) -> bool:
        """Whether the totals of a and b must agree; if not, b is not rescaled."""
        return self.rhos == (None, None)

    def solve(self, cost: Tensor, a: Tensor, b: Tensor) -> Parts:
        """Solve a flat batch; see ``TensorSolver.solve``."""
        return self.solve_rounded(cost, a, b, 2.0**-53)

    def solve_rounded(self, cost: Tensor, a: Tensor, b: Tensor, rounding: float, may_forbid: bool = True) -> Parts:
        """Solve a flat batch with weights that were rounded; see ``TensorSolver.solve_rounded``."""
        unrolled = self.gradient == "unrolled"
        # In the plain domain looking for forbidden pairs would be felt; there they are found by themselves.
        parts = None
        if not (may_forbid and (unrolled or not self.equal_totals) and forbids(cost)):
            parts = self._unrolled(cost, a, b) if unrolled else self._implicit(cost, a, b)
        if parts is not None:
            return parts
        return self._apart(cost, a, b, rounding, lambda index: self.solve(cost[index], a[index], b[index]))

    def _apart(self, cost: Tensor, a: Tensor, b: Tensor, rounding: float, some: SolveSome) -> Parts:
        """Solve a flat batch in which pairs are forbidden; ``some`` solves problems in which none are."""

        def within(index: Tensor, support: Support) -> Parts:
            part = cost[index], a[index], b[index]
            parts = (self._unrolled if self.gradient == "unrolled" else self._implicit)(*part, support)
            assert parts is not None
            return parts

        return solve_apart(cost, a, b, self.rhos, rounding, some, within, self.name)

    def solve_from(self, start: Potentials, cost: Tensor, a: Tensor, b: Tensor, rounding: float) -> Parts:
        """Solve a flat batch from potentials, and afresh where pairs are forbidden; see ``TensorSolver.solve_from``.

        Raises:
            ValueError: The gradient is to be that of every iteration.
        """
        if self.gradient == "unrolled":
            raise ValueError(
                "Sinkhorn: gradient='unrolled' differentiates all iterations, those before warm included, which are "
                "unknown: leave warm out, or take gradient='implicit'"
            )
        parts = None if not self.equal_totals and forbids(cost) else self._implicit(cost, a, b, start=start)
        return self.solve_rounded(cost, a, b, rounding) if parts is None else parts

    def solve_there(
        self, cost: Tensor, a: Tensor | None, b: Tensor | None, batch: torch.Size, looks: bool, rtol: float
    ) -> Parts | None:
        """Solve small problems by a kernel where the device runs one; see ``Solver.solve_there``."""
        machine = None if self.gradient == "unrolled" else machine_for(cost.device)
        if machine is None or not batch.numel():
            return None
        n, m = cost.shape[-2:]
        flat, weights = (
            flat_batch(cost, batch, 2),
            [None if x is None else flat_batch(send(x.detach(), cost.device, torch.float64), batch, 1) for x in (a, b)],
        )

        def run(rtol: float) -> Entropic | None:
            options = self.reg, self.rhos, self.tol, self.max_iter
            return solve_entropic(machine, flat.detach(), weights[0], weights[1], *options, rtol)

        found = run(rtol)
        if found is None:
            return None
        if (looks or rtol < math.inf) and not found.flag.sound() and forbids(cost):
            if rtol < math.inf:
                check_values(cost, a, b, self.equal_totals, rtol)
            return self._apart_there(flat, a, b, batch, rtol)
        if rtol < math.inf and found.flag.invalid():
            check_values(cost, a, b, self.equal_totals, rtol)
            # Sound after all, by a rounding error in a total.
            found = run(math.inf)
            assert found is not None
        solved, flag = found.solved, found.flag
        value = found.value if solved.balanced else solved.scale * dual_value(solved)
        graph = None
        if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (cost, a, b)):
            graph = (flat, *flat_weights(n, m, a, b, batch, cost.device, self.equal_totals))
        return self._implicit_parts(graph, solved, value, flag.sound, flag.fits if looks else lambda: True)

    def _apart_there(self, flat: Tensor, a: Tensor | None, b: Tensor | None, batch: torch.Size, rtol: float) -> Parts:
        """Solve problems (problems, n, m) of a device on which a kernel runs, some of them with forbidden pairs."""
        n, m = flat.shape[-2:]
        weights = flat_weights(n, m, a, b, batch, flat.device, self.equal_totals)
        given = [None if x is None else flat_batch(x, batch, 1) for x in (a, b)]

        def some(index: Tensor) -> Parts:
            some_a, some_b = (None if x is None else x[send(index, x.device)] for x in given)
            parts = self.solve_there(flat[index], some_a, some_b, index.shape, True, math.inf)
            assert parts is not None
            return parts

        return self._apart(flat, *weights, rounding_of(a, b, rtol), some)

    def _implicit(
        self, cost: Tensor, a: Tensor, b: Tensor, support: Support | None = None, start: Potentials | None = None
    ) -> Parts | None:
        inputs = (cost, a, b)
        # Three times leaving the graph, and coming back, would take as long as a small problem.
        with_graph = torch.is_grad_enabled() and (cost.requires_grad or a.requires_grad or b.requires_grad)
        plain = [x.detach() if x.requires_grad else x for x in inputs]
        options = self.reg, self.rhos, self.tol, self.max_iter
        if start is None:
            found = solve_whole(plain[0], plain[1], plain[2], support, *options)
        else:
            found = solve_from(start, plain[0], plain[1], plain[2], *options)
        if found is None:
            return None
        solved, value, done = found
        return self._implicit_parts(
            inputs if with_graph else None, solved, value, lambda: done or all_optimal(solved.status), lambda: False
        )

    def _implicit_parts(
        self,
        graph: tuple[Tensor, Tensor, Tensor] | None,
        solved: Solved,
        value: Tensor,
        sound: Callable[[], bool],
        fits: Callable[[], bool],
    ) -> Parts:
        """Describe solved problems, with gradients in ``graph``: cost, a and b of the flat batch.

        Args:
            graph: None where nobody wants gradients.
            solved: The problems.
            value: (problems,) without a graph.
            sound: Tells whether it is known that all were solved.
            fits: Tells whether it is known that the cost's dtype holds all plans.
        """

        def made() -> Tensor:
            """Make the plan of total 1 that is handed out."""
            with torch.no_grad():
                unit = solved.unit_plan()
                return round_all(solved, unit.double()) if self.round else unit

        plan = _once(made)

        def linear() -> Tensor:
            return solved.scale * (plan() * solved.cost).sum((1, 2), dtype=torch.float64)

        def scaled() -> Tensor:
            if not fits():
                check_range(solved.scale, solved.cost.dtype)
            return times(plan(), solved.scale).to(solved.cost.dtype)

        if graph is None:
            return self._parts(solved, value, linear, scaled, plan, sound)
        return self._parts(
            solved,
            attach_value(*graph, lambda: value, solved),
            lambda: attach_linear(*graph, linear, solved),
            lambda: attach_plan(*graph, scaled, solved),
            plan,
            sound,
        )

    def _unrolled(self, cost: Tensor, a: Tensor, b: Tensor, support: Support | None = None) -> Parts:
        unit_a, unit_b, scale = normalised(a, b, self.rhos)
        wide = (cost if support is None else support.finite(cost)).double()
        offset = wide.detach().mean((1, 2)) if self.equal_totals else wide.new_zeros(len(cost))
        net = wide - offset[:, None, None]
        seen, closed, held = (unit_a, unit_b), None, (unit_a, unit_b)
        if support is not None:
            seen, closed = support.seen(unit_a, unit_b), support.closed()
            held = seen if self.equal_totals else held
        phi, psi, error, n_iter = unroll(net, *seen, self.reg, self.rhos, self.tol, self.max_iter, closed)
        status = torch.where(error <= self.tol, int(Status.OPTIMAL), int(Status.MAX_ITER))
        status = torch.where(torch.isfinite(error), status, int(Status.FAILED)).to(torch.int8)
        rest = self.reg, self.rhos
        graph = Solved(wide, *held, scale, *rest, phi, psi, offset, error, status, n_iter, None, support)
        potentials = phi.detach(), psi.detach()
        if support is not None:
            a, b = (x.detach() for x in held)
            potentials = support.settle(*potentials, lambda: net.detach() / self.reg, a, b, self.reg, self.rhos)
        solved = Solved(
            wide.detach().to(cost.dtype), held[0].detach(), held[1].detach(), scale.detach(), *rest, *potentials,
            offset, error, status, n_iter, None, support,
        )  # fmt: skip
        spread = graph.density()
        unit = held[0][..., None] * spread * held[1][:, None]

        def made() -> Tensor:
            if not self.round:
                return unit
            return unit + (round_all(solved, unit.detach()) - unit).detach()

        plan = _once(made)
        return self._parts(
            solved,
            scale * primal_value(graph, spread),
            lambda: scale * (plan() * wide).sum((1, 2)),
            lambda: (plan() * scale[:, None, None]).to(cost.dtype),
            plan,
            lambda: all_optimal(solved.status),
        )

    def _parts(
        self,
        solved: Solved,
        value: Tensor,
        value_linear: Make,
        plan: Make,
        unit_plan: Make,
        sound: Callable[[], bool],
    ) -> Parts:
        # The decorator would take longer to set up than a small problem to solve.
        def potentials() -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                f, g = feasible_potentials(solved) if self.round else solved.potentials()
                return f.to(solved.cost.dtype), g.to(solved.cost.dtype)

        def gap() -> Tensor:
            with torch.no_grad():
                if not self.round:
                    return entropic_gap(solved)
                f, g = feasible_potentials(solved)
                # Costs net of the potentials are not negative, so nothing cancels.
                net = solved.cost.double() - f[..., None] - g[:, None]
                return solved.scale * (unit_plan().detach() * net).sum((1, 2))

        def error() -> Tensor:
            with torch.no_grad():
                if not self.round:
                    return marginal_error(solved)
                rows, columns = unit_plan().detach().sum(2) - solved.a, unit_plan().detach().sum(1) - solved.b
                return torch.maximum(rows.abs().amax(-1), columns.abs().amax(-1))

        return Parts(
            value=value,
            value_linear=value_linear,
            plan=plan,
            potentials=potentials,
            gap=gap,
            marginal_error=error,
            status=solved.status.clone,
            n_iter=solved.n_iter.clone,
            solver=self.name,
            sound=sound,
        )


def _once(make: Make) -> Make:
    """Make what ``make`` makes the first time it is asked for."""
    made: list[Tensor] = []

    def get() -> Tensor:
        if not made:
            made.append(make())
        return made[0]

    return get


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
