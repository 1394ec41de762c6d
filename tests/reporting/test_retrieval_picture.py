"""Retrieval's picture: hits and misses by shape and colour, names of misses, means in the title."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_hex

from otfew.data.base import ImageSet
from otfew.reporting import retrieval_picture
from otfew.reporting.retrieval_picture import RIGHT, SHOWN, WRONG, choose, figure
from otfew.retrieval.run import Ranked


def test_hits_and_misses_differ_by_shape_sign_and_colour():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 5)
    picture = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    names = ("fig", "pear", "$plum_", "a very long name of a class that is cut")
    images = ImageSet("d", "test", "", names, labels, tuple(map(str, range(20))), lambda i: picture, "", 4)
    ranked = [
        Ranked(
            {"map_at_r": np.where(np.arange(20) == 7, np.nan, rng.random(20))},
            np.stack([rng.permutation(np.delete(np.arange(20), i))[:10] for i in range(20)]),
            1.0,
        )
        for _ in range(2)
    ]
    made = figure(images, *ranked, "deepemd")
    chosen = choose(*ranked)
    frames = iter(made.axes)
    missed = []
    for query in chosen:
        for row, one in enumerate(ranked):
            if row == 0:
                assert to_hex(next(frames).spines["left"].get_edgecolor()) == "#1a1a1a"
            for found in one.head[query, :SHOWN]:
                axes = next(frames)
                hit = labels[found] == labels[query]
                (badge,) = axes.texts
                assert badge.get_text() == ("\N{CHECK MARK}" if hit else "\N{BALLOT X}")
                shape = type(badge.get_bbox_patch().get_boxstyle()).__name__
                assert shape == ("Circle" if hit else "Square")
                assert to_hex(axes.spines["left"].get_edgecolor()) == (RIGHT if hit else WRONG).lower()
                if not hit:
                    missed.append(names[labels[found]])
    assert next(frames, None) is None
    said = [text.get_text().replace("\\$", "$") for text in made.texts]
    assert sum(text in {"fig", "pear", "$plum_"} for text in said) == sum(name in names[:3] for name in missed)
    assert sum(text.endswith("…") for text in said) == sum(name == names[3] for name in missed)
    title = " ".join(said)
    for one in ranked:
        assert f"{100 * np.nanmean(one.metrics['map_at_r']):.1f}" in title
    for query in chosen:
        for name, one in zip((retrieval_picture.GLOBAL, "deepemd"), ranked, strict=True):
            assert f"{name}: MAP@R {100 * one.metrics['map_at_r'][query]:.1f} %" in title
