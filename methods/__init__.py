"""Methods built on optimal transport: few-shot methods under contract 2 by name, losses, transforms, re-weighting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otfew.registry import Registry, by_class, exported

if TYPE_CHECKING:
    from otfew.methods.barycenter_head import BarycenterHead as BarycenterHead
    from otfew.methods.batchwise_ot import BatchwiseOTLoss as BatchwiseOTLoss
    from otfew.methods.batchwise_ot import PairTransport as PairTransport
    from otfew.methods.deepemd import DeepEMD as DeepEMD
    from otfew.methods.deepemd import DeepEMDFCN as DeepEMDFCN
    from otfew.methods.deepemd import DeepEMDGrid as DeepEMDGrid
    from otfew.methods.deepemd import DeepEMDSampling as DeepEMDSampling
    from otfew.methods.domain_transport import DomainTransport as DomainTransport
    from otfew.methods.kmeans_head import KMeansHead as KMeansHead
    from otfew.methods.latent_space_transform import LatentSpaceTransform as LatentSpaceTransform
    from otfew.methods.lst import LST as LST
    from otfew.methods.lst import PTMap as PTMap
    from otfew.methods.ot_reweighting import OTReweighting as OTReweighting
    from otfew.methods.ot_reweighting import Reweighting as Reweighting
    from otfew.methods.self_optimal_transport import SelfOptimalTransport as SelfOptimalTransport
    from otfew.methods.shot_heads import FusionHead as FusionHead
    from otfew.methods.shot_heads import MeanHead as MeanHead
    from otfew.methods.shot_heads import MergeHead as MergeHead
    from otfew.methods.shot_heads import NearestHead as NearestHead
    from otfew.methods.shot_heads import PrototypeHead as PrototypeHead
    from otfew.methods.structured_fc import StructuredFC as StructuredFC

_METHODS = {
    "deepemd": "otfew.methods.deepemd:DeepEMD",
    "deepemd-fcn": "otfew.methods.deepemd:DeepEMDFCN",
    "deepemd-grid": "otfew.methods.deepemd:DeepEMDGrid",
    "deepemd-sampling": "otfew.methods.deepemd:DeepEMDSampling",
    "domain-transport": "otfew.methods.domain_transport:DomainTransport",
    "lst": "otfew.methods.lst:LST",
    "pt-map": "otfew.methods.lst:PTMap",
    "sot": "otfew.methods.self_optimal_transport:SelfOptimalTransport",
}
"""One line for each few-shot method; the import above tells type checkers what it is."""

_OTHERS = (
    "otfew.methods.barycenter_head:BarycenterHead",
    "otfew.methods.batchwise_ot:BatchwiseOTLoss",
    "otfew.methods.batchwise_ot:PairTransport",
    "otfew.methods.kmeans_head:KMeansHead",
    "otfew.methods.ot_reweighting:OTReweighting",
    "otfew.methods.ot_reweighting:Reweighting",
    "otfew.methods.latent_space_transform:LatentSpaceTransform",
    "otfew.methods.shot_heads:FusionHead",
    "otfew.methods.shot_heads:MeanHead",
    "otfew.methods.shot_heads:MergeHead",
    "otfew.methods.shot_heads:NearestHead",
    "otfew.methods.shot_heads:PrototypeHead",
    "otfew.methods.structured_fc:StructuredFC",
)
"""What is exported beside them: a loss, a re-weighting, a transform, heads."""

_EXPORTS = by_class([*_METHODS.values(), *_OTHERS])

METHODS: Registry[type[Any]] = Registry(_METHODS)
"""Name -> class; names are there without importing anything."""

__all__ = ["METHODS", *_EXPORTS]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    """Import a class when it is asked for."""
    return exported(__name__, _EXPORTS, name)


def __dir__() -> list[str]:
    """List what can be imported."""
    return sorted({*globals(), *_EXPORTS})
