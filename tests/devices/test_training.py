"""Trainings on the pretended device: the steps of the CPU, waited for once in a while."""

import shutil
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from otfew import catalogue
from otfew.backbones.resnet12 import ResNet12
from otfew.backbones.wide_resnet import WideResNet
from otfew.evaluation.episodes import Protocol, Sampler
from otfew.methods.batchwise_pairs import LOSSES
from otfew.nodes.fcn import FCN
from otfew.pair_loss import Matched
from otfew.random.generators import begin, borrowed, drawn
from otfew.training import ledger, loop, metatrain, pretrain
from otfew.training.augmentation import Augment, Augmentation
from otfew.training.long_tail.head import Features, train_head
from otfew.training.long_tail.images import Images as LongTailed
from otfew.training.long_tail.images import Network, shifted
from otfew.training.long_tail.losses import CosineHead, Objective, ldam
from otfew.training.long_tail.run import LongTailTraining
from otfew.training.long_tail.settings import HeadRecipe, Recipe
from otfew.training.loop import DivergedError, Duties, Part
from otfew.training.metric import run as metric
from otfew.training.metric.embedding import Space
from otfew.training.metric.settings import Settings
from otfew.training.metric.task import Images, Task
from otfew.training.mixup import draw_mixing
from otfew.training.progress import Watcher, read_number
from otfew.training.s2m2 import S2M2
from otfew.training.settings import MetatrainSettings, PretrainSettings
from otfew.training.validation import Validation
from otfew.training.views import WholeImages

MEAN, STD, SIDE = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), 16
LABELS = torch.arange(8).repeat_interleave(10)
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (80, 3, SIDE, SIDE), dtype=np.uint8))
AUGMENTATION = Augmentation(0.3, colour=0.2)
STEPS, AT_ONCE = 8, 4
"""Of every training, and read together."""
SAMPLER = Sampler(Protocol("made", "", "train", 1, way=3, shot=1, query=3), LABELS.numpy(), tuple("abcdefgh"))


class Pretended:
    """What the loop asks of Lightning's Fabric, on a pretended device."""

    global_rank, world_size = 0, 1
    strategy = SimpleNamespace(precision=SimpleNamespace(state_dict=dict, load_state_dict=lambda _: None))

    def __init__(self, machine):
        self.device = machine.device

    def setup(self, module, optimizer):
        before = list(module.parameters())
        module.to(self.device)
        moved = dict(zip(map(id, before), module.parameters(), strict=True))
        for group in optimizer.param_groups:
            group["params"] = [moved[id(parameter)] for parameter in group["params"]]
        return module, optimizer

    def broadcast(self, state):
        return state

    def backward(self, loss):
        loss.backward()

    def no_backward_sync(self, module, enabled):
        return nullcontext()


class Told(Watcher):
    """Keeps what the loop tells, and what has been counted until then."""

    def __init__(self, machine=None):
        self.machine, self.steps, self.counts = machine, [], []

    def on_step(self, step):
        self.steps.append(step)
        if self.machine is not None:
            outside = sum(n for place, n in self.machine.where["uploads"].items() if "augmentation.py" not in place)
            self.counts.append((self.machine.waits, outside, self.machine.operations, self.machine.draws))


def never(seed):
    raise AssertionError("torch.manual_seed was called")


@pytest.fixture
def on_device(pretended, monkeypatch):
    """Run what trains on the pretended device, whose states are not written."""

    @contextmanager
    def run():
        with pretended() as machine, monkeypatch.context() as patches:
            patches.setattr(loop, "make_fabric", lambda settings: Pretended(machine))
            patches.setattr(loop, "save_state", lambda path, state: None)
            patches.setattr(ledger, "AT_ONCE", AT_ONCE)
            # It would set the generators of all GPUs for good.
            patches.setattr(torch, "manual_seed", never)
            yield machine

    return run


def duties(path):
    return Duties(lambda *_: {"figure": 1.0}, read_number, None, path / "state.pt", {})


def network():
    return ResNet12(0.05, last_pool=False)


def wide():
    return WideResNet(10, 1, dropout=0.2)


def pre(recipe, **options):
    settings = PretrainSettings(
        epochs=1, batch_size=10, recipe=recipe.__name__.lower() if recipe is S2M2 else "softmax",
        accelerator="cpu", **options,
    )  # fmt: skip
    task = pretrain.Task(PIXELS, LABELS, 8, SIDE, MEAN, STD, AUGMENTATION)
    build = wide if recipe is S2M2 else network
    return settings, lambda parts: recipe(build, task, settings, parts)


def meta(method, **options):
    settings = MetatrainSettings(epochs=1, episodes_per_epoch=STEPS, accelerator="cpu", **options)
    views = WholeImages(PIXELS, Augment(AUGMENTATION, SIDE))
    learned = dict.fromkeys(catalogue.find(method).learned, 0.0)

    def build(parts):
        task = metatrain.Task(views, SAMPLER, FCN(), lambda v: catalogue.build(method, **v), learned, MEAN, STD)
        return metatrain.EpisodeTraining(network(), task, settings, parts)

    return settings, build


def pairs(loss, modalities=1):
    settings = Settings(epochs=1, batch_size=5, accelerator="cpu", learning_rate=0.01)
    images = Images(PIXELS, LABELS, MEAN, STD)
    task = Task((images,) * modalities, (images,) * modalities, 8, SIDE, False, False, AUGMENTATION, None, {})
    sample = torch.zeros(2, 3, SIDE, SIDE)

    def build(parts):
        make = lambda: Space(network, [sample] * modalities, (8,), "mean")  # noqa: E731
        return metric.PairTraining(make, lambda: LOSSES[loss](8, 8), task, settings, parts)

    return settings, build


def tailed():
    few = slice(None, None, 10)
    return LongTailed(
        PIXELS, LABELS, PIXELS[few], LABELS[few], PIXELS[5::10], LABELS[5::10], torch.bincount(LABELS), MEAN, STD
    )


def tail(objective, second=False):
    recipe = Recipe(epochs=1, batch_size=10, learning_rate=0.01, accelerator="cpu")
    build = lambda: Network(network(), CosineHead(32, 8) if objective.cosine else nn.Linear(32, 8))  # noqa: E731
    return recipe, lambda parts: LongTailTraining(build, tailed(), objective, recipe, second, parts)


needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="kernels are emulated in C++"
)
WEIGHTS = torch.linspace(0.5, 1.5, 80)
# Name -> settings and objective, and how many operations a step may take.
TRAININGS = {
    "pretrain": (*pre(pretrain.Classification), 1_300),
    "pretrain with turns": (*pre(pretrain.Classification, rotation="self-supervised"), 1_350),
    "pretrain in parts": (*pre(pretrain.Classification, accumulate=2), 2_100),
    "s2m2": (*pre(S2M2, mixup_epochs=0), 1_300),
    "s2m2, mixing": (*pre(S2M2, mixup_epochs=1), 1_700),
    "protonet": (*meta("protonet"), 1_300),
    "deepemd": (*meta("deepemd"), 1_450),
    "long tail": (*tail(Objective(ldam, WEIGHTS, cosine=True)), 900),
    "long tail, second stage": (*tail(Objective(weights=WEIGHTS, meta=0.5), second=True), 1_300),
    "metric": (*pairs("all-pairs"), 1_300),
    "metric across modalities": (*pairs("all-pairs", 2), 2_800),
}
CHECKS = {"deepemd": 1, "metric": 2, "metric across modalities": 8}
"""Waits a step of what checks what it is given, for anybody."""


def trained(settings, build, path, machine=None):
    told = Told(machine)
    weights, history = loop.run(build, settings, duties(path), told)
    return weights, history, told


@pytest.mark.parametrize("name", [pytest.param(n, marks=needs_compiler if n == "deepemd" else ()) for n in TRAININGS])
def test_steps_are_the_processors_and_nobody_waits_for_them(name, on_device, tmp_path):
    settings, build, operations = TRAININGS[name]
    weights, history, told = trained(settings, build, tmp_path)
    with on_device() as machine:
        there, records, heard = trained(settings, build, tmp_path / "there", machine)
    assert [step.step for step in heard.steps] == list(range(1, STEPS + 1))
    if name == "deepemd":  # whose kernel takes other pivots, and so rounds otherwise
        assert [step.loss for step in heard.steps] == pytest.approx([step.loss for step in told.steps], rel=1e-4)
    else:
        assert heard.steps == told.steps
        assert (records[0].loss, records[0].train_accuracy) == (history[0].loss, history[0].train_accuracy)
        assert records[0].diagnostics == pytest.approx(history[0].diagnostics, rel=1e-6)
        assert all(torch.equal(there[key], value) for key, value in weights.items())
    waits, uploads, done, _ = np.array(heard.counts[AT_ONCE]) - heard.counts[0]
    assert waits <= 1 + CHECKS.get(name, 0) * AT_ONCE, machine.report()
    assert uploads == 0, machine.report()
    assert done <= operations * AT_ONCE, machine.report()


@needs_compiler
def test_a_step_of_deepemd_is_one_of_protonet_and_little_more(pretended):
    """An episode of five ways, forward and backward: one wait, for what the kernel says of its input."""
    counts, losses = {}, {}
    for method in ("protonet", "deepemd"):
        _, build = meta(method)
        training = build(1)
        expected = float(training.outcome(training.module, Part(0, 0, 0, 1), torch.device("cpu")).loss.detach())
        with pretended() as machine:
            training.module.to(machine.device)
            for _ in range(2):
                machine.clear()
                found = training.outcome(training.module, Part(0, 0, 0, 1), machine.device)
                found.loss.backward()
            losses[method] = float(machine.home(found.loss))
            counts[method] = (machine.operations, machine.waits, sum(machine.launches.values()))
        assert losses[method] == pytest.approx(expected, rel=1e-5)
        assert found.loss.device == machine.device
        assert found.correct.device == machine.device
    (plain, *others), (done, waits, launches) = counts["protonet"], counts["deepemd"]
    assert others == [0, 0]
    assert (waits, launches) == (1, 2)
    assert done - plain <= 150


@pytest.mark.parametrize("name", ["pretrain", "s2m2, mixing", "protonet", "long tail", "metric"])
def test_only_dropout_draws_on_the_device_and_generators_stand_where_they_stood(name, on_device, tmp_path):
    settings, build, _ = TRAININGS[name]
    before = torch.get_rng_state()
    with on_device() as machine:
        trained(settings, build, tmp_path, machine)
    assert torch.equal(torch.get_rng_state(), before)
    layers = {place for place in machine.where["draws"] if "wide_resnet.py" not in place}
    assert not layers
    assert bool(machine.draws) == name.startswith("s2m2")


class Module:
    """A kind of device with a generator, as torch's modules offer one."""

    def __init__(self):
        self.state, self.asked = 5, []

    def get_rng_state(self, device):
        self.asked.append(device)
        return self.state

    def set_rng_state(self, state, device):
        self.asked.append(device)
        self.state = state

    def manual_seed(self, seed):
        self.state = seed


def test_a_devices_generator_is_borrowed_too(monkeypatch):
    module, device = Module(), torch.device("meta")
    monkeypatch.setattr(torch, "meta", module, raising=False)
    before = torch.get_rng_state()
    with suppress(ZeroDivisionError), borrowed(device):
        begin(7, device)
        assert module.state == 7
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(7)))
        raise ZeroDivisionError
    assert module.state == 5
    assert module.asked == [device] * 2
    assert torch.equal(torch.get_rng_state(), before)
    with drawn(8):
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(8)))
    assert (module.state, len(module.asked)) == (5, 2)
    assert torch.equal(torch.get_rng_state(), before)


def poisoned(kind, at, make):
    """Change what an objective returns in a step."""

    class Poisoned(kind):
        def outcome(self, forward, part, device):
            found = super().outcome(forward, part, device)
            return make(found) if part.step == at else found

    return Poisoned


def nan(found):
    return replace(found, loss=found.loss * float("nan"))


@pytest.mark.parametrize("at", [1, 3, 4, 7])
def test_a_loss_that_is_none_is_found_before_anything_is_kept(at, on_device, tmp_path):
    settings, build = pre(poisoned(pretrain.Classification, at, nan))
    told = Told()
    with (
        on_device(),
        pytest.raises(
            DivergedError, match=rf"^the loss became nan in epoch 1, step {at + 1} of {STEPS}; nothing is kept"
        ),
    ):
        loop.run(build, settings, duties(tmp_path), told)
    assert len(told.steps) == at // AT_ONCE * AT_ONCE
    assert all(np.isfinite(step.loss) for step in told.steps)


def test_what_a_solver_says_of_ruined_weights_is_not_the_news(on_device, tmp_path):
    """Steps are read later than they are done: a method is asked before the loop has seen why it will refuse."""
    settings, build = meta("deepemd")

    def ruined(parts):
        objective = build(parts)
        objective.__class__ = poisoned(metatrain.EpisodeTraining, 1, nan)
        return objective

    with on_device(), pytest.raises(DivergedError, match=r"^the loss became nan in epoch 1, step 2 of 8"):
        loop.run(ruined, settings, duties(tmp_path))


@pytest.mark.parametrize("device", ["cpu", "there"])
@pytest.mark.parametrize("loss", ["batchwise-ot", "matched"])
def test_embeddings_that_are_none_are_named(device, loss, on_device, tmp_path):
    """By a loss that refuses them, and by one that takes anything."""
    settings, build = pairs("batchwise-ot")

    class Spoilt(metric.PairTraining):
        def _embedded(self, forward, modality, chosen, part, device):
            found, labels = super()._embedded(forward, modality, chosen, part, device)
            return (found * float("inf") if part.step == 2 else found), labels

    def spoilt(parts):
        objective = build(parts)
        objective.__class__ = Spoilt
        if loss == "matched":
            objective.module.loss = Matched()
        return objective

    message = r"^embeddings left the finite numbers in epoch 1, step 3 of 8: lower `learning_rate`"
    with on_device() if device == "there" else nullcontext(), pytest.raises(DivergedError, match=message):
        loop.run(spoilt, settings, duties(tmp_path))


def test_a_bug_keeps_its_traceback_there(on_device, tmp_path):
    def fail(found):
        raise TypeError("a bug")

    settings, build = pre(poisoned(pretrain.Classification, 3, fail))
    with on_device(), pytest.raises(TypeError, match="a bug"):
        loop.run(build, settings, duties(tmp_path))


def test_figures_of_many_steps_are_read_at_once():
    """Sums over parts in double precision, and names of what is lost."""
    book = ledger.Ledger(torch.device("cpu"))
    assert (book.every, ledger.Ledger(torch.device("meta")).every) == (1, ledger.AT_ONCE)
    for step in range(3):
        for part in range(2):
            finite = torch.tensor(not (step == 1 and part == 1))
            book.add_part(ledger.Outcome(torch.tensor(0.1 * part), torch.tensor(part), 3, {"a": 0.25}, {"x": finite}))
        book.add_step(step, 0.5, torch.tensor(2.0 + step))
    summed = []

    def over_processes(rows):
        summed.append(rows.shape)
        return 2 * rows

    found = book.read(over_processes)
    assert summed == [(3, 5)]  # the norm is every process's own
    assert [each.step for each in found] == [0, 1, 2]
    assert [each.norm for each in found] == [2.0, 3.0, 4.0]
    assert [each.lost for each in found] == [(), ("x",), ()]
    assert {(each.loss, each.correct, each.answers, each.diagnostics["a"]) for each in found} == {
        (2 * float(torch.tensor(0.1).double()), 2.0, 12.0, 1.0)
    }
    assert book.read(over_processes) == []


def test_crops_flips_turns_and_shifts_are_the_same_everywhere(pretended):
    images = PIXELS[:12].float() / 255
    turns = torch.arange(12) % 4

    def work(device):
        there = images.to(device)
        return {
            "augmented": Augment(AUGMENTATION, SIDE)(there, 1, 2),
            "seen": WholeImages(PIXELS, Augment(AUGMENTATION, SIDE))(torch.arange(5), device, 3),
            "turned": pretrain.turned(there, turns),
            "shifted": shifted(there, True, 4),
            "mixed": draw_mixing(12, 1.0, 0, 5).to(device).mix(there),
        }

    expected = work(torch.device("cpu"))
    with pretended() as machine:
        found = work(machine.device)
    assert all(part.device == machine.device for part in found.values())
    assert all(torch.equal(machine.home(found[name]), part) for name, part in expected.items())
    assert (machine.waits, machine.draws) == (0, 0), machine.report()
    # What kornia sends to a kind of device other than CUDA, it sends blocking; and this test its images.
    assert {place.split(":")[0] for place in machine.where["uploads"]} <= {
        "otfew/training/augmentation.py", "tests/devices/test_training.py"
    }  # fmt: skip


@pytest.mark.parametrize("objective", [Objective(ldam, WEIGHTS, cosine=True), Objective(weights=WEIGHTS, meta=0.5)])
def test_heads_are_trained_where_features_are(objective, pretended):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, 80, 6, generator=generator)
    features = Features(vectors[0], LABELS, vectors[1], LABELS, vectors[2], LABELS, torch.bincount(LABELS))
    start = {"weight": torch.randn(8, 6, generator=generator), "bias": torch.zeros(8)}
    recipe = HeadRecipe(epochs=4, batch_size=16, learning_rates=(0.1,))
    expected = train_head(features, start, objective, recipe, seed=3)
    with pretended() as machine:
        there = Features(**machine.away(vars(features)))
        machine.clear()
        found = train_head(there, start, objective, recipe, seed=3)
    assert all(value.device.type == "cpu" and torch.equal(value, expected.state[n]) for n, value in found.state.items())
    assert (found.epoch, found.validation_error) == (expected.epoch, expected.validation_error)
    # Loss and error of each epoch, labels before the first and weights after the last; a head and weights go there.
    assert machine.waits <= 2 * 4 + 3, machine.report()
    assert machine.uploads <= 3, machine.report()


def test_validation_stays_there(pretended):
    labels = LABELS.numpy()
    images = SimpleNamespace(labels=labels, classes=tuple("abcdefgh"))
    methods = {name: catalogue.build(name) for name in ("cosine-centroid", "protonet")}
    validation = Validation(PIXELS[:, None], images, FCN(), SAMPLER, 60, lambda _: methods, MEAN, STD)
    torch.manual_seed(0)
    trunk = network().eval()
    expected = validation(trunk, torch.device("cpu"))
    with pretended() as machine:
        trunk.to(machine.device)
        machine.clear()
        assert validation(trunk, machine.device) == expected
    # One look at each answer: two blocks of two methods, each asked once more for warming up.
    assert machine.waits <= 8, machine.report()
    assert machine.uploads <= 2, machine.report()
