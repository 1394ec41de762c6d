"""The comparison as a function: ``otfew.compare`` runs one, ``otfew.load`` reads one that was kept.

Stands at the top of the library: it brings data, methods, evaluation and reports together, and commands are thin over
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from otfew import catalogue, devices
from otfew.backbones import Backbone
from otfew.choices import ClassPrior, Crop, CubSplit, Part
from otfew.data import DataOptions
from otfew.errors import UserError
from otfew.evaluation.episodes import Indices, Protocol
from otfew.evaluation.figures import FORMAT
from otfew.evaluation.fixed_classes import copies_of
from otfew.evaluation.guard import refuse_overlap
from otfew.evaluation.lineup import PLAIN, Entry, Given, choose, pick_reference
from otfew.evaluation.study import Panel, Record, Study, Terms, Where, sample
from otfew.features.material import FileMaterial, Material, load_image_material
from otfew.method import FewShotMethod
from otfew.reporting.comparison_page import best_method
from otfew.reporting.result import Comparison, load
from otfew.runs import processes
from otfew.runs.identity import versions
from otfew.runs.watch import SILENT, Watch
from otfew.transport import Solver
from otfew.transport.registry import resolve

__all__ = ["Comparison", "check_solver", "compare", "load", "open_material", "pick_device"]


def compare(
    dataset: str = "glyphs",
    methods: str | FewShotMethod | Sequence[Given] = "all",
    *,
    features: str | Path | Material | None = None,
    backbone: str | Backbone | None = None,
    nodes: str = "",
    way: int = 5,
    shot: int = 1,
    query: int = 15,
    query_balance: str = "balanced",
    fixed_classes: bool = False,
    unknown_classes: int = 0,
    class_prior: ClassPrior = "uniform",
    episodes: int = 600,
    seed: int = 1,
    split: Part = "test",
    resolution: int | None = None,
    crop: Crop | None = None,
    reference: str = "",
    solver: str | Solver = "exact",
    output: Where = None,
    allow_overlap: bool = False,
    trained_on: str | None = None,
    data_root: str | Path | None = None,
    cub_split: CubSplit = "feat",
    split_seed: int = 0,
    download: bool = True,
    device: str = "auto",
    watch: Watch = SILENT,
) -> Comparison:
    """Run few-shot methods on the same episodes and compare them, with two kinds of intervals.

    Args:
        dataset: Name of the data set.
        methods: Names, (name, options) pairs, objects that follow ``otfew.method.FewShotMethod``, or (name, object)
            pairs; "all" takes all that apply.
        features: A file of your own features (.safetensors or .npz, see ``otfew.features.file``), or what else methods
            can run on, instead of a data set and a backbone.
        backbone: Name, path of a .safetensors file, ``package.module:factory``, or a ``Backbone``; None takes ours for
            the data set, else efficientnet-lite0.
        nodes: Kind of nodes for all methods; "" takes what each method prefers.
        way: Classes in an episode.
        shot: Labelled images of each class.
        query: Images to classify of each class.
        query_balance: "balanced", or "dirichlet:ALPHA" for as many queries in all, divided at random.
        fixed_classes: Every class in each episode, for classes that are these and no others: ``way`` is without effect,
            intervals are over photos in place of classes, and an episode that asks for more than the poorest class has
            shrinks. A folder's classes are not divided into splits then.
        unknown_classes: Classes in an episode that have no labelled images: how well they are told from known ones is
            part of the report, with log-loss and Brier score.
        class_prior: What transductive methods are told of the classes' shares in the queries.
        episodes: How many episodes.
        seed: Of the episodes.
        split: What is evaluated.
        resolution: Side of the images in pixels; None takes that of the backbone's training.
        crop: "none" or "center"; None takes "center" for photographs.
        reference: Name of the method that the others are compared with; "" takes cosine-centroid, else the first.
        solver: Transport solver, by name or as an object.
        output: Folder in which blocks of episodes are kept, so that the same call goes on after an interruption, and
            the report is written; None keeps nothing.
        allow_overlap: Go on although the backbone has seen the evaluated classes; the report then says so.
        trained_on: What a backbone that says nothing of it was trained on, so that classes it has seen are refused: a
            data set such as "miniimagenet" (its training classes), "cub-closerlook:train+val", "imagenet", or a text
            file of class names. None leaves it unknown.
        data_root: Folder of data sets; None takes $OTFEW_DATA, then a cache folder.
        cub_split: Class split of CUB.
        split_seed: Seed of the class split of ``image-folder``.
        download: Fetch what is missing where the publisher allows it.
        device: "auto", "cpu", "cuda", ...
        watch: Where progress is shown.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.

    Example:
        >>> import otfew
        >>> found = otfew.compare("glyphs", ["cr-pooled", "cosine-centroid"], episodes=4, query=2)
        >>> sorted(found.differences)
        ['cr-pooled']
    """
    given: list[Given] = [methods] if isinstance(methods, str | FewShotMethod) else list(methods)
    # What needs no data is checked first.
    Protocol(dataset, "", split, seed, way, shot, query, query_balance)
    terms = Terms(episodes, class_prior, allow_overlap, pick_device(device))
    check_solver(solver)
    for one in given:
        match one:
            case str(name) if name != "all":
                catalogue.find(name)
            case (str(name), Mapping()):
                catalogue.find(name)
    if isinstance(features, str | Path) or features is None:
        options = DataOptions(
            cub_split=cub_split, split_seed=split_seed, download=download, all_classes=bool(fixed_classes)
        )
        material = open_material(
            dataset,
            None if features is None else Path(features),
            split=split,
            data_root=None if data_root is None else Path(data_root),
            options=options,
            backbone=backbone,
            resolution=resolution,
            crop=crop,
            nodes=nodes,
            allow_overlap=allow_overlap,
            trained_on=trained_on,
            watch=watch,
        )
    else:
        material = features
        refuse_overlap(material.overlap, allow_overlap)
    sampler = sample(
        material,
        way=way,
        shot=shot,
        query=query,
        seed=seed,
        query_balance=query_balance,
        fixed_classes=(lambda: _copies(material, nodes, terms.device)) if fixed_classes else None,
        unknown_classes=unknown_classes,
    )
    entries, not_run = choose(given, material, solver, terms.device)
    more = {
        "solver": solver if isinstance(solver, str) else repr(solver),
        "methods": {entry.name: _described(entry) for entry in entries},
    }
    panel = Panel("all", material, tuple(entries), sampler, pick_reference(reference, entries), not_run, more)
    protocol = panel.protocol(terms)
    identity = {"command": "compare", "format": FORMAT, "protocol": protocol, "versions": versions()}
    if output is not None:
        _refuse_unknown(entries)
    study = Study([panel], terms, identity, output, watch=watch)
    finished = study.evaluate()["all"]
    comparison = Comparison(
        {**identity, **finished.record},
        finished.times,
        {name: scores.accuracy for name, scores in finished.scores.items()},
        finished.classes,
    )
    if study.directory is not None:
        name = best_method(comparison.results)
        # The other processes of a run write nothing.
        worst = (study.worst("all", name, finished.scores[name]), material) if processes.world().is_main else None
        correct = {name: scores.correct for name, scores in finished.scores.items()}
        comparison = comparison.save(study.directory.path, correct, worst)
    return comparison


def open_material(
    dataset: str,
    features: Path | None = None,
    *,
    split: Part = "test",
    data_root: Path | None = None,
    options: DataOptions | None = None,
    backbone: str | Backbone | None = None,
    resolution: int | None = None,
    crop: Crop | None = None,
    nodes: str = "",
    allow_overlap: bool = False,
    trained_on: str | None = None,
    watch: Watch = SILENT,
) -> Material:
    """Open the user's features, or a split and a backbone.

    Args:
        dataset: Key of ``otfew.data.DATASETS``.
        features: The user's own features instead.
        split: What is evaluated.
        data_root: Folder of data sets.
        options: Of the data set.
        backbone: As in ``compare``.
        resolution: As in ``compare``.
        crop: As in ``compare``.
        nodes: Kind of nodes for all methods; "" for what each prefers.
        allow_overlap: Go on although the backbone has seen the classes.
        trained_on: As in ``compare``.
        watch: Where progress is shown.

    Raises:
        UserError: Anything is missing or unknown, or classes were seen in training.
    """
    if features is not None:
        return FileMaterial(features)
    # What has to be fetched or drawn is fetched or drawn once a machine.
    with processes.leaders_first():
        material = load_image_material(
            dataset, split, data_root, options, backbone, resolution, crop, nodes, watch, trained_on
        )
    # Evaluation refuses them too; here they are refused before anything is extracted.
    refuse_overlap(material.overlap, allow_overlap)
    return material


def check_solver(solver: str | Solver) -> None:
    """Raise ``UserError`` unless the solver exists and is installed."""
    try:
        resolve(solver)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"`solver`: {error}.") from error


def pick_device(name: str) -> str:
    """Choose where to compute; raises ``UserError`` where there is no such device.

    Processes of one machine take its accelerators in turn, unless the name says which.
    """
    import torch

    here = processes.world()
    if name in {"auto", "cuda"} and here.size > 1 and torch.cuda.is_available():
        name = f"cuda:{here.local_rank % torch.cuda.device_count()}"
    return str(devices.pick(name, among=("cuda",)))  # methods need float64, which MPS lacks


def _copies(material: Material, nodes: str, device: str) -> Indices:
    """Find the copies among a material's images, by features that methods will ask for anyway."""
    pooled = material.features(material.nodes_spec(nodes or "fcn"), device).pooled
    return copies_of(pooled.nodes[:, 0].numpy())


def _described(entry: Entry) -> Record:
    """Describe an entry as a comparison's protocol does: under the name of its method, that goes without saying."""
    described = entry.describe()
    return {key: value for key, value in described.items() if key != "method" or value != entry.name}


def _refuse_unknown(entries: Sequence[Entry]) -> None:
    """Raise ``UserError`` where a run's identity could not tell how an object was constructed.

    The folder would go on with episodes of a method of other options.
    """
    for entry in entries:
        objects = [entry.method, *entry.options.values()]
        for thing in objects:
            if not isinstance(thing, PLAIN) and f" object at {hex(id(thing))[:2]}" in repr(thing):
                ours = catalogue.methods().get(getattr(thing, "name", "")) is type(thing)
                instead = (
                    f"give it as ({thing.name!r}, {{OPTION: VALUE}})" if ours else "write one (a dataclass has it)"
                )
                raise UserError(
                    f"method {entry.name!r}: {type(thing).__name__} has no __repr__ that tells its options, so that "
                    f"its run cannot be kept: {instead}, or leave `output` out."
                )
