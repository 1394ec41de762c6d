"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 70,000 grey pictures of clothes, 28x28, from the publisher's files."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from otfew.data.base import DataOptions, Dataset, Image, ImageSet, Split
from otfew.data.download import install_file
from otfew.data.files import partial_notes
from otfew.data.roots import find_folder
from otfew.data.shared_classes import NOTE, part_of
from otfew.errors import UserError
from otfew.runs.regular_file import open_regular

FOLDER = "FashionMNIST"
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
"""As the publisher gives them; files compressed again hold the same images, so only downloads are compared."""

CLASSES = (
    "T-shirt or top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
PUBLISHED = {"train": 60_000, "t10k": 10_000}
_MOST_BYTES = 2**28  # five times the largest of the files, unpacked
_UNSIGNED_BYTE = 8  # the type of an idx file's entries, in the third byte of its magic number


@dataclass(frozen=True)
class GreyReader:
    """Decodes image i of (images, height, width) uint8: grey as three equal channels."""

    pixels: npt.NDArray[np.uint8]

    def __call__(self, index: int) -> Image:
        """Image ``index``: (height, width, 3) uint8."""
        return np.repeat(self.pixels[index][:, :, None], 3, axis=2)


def load(root: Path, split: Split, options: DataOptions) -> ImageSet:
    """Load one split: the published test part, or the published training part without or with only its val images.

    Args:
        root: Folder with ``FashionMNIST/raw`` in it, or either of these.
        split: "val" is a tenth of each class's training images, see ``otfew.data.shared_classes``.
        options: ``download``.

    Raises:
        UserError: The data are missing or damaged.
    """
    folder = _folder(root, options)
    part = "t10k" if split == "test" else "train"
    pixels = _read(folder, f"{part}-images-idx3-ubyte.gz", dimensions=3)
    labels = _read(folder, f"{part}-labels-idx1-ubyte.gz", dimensions=1).astype(np.int64)
    if len(labels) != len(pixels) or not len(labels) or labels.max() >= len(CLASSES):
        raise UserError(
            f"{folder} holds {part} images and labels that do not fit together; fetch them again from {URL}"
        )
    names = np.array([f"{part}/{i:05d}" for i in range(len(labels))])
    notes = partial_notes(len(CLASSES), len(CLASSES), len(labels), PUBLISHED[part])
    if split != "test":
        kept = part_of(split, names.tolist(), labels)
        pixels, labels, names = pixels[kept], labels[kept], names[kept]
    present = np.unique(labels)
    digest = hashlib.sha256(pixels.tobytes())
    digest.update(labels.tobytes())
    return ImageSet(
        dataset="fashion-mnist",
        split=split,
        variant="",
        classes=tuple(CLASSES[label] for label in present),
        labels=np.searchsorted(present, labels).astype(np.int64),
        names=tuple(names.tolist()),
        read=GreyReader(pixels),
        fingerprint=digest.hexdigest(),
        published_classes=len(CLASSES),
        notes=(*notes, NOTE),
    )


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, compressed by gzip or not.

    Args:
        path: The file; its format is LeCun's: a magic number, the sizes as big-endian integers, the entries.
        dimensions: That it must have.

    Raises:
        UserError: The file is damaged or holds something else.
    """
    try:
        with open_regular(path, _MOST_BYTES) as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
            data = file.read(_MOST_BYTES + 1)
        head = 4 + 4 * dimensions
        zero, kind, found, *sizes = struct.unpack(f">HBB{dimensions}I", data[:head])
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f"{path} is damaged ({error}); fetch it again from {URL}") from error
    if (zero, kind, found) != (0, _UNSIGNED_BYTE, dimensions) or len(data) != head + int(np.prod(sizes)):
        raise UserError(f"{path} is not a complete idx file of {dimensions} dimensions; fetch it again from {URL}")
    return np.frombuffer(data, np.uint8, offset=head).reshape(sizes)


def _folder(root: Path, options: DataOptions) -> Path:
    """The folder with the four files; those that are missing are fetched."""
    base = find_folder(root, FOLDER, "raw", *MD5, *(name.removesuffix(".gz") for name in MD5)) or root / FOLDER
    folder = base if any(_found(base, name) for name in MD5) else base / "raw"
    instead = f"put the publisher's four files in {folder}"
    for name, digest in MD5.items():
        if _found(folder, name) is None:
            if not options.download:
                raise UserError(f"Fashion-MNIST is not complete under {root}, {name} is missing: {instead}.")
            install_file(URL + name, f"md5:{digest}", folder, instead=instead)
    return folder


def _found(folder: Path, name: str) -> Path | None:
    """A file as it is published, or unpacked."""
    return next((path for path in (folder / name, folder / name.removesuffix(".gz")) if path.is_file()), None)


def _read(folder: Path, name: str, dimensions: int) -> npt.NDArray[np.uint8]:
    path = _found(folder, name)
    assert path is not None
    return read_idx(path, dimensions)


DATASET = Dataset(
    "fashion-mnist", "10 kinds of clothes, grey; all splits share the classes (Xiao et al. 2017)", 28, load
)
