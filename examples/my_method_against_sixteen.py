"""A method of one's own against sixteen that come with otfew, on the same episodes, and what may be concluded.

    python examples/my_method_against_sixteen.py
    python examples/my_method_against_sixteen.py --folder PHOTOS --backbone efficientnet-lite0 --shot 5

``PHOTOS`` holds a folder of images for each class, twenty of each or more. Without it, glyphs are drawn, on which a
network that comes with otfew was trained: a demonstration, never evidence for a method.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

import otfew
from otfew.method import MethodBase, check_episode, shot_mean
from otfew.reporting.result import Comparison
from otfew.transport.precision import in_full_precision

SIXTEEN = (
    "deepemd", "chamfer", "trimmed-chamfer", "cr-pooled", "product-coupling", "cosine-nodes", "protonet",
    "cosine-centroid", "simpleshot", "matchingnet", "knn", "fusion", "cosine-classifier", "linear-classifier",
    "logistic", "frn",
)  # fmt: skip
"""All methods of otfew that answer each query by itself; ``otfew list`` has those too that see all queries at once."""


class LongMatches(MethodBase):
    """Each node looks for its best match, in both directions, and long nodes count for more.

    logit_c = temperature / 2 * (sum_i a_i max_j cos(u_i, v_cj) + sum_j b_cj max_i cos(u_i, v_cj)), where u are the
    query's nodes and v_c the class's, its shots averaged place by place; a_i = |u_i| / sum_k |u_k|, and b_c likewise.

    Args:
        temperature: Scale of the logits.
    """

    name = "long-matches"

    def __init__(self, temperature: float = 10.0) -> None:
        self.temperature = temperature

    @in_full_precision
    def __call__(
        self,
        support: Tensor,
        query: Tensor,
        *,
        support_mask: Tensor | None = None,
        class_prior: Tensor | None = None,
    ) -> Tensor:
        """Score queries (episodes, n_query, nodes, channels) against support (episodes, way, shot, nodes, channels)."""
        check_episode(support, query, support_mask)
        classes = shot_mean(support, support_mask)
        cosines = torch.einsum("eqic,ewjc->eqwij", normalize(query, dim=-1), normalize(classes, dim=-1))
        there = cosines.amax(-1) * shares(query)[:, :, None]
        back = cosines.amax(-2) * shares(classes)[:, None]
        return self.temperature / 2 * (there.sum(-1) + back.sum(-1))


def shares(nodes: Tensor) -> Tensor:
    """Divide a weight of 1 among (..., nodes, channels) by their lengths."""
    lengths = nodes.norm(dim=-1)
    return lengths / lengths.sum(-1, keepdim=True).clamp_min(1e-12)


def conclusion(found: Comparison, mine: str) -> list[str]:
    """Say in sentences how a method stands to the others, each difference with Holm's correction over all of them."""
    accuracy = {name: record["accuracy"]["mean"] for name, record in found.results["methods"].items()}
    order = sorted(accuracy, key=accuracy.__getitem__, reverse=True)
    # A difference is another method less mine.
    said = {"better": "ahead of it", "worse": "behind it", "no difference shown": "not told apart from it"}
    lines = [f"{mine} is number {order.index(mine) + 1} of {len(order)}, at {100 * accuracy[mine]:.2f} %."]
    for verdict, words in said.items():
        names = [name for name in order if name in found.differences and found.differences[name]["verdict"] == verdict]
        lines.append(f"{len(names)} {words}: {', '.join(names) or 'none'}.")
    if all(each["verdict"] == "no difference shown" for each in found.differences.values()):
        lines.append("Nothing may be concluded: take more episodes, or more classes.")
    return lines


def run(
    folder: Path | None = None, backbone: str | None = None, shot: int = 1, query: int = 15, episodes: int = 600
) -> Comparison:
    """Compare on a folder of class folders, or on glyphs."""
    return otfew.compare(
        "glyphs" if folder is None else "image-folder",
        [*SIXTEEN, LongMatches()],
        data_root=folder,
        backbone=backbone,
        shot=shot,
        query=query,
        episodes=episodes,
        reference=LongMatches.name,
    )


def main() -> None:
    """Read the command line, compare, and print the table and what to conclude."""
    parser = argparse.ArgumentParser(description="Compare a method of one's own with sixteen of otfew.")
    parser.add_argument("--folder", type=Path, help="of class folders; default: glyphs")
    parser.add_argument("--backbone", help="network; default: that of the glyphs, else efficientnet-lite0")
    parser.add_argument("--shot", type=int, default=1, help="labelled images of each class")
    parser.add_argument("--query", type=int, default=15, help="images to classify of each class")
    parser.add_argument("--episodes", type=int, default=600)
    found = run(**vars(parser.parse_args()))
    print(found)
    print("\n".join(["", *conclusion(found, LongMatches.name)]))


if __name__ == "__main__":
    main()
