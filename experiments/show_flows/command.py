"""What flows where: figures 6 and 7 of the DeepEMD paper: ``python -m experiments.show_flows A.jpg B.jpg``.

With ``--measure``, on ``glyphs``, where the true box of the letter is known: how much of the flow from a query's letter
lands on the support's letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from otfew.backbones import Backbone
from otfew.backbones import load as load_backbone
from otfew.data import ImageSet, read_image
from otfew.data.preparation import Preparation
from otfew.errors import UserError
from otfew.evaluation.episodes import Protocol
from otfew.experiments.common import setup
from otfew.experiments.common.cli import parse
from otfew.experiments.show_flows import measure as flow_measure
from otfew.experiments.show_flows.pictures import Flow, draw_full_flows, draw_lines, draw_reconstructions
from otfew.experiments.show_flows.scenes import Scene, look
from otfew.features.material import ImageMaterial
from otfew.nodes import parse as parse_nodes
from otfew.reporting import cells
from otfew.reporting import comparison as report
from otfew.reporting.tables import Table, sections, terminal, to_csv
from otfew.runs.directory import RunDirectory, to_json
from otfew.scores.node_weights import resolve_weights
from otfew.scores.pairwise import similarities
from otfew.transport import solve

WEIGHTS = ("cross_reference", "uniform")


@dataclass
class Config:
    """Draw the transport plan between two images, or measure on glyphs where the flow lands."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Two image files; with --dataset, two names or numbers of its images."""
    dataset: str = ""
    """Data set that the images are of; for --measure: glyphs."""
    data_root: Path | None = None
    """Folder of data sets. Default: $OTFEW_DATA, then a cache folder."""
    split: str = "test"
    """train, val or test."""
    backbone: str | None = None
    """Name, path of a .safetensors file, package.module:factory or timm:NAME. Default: ours for the data set, else
    efficientnet-lite0."""
    nodes: str = "fcn"
    """Kind of nodes."""
    resolution: int | None = None
    """Side of the images in pixels. Default: that of the backbone's training."""
    crop: str | None = None
    """none or center. Default: center for photographs of a data set, none for files."""
    weights: tuple[str, ...] = WEIGHTS
    """cross_reference, uniform, or both; figure 7 shows the first."""
    solver: str = "exact"
    """Transport solver."""
    measure: bool = False
    """Measure, instead of drawing, where the flow lands."""
    pairs: int = 500
    """Pairs of images of either kind, with --measure."""
    seed: int = 1
    """Seed of the pairs."""
    output: Path | None = None
    """Folder of the pictures. Default: runs/show-flows-HASH."""
    allow_overlap: bool = False
    """Go on although the backbone has seen the classes."""
    cub_split: str = "feat"
    """Class split of CUB: feat or closerlook."""
    split_seed: int = 0
    """Seed of the class split of image-folder."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, then draw or measure.

    Args:
        arguments: Instead of those of the process.
    """
    config = parse(Config, "show-flows", arguments)
    setup.need_one_process("show-flows")
    if config.measure:
        measure(config, setup.make_console())
    else:
        show(config, setup.make_console())


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
    device = _check(config)
    if len(config.images) != 2:
        raise UserError(f"show-flows takes two images, not {len(config.images)}; or --measure.")
    unknown = [name for name in config.weights if name not in WEIGHTS]
    if unknown or not config.weights:
        raise UserError(f"--weights must be some of {', '.join(WEIGHTS)}, not {unknown[0] if unknown else 'empty'}.")
    parse_nodes(config.nodes)
    a, b, described = _scenes(config, device, console)
    flows = {name: flow_between(a, b, name, config.solver) for name in dict.fromkeys(config.weights)}
    settings = {"nodes": config.nodes, "solver": config.solver, "weights": list(flows), "images": [a.name, b.name]}
    identity = {"command": "show-flows", "settings": settings, "protocol": described, "versions": setup.versions()}
    output = config.output or Path("runs") / f"show-flows-{setup.short_hash(identity)}"
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


def _check(config: Config) -> str:
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
        backbone = load_backbone(config.backbone).to(device)
        side = config.resolution if config.resolution is not None else backbone.card.resolution
        preparation = Preparation(side, config.crop or "none")  # type: ignore[arg-type]
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


def measure(config: Config, console: Console) -> Path:
    """Measure on ``glyphs`` where the flow lands.

    Args:
        config: The command line.
        console: Where tables and progress go.

    Returns:
        Folder of the run.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.
    """
    device = _check(config)
    if config.images:
        raise UserError("--measure draws its own pairs: give no images with it.")
    if config.pairs < 1:
        raise UserError(f"--pairs must be at least 1, not {config.pairs}.")
    Protocol("", "", config.split, config.seed, way=2, shot=1, query=1)
    dataset = config.dataset or "glyphs"
    if dataset != "glyphs":
        raise UserError(f"--measure needs the true box of the object, which {dataset!r} does not have: use glyphs.")
    material = setup.open_material(config, dataset, None, config.nodes, console)
    assert isinstance(material, ImageMaterial)
    spec = material.nodes_spec("fcn")
    settings = {"nodes": spec, "solver": config.solver, "pairs": config.pairs, "seed": config.seed}
    described = material.describe()
    identity = {
        "command": "show-flows --measure",
        "settings": settings,
        "protocol": described,
        "versions": setup.versions(),
    }
    output = config.output or Path("runs") / f"show-flows-measure-{setup.short_hash(identity)}"
    RunDirectory.check(output, identity)
    found = flow_measure.measure(material, spec, config.solver, config.pairs, config.seed, device)
    directory = RunDirectory(output, identity)
    directory.write("results.json", to_json({**identity, **found}))
    directory.write("shares.csv", _shares_csv(found))
    tables = _measure_tables(found, dataset, spec)
    lines = [
        f"{config.pairs:,} pairs of either kind, seed {config.seed}: a node is on the letter by the share of its area "
        "in the letter's true box; product: the same weights without matching, which is chance for these weights",
        "± are halves of 95 % intervals, over pairs and over classes (jackknife); differences are paired, p is Holm's "
        "over all rows",
        f"data: {dataset} ({described['data']['variant']}), split {config.split}: {len(material.classes)} classes",
        f"backbone: {described['backbone']['name']}, trained on {described['backbone']['training_data']}",
        *described["data"]["notes"],
    ]
    for table in tables:
        console.print(terminal(table))
    for line in lines:
        console.print(f"- {line}", markup=False, highlight=False)
    directory.write("report.md", sections(tables, lines).encode())
    console.print(f"report: {directory.path}", markup=False, highlight=False, soft_wrap=True)
    return directory.path


def _measure_tables(found: dict[str, Any], dataset: str, spec: str) -> list[Table]:
    """Lay out shares and differences."""
    shares = [
        [*key.split(", "), cells.with_intervals(found["mass"][key]), cells.with_intervals(record)]
        for key, record in found["shares"].items()
    ]
    head = ("pair", "weights", "coupling", "query's mass on its letter, %", "of it, on the support's letter, %")
    differences = [
        [name, cells.with_intervals(record, sign=True), report.words(record)]
        for name, record in found["differences"].items()
    ]
    return [
        Table(f"where the flow from the letter lands, {dataset}, {spec} nodes", head, shares),
        Table(
            "paired differences of that share, points",
            ("difference", "± pairs ± classes", "verdict (Holm's p)"),
            differences,
        ),
    ]


def _shares_csv(found: dict[str, Any]) -> bytes:
    """A row for every kind of pair, weights and coupling."""
    head = ["pair", "weights", "coupling", "mass_on_letter", "share_landing", "episode_ci", "class_ci"]
    rows = (
        (*key.split(", "), found["mass"][key]["mean"], record["mean"], record["episode_ci"], record["class_ci"])
        for key, record in found["shares"].items()
    )
    return to_csv(head, rows)
