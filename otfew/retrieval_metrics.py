"""Measures of rankings under the name that users import: see ``otfew.retrieval.metrics``."""

from otfew.retrieval.metrics import METRICS, embedding_scores, means, ranking_metrics, relevances, retrieval_metrics

__all__ = ["METRICS", "embedding_scores", "means", "ranking_metrics", "relevances", "retrieval_metrics"]
