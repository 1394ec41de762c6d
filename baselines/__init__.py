"""Baselines, and controls without optimal transport, under contract 2: name -> class."""

from __future__ import annotations

from otfew.baselines.alpha_tim import AlphaTIM
from otfew.baselines.chamfer import Chamfer
from otfew.baselines.cosine_centroid import CosineCentroid
from otfew.baselines.cosine_classifier import CosineClassifier
from otfew.baselines.cosine_nodes import CosineNodes
from otfew.baselines.cr_pooled import CRPooled
from otfew.baselines.frn import FRN
from otfew.baselines.fusion import Fusion
from otfew.baselines.knn import KNN
from otfew.baselines.laplacianshot import LaplacianShot
from otfew.baselines.linear_classifier import LinearClassifier
from otfew.baselines.logistic import Logistic
from otfew.baselines.matchingnet import MatchingNet
from otfew.baselines.product_coupling import ProductCoupling
from otfew.baselines.protonet import ProtoNet
from otfew.baselines.simpleshot import SimpleShot
from otfew.baselines.tim import TIM

BASELINES: dict[str, type] = {
    "protonet": ProtoNet,
    "cosine-centroid": CosineCentroid,
    "simpleshot": SimpleShot,
    "matchingnet": MatchingNet,
    "knn": KNN,
    "fusion": Fusion,
    "cosine-classifier": CosineClassifier,
    "linear-classifier": LinearClassifier,
    "logistic": Logistic,
    "frn": FRN,
    "cr-pooled": CRPooled,
    "chamfer": Chamfer,
    "product-coupling": ProductCoupling,
    "cosine-nodes": CosineNodes,
    "tim": TIM,
    "alpha-tim": AlphaTIM,
    "laplacianshot": LaplacianShot,
}

__all__ = ["BASELINES"]
