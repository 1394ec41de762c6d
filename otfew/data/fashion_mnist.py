"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 70,000 grey pictures of clothes, 28x28, from the publisher's files."""

from __future__ import annotations

from otfew.data.base import Dataset
from otfew.data.idx import IdxFiles

CLASSES = (
    "T-shirt or top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
FILES = IdxFiles(
    dataset="fashion-mnist",
    title="Fashion-MNIST",
    folder="FashionMNIST",
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    md5={
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    classes=CLASSES,
)
"""Checksums as the publisher gives them."""

DATASET = Dataset(
    "fashion-mnist", "10 kinds of clothes, grey; all splits share the classes (Xiao et al. 2017)", 28, FILES.load
)
