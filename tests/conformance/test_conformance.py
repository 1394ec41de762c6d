"""The laws of plug-ins find what is wrong with a broken one, and nothing wrong with a sound one."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from otfew import conformance
from otfew.errors import UserError

EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Run in a folder of the test, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(EXAMPLES)])
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith((str(tmp_path), str(EXAMPLES))):
            del sys.modules[name]


def write(name, text):
    Path(f"{name}.py").write_text(dedent(text))


def failures(spec, **options):
    found = conformance.check(spec, **options)
    return {finding.law: finding.mend for finding in found.failures}


def notes(spec):
    return [finding.mend for finding in conformance.check(spec).findings if finding.verdict == "note"]


@pytest.mark.parametrize("name", ["deepemd", "pt-map", "protonet", "knn", "simpleshot", "cosine-centroid", "frn"])
def test_methods_of_ours_are_sound(name):
    assert failures(name) == {}


@pytest.mark.parametrize("name", ["fcn", "grid:2", "sampling:2", "exact", "sinkhorn"])
def test_nodes_and_solvers_of_ours_are_sound(name):
    assert failures(name) == {}


def test_a_backbone_of_ours_is_sound():
    assert failures("glyphs-resnet12-quarter", kind="backbone") == {}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("my_method:BestMatches", "method"),
        ("my_method:BestMatches:share=1", "method"),
        ("my_network:small", "backbone"),
        ("my_data:STRIPES", "data set"),
        ("my_nodes:Rings", "nodes"),
        ("my_nodes:Rings:3", "nodes"),
        ("my_solver:Dual", "solver"),
    ],
)
def test_the_examples_are_what_they_are_and_sound(name, kind):
    found = conformance.check(name)
    assert found.kind == kind
    assert found.failures == ()


METHOD = """
import numpy as np
import torch
from otfew.method import MethodBase, check_episode, shot_mean

class Mine(MethodBase):
    "logit_c = -|mean query - mean class|"
    name = "mine"
    pools = True
    {attributes}
    def __init__(self, temperature: float = 1.0):
        self.temperature = temperature
        self.seen = 0.0
    def __call__(self, support, query, *, support_mask=None, class_prior=None):
        check_episode(support, query, support_mask)
        centres, vectors = shot_mean(support, support_mask).mean(-2), query.mean(-2)
        {before}
        logits = -(vectors[:, :, None] - centres[:, None]).square().sum(-1)
        {after}
        return logits
"""
MATES = "an episode does not depend on its batch-mates"
SAME = "the same question gets the same answer"
TRACE = "a call leaves no trace"
MASK = "masked shots count for nothing"
SHAPE = "logits have the right shape and dtype, and are finite"
ALONE = "queries are answered one by one, or it says otherwise"
GRADIENT = "gradients are those of finite differences"
ZEROS = "gradients are finite at zeros and none at masked shots"


def test_a_method_that_is_right(tmp_path):
    write("right", METHOD.format(attributes="", before="", after=""))
    assert failures("right:Mine") == {}


@pytest.mark.parametrize(
    ("number", "parts", "law", "said"),
    [
        (0, {"before": "centres = centres - 0.5 * centres.mean((0, 1))"}, MATES, "batch"),
        (1, {"after": "logits = logits / logits.std()"}, MATES, "first axis"),
        (2, {"after": "return logits.mT"}, SHAPE, "return logits (episodes, n_query, way), here (3, 5, 4)"),
        (3, {"after": "return logits.argmax(-1)"}, SHAPE, "(3, 5)"),
        (4, {"after": "return logits.tolist()"}, SHAPE, "list"),
        (5, {"after": "logits = logits.float()"}, SHAPE, "keep the dtype"),
        (6, {"after": "logits = logits + torch.randn_like(logits)"}, SAME, "seeded otherwise"),
        (7, {"after": "logits = logits + np.random.rand()"}, SAME, "torch.Generator"),
        (8, {"before": "support_mask = None; centres = support.mean((2, 3))"}, MASK, "support_mask is ignored"),
        (9, {"before": "centres = torch.einsum('ewsnc,ews->ewc', support, support_mask.to(support)) "
             "/ support_mask.sum(-1)[..., "
             "None] / support.shape[3] if support_mask is not None else centres"}, MASK, "NaN"),
        (10, {"before": "query.mul_(2)"}, TRACE, "writes into"),
        (11, {"after": "logits = logits + self.seen * logits ** 2; self.seen += 1"}, TRACE, "later"),
        (12, {"after": "logits = logits - logits.mean(1, keepdim=True)"}, ALONE, "transductive = True"),
        (13, {"after": "logits = -logits"}, "the most similar class has the largest logit", "minus a distance"),
        (14, {"after": "logits = logits + class_prior[:, None] if class_prior is not None else "
              "logits"}, "class_prior is for transductive methods", "unused"),
        (15, {"before": "centres = (centres + centres.detach()) / 2"}, GRADIENT, "partial_gradient"),
        (16, {"after": "logits = -(-logits).sqrt()"}, ZEROS, "NaN or infinite"),
        (17, {"before": "vectors = query[:, :, 0]"}, "order of nodes does not matter", "set of nodes"),
        (18, {"after": "logits = logits * torch.arange(1, logits.shape[-1] + 1)"},
         "order of classes and of queries does not matter", "treat all classes alike"),
        (19, {"attributes": "learned = ('heat',)"}, "attributes are those of the contract", "'heat'"),
        (20, {"attributes": "transductive = 1"}, "attributes are those of the contract", "make it a bool"),
        (21, {"after": "logits = logits[:, :, :2]"}, SHAPE, "(3, 5, 2)"),
        (22, {"before": "raise KeyError('w')"}, SHAPE, "KeyError: 'w' ("),
        (23, {"after": "logits = (-logits).log()"}, "features below 0", ""),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)  # fmt: skip
def test_methods_that_are_wrong_are_told_in_what(number, parts, law, said):
    if number == 23:
        parts = {"before": "centres = centres.log1p(); vectors = (vectors).sqrt()"}
    write(f"wrong_{number}", METHOD.format(**{"attributes": "", "before": "", "after": "", **parts}))
    found = failures(f"wrong_{number}:Mine")
    assert law in found, found
    assert said in found[law]


def test_what_is_missing_without_being_wrong_is_a_note():
    write("lacking", METHOD.format(attributes="pools = False", before="", after="logits = logits.detach()"))
    said = " ".join(notes("lacking:Mine"))
    assert "pools = True" in said
    assert "metatrain cannot train" in said
    assert failures("lacking:Mine") == {}


def test_what_cannot_be_asked_says_what_is_in_the_way():
    write("stopped", METHOD.format(attributes="", before="", after="return 1"))
    found = conformance.check("stopped:Mine").findings
    assert sum(finding.verdict == "not asked" for finding in found) > 10
    assert all(SHAPE in finding.mend for finding in found if finding.verdict == "not asked")


NODES = """
import numpy as np
import torch
class Mine:
    n_views = 1
    spec = "mine"
    draws = {draws}
    def views(self, image, preparation, name):
        whole = preparation(image)[None]
        {views}
        return whole
    def nodes(self, maps):
        found = maps[:, 0].flatten(2).mT
        {nodes}
        return found
"""


@pytest.mark.parametrize(
    ("number", "parts", "law", "said"),
    [
        (0, {"views": "whole = whole[:, ::2]"}, "views of images of any shape", "not uint8 (1, 32, 32, 3)"),
        (1, {"views": "whole = np.roll(whole, np.random.randint(1, 9999) % 31, 1)",
             "draws": True}, "the same image has the same views, whatever is drawn elsewhere", "uniforms"),
        (2, {"views": "whole = np.roll(whole, len(name), 1)"},
         "the same image has the same views, whatever is drawn elsewhere", "state True"),
        (3, {"nodes": "found = found - found.mean(0)"}, "an image does not depend on its batch-mates", "first axis"),
        (4, {"nodes": "found = found.mean(1)"}, "nodes have the right shape and are finite", "nodes, channels)"),
        (5, {"nodes": "found = found + torch.rand_like(found)"}, "the same maps have the same nodes", "draw nothing"),
        (6, {"nodes": "maps.zero_()"}, "nodes have the right shape and are finite", "copy them first"),
        (7, {"nodes": "found = found / 0"}, "nodes have the right shape and are finite", "NaN"),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)  # fmt: skip
def test_nodes_that_are_wrong_are_told_in_what(number, parts, law, said):
    write(f"nodes_{number}", NODES.format(**{"draws": False, "views": "", "nodes": "", **parts}))
    found = failures(f"nodes_{number}:Mine")
    assert law in found, found
    assert said in found[law]


SOLVER = """
from dataclasses import dataclass, replace
from typing import ClassVar
import numpy as np
import otfew
from otfew.transport.registry import ArraySolver

def greedy(problem, found):
    plan = np.array([np.outer(a, b) / a.sum() for _, a, b in map(problem.item, range(len(problem)))])
    linear = np.array([(problem.item(k)[0] * plan[k]).sum() for k in range(len(problem))])
    return replace(found, dense=plan, rows=None, cols=None, flow=None, value=linear)

@dataclass(frozen=True)
class Mine(ArraySolver):
    name: ClassVar[str] = "mine"
    kind: ClassVar[str] = "{kind}"
    requires: ClassVar[str] = "{requires}"
    install: ClassVar[str] = "pip install it"
    def solve(self, problem):
        found = otfew.Exact().solve(problem)
        {then}
        return found
"""


@pytest.mark.parametrize(
    ("number", "parts", "law", "said"),
    [
        (0, {"kind": "magic"}, "the class states what it must", "exact (the linear program)"),
        (1, {"requires": "not_there_at_all"}, "the class states what it must", "pip install it"),
        (2, {"then": "found = greedy(problem, found)"},
         "the plan costs what its kind promises", "state entropic"),
        (3, {"then": "found.flow *= 1.5"}, "the plan meets the weights", "sums of the plan's rows"),
        (4, {"then": "found.value *= 1 + 0.1 * np.random.rand(); found.flow *= 1 + 0.1 * np.random.rand()"},
         "the same problem gets the same answer, and is left as it is", "seeded otherwise"),
        (5, {"then": "found.value += len(problem)"},
         "a problem does not depend on its batch-mates, or it says so", "batch_coupled = True"),
        (6, {"then": "raise OverflowError('too large')"}, "it solves in float32 and float64",
         "OverflowError: too large"),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)  # fmt: skip
def test_solvers_that_are_wrong_are_told_in_what(number, parts, law, said):
    write(f"solver_{number}", SOLVER.format(**{"kind": "exact", "requires": "numpy", "then": "", **parts}))
    found = failures(f"solver_{number}:Mine")
    assert law in found, found
    assert said in found[law]


NETWORK = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, stride=4)
    def forward(self, images):
        maps = self.layer(images)
        {then}
        return maps
"""


@pytest.mark.parametrize(
    ("number", "then", "law", "said"),
    [
        (0, "maps = maps - maps.mean(0)", "an image does not depend on its batch-mates", "batch statistics"),
        (1, "maps = nn.functional.dropout(maps, 0.5)", "the same images have the same maps", "evaluation mode"),
        (2, "maps = maps[0]", "images become maps", "must return maps"),
        (3, "maps = maps / 0", "images become maps", "NaN"),
        (4, "maps = torch.ones_like(maps)", "other images have other maps", "look at its input"),
        (5, "maps = maps.no_such_thing", "images become maps", "AttributeError"),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_backbones_that_are_wrong_are_told_in_what(number, then, law, said):
    write(f"network_{number}", NETWORK.format(then=then))
    found = failures(f"network_{number}:Net")
    assert law in found, found
    assert said in found[law]


DATA = """
import hashlib
from dataclasses import replace
import numpy as np
from otfew.data import Dataset, ImageSet
def load(root, split, options):
    classes = [f"{{split}}-{{c}}" for c in range(5)]
    names = tuple(f"{{c}}/{{i}}" for c in classes for i in range(16))
    labels = np.repeat(np.arange(5), 16).astype(np.int64)
    images = ImageSet("x", split, "", tuple(classes), labels, names, lambda i: read(names[i]),
                      hashlib.sha256(split.encode()).hexdigest(), 5)
    {then}
    return images
def read(name):
    return np.random.default_rng([*name.encode()]).integers(0, 256, (8, 9, 3), dtype=np.uint8)
state = [0]
def counted(i):
    state[0] += 1
    return np.full((8, 9, 3), state[0] % 256, np.uint8)
DATASET = Dataset("x", "some images", 8, load, needs_root=False)
def make():
    return DATASET
"""


@pytest.mark.parametrize(
    ("number", "then", "law", "said"),
    [
        (0, "images = replace(images, labels=images.labels.astype(np.int32))", "a split can be loaded", "of int64"),
        (1, "images = replace(images, names=(names[0],) * 80)", "a split can be loaded", "names two images alike"),
        (2, "images = replace(images, labels=images.labels + 1)", "a split can be loaded", "outside its 5 classes"),
        (3, "images = replace(images, classes=tuple('abcde'))", "no class is in two splits", "share 5 classes"),
        (4, "images = replace(images, read=lambda i: read(names[i]).astype(float))",
         "images are (height, width, 3) of uint8", "float64 (8, 9, 3)"),
        (5, "images = replace(images, read=counted)", "the same images each time", "function of its name"),
        (6, "images = replace(images, fingerprint=str(np.random.rand()))", "the same images each time", "fingerprint"),
        (7, "images = replace(images, fingerprint='x')", "fingerprints tell splits apart", "two splits"),
        (8, "return 3", "a split can be loaded", "of type int, not an otfew.data.ImageSet"),
        (9, "raise KeyError('row')", "a split can be loaded", "loading 'train' fails with KeyError: 'row' ("),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)  # fmt: skip
def test_data_sets_that_are_wrong_are_told_in_what(number, then, law, said):
    write(f"data_{number}", DATA.format(then=then))
    found = failures(f"data_{number}:DATASET")
    assert law in found, found
    assert said in found[law]


def test_a_data_set_that_is_right_and_what_makes_it():
    write("data_right", DATA.format(then=""))
    assert failures("data_right:DATASET") == {}
    assert conformance.kind_of("data_right:make") == "data set"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("odd:Nothing", "none of these: a method (a class derived"),
        ("odd:number", "of type int"),
        ("odd:function", "a function and no class"),
        ("odd:Bare", "lacks 'name'"),
        ("odd:breaks", "fails with ZeroDivisionError"),
        ("odd:Mising", "did you mean Missing?"),
        ("raises:Name", "importing 'raises' fails with RuntimeError: no licence"),
        ("nowhere_at_all:Name", "run where nowhere_at_all lies"),
        ("deepmd", "neither package.module:Name nor"),
        ("deepemd:heat=1", "has no option 'heat'"),
        ("my_nodes:Rings:x", "give the number of rings"),
    ],
)
def test_what_is_nothing_of_the_kind_is_refused_in_a_sentence(name, said):
    write(
        "odd",
        """
        class Nothing: pass
        class Missing: pass
        class Bare:
            def __call__(self, support, query): return support
        def function(support, query): return support
        def breaks(): return 1 / 0
        number = 3
        """,
    )
    write("raises", "raise RuntimeError('no licence')")
    with pytest.raises(UserError) as caught:
        conformance.check(name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
