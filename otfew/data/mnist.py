"""MNIST (LeCun, Bottou, Bengio and Haffner 1998): 70,000 digits as people wrote them, 28x28, grey."""

from __future__ import annotations

from otfew.data.base import Dataset
from otfew.data.idx import IdxFiles

FILES = IdxFiles(
    dataset="mnist",
    title="MNIST",
    folder="MNIST",
    # A copy of the publisher's files, which his own page no longer hands out.
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    md5={
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    classes=tuple("0123456789"),
)
"""Checksums as the publisher's files have them."""

DATASET = Dataset(
    "mnist",
    "MNIST: ten digits, grey; all splits share the classes (LeCun et al. 1998)",
    28,
    FILES.load,
    drawn=True,
)
