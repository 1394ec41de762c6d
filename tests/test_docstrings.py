"""Every public name says what it takes, gives, refuses and rests on; docs/api/index.md says which names are public."""

from __future__ import annotations

import builtins
import dataclasses
import functools
import importlib
import inspect
import re
from pathlib import Path

import pytest

from .docstrings import (
    ARRAYS,
    CONSTRUCTOR,
    DTYPE,
    SECTIONS,
    SHAPE,
    Docstring,
    constant_doc,
    constructor,
    fields,
    ours,
    parameters,
    raised,
    read,
)

PAGES = Path(__file__).resolve().parents[1] / "docs" / "api"

if not PAGES.is_dir():
    pytest.skip("runs in a checkout only", allow_module_level=True)

PACKAGES = (
    "otfew",
    "otfew.backbones",
    "otfew.baselines",
    "otfew.compat.pot",
    "otfew.conformance",
    "otfew.classifier",
    "otfew.costs",
    "otfew.data",
    "otfew.data.shifts",
    "otfew.methods",
    "otfew.node_weights",
    "otfew.nodes",
    "otfew.retrieval_metrics",
    "otfew.transport",
)
"""Modules whose ``__all__`` is public as a whole."""

NOT_LISTED = {"otfew.compat.pot": {"bregman", "lp", "partial", "unbalanced", "utils"}}
"""Modules in ``__all__``: what they offer has entries."""

OWN = {
    "CosineCentroid": "one cosine of means: nobody's invention",
    "CosineNodes": "a control of ours",
    "Chamfer": "a control of ours",
    "CRPooled": "a control of ours",
    "TrimmedChamfer": "a control of ours",
    "ProductCoupling": "a control of ours",
    "MeanAlignment": "a control of ours",
    "Whitening": "a control of ours",
    "KNN": "older than any paper that one would name",
    "Logistic": "older than any paper that one would name",
    "LatentSpaceTransform": "LST's",
    "MeanHead": "an average",
    "NearestHead": "a control of ours",
    "FusionHead": "a head of ours",
    "MergeHead": "a head of ours",
    "PrototypeHead": "a head of ours",
    "BarycenterHead": "a head of ours",
    "KMeansHead": "a control of ours",
}
"""Methods and heads that implement nothing that was published."""

ALSO_CITED = (
    "otfew.Exact",
    "otfew.Sinkhorn",
    "otfew.barycenter",
    "otfew.sinkhorn_divergence",
    "otfew.sinkhorn_divergence_points",
    "otfew.sliced_distance",
    "otfew.transport_map",
    "otfew.node_weights.CrossReference",
    "otfew.retrieval_metrics.retrieval_metrics",
    "otfew.statistics.intervals.class_jackknife",
    "otfew.statistics.intervals.holm",
    "otfew.statistics.clusters.clustered",
    "otfew.statistics.crossed.summed",
    "otfew.training.long_tail.losses.adjusted",
    "otfew.training.long_tail.losses.balanced_softmax",
    "otfew.training.long_tail.losses.class_balanced",
    "otfew.training.long_tail.losses.focal",
    "otfew.training.long_tail.losses.ldam",
    "otfew.pair_loss.Matched",
)
"""What else others have published."""

MADE_BY_OTFEW = {"otfew.OTResult"}
"""Classes of results whose constructor is none of a user's business."""

NOT_RAISED = {
    "otfew.Comparison.answers": {"DamagedError"},  # a UserError says it
    "otfew.data.read_image": {"ValueError"},  # of damaged files: a UserError says so
    "otfew.load": {"ValueError"},  # of files that do not belong together: a UserError says so
    "otfew.nodes.cuts_patches": {"UserError"},  # no nodes are no patches
    "otfew.transport.precision.in_full_precision": {"ValueError"},  # by the function that it makes
    "otfew.solvers": {"ValueError"},  # of unknown names: these are known
    "otfew.statistics.seeds.differences": {"ValueError"},  # seeds that are not shared are None
    "otfew.transport.result.Parts.mapped": {"ValueError"},  # when the plan is asked for
}
"""What is raised inside and caught, or cannot happen there."""

OTHERS_ERRORS = {
    "NotFittedError": "scikit-learn's",
    "DamagedError": "a file's, which its reader turns into a UserError",
}
"""Errors in docstrings that are neither Python's nor in the index."""

OPTIONAL = {"otfew.compat.pml": "pytorch_metric_learning"}
"""Module -> library without which it cannot be imported."""


def table():
    """Read the index: (page, module, name), in order."""
    page = ""
    for line in (PAGES / "index.md").read_text(encoding="utf-8").splitlines():
        row = re.fullmatch(r"\| (?:\[.*\]\((.+)\) )?\| `([\w.]+)` \| (.+) \|", line)
        if row:
            page = row[1] or page
            yield from ((page, row[2], name) for name in re.findall(r"`(\w+)`", row[3]))


NAMES = [*table()]
PLACES = sorted({f"{module}.{name}" for _, module, name in NAMES})


def found(place):
    """Import what a name stands for."""
    module, _, name = place.rpartition(".")
    if module in OPTIONAL:
        pytest.importorskip(OPTIONAL[module])
    return getattr(importlib.import_module(module), name)


def optional(place):
    return place.rpartition(".")[0] in OPTIONAL


def is_callable(thing):
    return inspect.isclass(thing) or inspect.isroutine(thing)


def document(place):
    """Read the docstring of a name, or of a constant what stands below it."""
    thing = found(place)
    if is_callable(thing):
        return read(inspect.getdoc(thing) or "")
    module, _, name = place.rpartition(".")
    places = getattr(importlib.import_module(module), "_PLACES", {})
    path = places.get(name, module)
    return read(constant_doc(path.partition(":")[0], name))


def members(cls):
    """List the public methods and properties that a class of otfew's adds or changes: (name, function, property?)."""
    for name, member in sorted(vars(cls).items()):
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(member, property | functools.cached_property):
            yield name, member.fget if isinstance(member, property) else member.func, True
        elif isinstance(member, staticmethod | classmethod) or inspect.isfunction(member):
            yield name, getattr(member, "__func__", member), False


def inherited(cls, name):
    """Tell whether a contract, or a class above, says what a method takes and gives."""
    above = [*cls.__mro__[1:], *_contracts(cls)]
    return any(name in vars(base) and inspect.getdoc(vars(base)[name]) for base in above if base is not object)


def _contracts(cls):
    """List the protocols that a class follows without deriving from them."""
    from otfew.method import FewShotMethod, MethodBase

    return [FewShotMethod] if issubclass(cls, MethodBase) else []


def complaints(doc, function, *, is_property=False, overrides=False, where=""):
    """Say what a docstring of a function lacks."""
    if not re.match(r"\S[^\n]*(\n\S[^\n]*)*[.:?](\n\n|$)", doc.text):
        yield f"{where}: no summary sentence"
    yield from wrong_sections(doc, where)
    if overrides:
        return
    arguments = [] if is_property else parameters(function)
    yield from wrong_arguments(doc, {p.name: p.annotation for p in arguments}, where)
    returns = inspect.signature(function).return_annotation
    gives = returns not in {None, "None", inspect.Signature.empty, "NoReturn"}
    told = is_property or {"Returns", "Yields"} & doc.sections.keys()
    if gives and not told and not re.match(r"(Return|Tell|Yield)s? ", doc.text):
        yield f"{where}: no Returns"
    if gives and ARRAYS.search(str(returns)) and "Array" not in where:
        given = {**doc.sections.get("Returns", {}), **doc.sections.get("Yields", {})}
        said = " ".join(given.values()) or doc.text
        if not SHAPE.search(said):
            yield f"{where}: no shape of what it returns"
    yield from wrong_errors(doc, [function], where)


def wrong_sections(doc, where):
    """A title that is none of Google's sections would be shown as a box with a caption, and its prompts as quotes."""
    for line in doc.text.splitlines():
        if re.fullmatch(r"(Example|Arg|Argument|Arguments|Parameters|Return|Raise|Yield|Attribute|Notes?)s?:", line):
            yield f"{where}: {line} is no section"
    for section in ("Returns", "Yields"):
        said = doc.sections.get(section, {}).get("", "")
        if re.match(r"\w*\s*(\(.+?\))?:\s", said):
            yield f"{where}: {section} begins with what is read as a name and its colon: {said[:30]}"


def wrong_arguments(doc, taken, where, others=()):
    named = {**doc.sections.get("Args", {}), **doc.sections.get("Attributes", {})}
    for name, annotation in taken.items():
        if not named.get(name):
            yield f"{where}: argument {name} is not described"
        elif ARRAYS.search(str(annotation)) and not SHAPE.search(named[name]):
            yield f"{where}: argument {name} has no shape"
    for name in doc.sections.get("Args", {}):
        if name not in taken and name not in others:
            yield f"{where}: describes {name}, which it does not take"


def wrong_errors(doc, functions, where):
    kinds, helpers = set(), set()
    for function in functions:
        more = raised(function)
        kinds |= more[0]
        helpers |= more[1]
    kinds -= {"NotImplementedError", "AssertionError", "AttributeError", *NOT_RAISED.get(where, ())}
    told = doc.sections.get("Raises", {})
    for kind in kinds:
        if kind not in told and not (kind == "UserError" and "ValueError" in told):
            yield f"{where}: raises {kind} and does not say so"
    if helpers and not told:
        yield f"{where}: checks its input ({', '.join(sorted(helpers))}) and has no Raises"
    for kind in told:
        if not hasattr(builtins, kind) and kind not in OTHERS_ERRORS and all(name != kind for _, _, name in NAMES):
            yield f"{where}: {kind} is an error that nobody can find"


def shared(cls, doc):
    """Return the docstring to which a class refers for options that it does not change, or None."""
    said = re.search(r"options and errors are those of ``(\w+)``", doc.text)
    if said is None:
        return None
    package = cls.__module__.rpartition(".")[0]
    other = getattr(importlib.import_module(package), said[1])
    assert f"{package}.{said[1]}" in PLACES, f"{cls.__name__} refers to {said[1]}, which is not public"
    assert constructor(cls) is constructor(other), f"{cls.__name__} has other options than {said[1]}"
    return read(inspect.getdoc(other))


def of_class(cls, doc, where):
    """Say what the docstrings of a class lack."""
    if not re.match(r"\S[^\n]*(\n\S[^\n]*)*[.:?](\n\n|$)", doc.text):
        yield f"{where}: no summary sentence"
    yield from wrong_sections(doc, where)
    if where not in MADE_BY_OTFEW and not getattr(cls, "_is_protocol", False):
        yield from of_constructor(cls, shared(cls, doc) or doc, where)
    for base in ours(cls):
        for name, function, is_property in members(base):
            yield from complaints(
                read(inspect.getdoc(function) or ""),
                function,
                is_property=is_property,
                overrides=inherited(base, name),
                where=f"{where}.{name}",
            )


def of_constructor(cls, doc, where):
    taken = {}
    if dataclasses.is_dataclass(cls):
        taken = {field.name: field.type for field in fields(cls)}
        # A field may be described where a class above has it.
        above = [read(inspect.getdoc(base) or "").sections for base in reversed(ours(cls))]
        doc = Docstring(doc.text, {k: {n: t for s in above for n, t in s.get(k, {}).items()} for k in SECTIONS})
    elif function := constructor(cls):
        taken = {p.name: p.annotation for p in parameters(function)}
    yield from wrong_arguments(doc, taken, where)
    if taken:
        made = [vars(base)[name] for base in ours(cls) for name in CONSTRUCTOR if name in vars(base)]
        yield from wrong_errors(doc, made, where)


def wrong_dtypes(doc, function, where):
    """Say which arrays of a function have a shape and no dtype: for functions alone, methods have their class's."""
    for parameter in parameters(function):
        told = doc.sections.get("Args", {}).get(parameter.name, "")
        if ARRAYS.search(str(parameter.annotation)) and not DTYPE.search(told):
            yield f"{where}: argument {parameter.name} has no dtype"
    told = " ".join({**doc.sections.get("Returns", {}), **doc.sections.get("Yields", {})}.values())
    if ARRAYS.search(str(inspect.signature(function).return_annotation)) and not DTYPE.search(told):
        yield f"{where}: no dtype of what it returns"


@pytest.mark.parametrize("place", PLACES)
def test_a_public_name_says_all(place):
    thing, doc = found(place), document(place)
    if inspect.isclass(thing):
        wrong = [*of_class(thing, doc, place)]
    elif inspect.isroutine(thing):
        wrong = [*complaints(doc, thing, where=place), *wrong_dtypes(doc, thing, place)]
    else:
        wrong = [] if doc.text else [f"{place}: nothing below it says what it is"]
    assert wrong == []


def cited():
    """List what must name its source."""
    for module in ("otfew.methods", "otfew.baselines"):
        here = [f"{m}.{n}" for _, m, n in NAMES if m == module and not n.isupper()]
        yield from (place for place in here if place.rpartition(".")[2] not in OWN)
    yield from ALSO_CITED


@pytest.mark.parametrize("place", [*cited()])
def test_what_others_have_published_has_a_source(place):
    doc = document(place)
    assert "Source" in doc.sections or re.search(r"\b(18|19|20)\d\d\b", doc.text), "names no paper: (Author 2020)"


@pytest.mark.parametrize("module", PACKAGES)
def test_the_index_has_what_a_package_exports(module):
    """Under the package's name, or where the index has the very same thing."""
    package = importlib.import_module(module)
    listed = {name for _, place, name in NAMES if place == module}
    others = {id(getattr(package, name)) for name in package.__all__ if name not in listed}
    others -= {id(getattr(package, name)) for name in NOT_LISTED.get(module, ())}
    assert listed <= set(package.__all__)
    assert others <= {id(found(place)) for place in PLACES if not optional(place)}


def test_pages_show_the_names_of_the_index():
    shown = {}
    for page in sorted(PAGES.glob("*.md")):
        places = re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.M)
        assert len(places) == len(set(places)), f"{page.name} shows a name twice"
        shown[page.name] = set(places)
    wanted = {page: {f"{m}.{n}" for p, m, n in NAMES if p == page} for page, _, _ in NAMES}
    assert {page: places for page, places in shown.items() if places} == wanted


def test_exempt_names_are_public():
    """Lists do not outlive what they speak of."""
    names = {name for _, _, name in NAMES}
    assert OWN.keys() <= names
    assert set(ALSO_CITED) <= set(PLACES)
