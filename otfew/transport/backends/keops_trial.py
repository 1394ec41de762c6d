"""Whether KeOps survives its first formula on a GPU: tried once, in a process of its own.

KeOps compiles through libraries of CUDA's toolkit and of torch. Where they do not fit each other the process is ended
by a signal, which nothing can catch; KeOps 2.3 does so beside the wheels of CUDA 13 of torch 2.11.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys

import torch

from otfew.transport import kept

TRIAL = """\
import torch
from pykeops.torch import Genred
x, y = torch.rand(5, 3, device="cuda"), torch.rand(4, 3, device="cuda")
found = Genred("Sum((x - y) * (x - y))", ["x = Vi(3)", "y = Vj(3)"], reduction_op="Sum", axis=1)(x, y, backend="GPU_1D")
expected = (x[:, None] - y[None]).square().sum((1, 2))
assert torch.allclose(found[:, 0], expected, rtol=1e-4), "a wrong sum"
"""
SECONDS = 300
SOUND = b"sound"
SIGNAL = "the signal"


def ends_badly() -> str | None:
    """Say how KeOps ends on this machine's GPU, or None.

    That it is sound, or that a signal ends it, is kept in the user's cache; what may pass, such as a card without free
    memory, is tried again by the next process.
    """
    home = kept.home()
    folder = None if home is None else home / "keops"
    path = None if folder is None else folder / f"trial-{_setting()}"
    if path is not None and (known := kept.load(path)) is not None:
        return None if known == SOUND else known.decode()
    sys.stderr.write("otfew: trying KeOps on this GPU; this happens once\n")
    reason = _tried()
    lasts = reason is None or reason.startswith(SIGNAL)
    if lasts and path is not None and folder is not None and kept.writable(folder):
        kept.save(path, SOUND if reason is None else reason.encode())
    return reason


def _tried() -> str | None:
    environment = {"KEOPS_VERBOSE": "0", "PYKEOPS_VERBOSE": "0", **os.environ}
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRIAL],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"a trial of it did not end ({type(error).__name__})"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"{SIGNAL} {-done.returncode} ended a trial of it, as where CUDA's libraries do not fit each other"
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return f"a trial of it failed: {said[-1] if said else f'exit code {done.returncode}'}"


def _setting() -> str:
    """Name what the answer depends on."""
    parts = [sys.version, torch.__version__, str(torch.version.cuda), torch.cuda.get_device_name()]
    parts += [importlib.metadata.version(name) for name in ("pykeops", "keopscore")]
    parts += [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH", "LD_LIBRARY_PATH", "CXX")]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
