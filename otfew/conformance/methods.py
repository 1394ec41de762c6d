"""Laws of contract 2, that of few-shot methods, as far as they can be tried on anybody's method."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from otfew import catalogue, nodes
from otfew.conformance.chance import twice
from otfew.conformance.findings import Finding, Law, broken, judge, not_asked, noted
from otfew.errors import UserError
from otfew.method import FewShotMethod

EPISODES, WAY, SHOT, NODES, QUERIES, CHANNELS = 3, 4, 3, 6, 5, 8
NEAR = 1e-4
"""Largest difference of answers that ought to be equal, relative to the range of the logits."""
GRADIENT_NEAR = 1e-2
"""The same of a derivative, relative to its size."""

_TYPES: dict[str, type] = {"learned": tuple} | dict.fromkeys(("name", "nodes", "preset_of"), str)


@dataclass
class Method:
    """A method's class with options.

    Attributes:
        spec: Name as it was given.
        kind: The class.
        options: Of its constructor.
    """

    spec: str
    kind: type[FewShotMethod]
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self, channels: int = CHANNELS) -> FewShotMethod:
        """Construct one."""
        needed = {"base_mean": torch.linspace(0.1, 0.4, channels, dtype=torch.float64)}
        return catalogue.build(self.spec, **{**(needed if self.kind.needs_base_mean else {}), **self.options})

    def ask(self, support: Tensor, query: Tensor, **more: Tensor) -> Tensor:
        """Ask a new one, and see to it that the answer is logits of the right shape."""
        logits: Any = self.make(support.shape[-1])(support, query, **more)
        expected = (support.shape[0], query.shape[1], support.shape[1])
        if not isinstance(logits, Tensor):
            broken(f"it returns {type(logits).__name__}: return a tensor of logits (episodes, n_query, way).")
        if logits.shape != expected:
            broken(
                f"it returns shape {tuple(logits.shape)} for support {tuple(support.shape)} and query "
                f"{tuple(query.shape)}: return logits (episodes, n_query, way), here {expected}."
            )
        return logits


def check(spec: str, options: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Try all laws on a method.

    Args:
        spec: Its name, as ``otfew.catalogue.find`` takes it.
        options: Of its constructor.

    Raises:
        UserError: There is no such method.
    """
    return judge(Method(spec, catalogue.find(spec), options), LAWS)


def episodes(
    n: int = EPISODES,
    way: int = WAY,
    shot: int = SHOT,
    n_nodes: int = NODES,
    n_query: int = QUERIES,
    query_nodes: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Draw node sets of at least 0 with class structure: support and query in the shapes of the contract."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    centres = normal(n, way, 1, 1, CHANNELS)
    support = (centres + normal(n, way, shot, n_nodes, CHANNELS) + 0.3).relu()
    chosen = torch.randint(way, (n, n_query), generator=generator)
    of_query = centres[torch.arange(n)[:, None], chosen, 0]
    query = (of_query + normal(n, n_query, query_nodes or n_nodes, CHANNELS) + 0.3).relu()
    return support.to(dtype), query.to(dtype)


def apart(found: Tensor, expected: Tensor) -> bool:
    """Tell whether answers differ that ought to be equal."""
    scale = max(1.0, float((expected.amax(-1) - expected.amin(-1)).max()))
    return not bool(torch.isfinite(found).all()) or float((found - expected).abs().max()) > NEAR * scale


def _contract(method: Method) -> None:
    kind = method.kind
    for name in FewShotMethod.__annotations__:
        value, wanted = getattr(kind, name), _TYPES.get(name, bool)
        if not isinstance(value, wanted):
            broken(f"the attribute {name!r} is {value!r}: make it a {wanted.__name__}, as otfew.method says.")
    if not kind.name:
        broken("the attribute 'name' is empty: give the method one.")
    nodes.parse(kind.nodes)
    if kind.preset_of and kind.preset_of not in catalogue.methods():
        broken(f"'preset_of' names {kind.preset_of!r}, which is no method: leave it out.")
    parameters = inspect.signature(kind).parameters
    for option in kind.learned:
        if not catalogue.accepts(kind, option) or not isinstance(getattr(parameters[option], "default", None), float):
            broken(f"'learned' names {option!r}: the constructor must take it, with a number as its default.")
    if kind.needs_base_mean and not catalogue.accepts(kind, "base_mean"):
        broken("'needs_base_mean' is True, but the constructor does not take `base_mean`.")


def _construction(method: Method) -> None:
    made = method.make()
    parameters = inspect.signature(made.__call__).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for name in ("support_mask", "class_prior"):
        if name not in parameters and not takes_all:
            broken(f"__call__ does not take {name!r}: add it, as a keyword with None as its default.")


def _shape(method: Method) -> None:
    for dtype in (torch.float32, torch.float64):
        logits = method.ask(*episodes(dtype=dtype))
        if not bool(torch.isfinite(logits).all()):
            broken("it answers NaN or infinity: look for divisions by zero and logarithms of it.")
        if logits.dtype != dtype:
            broken(f"for {dtype} it answers in {logits.dtype}: keep the dtype of what comes in.")


def _sizes(method: Method) -> None:
    for sizes in ({"n_nodes": 1, "shot": 1}, {"way": 2}, {"n": 1}, {"query_nodes": 4}):
        logits = method.ask(*episodes(**sizes))  # type: ignore[arg-type]
        if not bool(torch.isfinite(logits).all()):
            broken(f"with {_said(sizes)} it answers NaN or infinity.")


def _said(sizes: Mapping[str, int]) -> str:
    words = {"n_nodes": "node(s) an image", "shot": "shot(s)", "way": "classes", "n": "episode(s)"}
    return " and ".join(f"{value} {words.get(name, 'nodes in a query')}" for name, value in sizes.items())


def _deterministic(method: Method) -> None:
    support, query = episodes()
    first, second = twice(lambda: method.ask(support, query))
    if not torch.equal(first, second):
        broken(
            "the same question gets another answer when torch, numpy or random are seeded otherwise: draw from a "
            "torch.Generator of a seed that is an option."
        )


def _no_trace(method: Method) -> None:
    support, query = episodes()
    given = support.clone(), query.clone()
    made = method.make()
    first = made(support, query)
    if not (torch.equal(support, given[0]) and torch.equal(query, given[1])):
        broken("it writes into support or query: copy them first, or leave out operations that end in _.")
    made(*episodes(seed=1))
    if not torch.equal(made(support, query), first):
        broken("a call changes what later ones answer: keep nothing of a call in the object.")


def _batch_mates(method: Method) -> None:
    support, query = episodes()
    together = method.ask(support, query)
    alone = torch.cat([method.ask(support[e : e + 1], query[e : e + 1]) for e in range(EPISODES)])
    if apart(together, alone):
        broken(
            "an episode is answered otherwise among others than alone, so that its batch-mates matter: means, norms "
            "and softmax must never run over the first axis, the episodes."
        )


def _mask(method: Method) -> None:
    support, query = episodes()
    mask = torch.tensor([True, False, True]).expand(EPISODES, WAY, SHOT)
    spoiled = support.clone()
    spoiled[:, :, 1] = torch.nan
    without = method.ask(support[:, :, [0, 2]], query)
    if apart(method.ask(support, query, support_mask=mask), without):
        broken("support_mask is ignored: shots where it is False must count for nothing (otfew.method.shot_mean).")
    if apart(method.ask(spoiled, query, support_mask=mask), without):
        broken("a masked shot of NaN reaches the answer: replace it (masked_fill), since 0 times NaN is NaN.")
    full = torch.ones(EPISODES, WAY, SHOT, dtype=torch.bool)
    if apart(method.ask(support, query, support_mask=full), method.ask(support, query)):
        broken("a support_mask of True throughout is answered otherwise than none.")


def _permutations(method: Method) -> None:
    support, query = episodes()
    logits = method.ask(support, query)
    order = torch.tensor([2, 0, 3, 1])
    if not getattr(method.kind, "ordered", False) and apart(method.ask(support[:, order], query), logits[..., order]):
        broken("classes in another order get other logits: treat all classes alike, or state 'ordered = True'.")
    rows = torch.tensor([4, 2, 0, 1, 3])
    if apart(method.ask(support, query[:, rows]), logits[:, rows]):
        broken("queries in another order get other logits: treat all queries alike.")


def _queries(method: Method) -> None:
    support, query = episodes()
    logits = method.ask(support, query)
    try:
        alone = method.ask(support, query[:, 1:2])
    except UserError:
        if method.kind.transductive:
            return  # one that refuses to be asked about a single query says it most clearly
        raise
    if method.kind.transductive:
        if not apart(alone, logits[:, 1:2]):
            noted("'transductive' is True, but a query is answered alone as among others: state False if it always is.")
    elif apart(alone, logits[:, 1:2]):
        broken(
            "a query is answered otherwise among others than alone: state 'transductive = True', so that reports "
            "compare it with its like, or look at each query by itself."
        )


def _nodes_are_sets(method: Method) -> None:
    support, query = episodes()
    logits = method.ask(support, query)
    generator = torch.Generator().manual_seed(7)
    order = torch.randperm(NODES, generator=generator)
    if apart(method.ask(support[:, :, :, order], query[:, :, torch.randperm(NODES, generator=generator)]), logits):
        broken(
            "nodes in another order get other logits: an image is a set of nodes, which crops may come in any order."
        )


def _pools(method: Method) -> None:
    support, query = episodes()
    logits = method.ask(support, query)
    pooled = method.ask(support.mean(-2, keepdim=True), query.mean(-2, keepdim=True))
    # An option may decide, and then the object says so.
    pools = method.make().pools
    if pools and apart(pooled, logits):
        broken("'pools' is True, but more than the average of an image's nodes matters: state False.")
    if not pools and not apart(pooled, logits):
        noted("only the average of an image's nodes matters: state 'pools = True', and it is taken once for all.")


def _negative(method: Method) -> None:
    support, query = episodes()
    if method.kind.needs_nonnegative:
        not_asked("'needs_nonnegative' is True: such features are refused before any episode")
    if not bool(torch.isfinite(method.ask(support - 1, query - 1)).all()):
        broken("for features below 0 it answers NaN or infinity: state 'needs_nonnegative = True'.")


def _well_separated(method: Method) -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(4).repeat_interleave(2, -1)[None, :, None, None]
    support = centres + 0.1 * torch.rand(2, 4, 2, 5, CHANNELS, generator=generator)
    query = centres[:, :, 0] + 0.1 * torch.rand(2, 4, 5, CHANNELS, generator=generator)
    truth = torch.arange(4).expand(2, 4)
    logits = method.ask(support, query)
    if torch.equal(logits.argmax(-1), truth):
        return
    if bool((logits.argmin(-1) == truth).float().mean() > 0.9):
        broken("the right class gets the smallest logit: return similarities, so minus a distance.")
    broken(
        f"of 8 queries of classes that hardly overlap, {int((logits.argmax(-1) == truth).sum())} are right: the "
        "largest logit of a query must be that of the class it is most like."
    )


def _prior(method: Method) -> None:
    support, query = episodes()
    prior = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64).expand(EPISODES, WAY)
    told, untold = method.ask(support, query, class_prior=prior), method.ask(support, query)
    if not method.kind.transductive and not torch.equal(told, untold):
        broken("class_prior changes the answer of a method that is not transductive: leave it unused.")


def _loss(method: Method, support: Tensor, query: Tensor) -> Tensor:
    logits = method.ask(support, query)
    target = torch.arange(QUERIES).remainder(WAY).repeat(EPISODES)
    return cross_entropy(logits.flatten(0, 1), target.to(logits.device))


def _gradients(method: Method) -> None:
    # Away from zero, where features are often cut off, and powers have no derivative.
    support, query = ((part + 0.2).requires_grad_() for part in episodes())
    frozen = bool(getattr(method.kind, "frozen", False))
    loss = _loss(method, support, query)
    if not loss.requires_grad:
        noted("logits have no gradient: compare takes it, metatrain cannot train through it.")
    torch.autograd.backward(loss)
    if getattr(method.kind, "partial_gradient", False) or (frozen and method.kind.transductive):
        not_asked("the class says that something is held constant (partial_gradient), or fitted (frozen)")
    generator = torch.Generator().manual_seed(3)
    for name, part in (("query", query), ("support", support)):
        gradient = part.grad
        if name == "support" and frozen:
            continue
        if gradient is None or not bool(gradient.any()):
            noted(f"no gradient reaches the {name}: metatrain learns less than it could; is something detached?")
        if not bool(torch.isfinite(gradient).all()):
            broken(f"the gradient in the {name} is NaN or infinite.")
        along = torch.randn(part.shape, generator=generator, dtype=part.dtype)
        along = along / along.norm()
        step = 1e-5
        with torch.no_grad():
            ends = [
                _loss(method, *(p + sign * step * along if p is part else p for p in (support, query)))
                for sign in (1, -1)
            ]
        measured = float(ends[0] - ends[1]) / (2 * step)
        computed = float((gradient * along).sum())
        if abs(measured - computed) > GRADIENT_NEAR * max(abs(measured), abs(computed), 1e-3):
            broken(
                f"the gradient in the {name} is {computed:.3g} where finite differences say {measured:.3g}: something "
                "is detached (on purpose? state 'partial_gradient = True'), or has a backward that is wrong."
            )


def _masked_gradients(method: Method) -> None:
    support, query = episodes()
    mask = torch.tensor([True, False, True]).expand(EPISODES, WAY, SHOT)
    # Dead nodes, a dead image, a query that equals all shots of a class: where norms and distances have no derivative.
    support[0, 0, 0, 0], query[0, 0, 1], query[0, 1] = 0, 0, 0
    support[1, 0] = query[1, 2]
    support.requires_grad_()
    query.requires_grad_()
    logits = method.ask(support, query, support_mask=mask)
    if not logits.requires_grad:
        not_asked("logits have no gradient")
    torch.autograd.backward(logits.log_softmax(-1)[..., 0].sum())
    for name, gradient in (("query", query.grad), ("support", support.grad)):
        if gradient is not None and not bool(torch.isfinite(gradient).all()):
            broken(
                f"where nodes are zero or equal, the gradient in the {name} is NaN or infinite: a norm or square root "
                "at zero wants a small number under it."
            )
    if support.grad is not None and bool(support.grad[~mask].any()):
        broken("masked shots have a gradient: they must count for nothing.")


def _half(method: Method) -> None:
    remedy = "put otfew.transport.precision.in_full_precision before __call__."
    try:
        logits = method.ask(*episodes(dtype=torch.bfloat16))
    except RuntimeError as error:
        noted(f"in half precision it raises {type(error).__name__}: {remedy}")
    if logits.dtype != torch.float32:
        noted(f"in half precision it answers in {logits.dtype}, not in float32: {remedy}")


def _refusals(method: Method) -> None:
    support, query = episodes()
    empty = torch.ones(EPISODES, WAY, SHOT, dtype=torch.bool)
    empty[1, 2] = False
    for what, given, mask in (("of 4 axes", support[0], None), ("without a shot in one class", support, empty)):
        try:
            method.make()(given, query, support_mask=mask)
        except UserError:
            continue
        except Exception as error:
            noted(f"support {what} ends in {type(error).__name__}: begin with otfew.method.check_episode.")
        noted(f"support {what} is answered: begin with otfew.method.check_episode.")


def _documented(method: Method) -> None:
    if not (method.kind.__doc__ or "").strip():
        noted("the class has no docstring: its first line is what people read of it.")


LAWS: tuple[Law[Method], ...] = (
    Law("attributes are those of the contract", _contract),
    Law("its constructor and its call take what they must", _construction, first=True),
    Law("logits have the right shape and dtype, and are finite", _shape, first=True),
    Law("one node, one shot, two classes, other numbers of nodes", _sizes),
    Law("the same question gets the same answer", _deterministic),
    Law("a call leaves no trace", _no_trace),
    Law("an episode does not depend on its batch-mates", _batch_mates),
    Law("masked shots count for nothing", _mask),
    Law("order of classes and of queries does not matter", _permutations),
    Law("queries are answered one by one, or it says otherwise", _queries),
    Law("order of nodes does not matter", _nodes_are_sets),
    Law("it pools, or it says otherwise", _pools),
    Law("features below 0", _negative),
    Law("the most similar class has the largest logit", _well_separated),
    Law("class_prior is for transductive methods", _prior),
    Law("gradients are those of finite differences", _gradients),
    Law("gradients are finite at zeros and none at masked shots", _masked_gradients),
    Law("half precision is computed as float32", _half),
    Law("wrong shapes are refused in a sentence", _refusals),
    Law("it says what it is", _documented),
)
