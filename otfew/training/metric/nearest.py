"""What a trained network finds for some queries: to be looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from otfew.pair_loss import PairLoss
from otfew.retrieval.metrics import embedding_scores
from otfew.training.metric.embedding import Space
from otfew.training.metric.run import Learner, embed
from otfew.training.metric.task import Task


def one_a_class(labels: Tensor, most: int) -> Tensor:
    """Choose queries: the first item of each of at most so many classes, evenly spaced: ascending indices."""
    present = torch.unique(labels)
    chosen = present[torch.arange(min(most, len(present))) * len(present) // min(most, len(present))]
    return torch.stack([(labels == label).nonzero()[0, 0] for label in chosen]).sort().values


def nearest(
    weights: Mapping[str, Tensor],
    build_space: Callable[[], Space],
    build_loss: Callable[[], PairLoss],
    task: Task,
    queries: Tensor,
    count: int,
) -> list[list[int]]:
    """Find the nearest items of the test gallery, by Euclidean distance of embeddings.

    Args:
        weights: As ``otfew.training.metric.run.train`` returns them.
        build_space: As it was trained with.
        build_loss: Likewise.
        task: Likewise.
        queries: Indices of items of the test queries.
        count: How many to find for each.

    Returns:
        For each query, indices of gallery items, the nearest first; without the query itself where it is one of them.
    """
    learner = Learner(build_space(), build_loss())
    learner.load_state_dict(weights)
    learner.eval()
    device = torch.device("cpu")
    gallery_images = task.test[0]
    gallery = embed(learner, 0, gallery_images, torch.arange(len(gallery_images.labels)), device)
    asked = embed(learner, len(task.test) - 1, task.test[-1], queries, device)
    scores = embedding_scores(asked.vectors, gallery.vectors)(0, len(queries))
    if task.exclude_self:
        scores[torch.arange(len(queries)), queries] = -torch.inf
    ranked: list[list[int]] = scores.topk(min(count, scores.shape[1]), dim=1).indices.tolist()
    return ranked
