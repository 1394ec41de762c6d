"""Tensors out of somebody else's file of weights (.pth, .pt, .tar, .safetensors); no code in it is ever run.

``torch.load`` with ``weights_only`` lets a pickle make tensors and plain containers and nothing else. Before that, an
archive that would unpack to more than its own size is refused; after it, a tensor that claims more numbers than the
file has bytes for.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as decode
from torch import Tensor

from otfew.backbones.cards import SUFFIX
from otfew.errors import UserError
from otfew.runs.files import reason, sha256_of
from otfew.runs.regular_file import GIB, read_regular, regular_size

ENDINGS = (".pth", ".pt", ".tar", ".bin", ".ckpt")
"""Endings of files that ``torch.save`` wrote."""
LARGEST = 32 * GIB
SAFE_TORCH = (2, 6)
"""Before this release of torch, ``weights_only`` could be made to run code (CVE-2025-32434)."""
DEEPEST = 16
"""Dictionaries inside dictionaries; published files have three."""

_ASKED = re.compile(r"(?:Unsupported (?:global|class)|GLOBAL)\W+(?:GLOBAL )?([\w.]+)")


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read every tensor of a file.

    Args:
        path: Written by ``torch.save`` or safetensors.

    Returns:
        Name -> tensor on the CPU, names of dictionaries inside dictionaries joined by dots ("params.encoder.weight");
        and the file's sha256.

    Raises:
        UserError: No such file, one that is damaged, holds no tensors by name, or asks for anything but tensors and
            plain containers.
    """
    try:
        regular_size(path, LARGEST)
        digest = sha256_of(path)
    except FileNotFoundError as error:
        raise UserError(f"there are no weights at {path}: check `backbone`.") from error
    except OSError as error:
        raise UserError(f"the weights {path} cannot be read ({reason(error)}).") from error
    held = _safetensors(path) if path.suffix == SUFFIX else load_plain(path, "weights")
    if not isinstance(held, Mapping):
        raise UserError(f"{path} holds a {type(held).__name__}, not tensors by name: save module.state_dict().")
    tensors = dict(_flat(held, ""))
    if not tensors:
        raise UserError(f"{path} holds no tensors by name: save module.state_dict().")
    for name, tensor in tensors.items():
        check_dense(tensor, name, path)
    return tensors, digest


def load_plain(path: Path, what: str) -> Any:
    """Read what ``torch.save`` wrote: tensors, plain containers, numbers and strings, nothing else.

    Args:
        path: A file that exists.
        what: It should hold, for messages.

    Raises:
        UserError: It asks for anything else, is damaged, or unpacks to more than it has bytes; nothing of it was run.
    """
    release = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if release < SAFE_TORCH:
        raise UserError(
            f"torch {torch.__version__} could be made to run code by {path}: install torch 2.6 or newer, or give the "
            f"{what} as {SUFFIX}."
        )
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"the {what} {path} cannot be read ({reason(error)}).") from error
    except pickle.UnpicklingError as error:
        asked = _ASKED.search(str(error))
        if asked is None:
            raise UserError(f"{path} is damaged or was not written by torch.save: copy it again.") from error
        raise UserError(
            f"{path} asks for {asked[1]}, which may run code: nothing of it was run. A file of {what} holds tensors "
            "and plain containers alone: save module.state_dict() where it was made."
        ) from error
    except Exception as error:  # a damaged file may raise nearly any exception
        told = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path} is damaged or was not written by torch.save ({told}): copy it again.") from error


def check_dense(tensor: Tensor, name: str, path: Path) -> None:
    """Raise ``UserError`` unless a tensor is dense and has as many numbers as its file has room for."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise UserError(f"{path} holds {name!r} sparse, quantised or without its numbers: save it as a dense tensor.")
    if tensor.numel() * tensor.element_size() > path.stat().st_size:
        raise UserError(
            f"{path} claims {tensor.numel():,} numbers in {name!r}, more than the file holds: copy it again."
        )


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return decode(read_regular(path, LARGEST))
    except (SafetensorError, ValueError):
        raise UserError(f"{path} is truncated or not a safetensors file: copy it again.") from None


def _check_archive(path: Path) -> None:
    """Refuse a zip archive whose members are compressed: ``torch.save`` compresses none, a bomb does."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > path.stat().st_size or any(m.compress_type != zipfile.ZIP_STORED for m in archive.infolist()):
            raise UserError(f"{path} unpacks to more than it holds, as no file of torch.save does: it is not read.")


def _flat(held: Mapping[Any, Any], prefix: str, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Walk through dictionaries inside dictionaries; what is neither is left out."""
    if depth > DEEPEST:
        return
    for key, value in held.items():
        name = f"{prefix}{key}"
        if isinstance(value, Tensor):
            yield name, value.detach()
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{name}.", depth + 1)
