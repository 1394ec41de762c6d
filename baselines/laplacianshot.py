"""LaplacianShot: nearest prototypes, with neighbouring queries pulled to the same class."""

from __future__ import annotations

import torch
from torch import Tensor

from otfew import checks
from otfew.baselines._shots import mean_shots, shot_vectors, shot_weights
from otfew.baselines._transductive import TransductiveBaseline
from otfew.baselines.protonet import negative_squared_distances
from otfew.baselines.simpleshot import centred_unit
from otfew.errors import UserError
from otfew.method import global_vectors
from otfew.scores.cosine import cosines
from otfew.transport.sending import send

SHARPNESS = 10.0
"""Factor of the cosines in the rectification's softmax."""

TOLERANCE = 1e-6
"""Relative change of the energy at which an episode stops."""

LOOK = 8
"""Steps that a device is told to do before the host looks whether an episode goes on."""


def rectified(shots: Tensor, share: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Shift the queries onto the support and draw the prototypes towards them (Liu et al. 2020).

    Queries move by the difference of the two means. Every image, query or shot, then goes to the class of the highest
    cosine with the plain prototype; a class's prototype becomes the mean of w x over its images x, w being the softmax
    over classes of 10 times these cosines. As in LaplacianShot's code, the w are not divided by their sum, and a class
    without any image keeps its plain prototype (the code drops it).

    Args:
        shots: (episodes, way, shot, channels), zeros where masked.
        share: (episodes, way, shot) weights of total 1 in each class, 0 where masked.
        query: (episodes, n_query, channels).

    Returns:
        Prototypes (episodes, way, channels) and the shifted queries.
    """
    plain = (shots * share[..., None]).sum(2)
    query = query + (plain.mean(1) - query.mean(1))[:, None]
    images = torch.cat([shots.flatten(1, 2), query], 1)
    counts = torch.cat([share.flatten(1) > 0, share.new_ones(query.shape[:2], dtype=torch.bool)], 1)
    likeness = cosines(images, plain)
    chosen = torch.zeros_like(likeness).scatter_(-1, likeness.argmax(-1, keepdim=True), 1) * counts[..., None]
    total = chosen.sum(1)[..., None]
    drawn = (chosen * (SHARPNESS * likeness).softmax(-1)).mT @ images
    return torch.where(total > 0, drawn / total.clamp_min(1), plain), query


@torch.no_grad()
def neighbours(query: Tensor, k: int) -> Tensor:
    """Find each query's k nearest others, by their products.

    Args:
        query: (episodes, n_query, channels) unit vectors; a shift that all queries share changes no distance.
        k: How many; all others where there are fewer.

    Returns:
        Indices (episodes, n_query, k).
    """
    likeness = query @ query.mT
    likeness.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    return likeness.topk(min(k, query.shape[1] - 1)).indices


def bound_updates(unary: Tensor, nearest: Tensor, lam: Tensor, n_steps: int) -> Tensor:
    """Repeat y_q <- softmax(-a_q + lam sum_{p near q} y_p), from y_q = softmax(-a_q).

    Where nearness is mutual, each step minimises a bound of sum_q <y_q, a_q + log y_q> - lam / 2 sum_{p near q}
    <y_q, y_p>. As in the code, an episode stops when this sum with lam in place of lam / 2 changes by less than
    ``TOLERANCE`` of itself, from the third step on; whatever the others do.

    Args:
        unary: (episodes, n_query, way) a, squared distances to the prototypes.
        nearest: (episodes, n_query, k) indices of the queries near each query.
        lam: (episodes,).
        n_steps: Most steps.

    Returns:
        (episodes, n_query, way) log y.
    """
    episodes, n_query, k = nearest.shape
    way = unary.shape[-1]
    index = nearest.reshape(episodes, n_query * k, 1).expand(-1, -1, way)

    def pull(y: Tensor) -> Tensor:
        return lam[:, None, None] * y.gather(1, index).view(episodes, n_query, k, way).sum(2)

    log_y = (-unary).log_softmax(-1)
    pulled = pull(log_y.exp())
    going = torch.ones(episodes, dtype=torch.bool, device=unary.device)
    energy = unary.new_full((episodes,), torch.inf)
    for step in range(n_steps):
        log_y = torch.where(going[:, None, None], (pulled - unary).log_softmax(-1), log_y)
        y = log_y.exp()
        pulled = pull(y)
        previous, energy = energy, (y * (log_y + unary - pulled)).detach().sum((1, 2))
        if step > 1:
            going = going & ~((energy - previous).abs() <= TOLERANCE * previous.abs())
            # Steps after the last change nothing, and take a device less time than the host's look at it.
            if (unary.is_cpu or step % LOOK == LOOK - 1) and not bool(going.any()):
                break
    return log_y


class LaplacianShot(TransductiveBaseline):
    """Laplacian-regularised nearest prototypes (Ziko et al. 2020).

    logit_c = log y_qc, with y the query's assignment after at most 20 bound updates

        y_q <- softmax_c(-|z(q) - p_c|^2 + lam sum of the y of its k - 1 nearest queries),

    z(x) = (x - m) / |x - m| with m the mean of the base classes' global vectors (CL2N, on which the authors' code tunes
    lam), and p_c the mean over class c's shots, rectified as said at ``rectified``. lam = 0 without rectification is
    ``simpleshot``.

    Settings of the code: k = 3, where a query counts as its own first neighbour, so that two others pull; neighbours
    are not made mutual; 20 updates. lam is chosen among 0.1, 0.3, 0.5, 0.7, 0.8, 1, 1.2 and 1.5 on validation classes.
    None takes what the code of Veilleux et al. 2021 has for balanced mini-ImageNet: 0.7, and 0.3 from five shots on.
    They switch rectification off for unbalanced queries. An early release of the code scored predictions after the
    best matching of classes to labels; here nothing is matched.

    The method has no class prior and ignores ``class_prior``. Uneven shots: each class is the mean of the shots that it
    has, and has the same weight in the shift; in the rectification every image counts, so more shots hold a prototype
    more firmly.

    Args:
        base_mean: (channels,) mean of the base (training) classes' global vectors.
        lam: Weight of the neighbours, at least 0; None: see above.
        k: Nearest neighbours, the query itself included.
        rectify: Rectify the prototypes and shift the queries.
        n_steps: Most bound updates.

    Raises:
        UserError: An option out of range; called with nodes of other channels than ``base_mean``.
    """

    name = "laplacianshot"
    counts_shots = True
    needs_base_mean = True

    def __init__(
        self, base_mean: Tensor, lam: float | None = None, k: int = 3, rectify: bool = True, n_steps: int = 20
    ) -> None:
        self.base_mean = checks.base_mean(self.name, base_mean)
        self.lam = None if lam is None else checks.number(self.name, "lam", lam, least=0)
        self.k = checks.whole(self.name, "k", k)
        self.rectify = checks.flag(self.name, "rectify", rectify)
        self.n_steps = checks.whole(self.name, "n_steps", n_steps)

    def transduce(
        self, support: Tensor, query: Tensor, support_mask: Tensor | None, class_prior: Tensor | None
    ) -> Tensor:
        """Compute the logarithms of the assignments."""
        if len(self.base_mean) != query.shape[-1]:
            raise UserError(
                f"{self.name}: `base_mean` has {len(self.base_mean)} channels but the nodes have {query.shape[-1]}; "
                "take the mean of the base classes' vectors of the same backbone."
            )
        mean = send(self.base_mean, query.device, query.dtype)
        share = shot_weights(support, support_mask)
        shots = centred_unit(shot_vectors(support, support_mask), mean) * (share > 0)[..., None]
        vectors = centred_unit(global_vectors(query), mean)
        nearest = neighbours(vectors, self.k - 1)
        if self.rectify:
            prototypes, vectors = rectified(shots, share, vectors)
        else:
            prototypes = (shots * share[..., None]).sum(2)
        unary = -negative_squared_distances(prototypes, vectors)
        if self.lam is None:
            lam = torch.where(mean_shots(support, support_mask) < 5, 0.7, 0.3).to(unary)
        else:
            lam = unary.new_full((len(unary),), self.lam)
        return bound_updates(unary, nearest, lam, self.n_steps)
