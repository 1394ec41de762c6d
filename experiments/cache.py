"""Caches: list them, keep them small, clear them: ``otfew cache``, the same as ``python -m experiments.cache``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from otfew.choices import CacheKind
from otfew.errors import UserError
from otfew.experiments.common.cli import parse, run

if TYPE_CHECKING:
    from rich.console import Console

    from otfew.caches.kinds import Item
    from otfew.caches.tidy import Tidied


@dataclass
class Config:
    """List what otfew keeps on disk to be quicker, make it smaller, or clear it; other commands may run meanwhile.

    Kinds: features of images, kernels (compiled code), pictures (drawn glyphs), downloads (data sets that otfew has
    fetched itself) and zoo (weights that it has fetched). What is being used by another command stays, and that is
    said.
    """

    action: Annotated[Literal["list", "limit", "clear"], tyro.conf.Positional] = "list"
    """list prints sizes; limit removes what --age and --size say, once; clear removes all."""
    kinds: Annotated[tuple[CacheKind, ...], tyro.conf.Positional] = ()
    """Kinds of caches. Default: all to list; to limit or clear those that are made again without a network: features,
    kernels and pictures."""
    size: str | None = None
    """For limit: what the kinds may take together, such as 5GB; what was used least lately goes first."""
    age: str | None = None
    """For limit: since when an item has not been used before it goes, such as 12h, 30d or 2w."""
    dry_run: bool = False
    """Only say what would go."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and list, limit or clear.

    Args:
        arguments: Instead of those of the process.

    Raises:
        UserError: An option that the action has no use for, or a limit that is none.
    """
    config = parse(Config, "cache", arguments)
    from otfew.caches import kinds, tidy
    from otfew.experiments.common.console import make_console

    console = make_console()
    if config.action != "limit" and (config.size is not None or config.age is not None):
        raise UserError(f"`size` and `age` are of no use to {config.action}: otfew cache limit takes them.")
    if config.action == "list":
        if config.dry_run:
            raise UserError("`dry_run` is of no use to list, which removes nothing.")
        print_list(config.kinds or tuple(kinds.SUMMARIES), console)
        return
    size = None if config.size is None else tidy.parse_size(config.size)
    age = None if config.age is None else tidy.parse_age(config.age)
    chosen = config.kinds or kinds.MADE_AGAIN
    done = tidy.limit(chosen, 0 if config.action == "clear" else size, age, dry_run=config.dry_run)
    print_tidied(done, chosen, config.dry_run, console)


def print_list(chosen: Sequence[CacheKind], console: Console) -> None:
    """Print a row for each kind of cache, then where they lie and each download.

    Args:
        chosen: Kinds.
        console: Where it goes.
    """
    import time

    from otfew.caches import kinds
    from otfew.data.consent import in_words
    from otfew.reporting.tables import Table, terminal

    now = time.time()
    found = {kind: kinds.items(kind, now) for kind in chosen}
    rows = [
        [
            kind,
            f"{len(listed):,}",
            in_words(sum(item.bytes for item in listed)),
            _since(now, max((item.used for item in listed), default=None)),
            _since(now, min((item.used for item in listed), default=None)),
            kinds.SUMMARIES[kind],
        ]
        for kind, listed in found.items()
    ]
    console.print(terminal(Table("caches", ["kind", "items", "size", "last used", "longest unused", "what"], rows)))
    for kind, listed in found.items():
        if kind == "downloads":
            lines = [f"{item.paths[0]} ({in_words(item.bytes)})" for item in listed]
        else:
            there = {parent for item in listed for parent in item.paths[0].parents}
            lines = [str(place) for place in kinds.places(kind) if place in there]
        for line in lines:
            console.print(f"- {kind}: {line}", markup=False, highlight=False, soft_wrap=True)


def print_tidied(done: Tidied, chosen: Sequence[CacheKind], dry_run: bool, console: Console) -> None:
    """Print a line for each kind of cache, and one for each item that had to stay.

    Args:
        done: What became of them.
        chosen: Kinds.
        dry_run: Whether nothing was removed.
        console: Where it goes.
    """
    from otfew.data.consent import in_words

    def told(kind: CacheKind, items: Sequence[Item]) -> str:
        own = [item for item in items if item.kind == kind]
        return f"{len(own):,} items, {in_words(sum(item.bytes for item in own))}"

    for kind in dict.fromkeys(chosen):
        stays = [*done.kept, *(item for item, _ in done.left)]
        verb = "would go" if dry_run else "removed"
        console.print(
            f"{kind}: {verb} {told(kind, done.removed)}; {'would stay' if dry_run else 'left'} {told(kind, stays)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for item, why in done.left:
        console.print(f"- stays: {item.paths[0]}: {why}", markup=False, highlight=False, soft_wrap=True)


def _since(now: float, used: float | None) -> str:
    """Say how long ago something was."""
    if used is None:
        return "–"
    hours = max(0.0, now - used) / 3600
    return f"{hours:.0f} h ago" if hours < 48 else f"{hours / 24:.0f} days ago"


if __name__ == "__main__":
    run(main)
