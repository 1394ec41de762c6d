import contextlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from otfew.backbones.conv4 import Conv4
from otfew.errors import UserError
from otfew.training.long_tail import losses
from otfew.training.long_tail import run as run_module
from otfew.training.long_tail.head import Features, error_percent, head_of, initial_head, train_head
from otfew.training.long_tail.images import Images, Network, extract, shifted
from otfew.training.long_tail.losses import CosineHead, Objective
from otfew.training.long_tail.run import ACCURACY, ERROR, LongTailTraining, train_images
from otfew.training.long_tail.settings import HeadRecipe, Recipe
from otfew.training.loop import DivergedError, Part
from otfew.training.progress import Watcher, curve_epochs, curves

COUNTS = torch.tensor([120, 20, 3])


def batch(seed=0, count=7):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, generator=generator).double(), torch.tensor([0, 1, 2, 0, 2, 1, 1])


def softmax_loss(logits, label):
    return math.log(sum(math.exp(v) for v in logits)) - logits[label]


def test_losses_in_plain_loops():
    logits, labels = batch()
    for i, (row, label) in enumerate(zip(logits.tolist(), labels.tolist(), strict=True)):
        plain = softmax_loss(row, label)
        probability = math.exp(-plain)
        margins = [n**-0.25 for n in COUNTS.tolist()]
        margin = 0.5 * margins[label] / max(margins)
        lowered = [30 * (v - margin * (k == label)) for k, v in enumerate(row)]
        raised = [v + math.log(n) for v, n in zip(row, COUNTS.tolist(), strict=True)]
        expected = {
            losses.cross_entropy: plain,
            losses.focal: (1 - probability) ** 2 * plain,
            losses.balanced_softmax: softmax_loss(raised, label),
            losses.ldam: softmax_loss(lowered, label),
        }
        for loss, value in expected.items():
            assert float(loss(logits, labels, COUNTS)[i]) == pytest.approx(value, rel=1e-9)


def test_logit_adjustment_undoes_balanced_softmax():
    """Trained with tau 1 and predicted with it, the argmax is that of the balanced classifier."""
    logits, _ = batch()
    shifted_logits = logits + COUNTS.log()
    torch.testing.assert_close(torch.softmax(losses.adjusted(shifted_logits, COUNTS, 1.0), 1), torch.softmax(logits, 1))
    torch.testing.assert_close(losses.adjusted(logits, COUNTS, 0.0), logits)


def test_weights_by_class_size():
    labels = torch.repeat_interleave(torch.arange(3), COUNTS)
    inverse = losses.inverse_frequency(labels, COUNTS)
    effective = losses.class_balanced(labels, COUNTS)
    for weights in (inverse, effective):
        assert float(weights.mean()) == pytest.approx(1, rel=1e-6)
    assert float(inverse[-1] / inverse[0]) == pytest.approx(40, rel=1e-5)
    expected = (1 - 0.9999**120) / (1 - 0.9999**3)
    assert float(effective[-1] / effective[0]) == pytest.approx(expected, rel=1e-5)


def test_shuffling_keeps_what_each_class_gets():
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    weights = torch.arange(8.0)
    mixed = losses.shuffled_within_classes(weights, labels, 0)
    assert mixed.tolist() != weights.tolist()
    for label in (0, 1):
        assert sorted(mixed[labels == label].tolist()) == weights[labels == label].tolist()
    assert torch.equal(mixed, losses.shuffled_within_classes(weights, labels, 0))
    assert not torch.equal(mixed, losses.shuffled_within_classes(weights, labels, 1))


def test_groups():
    assert [losses.group_of(n) for n in (101, 100, 20, 19, 1)] == ["many", "medium", "medium", "few", "few"]


def test_an_objective_weighs_its_batch():
    logits, labels = batch()
    weights = torch.rand(20, generator=torch.Generator().manual_seed(1)).double()
    index = torch.tensor([3, 1, 19, 7, 0, 2, 5])
    plain = losses.cross_entropy(logits, labels, COUNTS)
    by_hand = sum(float(weights[i]) * float(loss) for i, loss in zip(index.tolist(), plain, strict=True))
    mean = Objective(weights=weights).train_loss(logits, labels, COUNTS, index, 0.0)
    assert float(mean) == pytest.approx(by_hand / 7)
    summed = Objective(weights=weights, summed=True).train_loss(logits, labels, COUNTS, index, 0.0)
    assert float(summed) == pytest.approx(by_hand)
    deferred = Objective(weights=weights, deferred=0.8)
    early, late = (deferred.train_loss(logits, labels, COUNTS, index, done) for done in (0.79, 0.8))
    assert float(early) == pytest.approx(float(plain.mean()))
    assert float(late) == pytest.approx(by_hand / 7)
    asked = []

    def update(chosen):
        asked.append(chosen.tolist())
        return weights[chosen]

    updated = Objective(update=update).train_loss(logits, labels, COUNTS, index, 0.0)
    assert float(updated) == pytest.approx(by_hand / 7)
    assert asked == [index.tolist()]


def test_balanced_order_draws_classes_alike():
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([9000, 900, 100]))
    order = Objective(balanced=True).order(labels, torch.Generator().manual_seed(0))
    shares = torch.bincount(labels[order]) / len(order)
    assert float((shares - 1 / 3).abs().max()) < 0.02
    plain = Objective().order(labels, torch.Generator().manual_seed(0))
    assert sorted(plain.tolist()) == list(range(len(labels)))


def made_features(seed=0, noise=1.0):
    generator = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(3, 8, generator=generator)

    def around(counts):
        labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
        return centres[labels] + noise * torch.randn(len(labels), 8, generator=generator), labels

    return Features(*around(COUNTS.tolist()), *around([5, 5, 5]), *around([40, 40, 40]), COUNTS)


START = {"weight": torch.zeros(3, 8), "bias": torch.tensor([3.0, 0.0, -3.0])}
QUICK = HeadRecipe(epochs=4, batch_size=32, learning_rates=(0.3, 1e-6))


@pytest.mark.parametrize(
    "objective",
    [
        Objective(),
        Objective(pooled=True),
        Objective(balanced=True, fresh=True),
        Objective(loss=losses.ldam, cosine=True),
        Objective(train=0.0, meta=1.0),
        Objective(weights=torch.ones(143), meta=10.0),
    ],
)
def test_a_head_learns_and_is_a_function_of_its_seed(objective):
    features = made_features()
    before = {name: tensor.clone() for name, tensor in START.items()}
    choice = train_head(features, START, objective, QUICK, 0)
    torch.rand(3)
    again = train_head(features, START, objective, QUICK, 0)
    other = train_head(features, START, objective, QUICK, 1)
    assert choice.validation_error < 50
    assert all(torch.equal(choice.state[name], again.state[name]) for name in choice.state)
    # The meta set alone is one batch: nothing is drawn.
    same = all(torch.equal(choice.state[name], other.state[name]) for name in choice.state)
    assert same == (objective.train == 0)
    assert all(torch.equal(START[name], before[name]) for name in START)
    # What was chosen is what its state gives.
    with torch.no_grad():
        logits = head_of(choice.state, objective)(features.validation)
    assert error_percent(logits, features.validation_labels) == choice.validation_error


def test_validation_chooses_rate_and_epoch():
    features = made_features()
    found = {rate: train_head(features, START, Objective(), HeadRecipe(4, 32, (rate,)), 0) for rate in (1e-6, 0.3)}
    assert found[0.3].validation_error < found[1e-6].validation_error
    both = train_head(features, START, Objective(), HeadRecipe(4, 32, (1e-6, 0.3)), 0)
    assert (both.learning_rate, both.epoch) == (0.3, found[0.3].epoch)


def test_the_curve_of_a_head_chooses_nothing():
    """On the validation features, which are balanced, it is what validation saw of the rate chosen."""
    features = made_features()
    plain = train_head(features, START, Objective(), QUICK, 0)
    assert plain.curve == ()
    watched = replace(features, curve=features.validation, curve_labels=features.validation_labels)
    choice = train_head(watched, START, Objective(), QUICK, 0)
    assert len(choice.curve) == QUICK.epochs
    assert choice.curve[choice.epoch - 1] == pytest.approx(100 - choice.validation_error)
    assert max(choice.curve) == choice.curve[choice.epoch - 1]
    assert all(torch.equal(plain.state[name], choice.state[name]) for name in plain.state)
    worse = replace(features, curve=features.validation, curve_labels=(features.validation_labels + 1) % 3)
    chosen = train_head(worse, START, Objective(), QUICK, 0)
    assert (chosen.learning_rate, chosen.epoch) == (choice.learning_rate, choice.epoch)
    assert chosen.curve != choice.curve


def test_classes_weigh_alike_in_a_curve():
    logits = torch.eye(4)[torch.tensor([0, 0, 0, 1, 1, 3])]
    labels = torch.tensor([0, 0, 0, 0, 1, 2])
    assert losses.accuracy_of_classes(logits, labels) == pytest.approx(100 * (3 / 4 + 1 + 0) / 3)
    assert losses.accuracy_of_classes(logits[:4], labels[:4]) == 75
    # Class 1 has no image here, and class 2's is answered wrongly.
    assert losses.accuracy_of_classes(logits[[0, 5]], labels[[0, 5]]) == 50


def test_one_step_of_a_weighted_head_by_hand():
    features = made_features()
    weights = torch.linspace(0.1, 2, len(features.train))
    recipe = HeadRecipe(1, 1000, (0.5,), momentum=0.9, weight_decay=0.01, cosine_schedule=False)
    objective = Objective(weights=weights, meta=10.0)
    choice = train_head(features, START, objective, recipe, 0)

    def slope(x, labels, factors):
        probability = torch.softmax(x @ START["weight"].T + START["bias"], 1)
        error = (probability - nn.functional.one_hot(labels, 3)) * factors[:, None]
        return error.T @ x, error.sum(0)

    one, two = (
        slope(features.train, features.train_labels, weights / len(weights)),
        slope(features.meta, features.meta_labels, torch.full((15,), 10 / 15)),
    )
    for name, a, b in zip(("weight", "bias"), one, two, strict=True):
        grad = a + b + 0.01 * START[name]
        # Nesterov's first step moves by (1 + momentum) times the gradient.
        torch.testing.assert_close(choice.state[name], START[name] - 0.5 * 1.9 * grad, rtol=1e-4, atol=1e-5)


def test_a_head_that_explodes():
    features = made_features()
    with pytest.raises(UserError, match="lower it"):
        train_head(features, START, Objective(), HeadRecipe(3, 32, (1e38,)), 0)


def test_cosine_heads_ignore_lengths():
    head = CosineHead(4, 3)
    x = torch.randn(5, 4)
    torch.testing.assert_close(head(x), head(7 * x))
    assert float(head(x).detach().abs().max()) <= 1
    fresh = initial_head(START, Objective(fresh=True), 0)
    assert torch.equal(fresh.weight, initial_head(START, Objective(fresh=True), 0).weight)


SIDE = 16


def made_images(seed=0):
    """Noisy one-coloured images of three classes, long-tailed."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(40, 216, (3, 3))

    def around(counts):
        labels = np.repeat(np.arange(3), counts)
        noisy = colours[labels][:, :, None, None] + rng.normal(0, 40, (len(labels), 3, SIDE, SIDE))
        return torch.from_numpy(np.clip(noisy, 0, 255).astype(np.uint8)), torch.from_numpy(labels)

    parts = (*around([30, 10, 4]), *around([4, 4, 4]), *around([5, 5, 5]))
    return Images(*parts, torch.tensor([30, 10, 4]), (0.5,) * 3, (0.25,) * 3)


def build():
    return Network(Conv4(channels=4), nn.Linear(4, 3))


RECIPE = Recipe(epochs=3, batch_size=16, accelerator="cpu", milestones=(0.34,), decay=0.1)
WEIGHTED = Objective(weights=torch.linspace(0.5, 1.5, 44), meta=2.0)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    path = tmp_path_factory.mktemp("straight") / "state.pt"
    return train_images(build, made_images(), WEIGHTED, RECIPE, path, {"data": "made"}), path


class KilledError(Exception):
    pass


class KillAt(Watcher):
    def __init__(self, epoch, batch):
        self.at = (epoch, batch)

    def on_step(self, step):
        if (step.epoch, step.step) == self.at:
            raise KilledError


# Right after a save within an epoch; after the first epoch; before anything was saved.
@pytest.mark.parametrize(("epoch", "batch", "save_every"), [(2, 2, 0.0), (2, 1, 1e9), (1, 2, 1e9)])
def test_a_killed_run_goes_on_bit_for_bit(straight, tmp_path, epoch, batch, save_every):
    path = tmp_path / "state.pt"
    run = (build, made_images(), WEIGHTED, RECIPE, path, {"data": "made"})
    with pytest.raises(KilledError):
        train_images(*run, watcher=KillAt(epoch, batch), save_every=save_every)
    torch.manual_seed(7)
    kept, history = train_images(*run)
    (expected, expected_history), _ = straight
    assert [(h.loss, h.validation) for h in history] == [(h.loss, h.validation) for h in expected_history]
    assert all(torch.equal(kept[name], tensor) for name, tensor in expected.items())


def test_a_curve_is_kept_and_changes_nothing(straight, tmp_path):
    images = made_images()
    watched = replace(images, curve=images.validation, curve_labels=images.validation_labels)
    kept, history = train_images(build, watched, WEIGHTED, RECIPE, tmp_path / "state.pt", {"data": "made"})
    (expected, plain), _ = straight
    assert all(torch.equal(kept[name], tensor) for name, tensor in expected.items())
    assert [record.curve for record in plain] == [{}, {}, {}]
    # Validation is balanced here.
    assert [record.curve[ACCURACY] for record in history] == pytest.approx(
        [100 - record.validation[ERROR] for record in history]
    )
    assert curves(history) == {ACCURACY: [round(record.curve[ACCURACY], 2) for record in history]}
    _, again = train_images(build, watched, WEIGHTED, RECIPE, tmp_path / "state.pt", {"data": "made"})
    assert curves(again) == curves(history)
    assert curves(plain) == {}


@pytest.mark.parametrize(("epochs", "points"), [(1, 1), (29, 29), (30, 30), (31, 30), (40, 30), (200, 30)])
def test_points_of_a_curve_are_spread_over_all_epochs(epochs, points):
    found = curve_epochs(epochs)
    assert len(set(found)) == len(found) == points
    assert found[-1] == epochs
    gaps = [b - a for a, b in zip((0, *found), found, strict=False)]
    assert max(gaps) - min(gaps) <= 1


def test_a_state_of_other_content_is_refused(tmp_path, weights_of, spoilt):
    path = tmp_path / "state.pt"
    run = (build, made_images(), WEIGHTED, RECIPE, path, {"data": "made"})
    with pytest.raises(KilledError):
        train_images(*run, watcher=KillAt(2, 2), save_every=0.0)
    state = weights_of(path)
    for wrong in spoilt(state, 8):
        torch.save(wrong, path)
        with contextlib.suppress(UserError):
            train_images(*run)
    for name in ("module", "optimizer", "progress", "history", "best"):
        torch.save({**state, name: {}}, path)
        with pytest.raises(UserError, match="not one that this run wrote"):
            train_images(*run)


def test_other_settings_do_not_resume(straight):
    _, path = straight
    for recipe, identity in ((Recipe(epochs=4, batch_size=16), {"data": "made"}), (RECIPE, {"data": "other"})):
        with pytest.raises(UserError, match="another `output`"):
            train_images(build, made_images(), WEIGHTED, recipe, path, identity)


def test_rates_fall_at_their_milestones():
    recipe = Recipe()
    assert [recipe.rate(e) for e in (0, 159, 160, 179, 180, 199)] == pytest.approx([0.1, 0.1, 1e-3, 1e-3, 1e-5, 1e-5])
    assert Recipe(epochs=40).rate(31) == 0.1
    assert Recipe(epochs=40).rate(32) == pytest.approx(1e-3)


def test_a_second_stage_keeps_statistics_and_the_best_epoch(tmp_path):
    class Record(Watcher):
        def __init__(self):
            self.errors = []

        def on_epoch(self, history, best):
            self.errors.append(history[-1].validation[ERROR])

    start = build().state_dict()

    def again():
        network = build()
        network.load_state_dict(start)
        return network

    watcher = Record()
    recipe = Recipe(epochs=4, batch_size=16, accelerator="cpu")
    kept, history = train_images(
        again, made_images(), Objective(pooled=True), recipe, tmp_path / "s.pt", {}, second_stage=True, watcher=watcher
    )
    for name, tensor in start.items():
        moved = not torch.equal(kept[name], tensor)
        assert moved == ("running" not in name and "num_batches" not in name)
    network = again()
    network.load_state_dict(kept)
    images = made_images()
    with torch.no_grad():
        vectors = extract(network.backbone.eval(), images.validation, images.mean, images.std)
        error = error_percent(network.head(vectors), images.validation_labels)
    assert error == min(watcher.errors) == min(h.validation[ERROR] for h in history)


def test_shifts_are_crops_of_the_reflected_image():
    images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    moved = shifted(images, True, 5)
    padded = nn.functional.pad(images, (4,) * 4, mode="reflect")
    seen = set()
    for i in range(64):
        matches = []
        for y in range(9):
            for x in range(9):
                crop = padded[i, :, y : y + 32, x : x + 32]
                matches += [(y, x, m) for m in (False, True) if torch.equal(moved[i], crop.flip(2) if m else crop)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert {m for _, _, m in seen} == {False, True}
    assert len({y for y, _, _ in seen}) > 5
    assert len({x for _, x, _ in seen}) > 5
    assert torch.equal(moved, shifted(images, True, 5))
    assert not torch.equal(moved, shifted(images, True, 6))


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"learning_rate": math.nan}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"milestones": (1.5,)}],
)
def test_recipes_that_make_no_sense(wrong):
    with pytest.raises(UserError, match=f"`{next(iter(wrong))}`"):
        Recipe(**wrong)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"learning_rates": ()}, {"learning_rates": (0.1, -1.0)}])
def test_head_recipes_that_make_no_sense(wrong):
    with pytest.raises(UserError, match=f"`{next(iter(wrong))}`"):
        HeadRecipe(**wrong)


def test_mistakes_of_training(tmp_path):
    with pytest.raises(UserError, match="`batch_size` 100"):
        train_images(build, made_images(), Objective(), Recipe(), tmp_path / "s.pt", {})
    exploding = Recipe(epochs=3, batch_size=16, learning_rate=1e30, accelerator="cpu")
    with pytest.raises(DivergedError, match=r"epoch 1, step \d of 2; nothing is kept yet: lower `learning_rate`"):
        train_images(build, made_images(), Objective(), exploding, tmp_path / "s.pt", {})


class Errors:
    """Stands in for the validation of a training: what it says is given."""

    def __init__(self, monkeypatch, errors):
        self.errors, self.weights = list(errors), []
        monkeypatch.setattr(run_module, "_validate", self)

    def __call__(self, images, precision, network, device, learned):
        self.weights.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return {ERROR: self.errors[len(self.weights) - 1]}


@pytest.mark.parametrize(("second_stage", "kept"), [(False, 3), (True, 1)])
def test_a_first_stage_keeps_its_last_epoch_and_a_second_one_its_best(tmp_path, monkeypatch, second_stage, kept):
    """The first of equals; whatever validation says of a first stage, its last epoch is what is published."""
    watched = Errors(monkeypatch, [30.0, 10.0, 10.0, 40.0])
    recipe = Recipe(epochs=4, batch_size=16, accelerator="cpu")
    weights, history = train_images(
        build, made_images(), Objective(), recipe, tmp_path / "s.pt", {}, second_stage=second_stage
    )
    assert [record.validation[ERROR] for record in history] == [30.0, 10.0, 10.0, 40.0]
    for name, tensor in watched.weights[kept].items():
        assert torch.equal(weights[name], tensor), name
    others = [i for i in range(4) if i != kept]
    assert all(not torch.equal(weights["head.weight"], watched.weights[i]["head.weight"]) for i in others)


@pytest.mark.parametrize(
    "objective",
    [
        WEIGHTED,
        Objective(pooled=True, summed=True),
        Objective(train=0.0, meta=1.0),
        Objective(weights=torch.linspace(0.5, 1.5, 44), deferred=0.5, balanced=True),
    ],
)
def test_parts_average_to_the_batch(objective):
    """Without batch normalisation: shifts, order and weights are the batch's, however it is shared out."""

    def plain():
        torch.manual_seed(3)
        return Network(nn.Conv2d(3, 4, 3), nn.Linear(4, 3))

    images, found = made_images(), []
    for count in (1, 2, 4):
        training = LongTailTraining(plain, images, objective, RECIPE, False, count)
        parts = [training.outcome(training.module, Part(2, 1, i, count), torch.device("cpu")) for i in range(count)]
        loss = sum(part.loss for part in parts) / count
        (gradient,) = torch.autograd.grad(loss, training.module.head.weight)
        found.append((float(loss.detach()), gradient, sum(part.answers for part in parts)))
    for loss, gradient, answers in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-4, atol=1e-6)
        assert answers == found[0][2] == (16 if objective.train else 0)
    with pytest.raises(UserError, match="`batch_size` 16 can't be divided into 3"):
        LongTailTraining(plain, images, objective, RECIPE, False, 3)


def test_a_batch_is_a_slice_of_the_epochs_order(monkeypatch):
    """Steps of an epoch see each image at most once, in an order that is another in the next epoch."""
    images, seen = made_images(), []
    training = LongTailTraining(build, images, Objective(meta=1.0), RECIPE, False)
    monkeypatch.setattr(run_module, "shifted", lambda pixels, flip, key: seen.append((pixels, key)) or pixels)
    training.train()
    for epoch, step in ((0, 0), (0, 1), (1, 0), (1, 1)):
        training.outcome(training.module, Part(epoch, step, 0, 1), torch.device("cpu"))
    rows = [[int(((images.train.float() / 255 - image).abs().sum((1, 2, 3))).argmin()) for image in batch]
            for batch, _ in seen[::2]]  # fmt: skip
    assert training.steps == 2
    assert len(set(rows[0] + rows[1])) == len(set(rows[2] + rows[3])) == 32
    assert rows[:2] != rows[2:]
    # Training and meta images are shifted apart, at every step anew.
    assert len({key for _, key in seen}) == len(seen) == 8


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_validation_classifies_in_the_precision_of_training(precision, dtype):
    seen = []

    class Noting(nn.Linear):
        def forward(self, features):
            logits = super().forward(features)
            seen.append(logits.dtype)
            return logits

    network = Network(Conv4(channels=4), Noting(4, 3)).eval()
    run_module._validate(made_images(), precision, network, torch.device("cpu"), {})
    assert seen == [dtype]


def test_deferred_weights_act_by_the_share_of_epochs(monkeypatch):
    shares = []
    real = Objective.train_loss

    def noting(self, logits, labels, counts, index, done):
        shares.append(done)
        return real(self, logits, labels, counts, index, done)

    monkeypatch.setattr(Objective, "train_loss", noting)
    training = LongTailTraining(build, made_images(), Objective(), RECIPE, False)
    for epoch in range(3):
        training.outcome(training.module, Part(epoch, 1, 0, 1), torch.device("cpu"))
    assert shares == [0, 1 / 3, 2 / 3]
