"""CUDA's run-time compiler, the one that torch's CUDA wheels bring; what it made is kept in the user's cache.

Nobody needs a toolkit or a host compiler: NVRTC turns our kernels into machine code of the GPU at hand in a second or
two, once for each architecture, source and version of NVRTC.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otfew.transport import kept
from otfew.transport.errors import DeviceError

if TYPE_CHECKING:
    from otfew.transport.cuda.programs import Kernel

OPTIONS = ("-std=c++17", "-fmad=false")
"""Products are rounded before they are added: a GPU then computes the bits that the same source computes elsewhere."""


class Nvrtc:
    """The compiler behind a loaded library.

    Attributes:
        version: (major, minor) of CUDA.
        capabilities: Architectures that it compiles for, such as 90 for compute capability 9.0, ascending.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self._check(library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        self._check(library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
        capabilities = (ctypes.c_int * count.value)()
        self._check(library.nvrtcGetSupportedArchs(capabilities))
        self.version = (major.value, minor.value)
        self.capabilities = tuple(sorted(capabilities))

    def target(self, capability: int) -> str:
        """Name what to compile for: the architecture, or what the driver finishes where that is too new to be known.

        Raises:
            DeviceError: It is older than all that the compiler knows.
        """
        if capability in self.capabilities:
            return f"sm_{capability}"
        older = [known for known in self.capabilities if known < capability]
        if not older:
            raise DeviceError(f"{self} no longer compiles for compute capability {capability // 10}.{capability % 10}")
        return f"compute_{older[-1]}"

    def compile(self, source: str, name: str, target: str) -> bytes:
        """Compile one translation unit: machine code for ``sm_`` targets, PTX for ``compute_`` ones.

        Raises:
            DeviceError: It does not compile; the message quotes the compiler's first error.
        """
        library, program = self._library, ctypes.c_void_p()
        created = library.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), f"{name}.cu".encode(), 0, None, None
        )
        self._check(created)
        try:
            options = [option.encode() for option in (f"-arch={target}", *OPTIONS)]
            ended = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
            if ended:
                log = self._read(program, "ProgramLog").rstrip(b"\0").decode(errors="replace").splitlines()
                first = next((line for line in log if "error" in line), "".join(log[:1]))
                raise DeviceError(
                    f"{self} does not compile otfew's {name} for {target} ({self._said(ended)}: {first}); "
                    "please report this"
                )
            return self._read(program, "CUBIN" if target.startswith("sm_") else "PTX")
        finally:
            library.nvrtcDestroyProgram(ctypes.byref(program))

    def _read(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        content = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, content))
        return content.raw

    def _check(self, ended: int) -> None:
        if ended:
            raise DeviceError(f"CUDA's run-time compiler (NVRTC) failed: {self._said(ended)}")

    def _said(self, ended: int) -> str:
        return (self._library.nvrtcGetErrorString(ended) or b"unknown error").decode()

    def __str__(self) -> str:
        return f"NVRTC {self.version[0]}.{self.version[1]}"


def compiled(compiler: Nvrtc, kernel: Kernel, capability: int) -> bytes:
    """Return a kernel for a GPU, from the user's cache or else compiled, which stderr is told.

    A damaged file is compiled anew, as is one of another source; several processes may do the same at once.

    Args:
        compiler: For what is not kept.
        kernel: What to compile.
        capability: Of the GPU, such as 90.

    Raises:
        DeviceError: It does not compile.
    """
    target = compiler.target(capability)
    home = kept.home()
    folder = None if home is None else home / "cuda"
    version = f"{compiler.version[0]}.{compiler.version[1]}"
    stamp = hashlib.sha256(repr((kernel.digest, OPTIONS)).encode()).digest()
    # The source is not in the name: code of a former release is overwritten.
    path = None if folder is None else folder / f"{kernel.name}.{target}.nvrtc-{version}"
    if path is not None and (content := kept.load(path, stamp)) is not None:
        return content
    keeps = folder is not None and kept.writable(folder)
    once = "; this happens once, later runs load it" * keeps
    sys.stderr.write(f"otfew: compiling {kernel.name} for the GPU ({target}){once}\n")
    content = compiler.compile(kernel.source, kernel.name, target)
    if path is not None and keeps:
        kept.save(path, content, stamp)
    return content


def find(cuda: str) -> Nvrtc:
    """Load the NVRTC that a torch for this version of CUDA comes with, else the system's.

    Args:
        cuda: As ``torch.version.cuda``, such as "13.0".

    Raises:
        DeviceError: There is none; the message says what to install.
    """
    major = cuda.partition(".")[0]
    for name in _names(major, _site(), sys.platform == "win32"):
        try:
            found = Nvrtc(_load(name))
            # It may load and yet not find what it needs to compile.
            found.compile('extern "C" __global__ void probe() {}', "probe", f"sm_{found.capabilities[-1]}")
        except (OSError, AttributeError, DeviceError):
            continue
        # What a later one makes, the driver that serves this torch might not load.
        if found.version[0] <= int(major):
            return found
    raise DeviceError(
        "CUDA's run-time compiler (NVRTC), which torch's CUDA wheels bring, is not installed or does not work: "
        f"pip install {_wheel(major)}"
    )


def _load(name: str) -> ctypes.CDLL:
    """Load a library of NVRTC's by its path or name.

    It opens its builtins by their name alone, and those of a wheel do not lie where the loader looks: what is loaded
    already is found all the same.
    """
    for builtins in sorted(Path(name).parent.glob("libnvrtc-builtins.so.*")) if Path(name).is_absolute() else ():
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(builtins))
    return ctypes.CDLL(name)


def _wheel(major: str) -> str:
    return f"nvidia-cuda-nvrtc-cu{major}" if int(major) < 13 else f"'nvidia-cuda-nvrtc=={major}.*'"


def _site() -> Iterator[tuple[str, Path]]:
    """Folders to look in, as ("nvidia" or "torch", folder)."""
    for package in ("nvidia", "torch"):
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            yield package, Path(folder)


def _names(major: str, site: Iterable[tuple[str, Path]], windows: bool) -> Iterator[str]:
    """What to ask the loader for, the likeliest first."""
    pattern = f"nvrtc64_{major}*_0.dll" if windows else f"libnvrtc*.so.{major}*"
    libraries = "bin/x86_64", "bin"
    for package, folder in site:
        if package == "torch":
            places = ["lib"]
        else:
            places = [
                f"{part}/{x}" for part in (f"cu{major}", "cuda_nvrtc") for x in (libraries if windows else ["lib"])
            ]
        for place in places:
            # What NVRTC itself loads has a name like its own; so has a second build, which does not find what it loads.
            others = ("builtins", ".alt.")
            found = sorted((folder / place).glob(pattern))
            yield from (str(path) for path in found if not any(other in path.name for other in others))
    if not windows:
        # Loaded by torch already, or where the loader looks.
        yield f"libnvrtc.so.{major}"
    system = ctypes.util.find_library("nvrtc")
    if system is not None:
        yield system
