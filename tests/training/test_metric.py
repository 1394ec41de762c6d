"""Metric learning: batches, networks, evaluation, and training that resumes to the same figures."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from otfew.backbones.lenet5_wide import LeNet5Wide
from otfew.errors import UserError
from otfew.methods.batchwise_pairs import LOSSES as BATCHWISE
from otfew.pair_loss import Matched, PairLoss
from otfew.random.keys import hashed
from otfew.retrieval.metrics import means, retrieval_metrics
from otfew.training.augmentation import Augmentation
from otfew.training.loop import DivergedError, Part
from otfew.training.metric.batches import batches, partners
from otfew.training.metric.embedding import Embedder, Space, default_head, default_pool
from otfew.training.metric.evaluation import FIGURES, Embedded, evaluate, knn_accuracy, linear_accuracy, subset
from otfew.training.metric.nearest import nearest, one_a_class
from otfew.training.metric.run import MAP, Learner, PairTraining, embed, train
from otfew.training.metric.settings import Settings
from otfew.training.metric.softmax import WithSoftmax
from otfew.training.metric.task import Images, Task
from otfew.training.progress import Watcher, curves

SIDE = 8


def test_batches_are_functions_of_seed_and_epoch_and_cut_a_permutation():
    labels = torch.arange(50) % 5
    found = batches(labels, 16, seed=1, epoch=0)
    assert found.shape == (3, 16)
    assert len(set(found.flatten().tolist())) == 48
    assert torch.equal(found, batches(labels, 16, seed=1, epoch=0))
    assert not torch.equal(found, batches(labels, 16, seed=1, epoch=1))
    assert not torch.equal(found, batches(labels, 16, seed=2, epoch=0))


@pytest.mark.parametrize(("classes", "expected"), [(5, 4), (3, None)])
def test_balanced_batches_hold_so_many_of_each_class(classes, expected):
    labels = torch.arange(60) % classes
    found = batches(labels, 16, seed=1, epoch=0, per_class=4)
    assert found.shape == (3, 16)
    for batch in found:
        counts = labels[batch].bincount(minlength=classes)
        assert set((counts % 4).tolist()) == {0}
        if expected is not None:
            assert sorted(counts.tolist()) == [0, 4, 4, 4, 4]
            assert len(set(batch.tolist())) == 16


def test_classes_with_few_items_repeat_them():
    labels = torch.tensor([0] * 30 + [1, 1, 1])
    for batch in batches(labels, 8, seed=1, epoch=0, per_class=4):
        assert labels[batch].bincount().tolist() == [4, 4]


@pytest.mark.parametrize("itself", [True, False])
def test_partners_are_of_the_class_and_another_thing(itself):
    labels = torch.arange(40) % 4
    chosen = torch.arange(40)
    draws = torch.stack([partners(chosen, labels, labels, 1, 0, batch, itself) for batch in range(60)])
    assert torch.equal(labels[draws], labels.expand(60, -1))
    assert bool((draws == chosen).any()) is itself
    # All the others of the class come up: 9 or 10 of them in 60 draws.
    assert {len(set(column.tolist())) for column in draws.T} <= {8, 9, 10}
    assert torch.equal(draws[3], partners(chosen, labels, labels, 1, 0, 3, itself))
    if itself:
        # Another modality has its own items, in another order and number.
        others = torch.tensor([3, 2, 1, 0, 0, 1])
        found = partners(chosen, labels, others, 1, 0, 0, itself)
        assert torch.equal(others[found], labels)


def test_views_meet_in_their_maximum():
    torch.manual_seed(0)
    embedder = Embedder(LeNet5Wide(), torch.zeros(1, 3, SIDE, SIDE), (6, 4), "flatten").eval()
    views = torch.rand(3, 5, 3, SIDE, SIDE)
    found = embedder(views)
    assert found.shape == (3, 4)
    vectors = torch.stack([embedder.trunk(views[:, v]).flatten(1) for v in range(5)])
    torch.testing.assert_close(found, embedder.head(vectors.max(0).values))
    torch.testing.assert_close(found, embedder(views[:, [4, 2, 0, 1, 3]]))
    torch.testing.assert_close(embedder(views[:, :1]), embedder(views[:, 0]))


def test_heads_and_pooling_by_trunk():
    assert default_head("lenet5-wide") == (512, 256)
    assert default_head("resnet12") == (4096, 2048, 512, 128)
    assert (default_pool("conv4"), default_pool("resnet12-half")) == ("flatten", "mean")
    pooled = Embedder(nn.Conv2d(3, 7, 3), torch.zeros(1, 3, SIDE, SIDE), (5,), "mean")
    assert [tuple(p.shape) for p in pooled.head.parameters()] == [(5, 7), (5,)]
    for trunk in (nn.Conv2d(3, 7, 9), nn.Sequential(*[nn.MaxPool2d(2) for _ in range(4)])):
        with pytest.raises(UserError, match="images of 8 pixels are too small for this backbone: raise `resolution`"):
            Embedder(trunk, torch.zeros(1, 3, SIDE, SIDE), (5,), "flatten")


def test_without_a_head_the_pooled_map_is_the_embedding():
    torch.manual_seed(0)
    found = Space(lambda: nn.Conv2d(3, 7, 3), [torch.zeros(1, 3, SIDE, SIDE)], (), "mean")
    images = torch.rand(4, 3, SIDE, SIDE)
    assert found.channels == 7
    torch.testing.assert_close(found(images), found.embedders[0].trunk(images).mean((2, 3)))


def clouds(seed, count=90, classes=3, channels=5):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, channels, generator=torch.Generator().manual_seed(9))
    return Embedded(centres[labels] + 0.8 * torch.randn(count, channels, generator=generator), labels)


def test_knn_is_scikit_learns_and_ties_go_to_the_nearest():
    from sklearn.neighbors import KNeighborsClassifier

    queries, probe = clouds(0), clouds(1)
    for neighbours in (1, 3):
        theirs = KNeighborsClassifier(neighbours).fit(probe.vectors, probe.labels)
        assert knn_accuracy(queries, probe, 1) == theirs.score(queries.vectors, queries.labels) or neighbours > 1
    votes = KNeighborsClassifier(5).fit(probe.vectors, probe.labels).kneighbors(queries.vectors, return_distance=False)
    correct = 0
    for row, label in zip(votes, queries.labels.tolist(), strict=True):
        classes = probe.labels[row].tolist()
        most = max(classes.count(c) for c in classes)
        correct += next(c for c in classes if classes.count(c) == most) == label
    assert knn_accuracy(queries, probe, 5) == correct / len(votes)


def test_the_linear_probe_ignores_scale_and_constant_channels():
    queries, probe = clouds(0), clouds(1)
    plain = linear_accuracy(queries, probe)
    assert plain > 0.7
    scale = torch.tensor([1e3, 1, 1e-3, 1, 1])
    stretched = [Embedded(torch.cat([side.vectors * scale, torch.full((90, 1), 7.0)], 1), side.labels)
                 for side in (queries, probe)]  # fmt: skip
    assert linear_accuracy(*stretched) == plain


def test_evaluation_has_all_figures_and_none_for_probes_without_classes():
    queries, probe = clouds(0), clouds(1)
    found = evaluate(queries, queries, probe, exclude_self=True)
    assert tuple(found) == FIGURES
    assert all(0 <= value <= 1 for value in found.values())
    without = evaluate(queries, queries, None, exclude_self=True)
    assert without["knn"] is None
    assert without["map"] == found["map"]
    assert subset(10, 4).tolist() == sorted(set(subset(10, 4).tolist()))
    assert subset(3, 4).tolist() == [0, 1, 2]


def part(count=96, seed=0, views=0):
    """Easy pictures: a class is a colour."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])[labels]
    shape = (count, *([views] if views else []), 3, SIDE, SIDE)
    colours = colours.reshape(count, *([1] if views else []), 3, 1, 1)
    pixels = np.clip(colours + rng.normal(0, 120, shape), 0, 255).astype(np.uint8)
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels), (0.4, 0.4, 0.4), (0.3, 0.3, 0.3))


def task(**changes):
    values = {
        "train": (part(),),
        "test": (part(30, 1),),
        "classes": 3,
        "resolution": SIDE,
        "same_things": False,
        "shared_classes": True,
        "augmentation": None,
        "probe_images": 30,
        "identity": {"test": 1},
    }
    return Task(**{**values, **changes})


def space(modalities=1):
    return Space(LeNet5Wide, [torch.zeros(1, 3, SIDE, SIDE)] * modalities, (16, 8), "flatten")


SETTINGS = Settings(epochs=2, batch_size=16, learning_rate=0.02, accelerator="cpu")
OT = partial(BATCHWISE["batchwise-ot"], 3, 8, reg_inverse=5, margin=1.0)


def timeless(history):
    return [(r.epoch, r.loss, r.validation, r.diagnostics) for r in history]


def test_it_learns_and_starts_alike_for_every_loss(tmp_path):
    _, matched = train(space, Matched, task(), SETTINGS, tmp_path / "a.pt")
    _, transported = train(space, OT, task(), SETTINGS, tmp_path / "b.pt")
    assert [record.epoch for record in matched] == [0, 1, 2]
    assert matched[0].validation == transported[0].validation
    assert matched[0].loss is None
    assert transported[-1].loss < transported[1].loss
    assert transported[-1].validation["map"] > transported[0].validation["map"] + 0.02
    assert set(transported[1].diagnostics) == {"entropy", "violating_mass", "violating_pairs", "positive_mass"}
    assert 0 < transported[1].diagnostics["entropy"] <= 1
    assert matched[1].diagnostics == {}


def test_embeddings_are_evaluated_as_the_loss_compares_them(tmp_path):
    class Scaled(Matched):
        normalised = True

    settings = Settings(epochs=1, batch_size=16, learning_rate=1e-9, momentum=0, accelerator="cpu")
    (plain, _), (unit, _) = (train(space, kind, task(), settings, tmp_path / f"{kind.__name__}.pt")[1]
                             for kind in (Matched, Scaled))  # fmt: skip
    torch.manual_seed(hashed(settings.seed))
    embedder, test = space().eval(), part(30, 1)
    with torch.no_grad():
        vectors = embedder((test.pixels.float() / 255 - 0.4) / 0.3)
    for record, side in ((plain, vectors), (unit, torch.nn.functional.normalize(vectors, dim=1))):
        scores = -torch.cdist(side, side)
        expected = means(retrieval_metrics(scores, test.labels, test.labels, exclude_self=True))
        assert record.validation["map"] == pytest.approx(expected["map"], abs=1e-3)
    assert plain.validation["map"] != unit.validation["map"]


class StopError(Exception):
    pass


class StopAt(Watcher):
    def __init__(self, epoch, step):
        self.at = (epoch, step)

    def on_step(self, step):
        if (step.epoch, step.step) == self.at:
            raise StopError


@pytest.mark.parametrize("augmentation", [None, Augmentation(min_scale=0.5)])
def test_a_run_that_was_stopped_gives_the_same_figures(tmp_path, augmentation):
    given = task(augmentation=augmentation)
    whole_space, whole = train(space, OT, given, SETTINGS, tmp_path / "whole.pt")
    state = tmp_path / "stopped.pt"
    for stop in ((1, 2), (2, 1), (2, 3)):
        with pytest.raises(StopError):
            # Saved after every step, but not after that which was stopped.
            train(space, OT, given, SETTINGS, state, StopAt(*stop), save_every=-1)
    resumed_space, resumed = train(space, OT, given, SETTINGS, state)
    assert timeless(resumed) == timeless(whole)
    for name, tensor in whole_space.items():
        assert torch.equal(tensor, resumed_space[name]), name
    with pytest.raises(UserError, match="holds a run with other settings or data"):
        train(space, OT, task(identity={"test": 2}), SETTINGS, state)


def test_a_state_of_other_content_is_refused(tmp_path, weights_of, spoilt):
    path, given = tmp_path / "state.pt", task()
    with pytest.raises(StopError):
        train(space, OT, given, SETTINGS, path, StopAt(2, 2), save_every=-1)
    state = weights_of(path)
    for wrong in spoilt(state, 8):
        torch.save(wrong, path)
        with contextlib.suppress(UserError):
            train(space, OT, given, SETTINGS, path)
    for name in ("module", "optimizer", "progress", "history", "best"):
        torch.save({**state, name: {"x": 1}}, path)
        with pytest.raises(UserError, match="not one that this run wrote"):
            train(space, OT, given, SETTINGS, path)


class Recorder(PairLoss):
    """Keeps what it was called with."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, first, first_labels, second, second_labels):
        self.calls.append((first.detach(), first_labels, second.detach(), second_labels))
        return (first - second).square().mean(), {"calls": float(len(self.calls))}


def test_across_modalities_four_losses_are_summed(tmp_path):
    recorder = Recorder()
    both = task(train=(part(), part(seed=5)), test=(part(30, 1), part(30, 6)), same_things=True)
    settings = Settings(epochs=1, batch_size=16, learning_rate=1e-9, momentum=0, accelerator="cpu")
    found, history = train(partial(space, 2), lambda: recorder, both, settings, tmp_path / "s.pt")
    del recorder.calls[0]  # before the first epoch, so that compilation is not timed
    assert len(recorder.calls) == 4 * 3
    within, image_edge, edge_image, other = recorder.calls[:4]
    # Two batches of images A1, A2 and two of edges B1, B2: A1-A2, A1-B2, B1-A2, B1-B2.
    assert torch.equal(within[0], image_edge[0])
    assert torch.equal(within[2], edge_image[2])
    assert torch.equal(edge_image[0], other[0])
    assert torch.equal(image_edge[2], other[2])
    assert torch.equal(within[1], other[1])
    assert torch.equal(within[3], other[3])
    assert not torch.equal(within[0], other[0])
    total = sum(float((a - b).square().mean()) for a, _, b, _ in recorder.calls)
    assert history[1].loss == pytest.approx(total / 3, rel=1e-5)
    assert not torch.equal(*[found[f"space.embedders.{i}.head.0.weight"] for i in range(2)])


def test_every_loss_sees_the_same_batches_and_first_weights(tmp_path):
    class WithVectors(Recorder):
        def __init__(self):
            super().__init__()
            self.vectors = nn.Parameter(torch.randn(3, 8))

    plain, richer = Recorder(), WithVectors()
    train(space, lambda: plain, task(), SETTINGS, tmp_path / "a.pt")
    train(space, lambda: richer, task(), SETTINGS, tmp_path / "b.pt")
    for call, other in zip(plain.calls[1:], richer.calls[1:], strict=True):
        assert torch.equal(call[1], other[1])
        assert torch.equal(call[3], other[3])
    assert torch.equal(plain.calls[1][0], richer.calls[1][0])


def test_objects_of_several_views(tmp_path):
    shapes = task(train=(part(views=3),), test=(part(30, 1, views=3),), augmentation=Augmentation(min_scale=0.8))
    _, history = train(space, OT, shapes, SETTINGS, tmp_path / "s.pt")
    assert history[-1].validation["map"] > history[0].validation["map"]


def test_a_batch_of_one_class_trains_nothing_and_stops_nothing(tmp_path):
    settings = Settings(batch_size=2, epochs=2, accelerator="cpu")
    with pytest.warns(UserWarning, match="a batch holds one class only") as told:
        _, history = train(space, OT, task(), settings, tmp_path / "b.pt")
    assert sum("one class only" in str(warning.message) for warning in told) == 1
    assert all(math.isfinite(figure) for epoch in history[1:] for figure in (epoch.loss, *epoch.diagnostics.values()))


def test_bad_input(tmp_path):
    with pytest.raises(
        UserError, match="`batch_size` 64 needs 128 training images for its two batches, and there are 96"
    ):
        train(space, OT, task(), Settings(batch_size=64), tmp_path / "s.pt")
    single = part()
    single = Images(single.pixels, torch.zeros_like(single.labels), single.mean, single.std)
    with pytest.raises(UserError, match="the training images hold one class only"):
        train(space, OT, task(train=(single,)), SETTINGS, tmp_path / "s.pt")
    with pytest.raises(DivergedError, match=r"in epoch 1, step \d of 3; the last weights up to epoch 0 are kept"):
        train(space, OT, task(), Settings(batch_size=16, learning_rate=1e6, accelerator="cpu"), tmp_path / "d.pt")
    for options, message in (
        ({"learning_rate": math.nan}, "`learning_rate` must be positive"),
        ({"momentum": 1.0}, "`momentum`"),
        ({"per_class": 5}, "`per_class` must divide the 128 items"),
    ):
        with pytest.raises(UserError, match=message):
            Settings(**options)


class Failing(PairLoss):
    """Works while it is warmed up, and then shows a bug."""

    def __init__(self, error):
        super().__init__()
        self.error, self.calls = error, 0

    def forward(self, first, first_labels, second, second_labels):
        self.calls += 1
        if self.calls > 1:
            raise self.error
        return (first - second).square().mean(), {}


@pytest.mark.parametrize("error", [TypeError("a bug"), ValueError("a bug"), UserError("give more images.")])
def test_only_a_users_mistake_is_a_sentence(tmp_path, error):
    with pytest.raises(type(error)) as raised:
        train(space, lambda: Failing(error), task(), SETTINGS, tmp_path / "s.pt")
    assert raised.value is error


def test_a_loss_of_pairs_is_not_shared_out():
    with pytest.raises(UserError, match="compares whole batches, which 2 processes can't share"):
        PairTraining(space, Matched, task(), SETTINGS, 2)


def test_nothing_to_retrieve_is_refused_before_training(tmp_path):
    lonely = part(3, 1)
    with pytest.raises(UserError, match="no test item has another of its class"):
        train(space, Matched, task(test=(lonely,)), SETTINGS, tmp_path / "s.pt")
    # Of two modalities, the other one's item will do, unless it shows the same thing.
    both = {"train": (part(), part(seed=5)), "test": (lonely, part(3, 2))}
    with pytest.raises(UserError, match="no test item has another"):
        train(partial(space, 2), Matched, task(**both, same_things=True), SETTINGS, tmp_path / "s.pt")
    train(partial(space, 2), Matched, task(**both), replace(SETTINGS, epochs=1), tmp_path / "t.pt")


def test_rates_decay_by_epoch_and_momentum_is_plain(tmp_path, weights_of):
    """Two steps of SGD with momentum and decay by hand, on the embedding's last bias."""
    settings = Settings(epochs=2, batch_size=48, learning_rate=0.02, decay=0.5, momentum=0.8, weight_decay=0.1,
                        accelerator="cpu")  # fmt: skip
    seen, rates = [], []

    class Noting(Matched):
        def forward(self, first, *others):
            if first.requires_grad:
                first.register_hook(lambda g: seen.append(g.sum(0)))
            loss, figures = super().forward(first, *others)
            return loss, figures

    class Rates(Watcher):
        def on_step(self, step):
            rates.append(step.learning_rate)

    class OneSided(Noting):
        def forward(self, first, first_labels, second, second_labels):
            return super().forward(first, first_labels, second.detach(), second_labels)

    torch.manual_seed(hashed(settings.seed))
    bias = space().embedders[0].head[-1].bias.detach().clone()
    weights, _ = train(space, OneSided, task(), settings, tmp_path / "s.pt", Rates())
    velocity = torch.zeros_like(bias)
    for gradient, rate in zip(seen, (0.02, 0.01), strict=True):
        velocity = 0.8 * velocity + gradient + 0.1 * bias
        bias = bias - rate * velocity
    assert rates == [0.02, 0.01]
    torch.testing.assert_close(weights["space.embedders.0.head.2.bias"], bias, rtol=1e-5, atol=1e-7)


def test_batches_and_draws_are_functions_of_epoch_and_step(tmp_path):
    """What a loss draws is the same for every loss, and another one at each step; so are the batches."""

    class Drawing(Recorder):
        def forward(self, *given):
            self.drawn = [*getattr(self, "drawn", []), float(torch.rand(()))]
            return super().forward(*given)

    loss, given = Drawing(), task()
    train(space, lambda: loss, given, SETTINGS, tmp_path / "s.pt")
    labels = given.train[0].labels
    steps = [(epoch, step) for epoch in range(2) for step in range(3)]
    assert len(loss.calls) == 1 + len(steps)  # the first one warms up
    for (epoch, step), call, drawn in zip(steps, loss.calls[1:], loss.drawn[1:], strict=True):
        chosen = labels[batches(labels, 32, SETTINGS.seed, epoch)[step]]
        assert torch.equal(torch.cat([call[1], call[3]]), chosen)
        key = hashed(SETTINGS.seed, epoch, step, 2)
        assert drawn == float(torch.rand((), generator=torch.Generator().manual_seed(key)))
    assert len(set(loss.drawn[1:])) == 6


def test_modalities_are_augmented_apart():
    """Of the same picture of many, in both modalities at the same place of the batch, other parts are cut out."""
    ramp = torch.arange(SIDE * SIDE, dtype=torch.float32).mul(3).to(torch.uint8).view(1, 1, SIDE, SIDE)
    alike = Images(ramp.expand(96, 3, -1, -1), torch.arange(96) % 3, (0.4,) * 3, (0.3,) * 3)
    both = task(train=(alike, alike), test=(alike, alike), augmentation=Augmentation(0.3))
    training, seen = PairTraining(partial(space, 2), Matched, both, SETTINGS), []

    def forward(images, modality):
        seen.append(images)
        return training.module(images, modality)

    training.outcome(forward, Part(0, 0, 0, 1), torch.device("cpu"))
    training.outcome(forward, Part(0, 1, 0, 1), torch.device("cpu"))
    assert len(seen) == 4
    assert all(not torch.equal(seen[i], seen[j]) for i in range(4) for j in range(i))


def test_what_a_loss_learns_is_trained_with_the_networks(tmp_path):
    class Centres(PairLoss):
        def __init__(self):
            super().__init__()
            self.centres = nn.Parameter(torch.randn(3, 8))

        def forward(self, first, first_labels, second, second_labels):
            return (first - self.centres[first_labels]).square().mean(), {}

    torch.manual_seed(hashed(SETTINGS.seed, 1))
    before = Centres().centres.detach()
    weights, _ = train(space, Centres, task(), SETTINGS, tmp_path / "s.pt")
    assert bool((weights["loss.centres"] != before).all())


def test_a_curve_is_kept_after_every_epoch_and_changes_nothing(tmp_path):
    """On the test images it is their mAP, in per cent."""
    plain, watched = task(), task(curve=task().test)
    expected, history = train(space, OT, plain, SETTINGS, tmp_path / "plain.pt")
    found, again = train(space, OT, watched, SETTINGS, tmp_path / "watched.pt")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert [dict(record.curve) for record in history] == [{}, {}, {}]
    assert dict(again[0].curve) == {}
    assert curves(again) == {MAP: [round(100 * record.validation["map"], 2) for record in again[1:]]}


def test_a_softmax_loss_is_added_with_its_weight_and_trained():
    torch.manual_seed(0)
    both = WithSoftmax(Matched(1.0), classes=3, channels=4, weight=0.2)
    first, second = torch.randn(6, 4), torch.randn(6, 4)
    labels, others = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0, 0, 2, 1, 1, 2])
    loss, figures = both(first, labels, second, others)
    logits = torch.cat([first, second]) @ both.classifier.weight.T + both.classifier.bias
    likelihood = logits.softmax(1)[torch.arange(12), torch.cat([labels, others])]
    assert float(figures["softmax"]) == pytest.approx(-float(likelihood.detach().log().mean()), rel=1e-5)
    alone = both.loss(first, labels, second, others)[0]
    assert float((loss - alone).detach()) == pytest.approx(0.2 * float(figures["softmax"]), rel=1e-4)
    loss.backward()
    assert float(both.classifier.weight.grad.abs().max()) > 0


def test_a_support_vector_machine_is_fitted_only_where_it_is_asked_for():
    from sklearn import svm

    queries, probe = clouds(0), clouds(1)
    found = evaluate(queries, queries, probe, exclude_self=True, svc=True)
    assert tuple(found) == (*FIGURES, "svc")
    theirs = svm.SVC().fit(probe.vectors.double(), probe.labels)
    assert found["svc"] == theirs.score(queries.vectors.double(), queries.labels)
    assert evaluate(queries, queries, None, exclude_self=True, svc=True)["svc"] is None


def test_the_nearest_are_those_of_a_plain_search(tmp_path):
    given = task()
    build_loss = partial(Matched, 1.0)
    weights, _ = train(space, build_loss, given, SETTINGS, tmp_path / "state.pt")
    queries = one_a_class(given.test[0].labels, 2)
    assert given.test[0].labels[queries].unique().numel() == 2
    found = nearest(weights, space, build_loss, given, queries, 3)
    learner = Learner(space(), build_loss())
    learner.load_state_dict(weights)
    vectors = embed(
        learner.eval(), 0, given.test[0], torch.arange(len(given.test[0].labels)), torch.device("cpu")
    ).vectors
    for query, items in zip(queries.tolist(), found, strict=True):
        distances = (vectors - vectors[query]).square().sum(1)
        distances[query] = torch.inf
        assert items == distances.argsort()[:3].tolist()
