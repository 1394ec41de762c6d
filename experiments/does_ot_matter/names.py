"""How ``does_ot_matter`` names its entries."""

from __future__ import annotations

LP = "deepemd"
PRODUCT = "product-coupling"


def entropic(reg: float) -> str:
    """Name DeepEMD with Sinkhorn's plans at one ``reg``."""
    return f"sinkhorn reg={reg:g}"
