"""NVIDIA's compute-sanitizer on every kernel: memory out of bounds, races in shared memory, misused barriers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from otfew.transport.cuda.machines import machine_for

from . import sanitized

SCRIPT = Path(sanitized.__file__)
TOOLS = ("memcheck", "racecheck", "synccheck")
FOUND = 77
"""Exit code where a tool found something."""


def words(tool, sanitizer="compute-sanitizer", ours_only=True):
    """A tool on the script, which looks at our kernels alone where it can be told so: that is much quicker."""
    ours = [
        word for name in ("exact", "plan", "entropic", "sfc") for word in ("--kernel-regex", f"kns={name}")
    ] * ours_only
    called = [sanitizer, "--tool", tool, "--error-exitcode", str(FOUND), "--print-limit", "5", *ours]
    return [*called, sys.executable, str(SCRIPT)]


def sanitize(tool, sanitizer="compute-sanitizer"):
    """Run a tool; returns its exit code and what it said."""
    # Else torch's allocator would hide what lies beyond a tensor behind its neighbour.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    for ours_only in (True, False):
        called = words(tool, sanitizer, ours_only)
        done = subprocess.run(called, env=environment, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        # Versions differ in how they are told about kernels.
        if "unrecognised option" not in said and "unrecognized option" not in said:
            break
    return done.returncode, said[-3000:]


@pytest.fixture(scope="module")
def running():
    """What the tools come to; they are at work side by side."""
    with ThreadPoolExecutor(len(TOOLS)) as pool:
        yield {tool: pool.submit(sanitize, tool) for tool in TOOLS}


@pytest.mark.cuda
@pytest.mark.usefixtures("toolkit")
@pytest.mark.parametrize("tool", TOOLS)
def test_no_tool_finds_anything(tool, request):
    code, said = request.getfixturevalue("running")[tool].result()
    assert code == 0, said


@pytest.fixture
def toolkit():
    """Skip where the toolkit is not installed."""
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("compute-sanitizer, of CUDA's toolkit, is not installed")


FAKE = """\
import subprocess, sys
if "--kernel-regex" in sys.argv and {strict}:
    print("unrecognised option --kernel-regex")
    sys.exit(1)
at = sys.argv.index("--error-exitcode")
print(sys.argv[2], "ERROR SUMMARY")
sys.exit(int(sys.argv[at + 1]) if sys.argv[2] == "racecheck" else 0)
"""


@pytest.mark.parametrize("strict", [True, False])
def test_what_a_tool_finds_is_told(strict, tmp_path):
    fake = tmp_path / "fake"
    fake.write_text(f"#!{sys.executable}\n{FAKE.format(strict=strict)}")
    fake.chmod(0o755)
    assert sanitize("memcheck", str(fake)) == (0, "memcheck ERROR SUMMARY\n")
    assert sanitize("racecheck", str(fake)) == (FOUND, "racecheck ERROR SUMMARY\n")


@pytest.mark.slow
def test_the_script_runs_every_kernel(place):
    """On the pretended device with fewer problems, of another size for each number of nodes a lane."""
    if not place.real and machine_for(place.device) is None:
        pytest.skip("there is no C++ compiler: kernels cannot run on the CPU")
    count, sides = place.all_or([(50, sanitized.SIDES)], [(2, (9, 33, 65))])[0]
    assert sanitized.main(place.device, count, sides) == set()
