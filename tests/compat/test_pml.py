"""The batch-wise OT loss within pytorch-metric-learning: its own value, under that library's conventions."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings

import pytest
import torch

pytest.importorskip("pytorch_metric_learning")

from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper

from otfew.compat.pml import BatchwiseOTLoss
from otfew.methods.batchwise_ot import BatchwiseOTLoss as Core

EMPTY = torch.zeros(0, dtype=torch.long)


def batch(n=12, classes=3, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (0.7 * torch.randn(n, 5, generator=generator)).to(dtype), torch.arange(n) % classes


def with_gradient(loss, x, *arguments):
    x = x.clone().requires_grad_()
    value = loss(x, *arguments)
    value.backward()
    return value.detach(), x.grad


def same_as_core(core, loss, x, *arguments):
    for found, expected in zip(with_gradient(loss, x, *arguments), with_gradient(core, x, *arguments), strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(
    "options",
    [{}, {"margin": 1.0, "reg_inverse": 0}, {"distance": "euclidean", "plan_gradient": "implicit"},
     {"normalize": True, "margin": 1.0}, {"weighting": "softmax"}, {"exclude_self": False, "pair_power": 2}],
)  # fmt: skip
def test_value_and_gradient_are_those_of_the_loss_itself(options):
    loss, core = BatchwiseOTLoss(**options), Core(**options)
    x, labels = batch()
    y, y_labels = batch(9, seed=1)
    same_as_core(core, loss, x, labels)
    same_as_core(core, loss, x, labels, None, x, labels)
    same_as_core(core, loss, x, labels, None, y, y_labels)
    pairs = miners.MultiSimilarityMiner()(x, labels)
    triplets = miners.TripletMarginMiner()(x, labels)
    assert len(pairs) == 4
    assert len(triplets) == 3
    for indices in (pairs, triplets):
        same_as_core(core, loss, x, labels, indices)
        # Without labels the miner's word is taken for which pairs are of one class.
        same_as_core(core, loss, x, None, indices)
        same_as_core(lambda x, indices: core(x, labels, indices), lambda x, i: loss(x, None, i), x, indices)


def test_losses_of_embeddings_average_to_the_loss():
    x, labels = batch()
    found = Core().transport(x, labels)
    rows = (found.plan * found.ground * found.counted).sum(1) / 2
    torch.testing.assert_close(found.per_item, len(x) * rows)
    torch.testing.assert_close(
        BatchwiseOTLoss(reducer=reducers.DoNothingReducer())(x, labels)["loss"]["losses"], found.per_item
    )


def test_reducers_and_regularizers_work_on_the_losses_of_embeddings():
    x, labels = batch()
    each = Core(margin=1.0).transport(x, labels).per_item
    middle = float(each.median())
    weights = torch.tensor([1.0, 2.0, 4.0])
    for reducer, expected in (
        (reducers.MeanReducer(), each.mean()),
        (reducers.AvgNonZeroReducer(), each[each > 0].mean()),
        (reducers.ThresholdReducer(low=middle), each[each > middle].mean()),
        (reducers.ClassWeightedReducer(weights), (each * weights[labels]).mean()),
        (reducers.PerAnchorReducer(), each.mean()),
    ):
        torch.testing.assert_close(BatchwiseOTLoss(margin=1.0, reducer=reducer)(x, labels), expected)
    regularised = BatchwiseOTLoss(
        margin=1.0, embedding_regularizer=regularizers.LpRegularizer(), embedding_reg_weight=0.3
    )
    torch.testing.assert_close(regularised(x, labels), each.mean() + 0.3 * x.norm(dim=1).mean())
    # What trains nothing itself is still regularised, as in the library's own losses.
    with pytest.warns(UserWarning, match="one class only"):
        found = regularised(x, torch.zeros_like(labels))
    torch.testing.assert_close(found, 0.3 * x.norm(dim=1).mean())


def test_distances_of_the_library():
    x, labels = batch()
    plain = distances.LpDistance(normalize_embeddings=False, power=2)
    same_as_core(Core(), BatchwiseOTLoss(distance=plain), x, labels)
    unit = BatchwiseOTLoss(margin=1.0, distance=distances.LpDistance())
    same_as_core(Core(margin=1.0, distance="euclidean", normalize=True), unit, x, labels)
    # Any other: the same loss of its matrix.
    manhattan = distances.LpDistance(normalize_embeddings=False, p=1)
    same, off = labels[:, None] == labels, ~torch.eye(len(x), dtype=torch.bool)
    expected = Core().of_distances(torch.cdist(x, x, p=1.0), same, off).loss
    torch.testing.assert_close(BatchwiseOTLoss(distance=manhattan)(x, labels), expected)
    with pytest.raises(ValueError, match="CosineSimilarity is a similarity"):
        BatchwiseOTLoss(distance=distances.CosineSimilarity())
    with pytest.raises(ValueError, match="unknown `distance`"):
        BatchwiseOTLoss(distance="manhattan")
    with pytest.raises(ValueError, match="normalize_embeddings"):
        BatchwiseOTLoss(distance=distances.LpDistance(), normalize=True)


@pytest.mark.parametrize("kind", [BatchwiseOTLoss, Core])
@pytest.mark.parametrize("case", ["one class", "one item", "no item", "no pair", "no triplet", "no pair, no labels"])
def test_batches_without_anything_to_compare_are_a_differentiable_zero_as_in_the_library(kind, case):
    x, labels = batch()
    arguments = {
        "one class": (x, torch.zeros_like(labels)),
        "one item": (x[:1], labels[:1]),
        "no item": (x[:0], labels[:0]),
        "no pair": (x, labels, (EMPTY,) * 4),
        "no triplet": (x, labels, (EMPTY,) * 3),
        "no pair, no labels": (x, None, (EMPTY,) * 4),
    }[case]
    loss = kind()
    with pytest.warns(UserWarning, match="trains nothing") as told:
        value, gradient = with_gradient(loss, *arguments)
    assert told[0].filename == __file__
    assert float(value) == 0
    assert not gradient.any()
    theirs, their_gradient = with_gradient(losses.TripletMarginLoss(), *arguments)
    assert float(theirs) == 0
    assert not their_gradient.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(*arguments)


def test_one_embedding_is_compared_with_references():
    x, labels = batch()
    same_as_core(Core(), BatchwiseOTLoss(), x[:1], labels[:1], None, x[1:], labels[1:])
    found = Core(reg_inverse=0).transport(x[:1], labels[:1], None, x[1:], labels[1:])
    assert float(found.loss) == pytest.approx(float(found.ground.mean()) / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"embedding_regularizer": regularizers.LpRegularizer()}])
def test_half_precision_is_computed_as_float32(dtype, options):
    x, labels = batch(dtype=dtype)
    loss = BatchwiseOTLoss(margin=1.0, **options)
    expected = with_gradient(loss, x.float(), labels)
    for given in ((labels,), (labels, None, x, labels)):
        for enabled in (False, True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                value, gradient = with_gradient(loss, x, labels, *given[1:2])
                inside = loss(x.float(), labels)
            assert value.dtype == torch.float32
            assert gradient.dtype == dtype
            torch.testing.assert_close(value, expected[0])
            torch.testing.assert_close(inside, expected[0])
            torch.testing.assert_close(gradient, expected[1].to(dtype))
    torch.testing.assert_close(loss(x, labels, None, x, labels), expected[0])


def test_cross_batch_memory():
    loss = losses.CrossBatchMemory(BatchwiseOTLoss(), embedding_size=5, memory_size=24)
    core, seen = Core(), []
    for step in range(4):
        x, labels = batch(8, seed=step)
        seen = [*seen, (x, labels)][-3:]
        found, gradient = with_gradient(loss, x, labels)
        assert bool(gradient.any())
        if step < 3:
            memory, memory_labels = (torch.cat(column) for column in zip(*seen, strict=True))
            same = labels[:, None] == memory_labels
            others = torch.arange(len(memory))[None] != 8 * step + torch.arange(8)[:, None]
            squared = (x[:, None] - memory[None]).square().sum(-1)
            torch.testing.assert_close(found, core.of_distances(squared, same, others).loss)
    with_gradient(losses.CrossBatchMemory(BatchwiseOTLoss(), 5, 24, miner=miners.MultiSimilarityMiner()), x, labels)


def test_it_pickles_and_has_a_record_of_itself():
    x, labels = batch()
    loss = BatchwiseOTLoss(margin=2.0)
    assert float(pickle.loads(pickle.dumps(loss))(x, labels)) == float(loss(x, labels))
    assert isinstance(loss, losses.BaseMetricLossFunction)


WORKER = """
import sys, torch, torch.distributed as dist
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper
from otfew.compat.pml import BatchwiseOTLoss
rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
x, labels = torch.load(f"{store}.batch")
mine = slice(6 * rank, 6 * rank + 6)
for efficient in (False, True):
    part = x[mine].clone().requires_grad_()
    loss = DistributedLossWrapper(BatchwiseOTLoss(), efficient=efficient)(part, labels[mine])
    loss.backward()
    torch.save((loss.detach(), part.grad), f"{store}.{rank}.{int(efficient)}")
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_compute_the_loss_of_the_whole_batch(tmp_path):
    x, labels = batch()
    torch.save((x, labels), tmp_path / "store.batch")
    command = [sys.executable, "-c", WORKER]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [subprocess.Popen([*command, str(rank), str(tmp_path / "store")], env=environment) for rank in range(2)]
    assert [worker.wait(timeout=240) for worker in workers] == [0, 0]
    value, gradient = with_gradient(Core(), x, labels)
    for rank in range(2):
        found, part = torch.load(tmp_path / f"store.{rank}.0")
        # The wrapper multiplies by the number of processes, whose gradients are then averaged.
        torch.testing.assert_close(found, 2 * value)
        torch.testing.assert_close(part, 2 * gradient[6 * rank : 6 * rank + 6])
        # "Efficient": each process compares its own items with all.
        mine = slice(6 * rank, 6 * rank + 6)
        order = [*range(6 * rank, 6 * rank + 6), *range(6 - 6 * rank, 12 - 6 * rank)]
        same = labels[mine][:, None] == labels[order]
        others = ~torch.eye(6, 12, dtype=torch.bool)
        squared = (x[mine][:, None] - x[order]).square().sum(-1)
        found, _ = torch.load(tmp_path / f"store.{rank}.1")
        torch.testing.assert_close(found, 2 * Core().of_distances(squared, same, others).loss)


def test_alone_the_distributed_wrapper_returns_the_loss():
    x, labels = batch()
    with pytest.warns(UserWarning, match="non-distributed"):
        found = DistributedLossWrapper(BatchwiseOTLoss())(x, labels)
    assert float(found) == float(BatchwiseOTLoss()(x, labels))
