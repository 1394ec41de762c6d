"""The rule by which the map becomes a sentence, and by which data that it has not seen judge that; in claims.lock.

1. A setting's effect, against either control, is the mean over its cells of the map, one for each data set. Data sets
   count as independent, and two are not quite: CIFAR-FS and FC100 share 5 of their 20 test classes, and the 20 of FC100
   all lie in ``cifar100-in``, the other cell of classes within and across superclasses.
2. Transport pays in a setting where both effects are above zero, their 95 % intervals leave it out, and p, corrected by
   Holm over all settings and both controls, is below 0.05. The family is as large whatever was run: a p that is not
   there counts as 1. A setting of which a cell is missing pays nowhere, and is open where it would. Transport does not
   pay where an interval against either control ends below ``MARGIN`` points. Else that is open.
3. The advised control is the one that, on average over the settings of the map, transport gains least upon.
4. The sentence advises transport in the settings where it pays, and the advised control elsewhere.
5. It is put to the test on the held-back data set, whose cells weigh alike: (a) over the settings where transport shall
   pay, the mean difference there has an interval above zero against both controls; (b) over the others, the interval
   against the advised control ends below ``MARGIN``. Intervals are over networks too where cells have three of a kind.
   It held where all parts that there are hold; it failed where an interval of (a) lies below zero, or one of (b) above
   ``MARGIN``; else the held-back data leave it open.
6. None of this counts unless transport wins over both controls in the designed control, as in 2.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import numpy as np

from otfew.experiments.regimes.cells import BESIDE, CELLS, CONTROL, HELD_BACK, IMAGES, MAP, SETTINGS, Cell
from otfew.experiments.regimes.effects import CONTROLS, Counted, Effect, Table, averaged, points, together
from otfew.statistics.crossed import Spread
from otfew.statistics.intervals import holm

MARGIN = 1.0
"""Points that are worth a plan."""
LEVEL = 0.05
LEAST_EPISODES = 200
"""A cell of fewer decides nothing."""

Key = TypeVar("Key")
PAYS, NOT, OPEN = "pays", "does not pay", "open"
HELD, FAILED, UNDECIDED = "held", "failed", "left open"


@dataclass(frozen=True)
class Judged:
    """A setting with its verdict.

    Attributes:
        setting: Its name.
        cells: Ids of the cells that it rests on.
        missing: Ids of those that were not run.
        effects: Control -> effect in points.
        corrected: Control -> Holm's p, over all settings and both controls.
        verdict: ``PAYS``, ``NOT`` or ``OPEN``.
    """

    setting: str
    cells: tuple[str, ...]
    missing: tuple[str, ...]
    effects: Mapping[str, Effect]
    corrected: Mapping[str, float]
    verdict: str


@dataclass(frozen=True)
class Advice:
    """The sentence, and what it rests on.

    Attributes:
        settings: In the order of ``SETTINGS``; those alone of which a cell was run.
        control: That is advised; "" where no setting was judged.
        text: The sentence.
        designed: Verdict on the designed control; "" where it was not run.
    """

    settings: tuple[Judged, ...]
    control: str
    text: str
    designed: str

    @property
    def paying(self) -> tuple[str, ...]:
        """Settings where transport pays."""
        return tuple(one.setting for one in self.settings if one.verdict == PAYS)


@dataclass(frozen=True)
class Tested:
    """The sentence on held-back data.

    Attributes:
        paying: Control -> difference over the settings where transport shall pay; empty where there are none.
        others: Difference to the advised control over the others; None where there are none.
        verdict: ``HELD``, ``FAILED``, ``UNDECIDED``, or "" where nothing could be tested.
        cells: Ids of the held-back cells that were run.
    """

    paying: Mapping[str, Effect]
    others: Effect | None
    verdict: str
    cells: tuple[str, ...]


def verdict(effects: Mapping[str, Effect], corrected: Mapping[str, float], *, complete: bool = True) -> str:
    """Apply the second sentence of the rule to a setting.

    Args:
        effects: Control -> effect in points.
        corrected: Control -> Holm's p.
        complete: Whether all its cells were run.
    """
    for control, effect in effects.items():
        p = corrected[control]
        if effect.low is None or not (effect.low > 0 and p < LEVEL):
            break
    else:
        return PAYS if complete else OPEN
    return NOT if any(e.high is not None and e.high < MARGIN for e in effects.values()) else OPEN


def advise(table: Table, cells: Sequence[Cell] = CELLS) -> Advice:
    """Judge all settings of the map, and say the sentence.

    Args:
        table: What was run.
        cells: Of the map.
    """
    table = _decisive(table)
    groups = {name: [c for c in cells if c.part == MAP and c.setting == name] for name in SETTINGS}
    ran = {name: [c.id for c in group if c.id in table] for name, group in groups.items()}
    effects = {
        name: {control: averaged([points(table[i], control) for i in ids]) for control in CONTROLS}
        for name, ids in ran.items()
        if ids
    }
    keys = [(name, control) for name in SETTINGS for control in CONTROLS]
    corrected = _corrected({key: effects[key[0]][key[1]].p if key[0] in effects else None for key in keys})
    judged = []
    for name, found in effects.items():
        own = {control: corrected[name, control] for control in CONTROLS}
        missing = tuple(c.id for c in groups[name] if c.id not in table)
        said = verdict(found, own, complete=not missing)
        judged.append(Judged(name, tuple(ran[name]), missing, found, own, said))
    control = _advised([one.effects for one in judged])
    paying = [SETTINGS[one.setting] for one in judged if one.verdict == PAYS]
    designed = [table[c.id] for c in cells if c.part == CONTROL and c.id in table]
    return Advice(tuple(judged), control, sentence(paying, control), _designed(designed))


def _corrected(family: Mapping[Key, float | None]) -> dict[Key, float]:
    """Correct p by Holm; a question without one stays in the family, as 1."""
    told = holm([1.0 if p is None else p for p in family.values()])
    return {key: 1.0 if p is None else p for key, p in zip(family, told, strict=True)}


def _decisive(table: Table) -> Table:
    """Leave out cells of too few episodes."""
    return {name: counted for name, counted in table.items() if len(counted[0].classes) >= LEAST_EPISODES}


def _advised(effects: Sequence[Mapping[str, Effect]]) -> str:
    """Choose the control that transport gains least upon; of equals the first."""
    if not effects:
        return ""
    return min(CONTROLS, key=lambda control: float(np.mean([found[control].mean for found in effects])))


def _designed(found: Sequence[Sequence[Counted]]) -> str:
    """Judge the designed control."""
    if not found:
        return ""
    effects = {control: averaged([points(counted, control) for counted in found]) for control in CONTROLS}
    return verdict(effects, _corrected({control: effects[control].p for control in CONTROLS}))


def sentence(paying: Sequence[str], control: str) -> str:
    """Say what to do.

    Args:
        paying: Settings, in words.
        control: That is advised elsewhere; "" where nothing was judged.
    """
    if not control:
        return "No setting was judged."
    if not paying:
        return (
            f"In no setting of this map does exact transport add to both controls: take {control} on the same nodes "
            "with the same weights."
        )
    *first, last = paying
    where = f"{', '.join(first)} and {last}" if first else last
    return f"Take exact transport {where}; elsewhere {control}, on the same nodes with the same weights."


def put_to_test(advice: Advice, table: Table, cells: Sequence[Cell] = CELLS) -> Tested:
    """Put the sentence to the test on held-back data.

    Args:
        advice: Of the map.
        table: What was run.
        cells: Of the map.
    """
    table = _decisive(table)
    judged = {one.setting for one in advice.settings}
    ran = [c for c in cells if c.part == HELD_BACK and c.id in table and c.setting in judged]
    shall = [table[c.id] for c in ran if c.setting in advice.paying]
    rest = [table[c.id] for c in ran if c.setting not in advice.paying]
    paying = {control: together(shall, control) for control in CONTROLS} if shall else {}
    others = together(rest, advice.control) if rest else None
    return Tested(paying, others, tested(list(paying.values()), others), tuple(c.id for c in ran))


def tested(paying: Sequence[Effect], others: Effect | None) -> str:
    """Apply the fifth sentence of the rule.

    Args:
        paying: Differences to both controls where transport shall pay; empty where it shall nowhere.
        others: Difference to the advised control elsewhere, or None.
    """
    if not paying and others is None:
        return ""
    held = [e.low is not None and e.low > 0 for e in paying]
    failed = [e.high is not None and e.high < 0 for e in paying]
    if others is not None:
        held.append(others.high is not None and others.high < MARGIN)
        failed.append(others.low is not None and others.low > MARGIN)
    return HELD if all(held) else FAILED if any(failed) else UNDECIDED


def _few(counted: Sequence[Counted]) -> list[Counted]:
    """Take one episode too few to decide anything."""
    keep = LEAST_EPISODES - 1
    return [replace(one, right=one.right[:, :keep], classes=one.classes[:keep]) for one in counted]


def _on_networks(counts: Sequence[Counted]) -> list[str]:
    """Say what the rule says where transport wins: on several networks of a kind, on parts of the map, and both."""
    won = [
        replace(one, right=np.stack([one.right[1:].max(0) + 5 + 3 * k, *one.right[1:]])) for k, one in enumerate(counts)
    ]
    alone = [replace(won[0], network="alone")]
    whole = {c.id: alone if c.network == "imagenet" else won for c in CELLS}
    first = next(iter(SETTINGS))
    parts = {c.id: whole[c.id] for c in CELLS if c.setting == first}
    lacking = {c.id: whole[c.id] for c in CELLS if c.setting != first and not c.id.startswith("birds/")}
    said = []
    for table in (whole, parts, lacking):
        advice = advise(table)
        tested = put_to_test(advice, table)
        found = [*tested.paying.values(), *([tested.others] if tested.others else [])]
        said += [advice.text, tested.verdict, *(f"{e.mean:.6f} {e.half:.6f}" for e in found)]
        said += [f"{one.verdict} {one.corrected[control]:.3e}" for one in advice.settings for control in CONTROLS]
    return said


def digest() -> str:
    """Digest the cells that decide, and the rule's word on made-up figures: ten hexadecimal digits."""
    from otfew.experiments.regimes.mosaics import PER_CLASS, SIDE, TILES, made_of

    said = [repr((MARGIN, LEVEL, LEAST_EPISODES, CONTROLS))]
    said += [repr((c.id, c.part, c.setting, c.settings, asdict(IMAGES[c.images]))) for c in CELLS if c.part != BESIDE]
    said.append(repr((TILES, SIDE, PER_CLASS, made_of())))
    cases = itertools.product((-3.0, -0.4, 0.4, 1.6, 3.0), (0.1, 0.5, 2.0), (0.001, 0.02, 0.2))
    for (mean, error, p), other in itertools.product(cases, (-0.5, 0.5, 4.0)):
        one, two = Effect(mean, error, Spread(error, 19)), Effect(other, 0.2, Spread(0.3, 19))
        both = {"chamfer": one, "product-coupling": two}
        said += [verdict(both, {"chamfer": p, "product-coupling": 0.01}, complete=whole) for whole in (True, False)]
        said += [tested([one, two], None), tested([], one), tested([two, two], one)]
        said.append(f"{averaged([one, two]).half:.6f}")
    said += [sentence(words, "chamfer") for words in ((), ("here",), ("here", "there", "everywhere"))]
    rng = np.random.default_rng(0)
    classes = np.stack([rng.choice(8, 5, replace=False) for _ in range(LEAST_EPISODES)])
    names = tuple("abcdefgh")
    counts = [Counted(str(i), rng.integers(20, 60, (3, LEAST_EPISODES)), 75, classes, names) for i in range(3)]
    said += [f"{points(counts[:n], control).half:.6f}" for n in (1, 2, 3) for control in CONTROLS]
    made = {c.id: counts[:1] for c in CELLS}
    found = advise(made)
    said += [found.text, found.designed, *(one.verdict for one in found.settings)]
    said += [put_to_test(found, made).verdict, put_to_test(found, {i: _few(one) for i, one in made.items()}).verdict]
    said.append(advise({i: _few(one) for i, one in made.items()}).text)
    said += _on_networks(counts)
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:10]
