"""``otfew COMMAND ...``, the same as ``python -m experiments.COMMAND ...``."""

from __future__ import annotations

import importlib
import sys

from otfew.errors import UserError
from otfew.experiments._cli import run

COMMANDS = {
    "compare": "run methods on the same episodes and compare them",
    "ablate-weights": "which weights of the nodes: Table 2 of the DeepEMD paper",
    "cross-domain": "one backbone on several data sets: Table 5 of the DeepEMD paper",
    "does-ot-matter": "from the LP to no matching at all: accuracy, time, and where the gain comes from",
    "long-tail": "OT re-weighting for long-tailed training against its rivals",
    "extractors": "kinds of nodes with the same methods: Table 3 of the DeepEMD paper",
    "latent-space": "LST beside PT-MAP and other transductive methods: Tables 2 to 4 of the LST paper",
    "metatrain": "train a backbone end to end on episodes, through a method and its transport solver",
    "metric-learning": "compare losses of metric learning on the same batches",
    "pretrain": "train a backbone on base classes",
    "reproduce": "the claims of the papers, judged by runs: the reproduction ledger",
    "retrieve": "find images of the same class, ranked again node by node: Table 8 of the DeepEMD paper",
    "shots": "accuracy against the number of shots: Figure 5 of the DeepEMD paper",
    "show-flows": "the transport plan between two images as pictures, and where it lands on glyphs",
    "solver-timings": "time every transport solver and compare what they reach",
}
"""File name in this folder, with hyphens -> what it does. Each file has a function ``main`` that reads ``sys.argv``."""


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
    importlib.import_module(f"otfew.experiments.{name.replace('-', '_')}").main()


if __name__ == "__main__":
    main()
