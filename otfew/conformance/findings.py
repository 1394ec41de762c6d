"""What was found out about a plug-in: law by law, and what would mend it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, NoReturn, TypeVar

from otfew.errors import UserError
from otfew.plugins import Kind, told

Verdict = Literal["holds", "fails", "note", "not asked"]
Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Finding:
    """A law and what became of it.

    Attributes:
        law: What must hold, in a few words.
        verdict: "fails" where results would be wrong or a command would break; "note" where something is missing that
            some commands make use of; "not asked" where another failure is in the way, or the law is about others.
        mend: What is wrong and what to do about it; why it was not asked; "" where it holds.
    """

    law: str
    verdict: Verdict
    mend: str = ""


@dataclass(frozen=True)
class Findings:
    """All that was found out about a plug-in.

    Attributes:
        name: As it was given.
        kind: What it is.
        findings: In the order of the laws.
    """

    name: str
    kind: Kind
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The laws that fail."""
        return tuple(finding for finding in self.findings if finding.verdict == "fails")


class BrokenError(Exception):
    """A law does not hold; the message says what is wrong and how to mend it."""


class NotedError(Exception):
    """Something is missing that is no mistake."""


class NotAskedError(Exception):
    """A law is not about this one, or cannot be tried."""


def broken(sentence: str) -> NoReturn:
    """Say that a law does not hold."""
    raise BrokenError(sentence)


def noted(sentence: str) -> NoReturn:
    """Say what is missing."""
    raise NotedError(sentence)


def not_asked(reason: str) -> NoReturn:
    """Say why a law is not tried."""
    raise NotAskedError(reason)


@dataclass(frozen=True)
class Law(Generic[Subject]):
    """Something that must hold.

    Attributes:
        title: What, in a few words.
        check: Raises one of the three above where it does not, or whatever the plug-in raises.
        first: Whether the laws that follow make no sense without it.
    """

    title: str
    check: Callable[[Subject], None]
    first: bool = False


def judge(subject: Subject, laws: Sequence[Law[Subject]]) -> tuple[Finding, ...]:
    """Try laws, one after another, whatever they find.

    Args:
        subject: What they are about.
        laws: In their order.
    """
    found: list[Finding] = []
    in_the_way = ""
    for law in laws:
        if in_the_way:
            found.append(Finding(law.title, "not asked", in_the_way))
            continue
        finding = _try(subject, law)
        found.append(finding)
        if law.first and finding.verdict == "fails":
            in_the_way = f"first mend: {law.title}"
    return tuple(found)


def _try(subject: Subject, law: Law[Subject]) -> Finding:
    """Try a law."""
    try:
        law.check(subject)
    except BrokenError as error:
        return Finding(law.title, "fails", str(error))
    except NotedError as error:
        return Finding(law.title, "note", str(error))
    except NotAskedError as error:
        return Finding(law.title, "not asked", str(error))
    except UserError as error:
        return Finding(law.title, "fails", str(error))
    except (Exception, SystemExit) as error:  # a plug-in may raise anything
        return Finding(law.title, "fails", f"it raises {told(error)}.")
    return Finding(law.title, "holds")
