"""A training step from pictures in memory, augmented as pre-training does, beside one on made-up tensors."""

from __future__ import annotations

import pytest
import torch

from otfew.backbones import ARCHITECTURES
from otfew.training.augmentation import Augmentation
from otfew.training.loop import Part
from otfew.training.pretrain import Classification, Task
from otfew.training.settings import PretrainSettings

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "side", "stored", "batch"),
    [("resnet12-quarter", 32, 32, 128), ("resnet12-quarter", 84, 92, 64), ("conv4", 28, 28, 128)],
)
def test_input_pipeline(name, side, stored, batch, race):
    """The bar: at least 90 % of the rate on tensors, a ratio of at least 0.9."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (1000, 3, stored, stored), dtype=torch.uint8)
    labels = torch.randint(0, 64, (1000,))
    task = Task(pixels, labels, 64, side, (0.5,) * 3, (0.25,) * 3, Augmentation())
    last_pool = {} if side >= 84 else {"last_pool": False}
    objective = Classification(lambda: ARCHITECTURES[name](**last_pool), task, PretrainSettings(batch_size=batch))
    module = objective.module.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(module.parameters(), 1e-4, momentum=0.9, nesterov=True)
    made_up = objective.batch(Part(0, 0, 0, 1), CPU)
    objective.train()

    def step(images, labels):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(images)[0], labels).backward()
        optimizer.step()

    numbers = iter(range(1 << 30))

    def from_pictures():
        images, labels, _ = objective.batch(Part(next(numbers), 0, 0, 1), CPU)
        step(images, labels)

    contenders = {"from pictures": from_pictures, "made-up tensors": lambda: step(*made_up[:2])}
    race(f"{name}, {batch} x {side} px, training step", contenders, rounds=7)
