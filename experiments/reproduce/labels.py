"""Short labels of claims: what all of them share is said once."""

from __future__ import annotations

import re
from collections.abc import Sequence

DOTS = "\N{HORIZONTAL ELLIPSIS}"
LEAST, LEAST_INSIDE = 3, 4
"""Words that are worth saying once: at the beginning, and in the middle."""
MOST = 0.6
"""Of the sentences begin alike, or none is shortened by its beginning: two labels of three would be riddles."""

Words = tuple[str, ...]


def shorten(claims: Sequence[str]) -> tuple[dict[str, str], str]:
    """Take out of sentences what most of them begin with, all of those end with, and have in their middle.

    Args:
        claims: Sentences, each as often as it is claimed.

    Returns:
        Sentence -> label, and the sentence with dots for what differs, "" where nothing is shared. A single sentence is
        its own label, and what is shared.
    """
    several = list(dict.fromkeys(claims))
    if len(several) < 2:
        return {one: one for one in several}, "".join(several)
    # A comma is a word, so that what ends with one is the same word.
    words = {one: tuple(re.findall(r"[^\s,]+(?:,\S+)*|,", one)) for one in several}
    prefix = _prefix(list(words.values()))
    alike = {one: own[len(prefix) :] for one, own in words.items() if own[: len(prefix)] == prefix}
    suffix = _suffix(list(alike.values()))
    alike = {one: own[: len(own) - len(suffix)] for one, own in alike.items()}
    middle = _middle(list(alike.values()))
    short = {one: _label(alike[one], middle) if one in alike else one for one in several}
    if not prefix + middle + suffix or len(set(short.values())) < len(several):
        return {one: one for one in several}, ""
    parts = (*prefix, DOTS, *middle, *([DOTS] if middle and any(map(len, alike.values())) else []), *suffix)
    return short, _joined(parts)


def _prefix(sentences: Sequence[Words]) -> Words:
    """Choose the first words that save most: so many sentences but one, so many words."""
    best: Words = ()
    saved = 0
    for one in sentences:
        for length in range(LEAST, len(one)):
            shared = sum(other[:length] == one[:length] and len(other) > length for other in sentences)
            whole = " ".join(one[:length]).count("(") == " ".join(one[:length]).count(")")
            if whole and shared >= MOST * len(sentences) and (shared - 1) * length > saved:
                best, saved = one[:length], (shared - 1) * length
    return best


def _suffix(sentences: Sequence[Words]) -> Words:
    """Find the last words of all, so that each has one more before them."""
    found: Words = ()
    for length in range(1, min(map(len, sentences))):
        ends = {one[len(one) - length :] for one in sentences}
        if len(ends) > 1:
            break
        found = ends.pop()
    return found if len(found) >= LEAST - 1 else ()


def _middle(sentences: Sequence[Words]) -> Words:
    """Find the longest run of words that all have."""
    first = sentences[0]
    runs = [
        first[start : start + length]
        for length in range(len(first) - 1, LEAST_INSIDE - 1, -1)
        for start in range(len(first) - length + 1)
    ]
    runs = [run for run in runs if sum(word != "," for word in run) >= LEAST_INSIDE]
    return next((run for run in runs if all(_place(one, run) is not None for one in sentences)), ())


def _place(sentence: Words, run: Words) -> int | None:
    """Find where a run of words begins, with a word before it."""
    places = range(1, len(sentence) - len(run) + 1)
    return next((place for place in places if sentence[place : place + len(run)] == run), None)


def _label(words: Words, middle: Words) -> str:
    """Join what is left."""
    place = _place(words, middle) if middle else None
    if place is None:
        return _joined(words)
    before, after = _joined(words[:place]), _joined(words[place + len(middle) :])
    if before.startswith("("):
        before = before.removeprefix("(").removesuffix(")")
    return f"{before}: {after}" if after else before


def _joined(words: Sequence[str]) -> str:
    """Write words as a text, without commas at its ends."""
    return " ".join(words).replace(" ,", ",").strip(" ,:")
