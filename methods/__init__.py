"""Methods built on optimal transport, under contract 2: name -> class."""

from __future__ import annotations

from otfew.methods.deepemd import DeepEMD, DeepEMDFCN

METHODS: dict[str, type] = {
    "deepemd": DeepEMD,
    "deepemd-fcn": DeepEMDFCN,
}

__all__ = ["METHODS"]
