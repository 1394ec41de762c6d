"""``otfew COMMAND ...``, the same as ``python -m experiments.COMMAND ...``."""

from __future__ import annotations

import importlib
import sys

from otfew.errors import UserError
from otfew.experiments.commands import COMMANDS, module_of
from otfew.experiments.common.cli import run


def main() -> None:
    """Run the command named by the first argument."""
    run(_dispatch)


def _dispatch() -> None:
    """Find the command's file and hand it the other arguments."""
    name = sys.argv[1].replace("_", "-") if len(sys.argv) > 1 else "--help"
    if name in {"-h", "--help"}:
        width = max(map(len, COMMANDS))
        sys.stdout.write("usage: otfew COMMAND [options], with --help after a command for its options\n\n")
        sys.stdout.writelines(f"  {command:{width}}  {summary}\n" for command, summary in COMMANDS.items())
        return
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}: choose from {', '.join(COMMANDS)}.")
    sys.argv = [f"otfew {name}", *sys.argv[2:]]
    importlib.import_module(module_of(name)).main()


if __name__ == "__main__":
    main()
