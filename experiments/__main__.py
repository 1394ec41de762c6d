"""``otfew COMMAND ...``, the same as ``python -m experiments.COMMAND ...``."""

from __future__ import annotations

import importlib
import sys

from otfew.errors import UserError
from otfew.experiments.commands import COMMANDS, module_of
from otfew.experiments.common.cli import run
from otfew.experiments.common.wording import nearest


def main() -> None:
    """Run the command named by the first argument."""
    run(_dispatch)


def _dispatch() -> None:
    """Find the command's file and hand it the other arguments."""
    name = sys.argv[1].replace("_", "-") if len(sys.argv) > 1 else "--help"
    if name in {"-h", "--help"}:
        sys.stdout.write(_help())
    elif name == "--version":
        from otfew import __version__

        sys.stdout.write(f"otfew {__version__}\n")
    elif name not in COMMANDS:
        raise UserError(f"unknown command {name!r}{nearest(name, COMMANDS)}: choose from {', '.join(COMMANDS)}.")
    else:
        sys.argv = [f"otfew {name}", *sys.argv[2:]]
        importlib.import_module(module_of(name)).main()


def _help() -> str:
    """List the commands."""
    width = max(map(len, [*COMMANDS, "--version"]))
    lines = [f"  {command:{width}}  {summary}\n" for command, summary in COMMANDS.items()]
    return "".join(
        [
            "usage: otfew COMMAND [options], with --help after a command for its options\n\n",
            *lines,
            f"\n  {'--version':{width}}  which otfew this is\n",
        ]
    )


if __name__ == "__main__":
    main()
