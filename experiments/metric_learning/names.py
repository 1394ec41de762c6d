"""How pictures call losses, and which of them are transport, its parts, or rivals."""

from __future__ import annotations

from otfew.reporting.canvas import CONTROL_ROLE, RIVAL_ROLE, TRANSPORT_ROLE, Role

OT, REFERENCE, PAIRS = "batchwise-ot:reg_inverse=10", "all-pairs", "matched-pairs"
"""The three losses of the claim: the plan, the same pairs without it, and pairs by position."""
_OWN = "batchwise-ot"
_WEIGHTING = "weighting="
_SHORT = {
    REFERENCE: "all pairs alike",
    PAIRS: "matched pairs",
    "softmax": "softmax of the costs",
    "balanced": "half to pairs of a class",
    "snr": "SNR",
    "arcface": "ArcFace",
    "soft-triple": "SoftTriple",
    "n-pair": "N-pair",
    "triplet-batch-hard": "batch-hard triplets",
    "multi-similarity": "multi-similarity",
}
PARTS_ROLE = Role("the same pairs without a plan", CONTROL_ROLE.colour, CONTROL_ROLE.marker)


def short(loss: str) -> str:
    """Name a loss in few words: "batch-wise OT, λ = 10".

    Args:
        loss: As ``--losses`` takes it.
    """
    kind, _, options = loss.partition(":")
    given = dict(part.split("=", 1) for part in options.split(",") if "=" in part)
    if kind == _OWN and "weighting" in given:
        return _SHORT.get(given["weighting"], f"batch-wise, {given['weighting']}")
    if kind == _OWN:
        return (
            f"batch-wise OT, λ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{given['reg_inverse']}"
            if "reg_inverse" in given
            else "batch-wise OT"
        )
    return _SHORT.get(kind, kind.replace("-", " ")) + (f" ({options})" if options else "")


def role_of(loss: str) -> Role:
    """Tell whether a loss weighs pairs by a plan, takes the same pairs without one, or is another."""
    if loss.startswith(_OWN):
        return PARTS_ROLE if _WEIGHTING in loss else TRANSPORT_ROLE
    return PARTS_ROLE if loss in {REFERENCE, PAIRS} else RIVAL_ROLE
