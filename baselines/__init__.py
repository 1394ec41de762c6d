"""Baselines, and controls without optimal transport, under contract 2: name -> class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otfew.registry import Registry, by_class, exported

if TYPE_CHECKING:
    from otfew.baselines.alpha_tim import AlphaTIM as AlphaTIM
    from otfew.baselines.chamfer import Chamfer as Chamfer
    from otfew.baselines.coral import CORAL as CORAL
    from otfew.baselines.cosine_centroid import CosineCentroid as CosineCentroid
    from otfew.baselines.cosine_classifier import CosineClassifier as CosineClassifier
    from otfew.baselines.cosine_nodes import CosineNodes as CosineNodes
    from otfew.baselines.cr_pooled import CRPooled as CRPooled
    from otfew.baselines.frn import FRN as FRN
    from otfew.baselines.fusion import Fusion as Fusion
    from otfew.baselines.gaussian_transport import GaussianTransport as GaussianTransport
    from otfew.baselines.knn import KNN as KNN
    from otfew.baselines.laplacianshot import LaplacianShot as LaplacianShot
    from otfew.baselines.linear_classifier import LinearClassifier as LinearClassifier
    from otfew.baselines.logistic import Logistic as Logistic
    from otfew.baselines.matchingnet import MatchingNet as MatchingNet
    from otfew.baselines.mean_alignment import MeanAlignment as MeanAlignment
    from otfew.baselines.product_coupling import ProductCoupling as ProductCoupling
    from otfew.baselines.protonet import ProtoNet as ProtoNet
    from otfew.baselines.simpleshot import SimpleShot as SimpleShot
    from otfew.baselines.tim import TIM as TIM
    from otfew.baselines.trimmed_chamfer import TrimmedChamfer as TrimmedChamfer
    from otfew.baselines.whitening import Whitening as Whitening

_METHODS = {
    "protonet": "otfew.baselines.protonet:ProtoNet",
    "cosine-centroid": "otfew.baselines.cosine_centroid:CosineCentroid",
    "simpleshot": "otfew.baselines.simpleshot:SimpleShot",
    "matchingnet": "otfew.baselines.matchingnet:MatchingNet",
    "knn": "otfew.baselines.knn:KNN",
    "fusion": "otfew.baselines.fusion:Fusion",
    "cosine-classifier": "otfew.baselines.cosine_classifier:CosineClassifier",
    "linear-classifier": "otfew.baselines.linear_classifier:LinearClassifier",
    "logistic": "otfew.baselines.logistic:Logistic",
    "frn": "otfew.baselines.frn:FRN",
    "cr-pooled": "otfew.baselines.cr_pooled:CRPooled",
    "chamfer": "otfew.baselines.chamfer:Chamfer",
    "trimmed-chamfer": "otfew.baselines.trimmed_chamfer:TrimmedChamfer",
    "product-coupling": "otfew.baselines.product_coupling:ProductCoupling",
    "cosine-nodes": "otfew.baselines.cosine_nodes:CosineNodes",
    "tim": "otfew.baselines.tim:TIM",
    "alpha-tim": "otfew.baselines.alpha_tim:AlphaTIM",
    "laplacianshot": "otfew.baselines.laplacianshot:LaplacianShot",
    "mean-alignment": "otfew.baselines.mean_alignment:MeanAlignment",
    "coral": "otfew.baselines.coral:CORAL",
    "whitening": "otfew.baselines.whitening:Whitening",
    "gaussian-transport": "otfew.baselines.gaussian_transport:GaussianTransport",
}
"""One line for each baseline; the import above tells type checkers what it is."""

_EXPORTS = by_class(_METHODS.values())

BASELINES: Registry[type[Any]] = Registry(_METHODS)
"""Name -> class; names are there without importing anything."""

__all__ = ["BASELINES", *_EXPORTS]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    """Import a class when it is asked for."""
    return exported(__name__, _EXPORTS, name)


def __dir__() -> list[str]:
    """List what can be imported."""
    return sorted({*globals(), *_EXPORTS})
