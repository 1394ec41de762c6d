"""The loop under every training: steps that may be killed anywhere and go on to the very same weights."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, NoReturn, Protocol, cast

import torch
from torch import Tensor, nn

from otfew.errors import UserError
from otfew.random.generators import begin, borrowed, drawn
from otfew.random.keys import hashed
from otfew.runs import processes
from otfew.training.checkpoint import load_state, save_state
from otfew.training.ledger import Figures, Ledger, Outcome
from otfew.training.progress import Epoch, Score, Step, V, Watcher, curve_epochs, kept_epoch
from otfew.training.restoring import require_alike, require_steady, restore_optimizer, restoring
from otfew.training.settings import Training

State = dict[str, Any]
Forward = Callable[..., Any]
"""The objective's module, wrapped: from normalised images (images, 3, height, width) to what it gives."""
DRAWS_OF_LAYERS = 2
"""Tells these draws from an objective's own."""
CHEAP, SHARE = 0.25, 0.1
"""A state that took longer to write, in seconds, is not written after every epoch, but in this share of the time."""
TERMINATED = 128 + signal.SIGTERM
"""Exit code of a run that SIGTERM stopped."""


@dataclass(frozen=True)
class Part:
    """A part of a step: a step has as many parts as there are processes, times ``LoopSettings.accumulate``.

    Attributes:
        epoch: From 0.
        step: Of its epoch, from 0.
        index: Of the part, from 0.
        count: Parts of the step.
    """

    epoch: int
    step: int
    index: int
    count: int

    def of(self, items: int) -> slice:
        """Return this part's share of so many items; ``count`` must divide them."""
        size = items // self.count
        return slice(self.index * size, (self.index + 1) * size)


class DivergedError(UserError):
    """Training has left the finite numbers.

    Args:
        found: What was found where.
        advice: What is left of the training, and what to do.
    """

    def __init__(self, found: str, advice: str = ": lower `learning_rate`.") -> None:
        super().__init__(found + advice)
        self.found = found


class Objective(Protocol):
    """What a loop minimises."""

    @property
    def module(self) -> nn.Module:
        """Return everything that is trained."""
        ...

    @property
    def network(self) -> nn.Module:
        """Return the part of it that is validated and kept."""
        ...

    @property
    def steps(self) -> int:
        """Count the steps of an epoch."""
        ...

    def learned(self) -> Mapping[str, float]:
        """Return the values, by option of a method, of what is learned besides the network."""
        ...

    def train(self) -> None:
        """Put the module into its mode of training."""
        ...

    def outcome(self, forward: Forward, part: Part, device: torch.device) -> Outcome:
        """Compute a part's loss, by calling the module through ``forward`` only; a function of the part alone."""
        ...


Validate = Callable[[Any, torch.device, Mapping[str, float]], Mapping[str, V]]
"""From the network, in evaluation mode, its device, and what else is learned, to figures by name."""


@dataclass(frozen=True)
class Duties(Generic[V]):
    """What a loop does besides minimising.

    Attributes:
        validate: Called after every epoch, in all processes, which may share the work; all get the same answer.
        read: Reads one of its figures back from JSON; raises ``ValueError`` for other content.
        score: The epoch that is best by it is kept; None keeps the last.
        state_path: Where the state is kept; written every ``save_every`` seconds and after every epoch, but where
            epochs are short and states large, see ``CHEAP``.
        identity: JSON-ready: data, architecture and all else that the run depends on beside its settings; a state of
            another identity is not resumed.
        initial: Validate before the first step too; the start may then turn out to be the best.
        save_every: Seconds of work that a crash may cost at most, short of one step.
        folder: Argument of the caller that names the folder of the state, for sentences.
        code: Digest of the code. A state of other code is gone on with, which the watcher hears of.
        curve: Like ``validate``, but chooses nothing and is called after ``curve_epochs`` only; None keeps no curve.
    """

    validate: Validate[V]
    read: Callable[[Any], V]
    score: Score[V] | None
    state_path: Path
    identity: Mapping[str, Any]
    initial: bool = False
    save_every: float = 60.0
    folder: str = "output"
    code: str = ""
    curve: Validate[float] | None = None


def run(
    build: Callable[[int], Objective], settings: Training, duties: Duties[V], watcher: Watcher[V] | None = None
) -> tuple[dict[str, Tensor], list[Epoch[V]]]:
    """Train, or go on from where the state stands.

    Objectives are functions of epoch, step and part, so a run that was killed and started again gives the same weights
    as one that was not, bit for bit on the same machine with the same numbers of threads and processes. Under torchrun
    the parts of a step are shared out over the processes and gradients are averaged; buffers are the first process's.

    Args:
        build: Makes the objective for so many parts a step; must draw initial weights from torch's generator only.
        settings: How to train.
        duties: Validation, and where the state is kept.
        watcher: Hears of progress.

    Returns:
        The state dictionary of the network that is kept, on the CPU, and all epochs; in all processes.

    Raises:
        DivergedError: A loss or gradient that is not finite.
        UserError: A state of another run or a damaged one, a disk that is full, an accelerator that is not there, a
            step that can't be divided.
        SystemExit: With ``TERMINATED``, after SIGTERM, once the state is saved.
    """
    with _terminations() as told:
        return _Run(build, settings, duties, watcher or Watcher(), told)()


@dataclass
class _Progress:
    """Where a run stands: all that the state holds besides weights and momenta."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    correct: int = 0
    answers: int = 0
    diagnostics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class _Run(Generic[V]):
    """One call of ``run``."""

    def __init__(
        self,
        build: Callable[[int], Objective],
        settings: Training,
        duties: Duties[V],
        watcher: Watcher[V],
        told: threading.Event,
    ) -> None:
        self.settings, self.duties, self.told = settings, duties, told
        here = processes.world()
        if settings.threads or here.size > 1:
            torch.set_num_threads(settings.threads or max(1, processes.cores() // here.local_size))
        self.fabric = make_fabric(settings)
        self.first = self.fabric.global_rank == 0
        self.parts = self.fabric.world_size * settings.accumulate
        self.watcher = watcher if self.first else Watcher()
        with drawn(hashed(settings.seed)):
            self.objective = build(self.parts)
        self.fingerprint = json.dumps(
            [asdict(cast(Any, settings)), dict(duties.identity), {"processes": self.fabric.world_size}], sort_keys=True
        )
        state = self._read_state()
        module: Any = self.objective.module
        module.to(memory_format=torch.channels_last)
        self.optimizer = _optimizer(module, settings)
        self.wrapped, self.wrapped_optimizer = self.fabric.setup(module, self.optimizer)
        self.ledger = Ledger(self.fabric.device)
        self.progress = _Progress()
        self.history: list[Epoch[V]] = []
        self.best: dict[str, Tensor] = {}
        self.codes = [duties.code]
        self.saved, self.saving = time.monotonic(), 0.0
        if state is not None:
            self._restore(state)
            self.watcher.on_resume(self.progress.epoch, self.progress.step)

    def __call__(self) -> tuple[dict[str, Tensor], list[Epoch[V]]]:
        """Run the remaining epochs."""
        if self.duties.initial and not self.history:
            self._close(0, time.monotonic())
        with borrowed(self.fabric.device), _few_threads(self.fabric.device, self.settings.threads):
            for epoch in range(self.progress.epoch, self.settings.epochs):
                self._epoch(epoch)
        return self.best, self.history

    def _epoch(self, epoch: int) -> None:
        """Train the rest of one epoch, validate, keep what is to be kept, save."""
        progress = self.progress
        self.objective.train()
        began, cpu_began = time.monotonic() - progress.seconds, time.process_time() - progress.cpu_seconds
        for step in range(progress.step, self.objective.steps):
            # In all processes at the same steps.
            due = (step + 1) % self.ledger.every == 0 or step + 1 == self.objective.steps
            self._step(epoch, step, due)
            if not due:
                continue
            now = time.monotonic()
            progress.seconds, progress.cpu_seconds = now - began, time.process_time() - cpu_began
            if self._any(self.told.is_set()):
                self._save()
                self._terminate()
            if now - self.saved > self.duties.save_every:
                self._save()
        self._close(epoch + 1, began)

    def _close(self, epoch: int, began: float) -> None:
        """Validate and record an epoch, keep its weights where they are to be kept, and save."""
        network = self.objective.network.eval()
        if self.fabric.world_size > 1:
            # Each process has followed the statistics of its own images; the first one's are those that are kept.
            for buffer in network.buffers():
                buffer.copy_(self.fabric.broadcast(buffer))
        learned = dict(self.objective.learned())
        try:
            validation = self.duties.validate(network, self.fabric.device, learned)
            curve: Mapping[str, float] = {}
            if self.duties.curve is not None and epoch in curve_epochs(self.settings.epochs):
                curve = self.duties.curve(network, self.fabric.device, learned)
        except DivergedError as error:
            raise DivergedError(f"{error.found} after epoch {epoch}") from None
        progress, steps = self.progress, self.objective.steps
        record = Epoch(
            epoch=epoch,
            loss=progress.loss / steps if epoch else None,
            train_accuracy=100 * progress.correct / progress.answers if progress.answers else None,
            validation=validation,
            seconds=time.monotonic() - began,
            learned=learned,
            diagnostics={name: total / steps for name, total in progress.diagnostics.items()},
            training_seconds=progress.seconds,
            cpu_seconds=progress.cpu_seconds,
            code=self.duties.code,
            curve=curve,
        )
        self.history.append(record)
        improved = kept_epoch(self.history, self.duties.score) is record
        if improved:
            self.best = {name: t.detach().cpu().clone() for name, t in network.state_dict().items()}
        self.progress = _Progress(epoch=epoch)
        ends = self._any(self.told.is_set())
        if ends or epoch == self.settings.epochs or self._worth_saving():
            self._save()
        if self.first:
            self.watcher.on_epoch(self.history, self.best if improved else None)
        if ends:
            self._terminate()

    def _terminate(self) -> NoReturn:
        """End after SIGTERM, once the state is saved."""
        self.watcher.on_terminate()
        raise SystemExit(TERMINATED)

    def _step(self, epoch: int, step: int, due: bool) -> None:
        """Do one step of the optimizer, and tell what it and those before it came to where that is due."""
        rate = self.settings.rate(epoch, step / self.objective.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.wrapped_optimizer.zero_grad()
        try:
            self._backward(epoch, step)
        except DivergedError:
            raise
        except Exception:
            # Weights that an earlier step has ruined are what many a solver refuses first.
            self._read(epoch, alone=True)
            raise
        norm = nn.utils.clip_grad_norm_(self.objective.module.parameters(), math.inf)
        self.ledger.add_step(step, rate, norm)
        # Nothing is saved, validated or shown but what has been read, and so found finite.
        done = self._read(epoch) if due else []
        self.wrapped_optimizer.step()
        for figures in done:
            self._record(epoch, figures)

    def _backward(self, epoch: int, step: int) -> None:
        """Compute the gradient of a step, part by part."""
        accumulate = self.settings.accumulate
        for turn in range(accumulate):
            part = Part(epoch, step, self.fabric.global_rank * accumulate + turn, self.parts)
            # What layers draw by themselves (dropout) is a function of the part too.
            begin(hashed(self.settings.seed, epoch, step, part.index, DRAWS_OF_LAYERS), self.fabric.device)
            # Gradients are averaged over processes with the last part only.
            alone = self.fabric.world_size > 1 and turn < accumulate - 1
            with self.fabric.no_backward_sync(self.wrapped, enabled=alone):
                outcome = self.objective.outcome(self.wrapped, part, self.fabric.device)
                self.fabric.backward(outcome.loss / accumulate)
            self.ledger.add_part(outcome)

    def _read(self, epoch: int, alone: bool = False) -> list[Figures]:
        """Read the figures of the steps since the last reading.

        Args:
            epoch: From 0.
            alone: Of this process only; the others may be elsewhere.

        Raises:
            DivergedError: One of them is not finite.
        """
        found = self.ledger.read(lambda rows: rows if alone else self._over_processes(rows))
        for figures in found:
            place = f"in epoch {epoch + 1}, step {figures.step + 1} of {self.objective.steps}"
            for name in figures.lost:
                raise DivergedError(f"{name} left the finite numbers {place}")
            self._check("loss", figures.loss / self.parts, place)
            if self.settings.precision != "16-mixed":
                # Scaled gradients in half precision may overflow: the scaler then leaves the step out.
                self._check("gradient's norm", figures.norm, place)
        return found

    def _over_processes(self, rows: Tensor) -> Tensor:
        """Sum over all processes."""
        if self.fabric.world_size == 1:
            return rows
        total: Tensor = self.fabric.all_reduce(rows.contiguous(), reduce_op="sum")
        return total

    def _record(self, epoch: int, figures: Figures) -> None:
        """Count a step that is done, and tell of it."""
        progress, loss = self.progress, figures.loss / self.parts
        progress.step = figures.step + 1
        progress.loss += loss
        progress.correct += int(figures.correct)
        progress.answers += int(figures.answers)
        for name, figure in figures.diagnostics.items():
            progress.diagnostics[name] = progress.diagnostics.get(name, 0.0) + figure / self.parts
        self.watcher.on_step(Step(epoch + 1, progress.step, self.objective.steps, loss, figures.rate, figures.norm))

    def _check(self, what: str, value: float, place: str) -> None:
        """Refuse figures that say that the weights are ruined, or would be by this step."""
        if not math.isfinite(value):
            which = "last" if self.duties.score is None else "best"
            kept = (
                f"the {which} weights up to epoch {self.history[-1].epoch} are kept"
                if self.best
                else "nothing is kept yet"
            )
            raise DivergedError(
                f"the {what} became {value} {place}",
                f"; {kept}: lower `learning_rate` and give another `{self.duties.folder}`.",
            )

    def _any(self, flag: bool) -> bool:
        """Tell whether any process says so: all must leave the loop at the same step."""
        if self.fabric.world_size == 1:
            return flag
        return bool(self.fabric.all_reduce(torch.tensor(float(flag), device=self.fabric.device), reduce_op="sum") > 0)

    def _worth_saving(self) -> bool:
        """Tell whether the work since the last state is worth another: on a GPU an epoch may take as long as that."""
        since = time.monotonic() - self.saved
        return self.saving < CHEAP or since > min(self.saving / SHARE, self.duties.save_every)

    def _save(self) -> None:
        """Write the state, in the first process."""
        began = time.monotonic()
        if self.first:
            save_state(self.duties.state_path, self._state())
        self.saved = time.monotonic()
        self.saving = self.saved - began

    def _state(self) -> State:
        """Return all that a run goes on from."""
        return {
            "fingerprint": self.fingerprint,
            "module": self.objective.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "progress": asdict(self.progress),
            "history": [record.to_json() for record in self.history],
            "best": self.best,
            "codes": self.codes,
        }

    def _read_state(self) -> State | None:
        """Read the state in the first process, if there is one of this very run, and hand it to all."""
        state = load_state(self.duties.state_path) if self.first else None
        if state is not None and state.get("fingerprint") != self.fingerprint:
            raise UserError(
                f"{self.duties.state_path.parent} holds a run with other settings or data: give another "
                f"`{self.duties.folder}`, or the same settings to resume it."
            )
        shared: State | None = self.fabric.broadcast(state)
        return shared

    def _restore(self, state: State) -> None:
        """Go back to where the state was written."""
        with restoring(self.duties.state_path):
            like = self._state()
            best = {n: t.detach().cpu() for n, t in self.objective.network.state_dict().items()}
            like["best"] = best if state["history"] else {}
            # An objective names its diagnostics with the first step.
            like["progress"]["diagnostics"] = dict.fromkeys(state["progress"]["diagnostics"], 0.0)
            # Optimizers and scalers of gradients begin with less than they go on with.
            for name in like.keys() - {"optimizer", "precision"}:
                require_alike(state[name], like[name], name)
            self.objective.module.load_state_dict(state["module"])
            restore_optimizer(self.optimizer, state["optimizer"])
            self.fabric.strategy.precision.load_state_dict(state["precision"])
            self.progress = _Progress(**state["progress"])
            self.history = [Epoch.from_json(record, self.duties.read) for record in state["history"]]
            self.best = state["best"]
            recorded, progress = [record.epoch for record in self.history], self.progress
            first = 0 if self.duties.initial else 1
            require_steady(recorded, first, progress.epoch, progress.step, self.objective.steps)
            if not 0 <= progress.correct <= progress.answers or 0 < progress.answers < progress.step:
                raise ValueError(f"{progress.correct} of {progress.answers} answers in {progress.step} steps")
            if self.history:
                kept_epoch(self.history, self.duties.score)
            self.codes = list(map(str, state["codes"]))
        if self.codes[-1:] != [self.duties.code]:
            self.watcher.on_other_code((self.codes or [""])[-1], self.duties.code)
            self.codes.append(self.duties.code)


def _optimizer(module: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """Make the optimizer that the settings name."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adam":
        return torch.optim.Adam(module.parameters(), lr=rate, weight_decay=decay)
    return torch.optim.SGD(module.parameters(), rate, settings.momentum, weight_decay=decay, nesterov=settings.nesterov)


def make_fabric(settings: Training) -> Any:
    """Set Lightning Fabric up: one process, or those that torchrun started.

    Raises:
        UserError: The accelerator can't be used here.
    """
    from lightning_fabric import Fabric

    here = processes.world()
    devices: dict[str, Any] = {"devices": 1}
    if here.size > 1:
        devices = {"devices": here.local_size, "num_nodes": here.size // here.local_size, "strategy": "ddp"}
    try:
        fabric = Fabric(accelerator=settings.accelerator, precision=settings.precision, **devices)
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".!")
        raise UserError(f"`accelerator` {settings.accelerator} can't be used here: {reason}.") from None
    return fabric


def divided(name: str, items: int, parts: int) -> int:
    """Return each part's share of items; raises ``UserError`` naming the setting where they can't be divided evenly."""
    if items % parts:
        raise UserError(
            f"`{name}` {items} can't be divided into {parts} equal parts ({processes.world().size} processes x "
            "`accumulate`): choose a multiple."
        )
    return items // parts


def batches_of(batch_size: int, images: int) -> int:
    """Return how many whole batches images make; raises ``UserError`` where there is none."""
    if batch_size > images:
        raise UserError(f"`batch_size` {batch_size} is more than the {images} training images: lower it.")
    return images // batch_size


def keep_statistics(module: nn.Module) -> None:
    """Let batch normalisation, in a module that is in training, use and keep the statistics that it has."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()


@contextmanager
def _few_threads(device: torch.device, asked: int) -> Iterator[None]:
    """Let the host have one thread where a GPU does the work, unless it was told otherwise.

    What is left to it are numbers for a batch's crops; the threads that wait for more of them would keep every core
    busy, and the one that feeds the GPU from it.
    """
    before = torch.get_num_threads()
    if device.type != "cpu" and not asked:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _terminations() -> Iterator[threading.Event]:
    """Turn SIGTERM into an event for a while; Python allows that in the main thread only."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)
