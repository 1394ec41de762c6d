"""Finding torch's compiler, what it is asked for, how what it made is kept; and the compiler itself, if installed."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from otfew.transport.cuda import nvrtc
from otfew.transport.errors import DeviceError

CODE = {
    "CUBIN": b"\x7fELF\0code",
    "PTX": b".version 8.0\0",
    "ProgramLog": b"in k.cu\nk.cu(1): error: no such thing\n\0",
}


@dataclass(frozen=True)
class Source:
    """As much of a kernel as is compiled."""

    name: str = "doubled"
    source: str = 'extern "C" __global__ void doubled(double* x) { x[threadIdx.x] *= 2; }'
    digest: str = "digest of the source"


class Library:
    """An NVRTC in Python; a function ends with 0, or with what ``fails`` has for it."""

    def __init__(self, version=(13, 0), capabilities=(120, 75, 80, 90), fails=None):
        self.version, self.capabilities, self.fails = version, capabilities, fails or {}
        self.programs, self.options, self.open = [], [], 0

    def __getattr__(self, name):
        if not name.startswith("nvrtc"):
            raise AttributeError(name)
        # A partial takes the types that ctypes' functions are given.
        return self.__dict__.setdefault(name, functools.partial(self.call, name.removeprefix("nvrtc")))

    def call(self, name, *arguments):
        if name in self.fails:
            return self.fails[name]
        if name == "Version":
            arguments[0]._obj.value, arguments[1]._obj.value = self.version
        elif name == "GetErrorString":
            return f"error {arguments[0]}".encode()
        elif name == "GetNumSupportedArchs":
            arguments[0]._obj.value = len(self.capabilities)
        elif name == "GetSupportedArchs":
            arguments[0][:] = self.capabilities
        elif name == "CreateProgram":
            handle, source, file, *headers = arguments
            assert headers == [0, None, None]
            self.programs.append((source.decode(), file.decode()))
            handle._obj.value = (1 << 40) + len(self.programs)
            self.open += 1
        elif name == "DestroyProgram":
            self.open -= 1
        elif name == "CompileProgram":
            program, count, options = arguments
            assert program.value == (1 << 40) + len(self.programs)
            self.options.append([option.decode() for option in options[:count]])
        else:
            program, out = arguments
            assert program.value == (1 << 40) + len(self.programs)
            content = CODE[name.removeprefix("Get").removesuffix("Size")]
            if name.endswith("Size"):
                out._obj.value = len(content)
            else:
                ctypes.memmove(out, content, len(content))
        return 0


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's cache, for this test alone."""
    monkeypatch.setattr(nvrtc.kept, "home", lambda: tmp_path / "compiled")
    return tmp_path / "compiled" / "cuda"


def test_an_architecture_that_it_knows_is_compiled_to_machine_code():
    library = Library()
    compiler = nvrtc.Nvrtc(library)
    assert (compiler.version, compiler.capabilities) == ((13, 0), (75, 80, 90, 120))
    assert compiler.compile("source", "k", compiler.target(90)) == CODE["CUBIN"]
    assert library.programs == [("source", "k.cu")]
    assert library.options == [["-arch=sm_90", "-std=c++17", "-fmad=false"]]
    assert library.open == 0


@pytest.mark.parametrize(("capability", "target"), [(103, "compute_90"), (121, "compute_120"), (89, "compute_80")])
def test_one_that_is_too_new_is_left_to_the_driver_to_finish(capability, target):
    library = Library()
    compiler = nvrtc.Nvrtc(library)
    assert compiler.target(capability) == target
    assert compiler.compile("source", "k", target) == CODE["PTX"]
    assert library.options[0][0] == f"-arch={target}"


def test_one_that_is_too_old_is_refused():
    with pytest.raises(DeviceError, match=r"NVRTC 13\.0 no longer compiles for compute capability 7\.0"):
        nvrtc.Nvrtc(Library()).target(70)


def test_what_does_not_compile_is_said_in_one_line():
    library = Library(fails={"CompileProgram": 6})
    with pytest.raises(DeviceError, match=r"^NVRTC 13\.0 .* k for sm_90 \(error 6: k\.cu\(1\): error: no such thing\)"):
        nvrtc.Nvrtc(library).compile("source", "k", "sm_90")
    assert library.open == 0


def test_it_is_compiled_once_and_said_on_stderr(home, capsys):
    library = Library()
    for _ in range(2):
        assert nvrtc.compiled(nvrtc.Nvrtc(library), Source(), 90) == CODE["CUBIN"]
    assert len(library.programs) == 1
    said = capsys.readouterr().err
    assert said == "otfew: compiling doubled for the GPU (sm_90); this happens once, later runs load it\n"
    assert [path.name for path in home.iterdir()] == ["doubled.sm_90.nvrtc-13.0"]


@pytest.mark.parametrize(
    ("library", "source", "capability"),
    [
        (Library(version=(13, 1)), Source(), 90),
        (Library(), Source(name="other"), 90),
        (Library(), Source(digest="of another release"), 90),
        (Library(), Source(), 80),
    ],
    ids=["version", "name", "source", "architecture"],
)
def test_it_is_compiled_anew_for_another(home, library, source, capability):
    nvrtc.compiled(nvrtc.Nvrtc(Library()), Source(), 90)
    assert library.programs == []
    nvrtc.compiled(nvrtc.Nvrtc(library), source, capability)
    assert len(library.programs) == 1
    library.programs.clear()


def test_code_of_another_release_is_overwritten(home):
    for digest in ("old", "new"):
        nvrtc.compiled(nvrtc.Nvrtc(Library()), Source(digest=digest), 90)
    assert len(list(home.iterdir())) == 1


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: b"x" + content])
def test_a_damaged_file_is_compiled_anew(home, damage):
    library = Library()
    nvrtc.compiled(nvrtc.Nvrtc(library), Source(), 90)
    (path,) = home.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert nvrtc.compiled(nvrtc.Nvrtc(library), Source(), 90) == CODE["CUBIN"]
    assert len(library.programs) == 2
    assert path.read_bytes() == whole


def test_many_at_once_leave_one_whole_file(home):
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: nvrtc.compiled(nvrtc.Nvrtc(Library()), Source(), 90), range(32)))
    assert set(codes) == {CODE["CUBIN"]}
    assert [path.name for path in home.iterdir()] == ["doubled.sm_90.nvrtc-13.0"]


@pytest.mark.parametrize("homeless", [True, False])
def test_without_a_place_to_keep_it_each_process_compiles(tmp_path, monkeypatch, capsys, homeless):
    (tmp_path / "file").touch()
    monkeypatch.setattr(nvrtc.kept, "home", lambda: None if homeless else tmp_path / "file")
    library = Library()
    for _ in range(2):
        assert nvrtc.compiled(nvrtc.Nvrtc(library), Source(), 90) == CODE["CUBIN"]
    assert len(library.programs) == 2
    assert capsys.readouterr().err == "otfew: compiling doubled for the GPU (sm_90)\n" * 2


def touched(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_the_compiler_of_torchs_cuda_wheels_comes_first(tmp_path):
    nvidia = touched(
        tmp_path / "nvidia",
        "cu13/lib/libnvrtc.so.13",
        "cu13/lib/libnvrtc-builtins.so.13.0",
        "cu13/lib/libnvrtc.alt.so.13",
        "cu13/lib/libnvrtc-builtins.alt.so.13.0",
        "cuda_nvrtc/lib/libnvrtc.so.12",
        "cu13/bin/x86_64/nvrtc64_130_0.dll",
    )
    torch = touched(tmp_path / "torch", "lib/libnvrtc-builtins.so.13.0", "lib/libtorch.so", "lib/nvrtc64_120_0.dll")
    site = [("nvidia", nvidia), ("torch", torch)]

    def first(major, windows=False):
        return list(nvrtc._names(major, site, windows))

    assert first("13")[:2] == [str(nvidia / "cu13/lib/libnvrtc.so.13"), "libnvrtc.so.13"]
    assert first("12")[:2] == [str(nvidia / "cuda_nvrtc/lib/libnvrtc.so.12"), "libnvrtc.so.12"]
    assert first("13", windows=True)[:1] == [str(nvidia / "cu13/bin/x86_64/nvrtc64_130_0.dll")]
    assert first("12", windows=True)[:1] == [str(torch / "lib/nvrtc64_120_0.dll")]


@pytest.fixture
def loads(monkeypatch):
    """Say which libraries there are."""

    def set_(**libraries):
        def load(name):
            if name.replace(".", "_") not in libraries:
                raise OSError("not found")
            return libraries[name.replace(".", "_")]

        monkeypatch.setattr(nvrtc.ctypes, "CDLL", load)
        monkeypatch.setattr(nvrtc.ctypes.util, "find_library", lambda name: f"lib{name}.of.the.system")
        monkeypatch.setattr(nvrtc, "_site", lambda: iter(()))

    return set_


def test_the_systems_compiler_is_the_last_resort_unless_it_is_too_new(loads):
    loads(libnvrtc_of_the_system=Library(version=(12, 4)))
    assert nvrtc.find("13.0").version == (12, 4)
    with pytest.raises(DeviceError, match=r"not installed or does not work: pip install nvidia-cuda-nvrtc-cu11$"):
        nvrtc.find("11.8")


def test_a_library_that_is_none_is_passed_over(loads):
    loads(libnvrtc_so_13=object(), libnvrtc_of_the_system=Library())
    assert nvrtc.find("13.0").version == (13, 0)


def test_one_that_cannot_compile_is_passed_over(loads):
    loads(libnvrtc_so_13=Library(fails={"CompileProgram": 7}), libnvrtc_of_the_system=Library(version=(12, 9)))
    assert nvrtc.find("13.0").version == (12, 9)


def test_without_any_it_says_what_to_install(loads):
    loads()
    with pytest.raises(DeviceError, match=r"not installed or does not work: pip install 'nvidia-cuda-nvrtc==13\.\*'$"):
        nvrtc.find("13.0")


def real():
    """The compiler that is installed, if one is."""
    for major in ("13", "12"):
        for name in nvrtc._names(major, nvrtc._site(), sys.platform == "win32"):
            if Path(name).is_file():
                return nvrtc.find(f"{major}.0")
    return None


@pytest.mark.skipif(real() is None, reason="nvidia-cuda-nvrtc is not installed")
def test_the_real_compiler_makes_machine_code_and_what_the_driver_finishes(home):
    compiler = real()
    assert compiler.version[0] in (12, 13)
    newest = compiler.capabilities[-1]
    assert nvrtc.compiled(compiler, Source(), 90).startswith(b"\x7fELF")
    text = nvrtc.compiled(compiler, Source(), newest + 10)
    assert f".target sm_{newest}".encode() in text
    assert text.endswith(b"\0")
    with pytest.raises(DeviceError, match=r"k for sm_90 \(NVRTC_ERROR_COMPILATION: k\.cu\(1\): error: "):
        compiler.compile("nonsense", "k", "sm_90")


@pytest.mark.skipif(real() is None, reason="nvidia-cuda-nvrtc is not installed")
def test_several_processes_compile_at_once(tmp_path):
    script = f"""
import hashlib, pathlib, sys, types
sys.path[:0] = sys.argv[2:]
from otfew.transport.cuda import nvrtc
nvrtc.kept.home = lambda: pathlib.Path(sys.argv[1])
kernel = types.SimpleNamespace(**{vars(Source())!r})
compiler = nvrtc.find("{real().version[0]}.0")
print(hashlib.sha256(nvrtc.compiled(compiler, kernel, 90)).hexdigest())
"""
    command = [sys.executable, "-c", script, str(tmp_path), *sys.path]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = {process.communicate(timeout=120)[0] for process in running}
    assert len(printed) == 1
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(list((tmp_path / "cuda").iterdir())) == 1


def test_builtins_are_loaded_first_where_they_lie_beside(tmp_path, monkeypatch):
    folder = touched(tmp_path, "libnvrtc.so.13", "libnvrtc-builtins.so.13.0", "libnvrtc-builtins.alt.so.13.0")
    loaded = []
    monkeypatch.setattr(nvrtc.ctypes, "CDLL", loaded.append)
    nvrtc._load(str(folder / "libnvrtc.so.13"))
    assert loaded == [str(folder / "libnvrtc-builtins.so.13.0"), str(folder / "libnvrtc.so.13")]
    nvrtc._load("libnvrtc.so.13")
    assert loaded[2:] == ["libnvrtc.so.13"]
