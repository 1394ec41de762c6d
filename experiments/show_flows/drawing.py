"""The transport plan between two images, drawn and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from otfew.backbones import Backbone
from otfew.backbones import load as load_backbone
from otfew.data import ImageSet, read_image
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.experiments.common import setup
from otfew.experiments.show_flows.config import Config
from otfew.experiments.show_flows.pictures import Flow, draw_full_flows, draw_lines, draw_reconstructions
from otfew.experiments.show_flows.scenes import Scene, look
from otfew.features.material import ImageMaterial
from otfew.nodes import parse as parse_nodes
from otfew.reporting.tables import Table, terminal, to_csv
from otfew.runs.directory import RunDirectory, to_json
from otfew.runs.identity import short_hash, versions
from otfew.scores.node_weights import resolve_weights
from otfew.scores.pairwise import similarities
from otfew.transport import solve


def show(config: Config, console: Console) -> Path:
    """Draw the plan between two images.

    Args:
        config: The command line.
        console: Where the table goes.

    Returns:
        Folder of the pictures.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.
    """
    device = prepare(config)
    if len(config.images) != 2:
        raise UserError(f"show-flows takes two images, not {len(config.images)}; or --measure.")
    if not config.weights:
        raise UserError("--weights must name cross_reference, uniform or both.")
    parse_nodes(config.nodes)
    a, b, described = _scenes(config, device, console)
    flows: dict[str, Flow] = {name: flow_between(a, b, name, config.solver) for name in dict.fromkeys(config.weights)}
    settings = {"nodes": config.nodes, "solver": config.solver, "weights": list(flows), "images": [a.name, b.name]}
    identity = {"command": "show-flows", "settings": settings, "protocol": described, "versions": versions()}
    output = config.output or Path("runs") / f"show-flows-{short_hash(identity)}"
    directory = RunDirectory(output, identity)
    results = {
        name: {
            "similarity": round(flow.similarity, 6),
            "plan": flow.plan.round(8).tolist(),
            "query_weights": flow.s.round(8).tolist(),
            "support_weights": flow.d.round(8).tolist(),
        }
        for name, flow in flows.items()
    }
    boxes = {"query_boxes": a.boxes.round(3).tolist(), "support_boxes": b.boxes.round(3).tolist()}
    directory.write("results.json", to_json({**identity, **boxes, "flows": results}))
    directory.write("plans.csv", _plans_csv(flows))
    directory.write("flows.png", draw_lines(a, b, flows))
    directory.write("full-flows.png", draw_full_flows(a, b, next(iter(flows.values()))))
    directory.write("reconstruction.png", draw_reconstructions(a, b, flows))
    rows = [[name, f"{flow.similarity:.4f}", str(int((flow.plan > 0).sum())), f"{flow.plan.max():.4f}"]
            for name, flow in flows.items()]  # fmt: skip
    head = ("weights", "similarity", "flows", "largest, share of all")
    console.print(terminal(Table(f"A = {a.name}, B = {b.name}: {len(a.nodes)} and {len(b.nodes)} nodes", head, rows)))
    console.print(f"pictures: {directory.path}", markup=False, highlight=False, soft_wrap=True)
    return directory.path


def flow_between(a: Scene, b: Scene, weights: str, solver: str) -> Flow:
    """Solve the transport between two images' nodes as DeepEMD does, the first being the query."""
    weighted = resolve_weights(weights).weigh(b.nodes[None, None], a.nodes[None, None])
    sim = similarities(weighted.support_map, weighted.query)
    result = solve(1 - sim, weighted.s, weighted.d, solver=solver)
    plan, s, d = (x[0, 0, 0].double().numpy() for x in (result.plan, weighted.s, weighted.d))
    return Flow(plan, s, d, float(1 - result.value_linear))


def prepare(config: Config) -> str:
    """Refuse what needs no data, set the threads, and return the device."""
    setup.check_solver(config.solver)
    setup.set_threads(config.threads)
    return setup.pick_device(config.device)


def _scenes(config: Config, device: str, console: Console) -> tuple[Scene, Scene, dict[str, Any]]:
    """Look at the two images; also describe what they come from."""
    extractor = parse_nodes(config.nodes)
    if not config.dataset:
        pictures = []
        for given in config.images:
            path = Path(given).expanduser()
            if not path.is_file():
                raise UserError(f"image {given} does not exist: give two image files, or --dataset and two names.")
            pictures.append((path.name, read_image(path)))
        backbone = load_backbone(config.backbone, trained_on=config.trained_on).to(device)
        side = config.resolution if config.resolution is not None else backbone.card.resolution
        preparation = Preparation(side, config.crop or "none")
        described: dict[str, Any] = {"data": None, **_describe(backbone), "resolution": side, "crop": preparation.crop}
        a, b = (look(image, name, backbone, extractor, preparation) for name, image in pictures)
        return a, b, described
    material = setup.open_material(config, config.dataset, None, config.nodes, console)
    assert isinstance(material, ImageMaterial)
    images = material.images
    numbers = [_find(images, given) for given in config.images]
    network = material.backbone.to(device)
    a, b = (look(images.read(i), images.names[i], network, extractor, material.preparation) for i in numbers)
    return a, b, material.describe()


def _describe(backbone: Backbone) -> dict[str, Any]:
    """Say which backbone it is."""
    card = backbone.card
    return {"backbone": {"name": card.name, "sha256": backbone.digest, "training_data": card.training_data}}


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
