"""What all commands share: arguments from a typed dataclass, and one clear line for every mistake.

One line also where torchrun started several processes: the first that fails says why.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, NoReturn, TypeVar

from otfew.errors import UserError
from otfew.experiments.common import wording
from otfew.reporting.streams import guarded
from otfew.runs import processes
from otfew.runs.files import reason
from otfew.transport.errors import ConvergenceError

Config = TypeVar("Config")

LOST = 1
USAGE = 2
INTERRUPTED = 130

_config: ContextVar[type | None] = ContextVar("config", default=None)
"""The dataclass of the command that runs: sentences are written with its options."""


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
        _end(USAGE, f"error: {' '.join(translated(str(error)).split())}")
    except ConvergenceError as error:
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

    From then on, ``run`` and ``translated`` know the command's options.

    Args:
        config: A dataclass with typed, documented fields.
        prog: Name of the command in its help.
        arguments: Instead of those of the process.

    Raises:
        UserError: What cannot be parsed, in one sentence.
        SystemExit: With code 0, after ``--help``.
    """
    import tyro

    given = _with_device(config, sys.argv[1:] if arguments is None else list(arguments))
    if nul := next((word for word in given if "\0" in word), None):
        raise UserError(f"the argument {nul[:60]!r} holds a NUL byte, which no name has: write it again.")
    _config.set(config)

    def refuse(event: Any) -> None:
        """Say in a sentence what tyro would draw as a box; called before it does."""
        if type(event).__name__ == "InstantiationFailure" and (own := _own(sys.exc_info()[1])):
            raise own
        if (what := wording.refusal(event, wording.options_of(config), given)) is not None:
            raise UserError(f"{what}: see {prog} --help.")

    drawn = io.StringIO()
    try:
        with contextlib.redirect_stderr(drawn), _before_errors(refuse):
            return tyro.cli(config, prog=prog, args=given)
    except SystemExit as ended:
        if not ended.code:
            raise
        if own := _own(ended.__context__):
            raise own from None
        # A mistake of a kind that no sentence is written for: tyro's own words are better than none.
        sys.stderr.write(drawn.getvalue())
        raise UserError(f"the arguments cannot be read: see {prog} --help.") from None
    except UserError as error:
        # Out of tyro's frames, which say nothing to a user of Python either.
        raise UserError(translated(str(error))) from None


def _with_device(config: type[Any], given: list[str]) -> list[str]:
    """Let every command take --device: trainings name it after their setting, --accelerator."""
    options = set(wording.options_of(config).values())
    if "--device" in options or "--accelerator" not in options:
        return given
    return [f"--accelerator{word[8:]}" if word.partition("=")[0] == "--device" else word for word in given]


def translated(text: str) -> str:
    """Write the options of the command that runs where a sentence names arguments in backticks.

    Args:
        text: A sentence of the library's.
    """
    config = _config.get()
    return wording.translate(text, wording.options_of(config) if config else {})


def _before_errors(hook: Callable[[Any], None]) -> AbstractContextManager[None]:
    """Call a hook before tyro draws an error; where tyro has no such hook, it draws."""
    try:
        from tyro._errors import on_parse_error
    except ImportError:
        return contextlib.nullcontext()
    return on_parse_error(hook)


def _own(error: BaseException | None) -> UserError | None:
    """Find the sentence of a dataclass's own check behind tyro's message: tyro takes a ``ValueError`` for its own.

    A nested dataclass names its arguments as if it were alone; the sentence gets their options.
    """
    config, inside = _config.get(), ""
    if isinstance(where := getattr(error, "arg", None), str) and error is not None:
        error, inside = error.__context__, where
    if not isinstance(error, UserError) or config is None:
        return None
    return UserError(wording.translate(str(error), wording.options_of(config), inside))
