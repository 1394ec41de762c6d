"""Nodes of a class from those of its shots: combined as directions, since that is what DeepEMD's cost compares."""

from __future__ import annotations

from torch import Tensor

from otfew.scores.pairwise import centre
from otfew.transport.costs import directions


def shot_directions(nodes: Tensor) -> Tensor:
    """Directions (..., channels) of channel-centred nodes, constants for autograd; zero for nodes without one."""
    return directions(centre(nodes.detach()))


def placed(members: Tensor, nodes: Tensor) -> Tensor:
    """Combine nodes of a class's shots into nodes of the class.

    A node's direction after centring is that of the combined directions; its length after centring and its mean over
    channels, which the cross-reference weights see, are the combined lengths and means.

    Args:
        members: (..., n, shots * nodes), not negative, rows of total 1.
        nodes: (..., shots * nodes, channels), as they came.

    Returns:
        (..., n, channels), differentiable in the nodes.
    """
    centred = centre(nodes)
    # A zero vector has no derivative of its norm; torch takes zero.
    lengths = centred.square().sum(-1, keepdim=True)
    held = lengths > 0
    lengths = lengths.where(held, 1).sqrt() * held
    towards = directions(members @ directions(centred))
    placed_nodes: Tensor = towards * (members @ lengths) + members @ nodes.mean(-1, keepdim=True)
    return placed_nodes
