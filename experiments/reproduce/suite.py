"""A suite of the ledger: its runs, each a process of its own, and what is written of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from otfew.backbones.zoo import find
from otfew.errors import UserError
from otfew.experiments.common import setup
from otfew.experiments.reproduce import lock as ledger_lock
from otfew.experiments.reproduce import process, report
from otfew.experiments.reproduce.checking import check
from otfew.experiments.reproduce.claims import Ledger, Run, Training, load
from otfew.experiments.reproduce.config import Config
from otfew.experiments.reproduce.evidence import SUITES, Evidence, Figures
from otfew.experiments.reproduce.pages import Known, pages
from otfew.experiments.reproduce.plot import forest
from otfew.experiments.reproduce.verdict import FEW, KINDS
from otfew.reporting.tables import Table, terminal
from otfew.runs.files import write_atomically


def reproduce(config: Config, console: Console) -> dict[str, str]:
    """Run a suite and write the ledger.

    A run that can't be done, say because a data set is missing, is named at the end, and what was known of its claims
    stays. The page is written after an interruption too.

    Args:
        config: The command line.
        console: Where tables and progress go.

    Returns:
        Run or claim -> why there is nothing new of it.

    Raises:
        UserError: The claims or the evidence can't be read, the claims differ from their lock, there is no folder
            --docs, no run of that name, none of the runs ran, or several processes were started.
    """
    setup.need_one_process("reproduce")
    ledger = load(config.claims)
    lock = ledger_lock.load(config.claims.with_suffix(".lock"))
    if lock is not None:
        ledger_lock.check(ledger, lock)
    if not config.docs.is_dir():
        raise UserError(f"--docs {config.docs} is not there: start in a checkout, or give its docs folder.")
    for suite in SUITES:
        Evidence(config.docs / "results", suite).load(ledger)
    if config.suite == "check":
        check(ledger, lock, config.docs, console)
        return {}
    chosen = [] if config.suite == "report" else _chosen(config, ledger, console)
    failed: dict[str, str] = {}
    try:
        _run_all(chosen, config, ledger, failed, console)
    finally:
        _write(config, ledger, lock, console)
    for name, reason in failed.items():
        console.print(f"- not run: {name}: {reason}", markup=False, highlight=False, soft_wrap=True)
    return failed


def _chosen(config: Config, ledger: Ledger, console: Console) -> list[Run]:
    """Name the runs of the suite, or those of them that --only names.

    The quick suite leaves out runs of checkpoints whose weights are not here (seeds and variants, which the full suite
    trains again), unless --only asks for them.
    """
    suite = [r for r in ledger.runs.values() if not (config.suite == "quick" and r.quick is None)]
    for prefix in config.only:
        if not any(r.name.startswith(prefix) for r in suite):
            raise UserError(f"--only {prefix}: no run of the suite {config.suite} begins so.")
    if config.only:
        return [r for r in suite if r.name.startswith(config.only)]
    away = [r.name for r in suite if config.suite == "quick" and _lacking(r, ledger)]
    if away:
        console.print(
            f"left out, since the weights of their checkpoints are not here (--suite full trains them): "
            f"{', '.join(away)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return [r for r in suite if r.name not in away]


def _lacking(run: Run, ledger: Ledger) -> bool:
    """Tell whether a run needs weights that are not here."""
    words = run.spelled(quick=True)
    named = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--backbone"]
    return any(name in ledger.trainings and find(name) is None for name in named)


def _run_all(chosen: Sequence[Run], config: Config, ledger: Ledger, failed: dict[str, str], console: Console) -> None:
    """Do runs; evidence is kept after every one, so that an interrupted suite loses none."""
    folder = config.runs or Path("runs") / f"reproduce-{config.suite}"
    evidence = Evidence(config.docs / "results", config.suite)
    for number, each in enumerate(chosen, start=1):
        console.rule(f"run {number} of {len(chosen)}: {each.name}")
        try:
            _do(each, folder, config, ledger)
            failed |= evidence.keep(ledger, each.name, folder / each.name)
        except UserError as error:
            failed[each.name] = str(error)
            console.print(f"not run: {error}", markup=False, highlight=False, soft_wrap=True)
    if chosen and all(r.name in failed for r in chosen):
        raise UserError(f"none of the {len(chosen)} runs ran; the first: {failed[chosen[0].name]}")


def _do(each: Run, folder: Path, config: Config, ledger: Ledger) -> None:
    arguments = _with_checkpoint(each.spelled(config.suite == "quick"), folder, config, ledger)
    if each.command == "long-tail":
        arguments += ["--stage1", str(folder / f"{each.name}-stage1")]
    _call(each.command, [*arguments, "--output", str(folder / each.name)], config)


def _with_checkpoint(arguments: Sequence[str], folder: Path, config: Config, ledger: Ledger) -> list[str]:
    """Replace the name of a checkpoint whose weights are not here by one that is trained, in the full suite."""
    changed = list(arguments)
    for place in (i + 1 for i, word in enumerate(changed[:-1]) if word == "--backbone"):
        training = ledger.trainings.get(changed[place])
        if training is None or find(changed[place]) is not None:
            continue
        if config.suite == "quick":
            raise UserError(f"the weights of {training.name} are not here; --suite full trains them.")
        changed[place] = str(_train(training, folder, config, ledger))
    return changed


def _train(training: Training, folder: Path, config: Config, ledger: Ledger) -> Path:
    """Train a checkpoint, or go on with it."""
    output = folder / "checkpoints" / training.name
    path = output / f"{training.name}.safetensors"
    arguments = _with_checkpoint(training.arguments, folder, config, ledger)
    if training.command == "metric-learning":
        # It names its checkpoints itself, after data set, network, loss and seed.
        _call(training.command, [*arguments, "--output", str(output)], config)
        return output / "checkpoints" / path.name
    _call(training.command, [*arguments, "--name", training.name, "--output", str(output)], config)
    return path


def _call(command: str, arguments: list[str], config: Config) -> None:
    """Run a command as a process of its own; raises ``UserError`` where it fails."""
    arguments = [*arguments, "--threads", str(config.threads)]
    if config.data_root is not None:
        arguments += ["--data-root", str(config.data_root)]
    if config.download is not None:
        arguments.append("--download" if config.download else "--no-download")
    if reason := process.run(command, arguments):
        raise UserError(reason)


def _write(config: Config, ledger: Ledger, lock: ledger_lock.Lock | None, console: Console) -> None:
    """Write figures, page, record, pictures and the README's lines from the evidence, and print the counts.

    Figures are taken from all answers again: those of runs that other processes did, or that were brought from
    elsewhere, come in here.
    """
    results = config.docs / "results"
    results.mkdir(exist_ok=True)
    for suite in SUITES:
        Evidence(results, suite).refresh(ledger, ledger.claims.values())
    known = Known.load(ledger, results)
    for path, content in pages(ledger, lock, known, config.docs).items():
        write_atomically(path, content)
    _draw(config.docs / report.PICTURES, ledger, known.full, known.quick)
    judged = report.verdicts(ledger, known.full, known.quick)
    kinds = [kind for kind in KINDS if not kind.endswith(FEW)]
    rows = []
    for table, claims in ledger.tables():
        counts = Counter(judged[claim.id].kind for claim in claims)
        rows.append([table, *(_count(counts[kind], counts[kind + FEW]) for kind in kinds)])
    head = ("table", *(kind.replace("not ", "not\n") for kind in kinds))
    console.print(terminal(Table("verdicts; behind a +: on one or two networks", head, rows)))
    console.print(f"report: {config.docs / 'reproduction.md'}", markup=False, highlight=False, soft_wrap=True)


def _count(many: int, few: int) -> str:
    """Write two counts, but no zeros."""
    return f"{many or ''}{f' + {few}' if few else ''}".strip()


def _draw(folder: Path, ledger: Ledger, full: Figures, quick: Figures) -> None:
    judged = report.verdicts(ledger, full, quick)
    folder.mkdir(exist_ok=True)
    for table, claims in ledger.tables():
        sides = {claim.id: full.get(claim.id) or quick.get(claim.id) for claim in claims}
        rows = [(claim, found["figure"] if (found := sides[claim.id]) else None, judged[claim.id]) for claim in claims]
        if any(figure for _, figure, _ in rows):
            write_atomically(folder / f"{report.slug(table)}.png", forest(table, rows))
