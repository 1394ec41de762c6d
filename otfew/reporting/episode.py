"""One episode of a run, to look at: its labelled images, its queries, and what each method took them for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from otfew.data.base import ImageSet
from otfew.errors import UserError
from otfew.evaluation.answers import Answers
from otfew.reporting import tables
from otfew.reporting.pages import Grid, render, thumbnail
from otfew.reporting.tables import Cell, Table
from otfew.runs.files import write_atomically

RIGHT = "right"


@dataclass(frozen=True)
class Query:
    """An image that was asked about.

    Attributes:
        image: Its number in the split.
        label: Its class.
        known: False where its class has no labelled images in the episode.
        answers: The class that each method took it for, in the order of the methods.
    """

    image: int
    label: str
    known: bool
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Episode:
    """An episode and its answers.

    Attributes:
        index: Its number.
        title: What run it is of.
        methods: Names, the order of the answers.
        labelled: Class -> numbers of its labelled images.
        queries: Class after class.
        names: Of the split's images.
        images: For pictures; None where they are not at hand.
    """

    index: int
    title: str
    methods: tuple[str, ...]
    labelled: tuple[tuple[str, tuple[int, ...]], ...]
    queries: tuple[Query, ...]
    names: Sequence[str]
    images: ImageSet | None = None

    @property
    def headline(self) -> str:
        """Say which episode it is."""
        shot = len(self.labelled[0][1])
        return f"episode {self.index} of {self.title}: {len(self.labelled)}-way {shot}-shot"

    @property
    def lines(self) -> list[str]:
        """How many queries each method had right, in sentences."""
        known = [query for query in self.queries if query.known]
        told = []
        for place, method in enumerate(self.methods):
            right = sum(query.answers[place] == query.label for query in known)
            told.append(f"{method}: {right} of {len(known)} right")
        if len(known) < len(self.queries):
            others = len(self.queries) - len(known)
            told.append(f"{others} queries are of classes without labelled images: nothing is right there")
        return told

    def tables(self) -> list[Table]:
        """Lay out the labelled images of each class, and every query with its answers: "right", or the class taken.

        Returns:
            The two tables.
        """
        labelled = [[label, *(self.names[image] for image in images)] for label, images in self.labelled]
        asked = [[self.names[query.image], self._label(query), *self._answers(query)] for query in self.queries]
        return [
            Table(self.headline, self._head, labelled),
            Table("queries: right, or what each was taken for", ["query", "class", *self.methods], asked),
        ]

    @property
    def _head(self) -> list[str]:
        return ["class", *(f"labelled {i + 1}" for i in range(len(self.labelled[0][1])))]

    def only(self, methods: Sequence[str]) -> Episode:
        """Keep the answers of some methods.

        Args:
            methods: Their names, in the order that is wanted.

        Returns:
            The episode with these.

        Raises:
            UserError: One of them did not run.
        """
        for name in methods:
            if name not in self.methods:
                raise UserError(f"`methods` has {name!r}, which did not run: choose of {', '.join(self.methods)}.")
        places = [self.methods.index(name) for name in methods]
        queries = tuple(replace(q, answers=tuple(q.answers[place] for place in places)) for q in self.queries)
        return replace(self, methods=tuple(methods), queries=queries)

    def page(self) -> str:
        """Return the episode as an HTML page that needs nothing else, with pictures where images are at hand."""
        labelled, asked = self._illustrated()
        grids = (Grid(t.head, t.rows, frozenset(range(1, len(t.head)))) for t in (labelled, asked))
        missing = "" if self.images else "The pictures are not at hand: images are named."
        return render(
            "episode.html", self.headline, **dict(zip(("labelled", "asked"), grids, strict=True)), missing=missing,
            right=self.lines,
        )  # fmt: skip

    def _illustrated(self) -> tuple[Table, Table]:
        """Lay both tables out with pictures, where images are at hand; a mark says what is right."""
        labelled = [[label, *(self._picture(image) for image in images)] for label, images in self.labelled]
        first = [] if self.images is None else ["picture"]
        asked = [
            [
                *(self._picture(q.image) for _ in first),
                self.names[q.image],
                self._label(q),
                *self._answers(q, "✓", "✗ "),
            ]
            for q in self.queries
        ]
        head = [*first, "query", "class", *self.methods]
        return Table(self.headline, self._head, labelled), Table("queries: ✓, or what each was taken for", head, asked)

    def save(self, file: str | Path) -> None:
        """Write the page.

        Args:
            file: Ends in .html.

        Raises:
            UserError: It has another ending or cannot be written.
        """
        file = Path(file)
        if file.suffix.lower() not in {".html", ".htm"}:
            raise UserError(f"`report` {file} must end in .html: an episode is written as a page.")
        write_atomically(file, self.page().encode())

    def _label(self, query: Query) -> str:
        return query.label if query.known else f"{query.label} (not labelled here)"

    def _answers(self, query: Query, right: str = RIGHT, wrong: str = "") -> list[str]:
        return [right if query.known and a == query.label else f"{wrong}{a}" for a in query.answers]

    def _picture(self, image: int) -> Cell:
        if self.images is None:
            return self.names[image]
        return thumbnail(self.images.read(image))

    def __str__(self) -> str:
        """Return both tables, and the sentences below them."""
        return tables.sections(self.tables(), self.lines)

    def _repr_html_(self) -> str:
        """Return the same for notebooks."""
        labelled, asked = self._illustrated()
        return tables.to_html(labelled, []) + tables.to_html(asked, self.lines)


def episode(answers: Answers, index: int, title: str, images: ImageSet | None = None) -> Episode:
    """Take an episode out of a run's answers.

    Args:
        answers: Of the run.
        index: Number of the episode, from 0.
        title: What run it is of.
        images: The split's images, for pictures.

    Raises:
        UserError: The run has no episode of that number.
    """
    count = len(answers.classes)
    if isinstance(index, bool) or not isinstance(index, int | np.integer) or not 0 <= index < count:
        raise UserError(f"`index` is {index!r}: the run has episodes 0 to {count - 1}.")
    classes = answers.classes[index].tolist()
    truth, known = answers.labels[answers.query[index]].tolist(), set(classes)
    taken = answers.classes[index][answers.predicted[:, index]]
    queries = tuple(
        Query(
            int(image),
            answers.class_names[label],
            label in known,
            tuple(answers.class_names[c] for c in taken[:, place].tolist()),
        )
        for place, (image, label) in enumerate(zip(answers.query[index].tolist(), truth, strict=True))
    )
    labelled = tuple(
        (answers.class_names[c], tuple(shots))
        for c, shots in zip(classes, answers.support[index].tolist(), strict=True)
    )
    return Episode(int(index), title, answers.methods, labelled, queries, answers.images, images)
