"""Check a method, data set, backbone, solver or nodes of one's own: ``otfew check package.module:Name``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from otfew.experiments.common.cli import parse, run

if TYPE_CHECKING:
    from rich.console import Console

    from otfew.conformance import Findings


@dataclass
class Config:
    """Try the laws of contract on what a name means, and say what to mend.

    Ends with exit code 1 where a law fails, 2 where there is nothing of the name.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """package.module:Name of one's own, or a name of otfew's; methods with options behind a colon, as in
    mine:Method:temperature=3."""
    kind: Literal["method", "data-set", "backbone", "solver", "nodes"] | None = None
    """What it is. Default: found out."""
    data_root: Path | None = None
    """Folder of data sets. Default: $OTFEW_DATA, then a cache folder."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and check.

    Args:
        arguments: Instead of those of the process.

    Raises:
        SystemExit: With code 1, where a law fails.
        UserError: There is nothing of a name.
    """
    config = parse(Config, "check", arguments)
    from typing import cast

    from otfew import conformance
    from otfew.errors import UserError
    from otfew.experiments.common import setup
    from otfew.plugins import Kind

    if not config.names:
        raise UserError("name what to check, as in otfew check my_module:MyMethod.")
    setup.set_threads(0)
    kind = cast("Kind | None", config.kind and config.kind.replace("-", " "))
    console = setup.make_console()
    found = []
    for name in config.names:
        found.append(conformance.check(name, kind, data_root=config.data_root))
        report(found[-1], console)
    if any(each.failures for each in found):
        raise SystemExit(1)


def report(found: Findings, console: Console) -> None:
    """Print what was found out: a table of the laws, and below it what to mend.

    Args:
        found: Of one plug-in.
        console: Where it goes.
    """
    from otfew.reporting.tables import Table, terminal

    rows = [(finding.law, finding.verdict) for finding in found.findings]
    console.print(terminal(Table(f"{found.kind} {found.name}", ("law", "verdict"), rows)))
    for finding in found.findings:
        if finding.mend:
            line = f"- {finding.verdict}: {finding.law}: {finding.mend}"
            console.print(line, markup=False, highlight=False)
    held = sum(finding.verdict == "holds" for finding in found.findings)
    failed = len(found.failures)
    console.print(f"{held} of {len(rows)} laws hold, {failed} fail{'s' * (failed == 1)}", highlight=False)


if __name__ == "__main__":
    run(main)
