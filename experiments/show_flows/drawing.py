"""The transport plan between two images, or from one to labelled ones, drawn and written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from otfew.backbones import Backbone
from otfew.backbones import load as load_backbone
from otfew.classifier.places import labelled_photos
from otfew.data import ImageSet, read_image
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.experiments.common import setup
from otfew.experiments.show_flows import pictures
from otfew.experiments.show_flows.config import Config
from otfew.experiments.show_flows.pictures import Candidate, Flow
from otfew.experiments.show_flows.scenes import Scene, look
from otfew.features.material import ImageMaterial
from otfew.nodes import parse as parse_nodes
from otfew.reporting.canvas import to_png
from otfew.reporting.tables import Table, terminal, to_csv
from otfew.runs.directory import RunDirectory, to_json
from otfew.runs.identity import short_hash, versions
from otfew.scores.node_weights import resolve_weights
from otfew.scores.pairwise import similarities
from otfew.transport import solve


def show(config: Config, console: Console) -> Path:
    """Draw the plan between two images, or between one and the nearest labelled ones.

    Args:
        config: The command line.
        console: Where the table goes.

    Returns:
        Folder of the pictures.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.
    """
    device = prepare(config)
    _check(config)
    return _show_answer(config, device, console) if config.labelled else _show_pair(config, device, console)


def _check(config: Config) -> None:
    """Refuse what needs no image to be seen as wrong."""
    if config.labelled and config.dataset:
        raise UserError("--labelled compares files: leave out --dataset.")
    if config.labelled and len(config.images) != 1:
        raise UserError(f"--labelled takes one image to name, not {len(config.images)}.")
    if not config.labelled and len(config.images) != 2:
        raise UserError(f"show-flows takes two images, not {len(config.images)}; or one and --labelled; or --measure.")
    if not config.weights:
        raise UserError("--weights must name cross_reference, uniform or both.")
    if config.flows < 1:
        raise UserError(f"--flows must be at least 1, not {config.flows}.")
    parse_nodes(config.nodes)


def _show_pair(config: Config, device: str, console: Console) -> Path:
    """Draw the plan between two images: flows, matrix and reconstruction."""
    a, b, described = _scenes(config, device, console)
    flows: dict[str, Flow] = {name: flow_between(a, b, name, config.solver) for name in dict.fromkeys(config.weights)}
    directory, identity = _claim(config, described, {"weights": list(flows), "images": [a.name, b.name]})
    boxes = {"query_boxes": a.boxes.round(3).tolist(), "support_boxes": b.boxes.round(3).tolist()}
    found = {name: _record(flow) for name, flow in flows.items()}
    directory.write("results.json", to_json({**identity, **boxes, "flows": found}))
    directory.write("plans.csv", _plans_csv(flows))
    for name, figure in (
        ("flows.png", pictures.draw_pairs(a, b, flows, config.flows)),
        ("full-flows.png", pictures.draw_matrix(a, b, next(iter(flows.values())))),
        ("reconstruction.png", pictures.draw_reconstructions(a, b, flows)),
    ):
        directory.write(name, to_png(figure, dpi=pictures.DPI))
    rows = [[name, f"{flow.similarity:.4f}", str(int((flow.plan > 0).sum())), f"{flow.plan.max():.4f}"]
            for name, flow in flows.items()]  # fmt: skip
    head = ("weights", "similarity", "flows", "largest, share of all")
    console.print(terminal(Table(f"A = {a.name}, B = {b.name}: {len(a.nodes)} and {len(b.nodes)} nodes", head, rows)))
    console.print(f"pictures: {directory.path}", markup=False, highlight=False, soft_wrap=True)
    return directory.path


def _show_answer(config: Config, device: str, console: Console) -> Path:
    """Compare an image with labelled ones, and draw it beside the nearest photos of the two nearest classes."""
    files, labels, notes = labelled_photos(config.labelled or "", config.depth)
    if len(set(labels)) < 2:
        raise UserError("--labelled holds one class: a runner-up needs two.")
    path = _file(config.images[0])
    image = read_image(path)
    backbone, preparation, described = _network(config, device)
    extractor = parse_nodes(config.nodes)
    query = look(image, path.name, backbone, extractor, preparation)
    weights = config.weights[0]
    candidates = []
    for file, label in zip(files, labels, strict=True):
        scene = look(read_image(file), file.name, backbone, extractor, preparation)
        candidates.append(Candidate(label, scene, flow_between(query, scene, weights, config.solver)))
    nearest = by_class(candidates)
    first, second = nearest[:2]
    given = {
        "weights": [weights],
        "images": [query.name],
        "labelled": [f"{c.label}/{c.scene.name}" for c in candidates],
    }
    directory, identity = _claim(config, described, given)
    found = {
        key: {"label": one.label, "photo": one.scene.name, "support_boxes": one.scene.boxes.round(3).tolist(),
              **_record(one.flow)}
        for key, one in (("answer", first), ("runner_up", second))
    }  # fmt: skip
    classes = {one.label: round(one.flow.similarity, 6) for one in nearest}
    record = {**identity, "query_boxes": query.boxes.round(3).tolist(), "classes": classes, "flows": found}
    directory.write("results.json", to_json(record))
    directory.write("plans.csv", _plans_csv({"answer": first.flow, "runner_up": second.flow}))
    directory.write("flows.png", to_png(pictures.draw_answer(query, first, second, config.flows), dpi=pictures.DPI))
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    rows = [[one.label, one.scene.name, f"{one.flow.similarity:.4f}"] for one in nearest]
    title = f"{query.name} by its transport to the nearest photo of each class"
    console.print(terminal(Table(title, ("class", "nearest photo", "similarity"), rows)))
    console.print(f"picture: {directory.path / 'flows.png'}", markup=False, highlight=False, soft_wrap=True)
    return directory.path


def by_class(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Keep the most similar photo of each class, the most similar class first; equal ones in their order."""
    best: dict[str, Candidate] = {}
    for one in candidates:
        if one.label not in best or one.flow.similarity > best[one.label].flow.similarity:
            best[one.label] = one
    return sorted(best.values(), key=lambda one: -one.flow.similarity)


def flow_between(a: Scene, b: Scene, weights: str, solver: str) -> Flow:
    """Solve the transport between two images' nodes as DeepEMD does, the first being the query."""
    weighted = resolve_weights(weights).weigh(b.nodes[None, None], a.nodes[None, None])
    sim = similarities(weighted.support_map, weighted.query)
    result = solve(1 - sim, weighted.s, weighted.d, solver=solver)
    plan, s, d, similar = (x[0, 0, 0].double().numpy() for x in (result.plan, weighted.s, weighted.d, sim))
    return Flow(plan, s, d, similar, float(1 - result.value_linear))


def prepare(config: Config) -> str:
    """Refuse what needs no data, set the threads, and return the device."""
    setup.check_solver(config.solver)
    setup.set_threads(config.threads)
    return setup.pick_device(config.device)


def _claim(config: Config, described: dict[str, Any], given: dict[str, Any]) -> tuple[RunDirectory, dict[str, Any]]:
    """Claim the run's folder; also return what the run is a function of."""
    settings = {"nodes": config.nodes, "solver": config.solver, **given}
    identity = {"command": "show-flows", "settings": settings, "protocol": described, "versions": versions()}
    output = config.output or Path("runs") / f"show-flows-{short_hash(identity)}"
    return RunDirectory(output, identity), identity


def _record(flow: Flow) -> dict[str, Any]:
    return {
        "similarity": round(flow.similarity, 6),
        "plan": flow.plan.round(8).tolist(),
        "query_weights": flow.s.round(8).tolist(),
        "support_weights": flow.d.round(8).tolist(),
    }


def _scenes(config: Config, device: str, console: Console) -> tuple[Scene, Scene, dict[str, Any]]:
    """Look at the two images; also describe what they come from."""
    extractor = parse_nodes(config.nodes)
    if not config.dataset:
        shown = [(path.name, read_image(path)) for path in map(_file, config.images)]
        backbone, preparation, described = _network(config, device)
        a, b = (look(image, name, backbone, extractor, preparation) for name, image in shown)
        return a, b, described
    material = setup.open_material(config, config.dataset, None, config.nodes, console)
    assert isinstance(material, ImageMaterial)
    images = material.images
    numbers = [_find(images, given) for given in config.images]
    network = material.backbone.to(device)
    a, b = (look(images.read(i), images.names[i], network, extractor, material.preparation) for i in numbers)
    return a, b, material.describe()


def _file(given: str) -> Path:
    """Find an image file."""
    path = Path(given).expanduser()
    if not path.is_file():
        raise UserError(f"image {given} does not exist: give image files, or --dataset and names of its images.")
    return path


def _network(config: Config, device: str) -> tuple[Backbone, Preparation, dict[str, Any]]:
    """Load the network for files; also say which it is, and how images are prepared."""
    backbone = load_backbone(config.backbone, trained_on=config.trained_on).to(device)
    card = backbone.card
    side = config.resolution if config.resolution is not None else card.resolution
    preparation = Preparation(side, config.crop or "none")
    described = {"name": card.name, "sha256": backbone.digest, "training_data": card.training_data}
    return backbone, preparation, {"data": None, "backbone": described, "resolution": side, "crop": preparation.crop}


def _find(images: ImageSet, given: str) -> int:
    """Find an image by its name or number."""
    if given in images.names:
        return images.names.index(given)
    if given.isdecimal() and int(given) < len(images):
        return int(given)
    raise UserError(
        f"{given!r} is no image of split {images.split!r} of {images.dataset!r}: give a number from 0 to "
        f"{len(images) - 1} or a name such as {images.names[0]}."
    )


def _plans_csv(flows: dict[str, Flow]) -> bytes:
    """A row for every flow above zero."""
    rows = (
        (name, int(i), int(j), round(float(flow.plan[i, j]), 8))
        for name, flow in flows.items()
        for i, j in zip(*flow.plan.nonzero(), strict=True)
    )
    return to_csv(["weights", "query_node", "support_node", "flow"], rows)
