"""Data sets of small grey pictures in LeCun's idx files, whose published parts share ten classes."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from otfew.data.base import DataOptions, Image, ImageSet, Split
from otfew.data.download import install_file
from otfew.data.files import partial_notes
from otfew.data.roots import find_folder, plain
from otfew.data.shared_classes import NOTE, part_of
from otfew.errors import UserError
from otfew.runs.regular_file import open_regular

_FOLDERS = frozenset({"mnist", "fashionmnist", "kmnist", "emnist", "qmnist"})
"""Where sets lie whose files have the same four names."""
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


@dataclass(frozen=True)
class IdxFiles:
    """Four files of a publisher: images and labels of a training and a test part.

    Attributes:
        dataset: Key of ``otfew.data.DATASETS``.
        title: What it is called in sentences.
        folder: Its folder below the data root; the files lie in it, or in ``raw`` in it.
        url: Where the files are, with a slash at its end.
        md5: File name -> checksum. Files compressed again hold the same images, so only downloads are compared.
        classes: Names of the labels 0, 1, ...
    """

    dataset: str
    title: str
    folder: str
    url: str
    md5: Mapping[str, str]
    classes: tuple[str, ...]

    def load(self, root: Path, split: Split, options: DataOptions) -> ImageSet:
        """Load one split: the published test part, or the published training part without or with only its val images.

        Args:
            root: Folder with ``FOLDER/raw`` in it, or either of these.
            split: "val" is a tenth of each class's training images, see ``otfew.data.shared_classes``.
            options: ``download``.

        Raises:
            UserError: The data are missing or damaged.
        """
        folder = self._find(root, options)
        part = "t10k" if split == "test" else "train"
        pixels = self._read(folder, f"{part}-images-idx3-ubyte.gz", dimensions=3)
        labels = self._read(folder, f"{part}-labels-idx1-ubyte.gz", dimensions=1).astype(np.int64)
        if len(labels) != len(pixels) or not len(labels) or labels.max() >= len(self.classes):
            raise UserError(
                f"{folder} holds {part} images and labels that do not fit together; fetch them again from {self.url}"
            )
        names = np.array([f"{part}/{i:05d}" for i in range(len(labels))])
        notes = partial_notes(len(self.classes), len(self.classes), len(labels), PUBLISHED[part])
        if split != "test":
            kept = part_of(split, names.tolist(), labels)
            pixels, labels, names = pixels[kept], labels[kept], names[kept]
        present = np.unique(labels)
        digest = hashlib.sha256(pixels.tobytes())
        digest.update(labels.tobytes())
        return ImageSet(
            dataset=self.dataset,
            split=split,
            variant="",
            classes=tuple(self.classes[label] for label in present),
            labels=np.searchsorted(present, labels).astype(np.int64),
            names=tuple(names.tolist()),
            read=GreyReader(pixels),
            fingerprint=digest.hexdigest(),
            published_classes=len(self.classes),
            notes=(*notes, NOTE),
        )

    def _find(self, root: Path, options: DataOptions) -> Path:
        """The folder with the four files; those that are missing are fetched."""
        unpacked = (name.removesuffix(".gz") for name in self.md5)
        own = find_folder(root, self.folder, "raw", *self.md5, *unpacked) or root / self.folder
        if own == root and self._is_of_another(root):
            own = root / self.folder
        folder = own if any(_found(own, name) for name in self.md5) else own / "raw"
        instead = f"put the publisher's four files in {folder}"
        for name, digest in self.md5.items():
            if _found(folder, name) is None:
                if options.download is False:
                    raise UserError(f"{self.title} is not complete under {root}, {name} is missing: {instead}.")
                install_file(self.url + name, f"md5:{digest}", folder, instead=instead)  # none is large
        return folder

    def _is_of_another(self, folder: Path) -> bool:
        """Whether a folder, or the one around it, is called as that of a set whose files have the same names."""
        found = {plain(folder.name), plain(folder.parent.name)} & _FOLDERS
        return bool(found) and plain(self.folder) not in found

    def _read(self, folder: Path, name: str, dimensions: int) -> npt.NDArray[np.uint8]:
        path = _found(folder, name)
        assert path is not None
        return read_idx(path, dimensions, self.url)


def read_idx(path: Path, dimensions: int, url: str) -> npt.NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, compressed by gzip or not.

    Args:
        path: The file; its format is LeCun's: a magic number, the sizes as big-endian integers, the entries.
        dimensions: That it must have.
        url: Where the file is had, for sentences.

    Raises:
        UserError: The file is damaged or holds something else.
    """
    try:
        with open_regular(path, _MOST_BYTES) as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
            data = file.read(_MOST_BYTES + 1)
        head = 4 + 4 * dimensions
        zero, kind, found, *sizes = struct.unpack(f">HBB{dimensions}I", data[:head])
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f"{path} is damaged ({error}); fetch it again from {url}") from error
    if (zero, kind, found) != (0, _UNSIGNED_BYTE, dimensions) or len(data) != head + int(np.prod(sizes)):
        raise UserError(f"{path} is not a complete idx file of {dimensions} dimensions; fetch it again from {url}")
    return np.frombuffer(data, np.uint8, offset=head).reshape(sizes)


def _found(folder: Path, name: str) -> Path | None:
    """A file as it is published, or unpacked."""
    return next((path for path in (folder / name, folder / name.removesuffix(".gz")) if path.is_file()), None)
