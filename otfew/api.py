"""The comparison as a function: ``otfew.compare`` runs one, ``otfew.load`` reads one that was kept.

Stands at the top of the library: it brings data, methods, evaluation and reports together, and commands are thin over
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from itertools import product
from pathlib import Path
from typing import Any

from otfew import catalogue
from otfew.backbones import Backbone
from otfew.choices import ClassPrior, Crop, CubSplit, Part
from otfew.data import DataOptions
from otfew.errors import UserError
from otfew.evaluation.episodes import Indices, Protocol
from otfew.evaluation.figures import FORMAT
from otfew.evaluation.fixed_classes import copies_of
from otfew.evaluation.guard import refuse_overlap
from otfew.evaluation.lineup import PLAIN, Entry, Given, choose, pick_reference
from otfew.evaluation.opening import check_solver, open_material, pick_device, refuse_images, refuse_other_images
from otfew.evaluation.pooling import between, pool
from otfew.evaluation.study import Finished, Panel, Record, Study, Terms, Where, sample
from otfew.features.material import ImageMaterial, Material
from otfew.method import FewShotMethod
from otfew.reporting.comparison_page import best_method
from otfew.reporting.joined import Axes, Joined, load_joined, names_of_files
from otfew.reporting.result import Comparison, load
from otfew.runs import processes
from otfew.runs.identity import versions
from otfew.runs.watch import SILENT, Watch
from otfew.transport import Solver

__all__ = [
    "Comparison", "Joined", "check_solver", "compare", "compare_over", "load", "load_joined", "open_material",
    "pick_device", "refuse_images",
]  # fmt: skip

DATASET = "glyphs"
"""What is compared on where neither a data set nor features are given."""
NOT_SHARED = {"shot", "seed", "output", "watch"}
"""Arguments of ``compare`` that are not the same for all parts of a run, or change nothing that is found."""


def compare(
    dataset: str | None = None,
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
    support_domain: str | None = None,
    query_domain: str | None = None,
    class_prior: ClassPrior = "uniform",
    episodes: int = 600,
    seed: int = 1,
    split: Part = "test",
    resolution: int | None = None,
    crop: Crop | None = None,
    reference: str = "",
    solver: str | Solver = "exact",
    logits: bool = False,
    output: Where = None,
    allow_overlap: bool = False,
    trained_on: str | None = None,
    data_root: str | Path | None = None,
    cub_split: CubSplit = "feat",
    split_seed: int = 0,
    download: bool | None = None,
    depth: int = 1,
    device: str = "auto",
    watch: Watch = SILENT,
) -> Comparison:
    """Run few-shot methods on the same episodes and compare them, with two kinds of intervals.

    Args:
        dataset: Name of the data set, path of a .csv file that lists images (see ``otfew.data.image_list``), or
            ``package.module:Name`` of your own; None takes glyphs.
        methods: Names, (name, options) pairs, objects that follow ``otfew.method.FewShotMethod``, or (name, object)
            pairs; "all" takes all that apply, and may stand beside others.
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
        support_domain: Where labelled images come from, where queries come from elsewhere: a built-in view of them such
            as "blur:2" (edges, blur, dark, clutter, occlusion, scale, severities 1 to 3; ``package.module:Name:2`` of
            your own), or a value of the column ``domain`` of a .csv file. None takes the images as they are.
        query_domain: Where queries come from: likewise, or a folder with the same class names. No image of an episode
            is both labelled and asked about, and a view has the episodes of the ordinary run, so that it is paired
            with it.
        class_prior: What transductive methods are told of the classes' shares in the queries.
        episodes: How many episodes.
        seed: Of the episodes.
        split: What is evaluated.
        resolution: Side of the images in pixels; None takes that of the backbone's training.
        crop: "none" or "center"; None takes "center" for photographs.
        reference: Name of the method that the others are compared with; "" takes cosine-centroid, else the first.
        solver: Transport solver, by name or as an object.
        logits: Keep the logits of every query beside the answers.
        output: Folder in which blocks of episodes are kept, so that the same call goes on after an interruption, and
            the report is written; None keeps nothing.
        allow_overlap: Go on although the backbone has seen the evaluated classes; the report then says so.
        trained_on: What a backbone that says nothing of it was trained on, so that classes it has seen are refused: a
            data set such as "miniimagenet" (its training classes), "cub-closerlook:train+val", "imagenet", or a text
            file of class names. None leaves it unknown.
        data_root: Folder of data sets; None takes $OTFEW_DATA, then a cache folder, or the folder of a .csv file.
        cub_split: Class split of CUB.
        split_seed: Seed of the class split of ``image-folder``, and of a .csv file without splits.
        download: Fetch what is missing where the publisher allows it; None asks about more than 100 MB at a terminal
            and refuses elsewhere.
        depth: Levels from the folder of ``image-folder`` down to its class folders.
        device: "auto", "cpu", "cuda", ...
        watch: Where progress is shown.

    Returns:
        The table, every method's accuracy in each episode, paired differences with both intervals, and the answers.

    Raises:
        UserError: Whatever the user can set right; nothing is written or overwritten then.

    Examples:
        >>> import otfew
        >>> found = otfew.compare("glyphs", ["cr-pooled", "cosine-centroid"], episodes=4, query=2)
        >>> sorted(found.differences)
        ['cr-pooled']
    """
    asked = _Asked(**{name: value for name, value in locals().items() if name not in NOT_SHARED})
    asked.check([shot], [seed])
    material = asked.material(features, watch)
    panel = asked.panel("all", material, shot, seed)
    identity = {
        "command": "compare",
        "format": FORMAT,
        "protocol": panel.protocol(asked.terms),
        "versions": versions(),
    }
    if output is not None:
        _refuse_unknown(panel.entries)
    study = Study([panel], asked.terms, identity, output, watch=watch)
    finished = study.evaluate()["all"]
    comparison = _comparison({**identity, **finished.record}, finished, material)
    if study.directory is not None:
        name = best_method(comparison.results)
        # The other processes of a run write nothing.
        worst = (study.worst("all", name, finished.scores[name]), material) if processes.world().is_main else None
        correct = {name: scores.correct for name, scores in finished.scores.items()}
        comparison = comparison.save(study.directory.path, correct, worst)
    return comparison


def compare_over(
    *,
    seeds: Sequence[int] = (),
    shots: Sequence[int] = (),
    features: Sequence[str | Path | Material] = (),
    output: Where = None,
    watch: Watch = SILENT,
    **options: Any,
) -> Joined:
    """Run a comparison over seeds, numbers of shots, or several networks' features of the same images; join the tables.

    Each part is what ``compare`` gives for its seed, shots and features. Seeds are of the episodes: their figures are
    pooled, as those of one run of all episodes. Features are paired, since episodes are keyed by the labels.

    Args:
        seeds: Of the episodes; none takes ``seed``.
        shots: Labelled images of each class; none takes ``shot``.
        features: Files, or what else methods can run on, of the same images in the same order; none takes a data set.
        output: As in ``compare``.
        watch: Where progress is shown.
        **options: Other arguments of ``compare``.

    Returns:
        A comparison for each seed, number of shots and file of features, and their figures joined.

    Raises:
        UserError: As ``compare`` says, an argument that it has not, or features of other images.

    Examples:
        >>> import otfew
        >>> found = otfew.compare_over(shots=[1, 5], dataset="glyphs", methods=["cosine-centroid"], episodes=4, query=2)
        >>> sorted(found.panels)
        ['shot-1', 'shot-5']
    """
    defaults = {p.name: p.default for p in signature(compare).parameters.values()}
    if unknown := sorted(options.keys() - defaults.keys()):
        raise UserError(f"`{unknown[0]}` is no argument of compare: see help(otfew.compare).")
    for one, several in (("seed", seeds), ("shot", shots)):
        if several and options.get(one, defaults[one]) != defaults[one]:
            raise UserError(f"`{one}s` comes in place of `{one}`: leave one of them out.")
    given = {**defaults, **options, "features": features[0] if features else None}
    axes = Axes(
        names_of_files(features) if len(features) > 1 else ("",),
        tuple(dict.fromkeys(shots)) or (given["shot"],),
        tuple(dict.fromkeys(seeds)) or (given["seed"],),
    )
    asked = _Asked(**{name: value for name, value in given.items() if name not in NOT_SHARED})
    asked.check(axes.shots, axes.seeds)
    materials = {name: asked.material(one, watch) for name, one in zip(axes.features, features or (None,), strict=True)}
    refuse_other_images(materials)
    panels = {
        (name, shot, seed): asked.panel(axes.key(name, shot, seed), material, shot, seed)
        for name, material in materials.items()
        for shot in axes.shots
        for seed in axes.seeds
    }
    identity = {
        "command": "compare",
        "format": FORMAT,
        "axes": axes.to_json(),
        "panels": {panel.key: panel.protocol(asked.terms) for panel in panels.values()},
        "versions": versions(),
    }
    if output is not None:
        _refuse_unknown([entry for panel in panels.values() for entry in panel.entries])
    study = Study(list(panels.values()), asked.terms, identity, output, watch=watch)
    finished = study.evaluate()
    pools = {
        (name, shot): pool(
            [panels[name, shot, seed] for seed in axes.seeds],
            [finished[axes.key(name, shot, seed)] for seed in axes.seeds],
        )
        for name, shot in axes.columns
    }
    first, *others = axes.features
    results = {
        **identity,
        "panels": {key: f.record for key, f in finished.items()},
        "pooled": {axes.key(*column): found.record for column, found in pools.items()},
        "between": {
            str(shot): between(pools[first, shot], {other: pools[other, shot] for other in others})
            for shot in axes.shots
        },
    }
    shared = {key: identity[key] for key in ("command", "format", "versions")}
    joined = Joined(
        results,
        {
            panel.key: _comparison({**shared, **finished[panel.key].record}, finished[panel.key], panel.material)
            for panel in panels.values()
        },
    )
    return joined if study.directory is None else joined.save(study.directory.path)


@dataclass(frozen=True)
class _Asked:
    """The arguments of ``compare`` that are the same for all parts of a run."""

    dataset: str | None
    methods: str | FewShotMethod | Sequence[Given]
    features: str | Path | Material | None
    backbone: str | Backbone | None
    nodes: str
    way: int
    query: int
    query_balance: str
    fixed_classes: bool
    unknown_classes: int
    support_domain: str | None
    query_domain: str | None
    class_prior: ClassPrior
    episodes: int
    split: Part
    resolution: int | None
    crop: Crop | None
    reference: str
    solver: str | Solver
    logits: bool
    allow_overlap: bool
    trained_on: str | None
    data_root: str | Path | None
    cub_split: CubSplit
    split_seed: int
    download: bool | None
    depth: int
    device: str

    def check(self, shots: Sequence[int], seeds: Sequence[int]) -> None:
        """Refuse what can be refused without data.

        Raises:
            UserError: A number out of range, an unknown name, or an option without effect.
        """
        if self.features is not None:
            refuse_images(
                dataset=self.dataset, backbone=self.backbone, resolution=self.resolution, crop=self.crop,
                support_domain=self.support_domain, query_domain=self.query_domain,
            )  # fmt: skip
        for shot, seed in product(shots, seeds):
            Protocol(self.dataset or DATASET, "", self.split, seed, self.way, shot, self.query, self.query_balance)
        _ = self.terms
        check_solver(self.solver)
        for one in self._given:
            match one:
                case str(name) if name != "all":
                    catalogue.find(catalogue.parse(name)[0])
                case (str(name), Mapping()):
                    catalogue.find(name)

    @property
    def _given(self) -> list[Given]:
        return [self.methods] if isinstance(self.methods, str | FewShotMethod) else list(self.methods)

    @cached_property
    def terms(self) -> Terms:
        """What holds for all panels."""
        return Terms(self.episodes, self.class_prior, self.allow_overlap, pick_device(self.device))

    def material(self, features: str | Path | Material | None, watch: Watch) -> Material:
        """Open what methods run on: features, where they are given."""
        if features is not None and not isinstance(features, str | Path):
            refuse_overlap(features.overlap, self.allow_overlap)
            return features
        return open_material(
            self.dataset or DATASET,
            None if features is None else Path(features),
            split=self.split,
            data_root=None if self.data_root is None else Path(self.data_root),
            options=DataOptions(
                cub_split=self.cub_split,
                split_seed=self.split_seed,
                download=self.download,
                depth=self.depth,
                all_classes=bool(self.fixed_classes),
            ),
            backbone=self.backbone,
            resolution=self.resolution,
            crop=self.crop,
            nodes=self.nodes,
            allow_overlap=self.allow_overlap,
            trained_on=self.trained_on,
            support_domain=self.support_domain,
            query_domain=self.query_domain,
            watch=watch,
        )

    def panel(self, key: str, material: Material, shot: int, seed: int) -> Panel:
        """Settle who runs on which episodes."""
        terms, nodes = self.terms, self.nodes
        sampler = sample(
            material,
            way=self.way,
            shot=shot,
            query=self.query,
            seed=seed,
            query_balance=self.query_balance,
            fixed_classes=(lambda: _copies(material, nodes, terms.device)) if self.fixed_classes else None,
            unknown_classes=self.unknown_classes,
            logits=self.logits,
        )
        entries, not_run = choose(self._given, material, self.solver, terms.device)
        more = {
            "solver": self.solver if isinstance(self.solver, str) else repr(self.solver),
            "methods": {entry.name: _described(entry) for entry in entries},
        }
        return Panel(key, material, tuple(entries), sampler, pick_reference(self.reference, entries), not_run, more)


def _comparison(results: Record, finished: Finished, material: Material) -> Comparison:
    """Make a comparison of what a panel gave."""
    return Comparison(
        results,
        finished.times,
        {name: scores.accuracy for name, scores in finished.scores.items()},
        finished.classes,
        source=finished.answers,
        images=material.images if isinstance(material, ImageMaterial) else None,
    )


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
