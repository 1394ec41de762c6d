"""Build the wheel and the archive of sources, check both, and run what a user runs first in an environment of its own.

``tox run -e wheel`` starts it. The environment holds the wheel and its required libraries alone, later the extra
``pretrained`` as well; commands run in an empty folder, so that nothing of the checkout can be imported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LARGEST = {".whl": 5_000_000, ".gz": 8_000_000}
"""Bytes of what is built: weights other than those of the glyphs would be seen at once."""
PHOTOS = ROOT / "examples" / "photos"
SOLVE = """
import numpy, otfew
cost = numpy.random.default_rng(0).random((10, 25, 25))
result = otfew.solve(cost)
assert all(result.status == otfew.Status.OPTIMAL), result
assert abs(result.gap).max() < 1e-9, result.gap
print(result)
"""


def run(*words: str | Path, cwd: Path) -> str:
    """Run a command, say what time it took, and return what it printed; one that fails ends all."""
    started, before = time.perf_counter(), os.times()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTFEW_", "PYTHON"))}
    environment |= {"OTFEW_CACHE": str(cwd / "cache"), "NUMBA_CACHE_DIR": str(cwd / "compiled")}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    shown = " ".join(Path(word).name if Path(word).is_absolute() else str(word) for word in words)
    after = os.times()
    worked = after.children_user + after.children_system - before.children_user - before.children_system
    sys.stdout.write(f"{time.perf_counter() - started:6.0f} s, CPU {worked:4.0f} s  {' '.join(shown.split())[:100]}\n")
    sys.stdout.flush()
    if done.returncode:
        sys.exit(f"{done.stdout}\nexit code {done.returncode}")
    return done.stdout


def built(folder: Path) -> Path:
    """Build both archives, check what they say of themselves and how large they are, and return the wheel."""
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    archives = sorted(folder.iterdir())
    run(sys.executable, "-m", "twine", "check", "--strict", *archives, cwd=folder)
    for archive in archives:
        size = archive.stat().st_size
        sys.stdout.write(f"{size / 1e6:7.2f} MB {archive.name}\n")
        if size > LARGEST[archive.suffix]:
            sys.exit(f"{archive.name} has more than {LARGEST[archive.suffix] / 1e6} MB")
    (wheel,) = folder.glob("*.whl")
    return wheel


def photos(folder: Path) -> None:
    """Copy two kinds of labelled photos and three new ones."""
    for kind in ("Garlic", "Kiwi"):
        shutil.copytree(PHOTOS / "labelled" / kind, folder / "labelled" / kind)
    (folder / "new").mkdir()
    for name in ("Garlic-1.jpg", "Kiwi-1.jpg", "other-Lime-1.jpg"):
        shutil.copy(PHOTOS / "new" / name, folder / "new")


def expect(text: str, *parts: str) -> None:
    """End unless all parts stand in what was printed."""
    for part in parts:
        if part not in text:
            sys.exit(f"{text}\n{part!r} is not in it")


def used(wheel: Path, folder: Path) -> None:
    """Install a wheel into an environment of its own, and run what a user runs first."""
    venv.create(folder / "env", with_pip=True)
    scripts = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    python, otfew = scripts / "python", scripts / "otfew"

    def install(*what: str) -> None:
        quiet = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile")
        run(python, *quiet, "-c", ROOT / "constraints.txt", *what, cwd=folder)

    def ours(*words: str) -> str:
        return run(otfew, *words, cwd=folder)

    install(str(wheel))
    version = wheel.name.split("-")[1]
    expect(ours("--version"), f"otfew {version}\n")
    expect(run(python, "-c", SOLVE, cwd=folder), "10")
    expect(ours("check", "exact", "deepemd"), "8 of 8 laws hold", "0 fail")
    expect(ours("compare", "--methods", "deepemd", "chamfer", "cosine-centroid", "--episodes", "20"), "deepemd")
    photos(folder)
    install(f"{wheel}[pretrained]")
    expect(ours("classify", "labelled", "new", "--to", "answers.csv", "--report", "answers.html"), "answers.csv")
    answers = (folder / "answers.csv").read_text(encoding="utf-8").splitlines()
    if len(answers) != 4 or "Garlic" not in answers[1] or "Kiwi" not in answers[2]:
        sys.exit(f"wrong answers: {answers}")


def main(arguments: Sequence[str]) -> None:
    """Do all of it in the folder that is given, which is emptied first."""
    folder = Path(arguments[0]).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("dist", "bare"):
        (folder / name).mkdir(parents=True)
    used(built(folder / "dist"), folder / "bare")


if __name__ == "__main__":
    main(sys.argv[1:])
