import contextlib
import copy
import errno
import json
import math
import os
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn

from otfew.backbones.conv4 import Conv4
from otfew.errors import UserError
from otfew.training import loop
from otfew.training.augmentation import Augmentation
from otfew.training.loop import DivergedError, Duties
from otfew.training.pretrain import Classification, Task
from otfew.training.progress import LAST, Watcher, by_accuracy, read_accuracy
from otfew.training.settings import LoopSettings, PretrainSettings

SIDE, MEAN, STD = 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def build():
    return Conv4(channels=6)


SETTINGS = PretrainSettings(epochs=3, batch_size=16, accelerator="cpu")


@pytest.fixture(scope="module")
def task(train_images):
    images, pixels = train_images
    labels = torch.from_numpy(images.labels)
    return Task(pixels, labels, 4, SIDE, MEAN, STD, Augmentation(0.5, True, 0.2))


@pytest.fixture
def pretrain(task, validation):
    def run(path, settings=SETTINGS, watcher=None, save_every=60.0, task=task, identity=None, select="cosine-centroid"):
        duties = Duties(
            validation, read_accuracy, by_accuracy(select), path, identity or {"data": "made"}, save_every=save_every
        )
        return loop.run(lambda parts: Classification(build, task, settings, parts), settings, duties, watcher)

    return run


@pytest.fixture(scope="module")
def straight(task, validation, tmp_path_factory):
    path = tmp_path_factory.mktemp("straight") / "state.pt"
    duties = Duties(validation, read_accuracy, by_accuracy("cosine-centroid"), path, {"data": "made"})
    best, history = loop.run(lambda parts: Classification(build, task, SETTINGS, parts), SETTINGS, duties)
    return path, best, history


class KilledError(Exception):
    pass


class At(Watcher):
    def __init__(self, epoch, step, act):
        self.at, self.act = (epoch, step), act

    def on_step(self, step):
        if (step.epoch, step.step) == self.at:
            self.act()


def kill():
    raise KilledError


def figures(history):
    return [(h.loss, h.train_accuracy, h.validation) for h in history]


def assert_same_state(state, expected):
    for name, tensor in expected["module"].items():
        assert torch.equal(state["module"][name], tensor)
    for key, momenta in expected["optimizer"]["state"].items():
        assert torch.equal(state["optimizer"]["state"][key]["momentum_buffer"], momenta["momentum_buffer"])


# In the middle of epoch 2 after a save at each step; right after epoch 1; before anything was saved.
@pytest.mark.parametrize(("epoch", "step", "save_every"), [(2, 3, 0.0), (2, 1, 1e9), (1, 2, 1e9)])
def test_a_killed_run_goes_on_bit_for_bit(pretrain, straight, tmp_path, weights_of, epoch, step, save_every):
    path = tmp_path / "state.pt"
    with pytest.raises(KilledError):
        pretrain(path, watcher=At(epoch, step, kill), save_every=save_every)
    # What happens in between must not matter.
    torch.manual_seed(12345)
    torch.rand(17)
    best, history = pretrain(path)
    expected_path, expected_best, expected_history = straight
    assert figures(history) == figures(expected_history)
    for name, tensor in expected_best.items():
        assert torch.equal(best[name], tensor)
    assert_same_state(weights_of(path), weights_of(expected_path))


def test_sigterm_saves_at_once_and_loses_nothing(pretrain, straight, tmp_path, weights_of):
    path = tmp_path / "state.pt"
    told = []

    class Terminate(At):
        def on_terminate(self):
            told.append(weights_of(path)["progress"])

    watcher = Terminate(2, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        pretrain(path, watcher=watcher, save_every=1e9)
    assert ended.value.code == loop.TERMINATED == 143
    assert [(progress["epoch"], progress["step"]) for progress in told] == [(1, 2)]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    _, history = pretrain(path)
    assert figures(history) == figures(straight[2])
    assert_same_state(weights_of(path), weights_of(straight[0]))


def test_a_finished_run_is_not_trained_again(pretrain, straight):
    path, best, history = straight
    before = path.read_bytes()
    again, same = pretrain(path)
    assert same == history
    assert path.read_bytes() == before
    assert all(torch.equal(again[name], best[name]) for name in best)


def test_the_best_epoch_is_kept(pretrain, tmp_path, weights_of):
    seen = []

    class Copy(Watcher):
        def on_epoch(self, history, best):
            state = weights_of(tmp_path / "state.pt")["module"]
            seen.append((history[-1].validation["cosine-centroid"].mean, copy.deepcopy(state), best is not None))

    best, _ = pretrain(tmp_path / "state.pt", watcher=Copy())
    accuracies = [accuracy for accuracy, _, _ in seen]
    first_of_best = accuracies.index(max(accuracies))
    for name, tensor in best.items():
        assert torch.equal(tensor, seen[first_of_best][1][f"backbone.{name}"])
    for index, (accuracy, _, improved) in enumerate(seen):
        assert improved == all(accuracy > earlier for earlier in accuracies[:index])


def test_the_last_epoch_is_kept_through_a_break(pretrain, tmp_path, weights_of):
    """Every epoch is told of as the one to keep, and a killed run ends with the weights of one that was not."""
    told = []

    class Note(Watcher):
        def on_epoch(self, history, best):
            told.append(best is not None)

    def act():
        raise KilledError

    kept, history = pretrain(tmp_path / "straight.pt", watcher=Note(), select=LAST)
    assert told == [True] * SETTINGS.epochs
    module = weights_of(tmp_path / "straight.pt")["module"]
    assert all(torch.equal(tensor, module[f"backbone.{name}"]) for name, tensor in kept.items())
    with pytest.raises(KilledError):
        pretrain(tmp_path / "broken.pt", watcher=At(2, 3, act), save_every=0.0, select=LAST)
    again, same = pretrain(tmp_path / "broken.pt", select=LAST)
    assert figures(same) == figures(history)
    assert all(torch.equal(again[name], tensor) for name, tensor in kept.items())


def test_other_settings_or_data_do_not_resume(pretrain, straight):
    path, _, _ = straight
    for change in ({"settings": replace(SETTINGS, epochs=4)}, {"identity": {"data": "other"}}):
        with pytest.raises(UserError, match="another `output`"):
            pretrain(path, **change)


@pytest.mark.parametrize("kept", [0, 10, 1000, -1])
def test_a_damaged_state_is_refused(pretrain, straight, tmp_path, kept):
    path = tmp_path / "state.pt"
    path.write_bytes(straight[0].read_bytes()[:kept])
    with pytest.raises(UserError, match="damaged"):
        pretrain(path)


def test_a_state_cannot_run_code(pretrain, tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    torch.save({"fingerprint": Harm()}, tmp_path / "state.pt")
    with pytest.raises(UserError, match="damaged"):
        pretrain(tmp_path / "state.pt")
    assert not (tmp_path / "harm").exists()


def test_a_loss_that_explodes_says_where(pretrain, tmp_path):
    settings = replace(SETTINGS, learning_rate=1e30)
    with pytest.raises(DivergedError, match=r"became (nan|inf) in epoch 1, step \d of 5; nothing is kept yet: lower"):
        pretrain(tmp_path / "state.pt", settings)
    assert not (tmp_path / "state.pt").exists()


def test_nan_in_a_later_epoch_keeps_state_and_best_weights(task, validation, tmp_path, weights_of):
    path = tmp_path / "state.pt"

    class Poisoned(Classification):
        def outcome(self, forward, part, device):
            result = super().outcome(forward, part, device)
            factor = float("nan") if (part.epoch, part.step) == (1, 2) else 1.0
            return replace(result, loss=result.loss * factor)

    duties = Duties(validation, read_accuracy, by_accuracy("cosine-centroid"), path, {}, save_every=0.0)
    with pytest.raises(UserError, match=r"loss became nan in epoch 2, step 3 of 5; the best weights up to epoch 1"):
        loop.run(lambda parts: Poisoned(build, task, SETTINGS, parts), SETTINGS, duties)
    state = weights_of(path)
    assert (state["progress"]["epoch"], state["progress"]["step"]) == (1, 2)
    assert all(bool(torch.isfinite(t).all()) for t in [*state["module"].values(), *state["best"].values()])


def test_a_full_disk_leaves_the_last_state(pretrain, straight, tmp_path, monkeypatch, weights_of):
    path = tmp_path / "state.pt"

    def fill(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def act():
        monkeypatch.setattr(os, "fsync", fill)

    with pytest.raises(UserError, match="no space left on device"):
        pretrain(path, watcher=At(2, 2, act), save_every=0.0)
    assert weights_of(path)["progress"]["step"] == 2 - 1
    monkeypatch.undo()
    _, history = pretrain(path)
    assert figures(history) == figures(straight[2])


def test_a_state_of_other_content_is_refused(pretrain, tmp_path, weights_of, spoilt):
    """Keys, shapes, types and numbers that do not fit: one sentence that names the file, whatever is wrong."""
    path = tmp_path / "state.pt"
    with pytest.raises(KilledError):
        pretrain(path, watcher=At(2, 3, kill), save_every=0.0)
    state = weights_of(path)
    for wrong in spoilt(state, 12):
        torch.save(wrong, path)
        with contextlib.suppress(UserError):  # or it trains on: what nobody reads may be anything
            pretrain(path)
    for wrong in ({}, {"fingerprint": state["fingerprint"]}, state["progress"], [state], {**state, "optimizer": {}}):
        torch.save(wrong, path)
        with pytest.raises(UserError, match=str(tmp_path)):
            pretrain(path)
    for changes in ({"epoch": 7}, {"step": 99}, {"step": -1}, {"answers": 0}):
        torch.save({**state, "progress": {**state["progress"], **changes}}, path)
        with pytest.raises(UserError, match="delete it"):
            pretrain(path)
    torch.save(state, path)
    pretrain(path)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_something_else_in_the_place_of_a_state(pretrain, tmp_path, make):
    make(tmp_path / "state.pt")
    with pytest.raises(UserError, match=r"state\.pt is a (folder|pipe)"):
        pretrain(tmp_path / "state.pt")


def test_parts_average_to_the_gradient_of_the_batch(task, validation, tmp_path, weights_of):
    """Without batch normalisation, a step in two parts is the step of the whole, up to rounding and augmentation."""

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, images):
            return images * self.scale.view(1, 3, 1, 1)

    plain = replace(task, augmentation=Augmentation(1.0, False))
    pixels = plain.pixels.float().mean((2, 3), keepdim=True).round().to(torch.uint8).expand_as(plain.pixels)
    plain = replace(plain, pixels=pixels)  # even images, which no crop changes
    states = []
    for accumulate in (1, 2, 4):
        settings = PretrainSettings(epochs=1, batch_size=16, accelerator="cpu", accumulate=accumulate)
        path = tmp_path / f"{accumulate}.pt"
        duties = Duties(validation, read_accuracy, by_accuracy("cosine-centroid"), path, {})
        _, history = loop.run(
            lambda parts, settings=settings: Classification(Mean, plain, settings, parts), settings, duties
        )
        states.append((weights_of(path)["module"], history[0].loss, history[0].train_accuracy))
    for module, loss, accuracy in states[1:]:
        for name, tensor in module.items():
            torch.testing.assert_close(tensor, states[0][0][name], rtol=1e-5, atol=1e-6)
        assert loss == pytest.approx(states[0][1], rel=1e-5)
        assert accuracy == states[0][2]


def test_parts_that_do_not_divide_a_batch(pretrain, tmp_path):
    with pytest.raises(UserError, match=r"`batch_size` 16 can't be divided into 3"):
        pretrain(tmp_path / "state.pt", replace(SETTINGS, accumulate=3))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"accumulate": 0},
        {"threads": -1},
    ],
)
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(UserError, match=f"`{next(iter(wrong))}`"):
        LoopSettings(**wrong)


def test_a_state_of_other_code_is_gone_on_with_and_both_digests_are_kept(
    task, validation, straight, tmp_path, weights_of
):
    path, told = tmp_path / "state.pt", []

    class Told(Watcher):
        def on_other_code(self, then, now):
            told.append((then, now))

    class Stopped(Told, At):
        pass

    def go_on(code, watcher):
        duties = Duties(
            validation, read_accuracy, by_accuracy("cosine-centroid"), path, {"data": "made"}, save_every=0, code=code
        )
        return loop.run(lambda parts: Classification(build, task, SETTINGS, parts), SETTINGS, duties, watcher)

    with pytest.raises(KilledError):
        go_on("first", Stopped(2, 3, kill))
    assert told == []
    best, history = go_on("second", Told())
    assert told == [("first", "second")]
    assert [record.code for record in history] == ["first", "second", "second"]
    assert weights_of(path)["codes"] == ["first", "second"]
    # What the digest says changes nothing that is computed.
    assert figures(history) == figures(straight[2])
    assert all(torch.equal(best[name], tensor) for name, tensor in straight[1].items())


def test_sigterm_while_the_last_epoch_is_validated_is_not_forgotten(task, validation, tmp_path):
    """A command that trains several times would otherwise go on with the next one."""
    ended = []

    def validate(network, device, learned):
        ended.append(len(ended))
        if len(ended) == SETTINGS.epochs:
            os.kill(os.getpid(), signal.SIGTERM)
        return validation(network, device, learned)

    path = tmp_path / "state.pt"
    duties = Duties(validate, read_accuracy, None, path, {})
    with pytest.raises(SystemExit) as stopped:
        loop.run(lambda parts: Classification(build, task, SETTINGS, parts), SETTINGS, duties)
    assert stopped.value.code == loop.TERMINATED
    _, history = loop.run(lambda parts: Classification(build, task, SETTINGS, parts), SETTINGS, duties)
    assert len(history) == SETTINGS.epochs == len(ended)


@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_each_step_has_the_rate_of_its_schedule(task, validation, tmp_path, schedule):
    """Also after a break, from the closed forms: a half cosine over all steps, and a factor every two epochs."""
    settings = replace(SETTINGS, epochs=4, schedule=schedule, step_epochs=2, step_factor=0.5)
    rates = []

    class Rates(At):
        def on_step(self, step):
            rates.append((step.epoch, step.step, step.learning_rate))
            super().on_step(step)

    duties = Duties(validation, read_accuracy, None, tmp_path / "state.pt", {}, save_every=-1)
    for watcher in (Rates(2, 3, kill), Rates(9, 9, kill)):
        with contextlib.suppress(KilledError):
            loop.run(lambda parts: Classification(build, task, settings, parts), settings, duties, watcher)
    assert rates.pop(7) == rates[7]  # the step that was killed is done again
    assert [place[:2] for place in rates] == [(e, s) for e in range(1, 5) for s in range(1, 6)]
    for index, (epoch, _, rate) in enumerate(rates):
        expected = (1 + math.cos(math.pi * index / 20)) / 2 if schedule == "cosine" else 0.5 ** ((epoch - 1) // 2)
        assert rate == pytest.approx(0.1 * expected, rel=1e-12)


@pytest.mark.parametrize("error", [TypeError, ValueError])
def test_a_bug_in_an_objective_keeps_its_traceback(task, validation, tmp_path, error):
    class Buggy(Classification):
        def outcome(self, forward, part, device):
            raise error("a bug")

    duties = Duties(validation, read_accuracy, None, tmp_path / "state.pt", {})
    with pytest.raises(error, match="a bug") as raised:
        loop.run(lambda parts: Buggy(build, task, SETTINGS, parts), SETTINGS, duties)
    assert type(raised.value) is error


def test_the_number_of_processes_is_a_part_of_a_state(straight, weights_of):
    """Gradients are averaged over processes: another number of them is another run."""
    state = weights_of(straight[0])
    settings, identity, world = json.loads(state["fingerprint"])
    assert (settings["batch_size"], identity, world) == (16, {"data": "made"}, {"processes": 1})


def test_times_of_an_epoch_go_on_after_a_break(pretrain, tmp_path, weights_of):
    path = tmp_path / "state.pt"
    with pytest.raises(KilledError):
        pretrain(path, watcher=At(2, 3, kill), save_every=-1)
    state = weights_of(path)
    state["progress"].update(seconds=1000.0, cpu_seconds=500.0)
    torch.save(state, path)
    _, (first, second, third) = pretrain(path)
    assert second.seconds > second.training_seconds > 1000 > first.seconds > first.training_seconds > 0
    assert second.cpu_seconds > 500 > third.cpu_seconds > 0
    assert third.seconds < 1000


def test_epochs_train_and_validation_evaluates(task, validation, tmp_path):
    """Batch normalisation uses batches in every epoch and its statistics in between, from the start on."""
    modes = []

    class Noting(Classification):
        def outcome(self, forward, part, device):
            modes.append(("step", {each.training for each in self.module.modules()}))
            return super().outcome(forward, part, device)

    def validate(network, device, learned):
        modes.append(("validation", {each.training for each in network.modules()}))
        return validation(network, device, learned)

    settings = replace(SETTINGS, epochs=2)
    duties = Duties(validate, read_accuracy, None, tmp_path / "state.pt", {}, initial=True)
    loop.run(lambda parts: Noting(build, task, settings, parts), settings, duties)
    evaluated, trained = ("validation", {False}), ("step", {True})
    assert modes == [evaluated, *[trained] * 5, evaluated, *[trained] * 5, evaluated]


def test_an_accelerator_that_is_not_there_is_refused_in_a_sentence_that_ends_once(monkeypatch):
    """Fabric's own ends with an exclamation mark."""

    def refuse(**options):
        raise RuntimeError("No supported gpu backend found!")

    monkeypatch.setattr("lightning_fabric.Fabric", refuse)
    with pytest.raises(UserError, match=r"^`accelerator` gpu can't be used here: No supported gpu backend found\.$"):
        loop.make_fabric(replace(SETTINGS, accelerator="gpu"))
