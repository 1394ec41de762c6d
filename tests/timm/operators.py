"""torchvision beside a torch for CPUs: PyPI's wheel brings operators compiled for CUDA, which such a torch can't load.

torch 2.13.0 and torchvision 0.28.0 belong together; the import of the latter fails for want of two operators that
timm's networks never call. They are declared here, without an implementation, so that the real timm can be imported
without gigabytes of CUDA. Where torch is the build that torchvision was made for, nothing is done.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

_KEPT: list[torch.library.Library] = []


def declare() -> None:
    """Declare the operators that torchvision's import asks for, unless its compiled ones load."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    compiled = Path(spec.origin).with_name("_C.so")
    try:
        torch.ops.load_library(compiled)
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
