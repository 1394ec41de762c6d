"""What all commands share: arguments from a typed dataclass, and one clear line for every mistake.

One line also where torchrun started several processes: the first that fails says why.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

import tyro

from otfew.errors import UserError
from otfew.reporting.streams import guarded
from otfew.runs import processes
from otfew.runs.files import reason

Config = TypeVar("Config")
LOST = 1
USAGE = 2
INTERRUPTED = 130


def run(function: Callable[[], object]) -> None:
    """Run a command; a user's mistake ends it with one line on stderr and exit code 2, Ctrl-C with 130.

    Args:
        function: The command, without arguments.

    Raises:
        SystemExit: With code 2 or 130, or 1 where another process of the run has ended or what was printed is lost, and
            with code 0 after ``--help``.
    """
    with guarded() as output:
        after_help: SystemExit | None = None
        try:
            _run(function)
        except SystemExit as ended:
            if ended.code:
                raise
            after_help = ended
        output.flush()
        if output.loss:
            _end(LOST, f"error: stdout can't be written ({reason(output.loss)}); files that were written are whole.")
        if after_help:
            raise after_help


def _run(function: Callable[[], object]) -> None:
    """Run a command, and end with a sentence where it can't be."""
    # What precision was asked for stands in every report; a command of many runs would say it at each.
    logging.getLogger("lightning_utilities.core.rank_zero").setLevel(logging.WARNING)
    try:
        function()
    except UserError as error:
        _end(USAGE, f"error: {' '.join(str(error).split())}")
    except OSError as error:
        if error.filename is None and error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        _end(USAGE, f"error: {_shortened(error.filename)}: {reason(error)}.")
    except processes.PeerLostError as error:
        _end(LOST, f"error: {error}; the same command resumes")
    except KeyboardInterrupt:
        _end(INTERRUPTED, "interrupted; the same command resumes")
    processes.leave()


def _shortened(name: object) -> str:
    """Write the name of a file so that it can be read: names may be what is wrong, by their length."""
    text = "the disk" if name is None else os.fsdecode(name) if isinstance(name, str | bytes) else str(name)
    return text if len(text) <= 200 else f"{text[:80]}...{text[-80:]}"


def _end(code: int, line: str) -> NoReturn:
    """End with a line, unless another process of the run has had its say."""
    if processes.first_to_fail():
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    raise SystemExit(code) from None


def parse(config: type[Config], prog: str, arguments: Sequence[str] | None = None) -> Config:
    """Read a dataclass from the command line.

    Args:
        config: A dataclass with typed, documented fields.
        prog: Name of the command in its help.
        arguments: Instead of those of the process.

    Raises:
        UserError: What cannot be parsed, in one sentence.
        SystemExit: With code 0, after ``--help``.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if nul := next((word for word in given if "\0" in word), None):
        raise UserError(f"the argument {nul[:60]!r} holds a NUL byte, which no name has: write it again.")
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            return tyro.cli(config, prog=prog, args=arguments)
    except SystemExit as ended:
        if not ended.code:
            raise
        raise _own(ended) or UserError(_sentence(stderr.getvalue(), prog)) from None


def _own(error: BaseException) -> UserError | None:
    """Find the sentence of a dataclass's own check behind tyro's message: tyro takes a ``ValueError`` for its own."""
    behind = error.__context__
    while behind is not None and not isinstance(behind, UserError):
        behind = behind.__context__
    return behind


def _sentence(boxes: str, prog: str) -> str:
    """Reduce tyro's message, boxed or (where the output is not known to take Unicode) ruled, to what is wrong."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", boxes)
    inside = [line.strip("│ ") for line in plain.splitlines() if not line.startswith(("╭", "╰"))]
    paragraphs = [" ".join(text.split()) for text in re.split(r"\n[─-]{5,}\n", "\n".join(inside))]
    # A box has its title in the frame; rules have it above.
    message = paragraphs[0] if "╭" in plain else paragraphs[min(1, len(paragraphs) - 1)]
    return f"{message.rstrip('.') or 'the arguments cannot be read'}: see {prog} --help."
