"""Look through a pickle without executing it: what it would build must be small, flat and hashable in no time.

A pickle of 200 bytes can name a slot of a table that takes gigabytes, or a key of tuples inside tuples, each twice the
one before, whose hash takes for ever. Here its operations are followed on a stack of kinds instead of values.
"""

from __future__ import annotations

import pickle
import pickletools

MOST_OPERATIONS = 5_000_000
"""CIFAR-100's largest file has 0.3 million."""

TEXT_KEYS = frozenset({"text"})
LABEL_KEYS = frozenset({"text", "plain"})
"""Kinds of keys of dictionaries: names alone, or labels, which may be numbers."""

_TEXT = (
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
)  # fmt: skip
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_PUSHED = {
    **dict.fromkeys(_TEXT, "text"),
    **dict.fromkeys((*_NUMBERS, "NONE", "NEWTRUE", "NEWFALSE"), "plain"),
    "MARK": "mark", "GLOBAL": "global", "EMPTY_LIST": "list", "EMPTY_DICT": "dict", "EMPTY_TUPLE": "tuple",
}  # fmt: skip
"""Operation -> kind of what it puts on the stack."""

_TAKEN = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2, "STACK_GLOBAL": 2, "REDUCE": 2, "BUILD": 1}
"""Operation -> how much it takes from the stack; those of ``_TO_MARK`` take all down to the mark."""

_TO_MARK = {"LIST", "DICT", "TUPLE", "APPENDS", "SETITEMS"}
_MADE = {
    "LIST": "list", "DICT": "dict", "TUPLE": "tuple", "TUPLE1": "tuple", "TUPLE2": "tuple", "TUPLE3": "tuple",
    "STACK_GLOBAL": "global", "REDUCE": "object",
}  # fmt: skip
_NEEDS = {
    "STACK_GLOBAL": [{"text"}, {"text"}],
    "REDUCE": [{"global", "encoder", "mapping"}, {"tuple"}],
}
"""Operation -> kinds that the first of what it takes may have."""

_ENCODER = "_codecs encode"
"""As which Python 3 writes bytes into the old protocols; calling it gives bytes."""

_CALLED = {"encoder": "text", "mapping": "dict"}
"""Kind -> what calling it gives; calling anything else gives an object."""

_MAPPING = "collections defaultdict"
"""As which codebases keep features by label; calling it gives a dictionary."""

_UNDER = {"APPEND": "list", "APPENDS": "list", "SETITEM": "dict", "SETITEMS": "dict", "BUILD": "object"}
"""Operation -> kind that it changes, which lies under what it takes."""

_PUT = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GET = {"GET", "BINGET", "LONG_BINGET"}
_SHAREABLE = {"text", "plain", "global", "encoder", "mapping", "object"}
_IGNORED = {"PROTO", "FRAME", "STOP"}


class _Scan:
    """Stack and memo of kinds.

    Args:
        keys: Kinds that keys of dictionaries may have.
        most: Operations that are followed.
    """

    def __init__(self, keys: frozenset[str], most: int) -> None:
        self.stack: list[str] = []
        self.memo: dict[int, str] = {}
        self.count = 0
        self.keys = keys
        self.most = most
        self.texts: tuple[object, object] = (None, None)

    def follow(self, name: str, argument: object) -> None:
        """Follow one operation."""
        self.count += 1
        if self.count > self.most:
            raise pickle.UnpicklingError(f"more than {self.most:,} operations")
        if name in _IGNORED:
            return
        if name in _PUT or name in _GET:
            self._remember(name, argument)
        elif name in _PUSHED:
            if isinstance(argument, int) and argument.bit_length() > 64:
                raise pickle.UnpicklingError(f"a number of {argument.bit_length()} bits")
            special = {_ENCODER: "encoder", _MAPPING: "mapping"} if name == "GLOBAL" else {}
            self.stack.append(special.get(str(argument), _PUSHED[name]) if special else _PUSHED[name])
            if self.stack[-1] == "text":
                self.texts = (self.texts[1], argument)
        elif name in _TO_MARK or name in _TAKEN:
            self._take(name)
        else:
            raise pickle.UnpicklingError(f"the operation {name}")

    def _remember(self, name: str, argument: object) -> None:
        """Follow the memo: slots are handed out in turn, so that none lies far beyond the others."""
        slot = len(self.memo) if name == "MEMOIZE" else argument
        if not isinstance(slot, int) or not 0 <= slot <= self.count:
            raise pickle.UnpicklingError(f"the slot {slot}")
        if name in _PUT:
            self.memo[slot] = self.stack[-1]
        elif self.memo[slot] in _SHAREABLE:
            self.stack.append(self.memo[slot])
        else:
            raise pickle.UnpicklingError(f"the same {self.memo[slot]} in two places")

    def _take(self, name: str) -> None:
        """Follow an operation on what lies on the stack."""
        if name in _TO_MARK:
            start = len(self.stack) - self.stack[::-1].index("mark")
            taken = self.stack[start:]
            del self.stack[start - 1 :]
        else:
            taken = [self.stack.pop() for _ in range(_TAKEN[name])][::-1]
        wanted: list[set[str]] = _NEEDS.get(name, [])
        keys = taken[::2] if name in {"DICT", "SETITEM", "SETITEMS"} else []
        fits = all(kind in self.keys for kind in keys) and all(
            kind in allowed for kind, allowed in zip(taken, wanted, strict=False)
        )
        if not fits:
            raise pickle.UnpicklingError(f"{name} of {', '.join(taken[:4])}")
        if name in _UNDER and self.stack[-1] != _UNDER[name]:
            raise pickle.UnpicklingError(f"{name} on a {self.stack[-1]}")
        if name == "REDUCE" and taken[0] in _CALLED:
            self.stack.append(_CALLED[taken[0]])
        elif name == "STACK_GLOBAL" and self.texts == tuple(_MAPPING.split()):
            self.stack.append("mapping")
        elif name in _MADE:
            self.stack.append(_MADE[name])


def scan(data: bytes, keys: frozenset[str] = TEXT_KEYS, most: int | None = None) -> None:
    """Refuse a pickle that builds anything but flat containers, whose keys are of no such kind, or that is too long.

    Nothing in it is executed, and no more is held than its own bytes.

    Args:
        data: The whole pickle.
        keys: "text", and "plain" for numbers: what keys of dictionaries may be.
        most: Operations that it may have; None takes ``MOST_OPERATIONS``.

    Raises:
        pickle.UnpicklingError: It is refused.
        Exception: It is damaged; ``pickletools`` raises many kinds.
    """
    following = _Scan(keys, MOST_OPERATIONS if most is None else most)
    for operation, argument, _ in pickletools.genops(data):
        following.follow(operation.name, argument)
