"""POT's names on otfew's solvers: ``import otfew.compat.pot as ot`` where a script says ``ot.emd`` and its like.

Arguments, their order and defaults, answers, logs, gauges, warnings and gradients are those of POT 0.9.7;
docs/drop-in.md lists what differs. POT itself is not imported.
"""

from __future__ import annotations

from otfew.compat.pot import bregman, lp, partial, unbalanced, utils
from otfew.compat.pot.bregman import sinkhorn, sinkhorn2
from otfew.compat.pot.lp import emd, emd2
from otfew.compat.pot.partial import partial_wasserstein, partial_wasserstein2
from otfew.compat.pot.unbalanced import sinkhorn_unbalanced, sinkhorn_unbalanced2
from otfew.compat.pot.utils import dist, unif

__all__ = [
    "bregman",
    "dist",
    "emd",
    "emd2",
    "lp",
    "partial",
    "partial_wasserstein",
    "partial_wasserstein2",
    "sinkhorn",
    "sinkhorn2",
    "sinkhorn_unbalanced",
    "sinkhorn_unbalanced2",
    "unbalanced",
    "unif",
    "utils",
]


def __getattr__(name: str) -> object:
    """Say what to do about a name of POT's that is not here."""
    raise AttributeError(
        f"otfew.compat.pot has no {name!r}: it offers {', '.join(__all__)}; take {name!r} from POT itself (import ot)"
    )
