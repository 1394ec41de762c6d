"""Methods built on optimal transport, under contract 2: name -> class."""

from __future__ import annotations

from otfew.methods.deepemd import DeepEMD, DeepEMDFCN, DeepEMDGrid, DeepEMDSampling
from otfew.methods.lst import LST, PTMap
from otfew.methods.self_optimal_transport import SelfOptimalTransport

METHODS: dict[str, type] = {
    "deepemd": DeepEMD,
    "deepemd-fcn": DeepEMDFCN,
    "deepemd-grid": DeepEMDGrid,
    "deepemd-sampling": DeepEMDSampling,
    "lst": LST,
    "pt-map": PTMap,
    "sot": SelfOptimalTransport,
}

__all__ = ["METHODS"]
