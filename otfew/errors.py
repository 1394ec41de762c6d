"""What can go wrong on the user's side, said in one sentence."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user gave: commands print its one sentence and end with exit code 2.

    The message says what is wrong, where, and what to do about it. It is a ``ValueError``, which is what scikit-learn
    and its tools expect of a value that cannot be used.
    """
