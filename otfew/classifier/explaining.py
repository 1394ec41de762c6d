"""From a photo to the reasons of its answer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from otfew import catalogue
from otfew.classifier.answering import Judge
from otfew.classifier.door import Shown
from otfew.classifier.embedder import Embedder
from otfew.classifier.explanation import Explanation
from otfew.classifier.labelled import Labelled, Photo, short
from otfew.classifier.reasons import Deletion, Evidence, Floats, Flow, Opinion, Transport
from otfew.data.base import Image
from otfew.data.decoding.image import read_image
from otfew.errors import UserError
from otfew.features.extract import embed
from otfew.nodes.boxes import Boxes, node_boxes
from otfew.random.draws import uniforms
from otfew.scores.emd import matching
from otfew.scores.node_weights import NodeWeights, resolve_weights
from otfew.scores.pairwise import similarities
from otfew.statistics.detection import sureness
from otfew.transport import Solver, solve

FLOWS = 5
REMOVALS = 19
"""Random removals: the fewest that can show 5 %."""
SHARE = 0.15
"""Of the nodes, removed at once."""
_AT_ONCE = 64


@dataclass(frozen=True)
class Case:
    """What is explained, and what is needed for it.

    Attributes:
        image: The photo.
        judge: The method with the labelled photos.
        known: The labelled photos.
        embedder: From images to nodes.
        shares: From logits (images, classes) to probabilities.
        limit: Sureness below which a photo is refused, or None; see ``otfew.statistics.detection.sureness``.
    """

    image: Shown
    judge: Judge
    known: Labelled
    embedder: Embedder
    shares: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
    limit: float | None = None


def explain(case: Case, *, seed: int = 0) -> Explanation:
    """Find out why a photo gets its answer: see ``FewShotClassifier.explain``."""
    pixels = _eight_bits(case.image)
    key = case.embedder.key(case.image)
    nodes = _nodes([case.image], case.embedder, key)[0]
    logits = _ask(case.judge, nodes[None])[0]
    first, second = np.argsort(-logits, kind="stable")[:2].tolist()
    shares = case.shares(logits[None])[0]
    boxes = _boxes(case.embedder, len(nodes), pixels.shape[:2], key)
    effects = logits - _without_each(case.judge, nodes)
    evidence = _evidence(case, nodes, first, second)
    opinion, weights, solver = _opinion(case, nodes, first)
    classes = case.known.classes
    best, rival = (next(one for one in evidence if one.label == classes[c]) for c in (first, second))
    there = _transport(case, nodes, best, len(boxes), weights, solver)
    elsewhere = _transport(case, nodes, rival, len(boxes), resolve_weights("cross_reference"), "exact")
    return Explanation(
        name=short(case.image.name, case.image.path),
        picture=pixels,
        method=case.judge.name,
        answer=_plain(classes[first]),
        confidence=float(shares[first]),
        refused=case.limit is not None and bool(sureness(logits[None])[0] < case.limit),
        runner_up=_plain(classes[second]),
        runner_up_confidence=float(shares[second]),
        boxes=boxes,
        for_answer=effects[:, first],
        for_runner_up=effects[:, second],
        evidence=evidence,
        flows=_flows(boxes, there, elsewhere),
        transports=(there, elsewhere),
        opinion=opinion,
        deletion=_deletion(case, boxes, effects[:, first] - effects[:, second], (first, second), seed),
    )


def _nodes(images: Iterable[Shown], embedder: Embedder, key: str) -> Tensor:
    """Embed images, cut with the same random crops, some at a time: (images, nodes, channels)."""
    views = (embedder.views(image, key) for image in images)
    found = []
    while part := list(itertools.islice(views, max(1, _AT_ONCE // embedder.extractor.n_views))):
        found.append(embed(torch.from_numpy(np.stack(part)) / 255, embedder.backbone, embedder.extractor))
    return torch.cat(found).clone()


def _ask(judge: Judge, nodes: Tensor) -> Floats:
    """Score images (images, nodes, channels) one by one where others of a batch would count: (images, classes)."""
    size = 1 if judge.method.transductive else _AT_ONCE
    return np.concatenate(
        [judge(part).cpu().double().numpy() for part in torch.split(nodes.to(judge.support.device), size)]
    )


def _without_each(judge: Judge, nodes: Tensor) -> Floats:
    """Score the photo without each node: (nodes, classes).

    A user's own method, which may rely on the number of nodes, gets the mean of the others in its place.
    """
    count = len(nodes)
    if count == 1:
        return _ask(judge, nodes[None])
    others = ~torch.eye(count, dtype=torch.bool, device=nodes.device)
    left = torch.stack([nodes[row] for row in others])
    if type(judge.method) not in catalogue.methods().values():
        left = torch.cat([left, left.mean(1, keepdim=True)], 1)
    return _ask(judge, left)


def _evidence(case: Case, nodes: Tensor, first: int, second: int) -> tuple[Evidence, ...]:
    """Leave out each labelled photo of the answer and of the runner-up in turn."""
    known = case.known
    support, mask = known.episode()

    def lead(judge: Judge) -> float:
        logits = _ask(judge, nodes[None])[0]
        return float(logits[first] - logits[second])

    whole = lead(case.judge)
    found: list[Evidence] = []
    for c, sign in ((first, 1), (second, -1)):
        places = np.flatnonzero(known.labels == c).tolist()
        effects: list[float | None] = []
        for shot in range(len(places)):
            without = mask.clone()
            without[0, c, shot] = False
            alone = len(places) == 1
            effects.append(None if alone else whole - lead(Judge.of(case.judge.method, support, without)))
        order = sorted(range(len(places)), key=lambda k: -sign * (effects[k] or 0.0))
        found += [_one(known, places[k], effects[k], picture=k == order[0]) for k in order]
    return tuple(found)


def _one(known: Labelled, place: int, effect: float | None, *, picture: bool) -> Evidence:
    """Describe a labelled photo, with its picture where that is shown."""
    photo = known.photos[place]
    label = _plain(known.classes[known.labels[place]])
    return Evidence(place, label, photo.title, _picture(photo) if picture else None, effect)


def _picture(photo: Photo) -> Image | None:
    """Read the photo again from its file if that is still the same, else take its thumbnail."""
    if photo.path:
        try:
            pixels = read_image(Path(photo.path))
        except UserError:
            pixels = None
        if pixels is not None and pixels.shape[:2] == photo.size:
            return pixels
    return photo.picture() if photo.thumbnail else None


def _opinion(case: Case, nodes: Tensor, first: int) -> tuple[Opinion, NodeWeights, str | Solver]:
    """Ask DeepEMD about the same nodes; if it decided, take the weights and the solver that it has."""
    known, method = case.known, case.judge.method
    kind: Any = catalogue.find("deepemd")
    if isinstance(method, kind):
        solver = matching(method.solver, method.score.mass)
        return Opinion(_plain(known.classes[first]), True, True), method.score.weights, solver
    answer = int(_ask(Judge.of(kind(), *known.episode()), nodes[None])[0].argmax())
    return Opinion(_plain(known.classes[answer]), answer == first, False), resolve_weights("cross_reference"), "exact"


def _transport(
    case: Case, nodes: Tensor, one: Evidence, count: int, weights: NodeWeights, solver: str | Solver
) -> Transport:
    """Move the photo's mass to a labelled photo."""
    target = case.known.nodes[one.place]
    plan, similar = _plan(nodes, target, weights, solver)
    if plan.shape != (count, len(target)):  # the weights made nodes of their own
        plan, similar = _plan(nodes, target, resolve_weights("cross_reference"), solver)
    return Transport(one.place, plan, similar, _places(case, one))


def _flows(boxes: Boxes, best: Transport, rival: Transport) -> tuple[Flow, ...]:
    """Find the flows that add most to DeepEMD's score, and where the same regions go in the runner-up's photo."""
    worth = (best.plan * best.similarity).max(1)
    flows = []
    for number, i in enumerate(np.argsort(-worth, kind="stable")[:FLOWS].tolist(), 1):
        if worth[i] <= 0:
            break
        j, k = int((best.plan[i] * best.similarity[i]).argmax()), int(rival.plan[i].argmax())
        flows.append(
            Flow(
                number,
                _corners(boxes[i]),
                _corners(best.there[j]),
                float(best.plan[i, j]),
                float(best.similarity[i, j]),
                _corners(rival.there[k]),
                float(rival.similarity[i, k]),
            )
        )
    return tuple(flows)


def _plan(here: Tensor, there: Tensor, weights: NodeWeights, solver: str | Solver) -> tuple[Floats, Floats]:
    """Solve the transport between two photos' nodes as DeepEMD does: plan of total 1 and similarities, both (n, m)."""
    weighted = weights.weigh(there[None, None], here.to(there.device)[None, None])
    similar = similarities(weighted.support_map, weighted.query)
    result = solve(1 - similar, weighted.s, weighted.d, solver=solver)
    plan, values = (x[0, 0, 0].detach().cpu().double().numpy() for x in (result.plan, similar))
    return plan / plan.sum(), values


def _places(case: Case, one: Evidence) -> Boxes:
    """Find the boxes of a labelled photo's nodes in the picture that is shown of it."""
    photo = case.known.photos[one.place]
    boxes = _boxes(case.embedder, case.known.nodes.shape[1], photo.size, photo.key)
    shown = photo.size if one.picture is None else one.picture.shape[:2]
    scale = np.array([shown[1] / photo.size[1], shown[0] / photo.size[0]] * 2)
    found: Boxes = boxes * scale
    return found


def _boxes(embedder: Embedder, count: int, size: tuple[int, ...], key: str) -> Boxes:
    return node_boxes(embedder.extractor, count, (size[0], size[1]), embedder.preparation, key)


def _deletion(case: Case, boxes: Boxes, effects: Floats, pair: tuple[int, int], seed: int) -> Deletion | None:
    """Paint over the regions that speak for the answer most, and as many at random, some times over."""
    count = len(boxes)
    if count == 1:
        return None
    removed = min(count - 1, max(1, round(SHARE * count)))
    draws = uniforms("deletion", seed)
    chosen = [np.argsort(-effects, kind="stable")[:removed]]
    chosen += [np.argsort([next(draws) for _ in range(count)])[:removed] for _ in range(REMOVALS)]
    pixels = _eight_bits(case.image)
    changed = (replace(case.image, pixels=_painted_over(pixels, boxes[which])) for which in chosen)
    key = case.embedder.key(case.image)
    nodes = _nodes(itertools.chain([case.image], changed), case.embedder, key)
    logits = _ask(case.judge, nodes)
    leads = logits[:, pair[0]] - logits[:, pair[1]]
    return Deletion(boxes[chosen[0]], float(leads[0]), float(leads[1]), leads[2:])


def _painted_over(pixels: Image, boxes: Boxes) -> Image:
    """Replace what is in some boxes by the mean colour of the rest."""
    rest = np.ones(pixels.shape[:2], bool)
    for x0, y0, x1, y1 in np.rint(boxes).astype(int):
        rest[y0:y1, x0:x1] = False
    changed = pixels.copy()
    changed[~rest] = np.rint(pixels[rest].mean(0)) if rest.any() else pixels.mean((0, 1))
    return changed


def _eight_bits(image: Shown) -> Image:
    pixels = image.pixels
    return np.ascontiguousarray(pixels if pixels.dtype == np.uint8 else np.rint(pixels).astype(np.uint8))


def _corners(box: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box.tolist()
    return x0, y0, x1, y1


def _plain(label: Any) -> Any:
    """A label as Python's own text or number."""
    return label.item() if isinstance(label, np.generic) else label
