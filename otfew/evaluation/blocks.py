"""What a finished block of episodes must be to be believed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from otfew.evaluation.episodes import Keeps, Protocol
from otfew.method import FewShotMethod
from otfew.runs.blocks import Column, Form
from otfew.runs.identity import code_digest, package_of

CODE = (
    "otfew.costs", "otfew.data.class_labels", "otfew.devices",
    "otfew.evaluation.across_domains", "otfew.evaluation.episodes", "otfew.evaluation.placement",
    "otfew.evaluation.query_balance", "otfew.evaluation.run",
    "otfew.method", "otfew.random", "otfew.scores", "otfew.transport",
)  # fmt: skip
"""What right answers depend on beside the methods' own packages and the features, whose digest a block holds."""


def code_of(methods: Iterable[FewShotMethod]) -> str:
    """Digest the code that counts right answers of methods: theirs, and what they are built on."""
    return code_digest(*CODE, *sorted({package_of(type(method)) for method in methods}))


def form_of(
    names: Sequence[str],
    episodes: int,
    protocol: Protocol,
    setup: str,
    code: str,
    keeps: Keeps = "",
    unknown: int = 0,
) -> Form:
    """Say what a block of episodes is.

    Args:
        names: Of the methods.
        episodes: Of the block.
        protocol: Of the episodes.
        setup: Name of the array that says who ran them.
        code: What ``code_of`` returned.
        keeps: What it keeps of every query beside the answer, see ``otfew.evaluation.episodes.Sampler``.
        unknown: Queries of an episode that are of unknown classes.
    """
    queries = protocol.way * protocol.query + unknown
    # The queries of an unbalanced episode may all be of one class.
    most = protocol.query * (1 if protocol.balanced else protocol.way)
    columns = {setup: Column((3,), "i", least=1)}
    for name in names:
        columns[f"{name}.correct"] = Column((episodes, protocol.way), "i", 0, most)
        columns[f"{name}.seconds"] = Column(least=0)
        columns[f"{name}.material"] = Column(kind="U")
        columns[f"{name}.predicted"] = Column((episodes, queries), "u", 0, protocol.way - 1)
        if keeps:
            columns[f"{name}.{keeps}"] = Column((episodes, queries, protocol.way), "f")
    return Form(columns, code)
