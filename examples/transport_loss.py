"""An exact transport loss in an ordinary training loop: a small network learns to draw digits with 24 dots.

    python examples/transport_loss.py

The loss of a drawing is the exact transport cost between its dots, of equal weight, and the ink of the picture: the sum
of plan * squared distance, for the cheapest plan that brings the dots to the ink. ``otfew.solve`` solves all problems
of a batch at once, and ``backward`` needs no further solve: the gradient of a value with respect to costs is its plan.
The pictures are the 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn: nothing is fetched.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import otfew

DOTS, SIDE, HELD_OUT = 24, 8, 297


def digits() -> tuple[Tensor, Tensor]:
    """Return pictures (images, 64) with ink from 0 to 1, and where their pixels are: (64, 2), from 0 to 1."""
    ink = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    places = torch.stack([columns, rows], -1).reshape(-1, 2).float()
    return ink[torch.randperm(len(ink))], (places + 0.5) / SIDE


def network() -> nn.Module:
    """Make a network from a picture to the places of its dots: (images, DOTS, 2)."""
    layers = [nn.Linear(SIDE * SIDE, 128), nn.ReLU(), nn.Linear(128, 2 * DOTS), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Unflatten(1, (DOTS, 2)))


def transport_loss(dots: Tensor, ink: Tensor, places: Tensor) -> tuple[Tensor, float]:
    """Average the transport costs of a batch.

    Args:
        dots: (images, DOTS, 2).
        ink: (images, pixels), not negative: weights that are scaled to the dots' total.
        places: (pixels, 2).

    Returns:
        The loss, and the largest gap: no plan is cheaper by more than that.
    """
    cost = (dots[:, :, None] - places).square().sum(-1)  # (images, DOTS, pixels)
    result = otfew.solve(cost, b=ink / ink.sum(1, keepdim=True))
    return result.value.mean(), float(result.gap.max())


def train(steps: int = 300, batch: int = 64, seed: int = 0) -> tuple[list[float], float]:
    """Train, and print how it goes.

    Returns:
        The loss on held-out pictures before, on the way and after; the largest gap of all problems.
    """
    torch.manual_seed(seed)
    ink, places = digits()
    held_out, ink = ink[:HELD_OUT], ink[HELD_OUT:]
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses, largest = [], 0.0
    for step in range(steps + 1):
        if step % max(1, steps // 6) == 0:
            with torch.no_grad():
                loss, gap = transport_loss(model(held_out), held_out, places)
            losses.append(float(loss))
            largest = max(largest, gap)
            print(f"step {step:4}: transport cost of held-out digits {float(loss):.5f}, largest gap {gap:.0e}")
        chosen = ink[torch.randint(len(ink), (batch,))]
        optimizer.zero_grad()
        loss, gap = transport_loss(model(chosen), chosen, places)
        loss.backward()
        optimizer.step()
        largest = max(largest, gap)
    return losses, largest


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train a small network with an exact transport loss.")
    parser.add_argument("--steps", type=int, default=300)
    losses, largest = train(parser.parse_args().steps)
    print(f"the held-out cost fell from {losses[0]:.5f} to {losses[-1]:.5f}; all optima are proven up to {largest:.0e}")


if __name__ == "__main__":
    main()
