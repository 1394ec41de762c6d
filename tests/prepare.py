"""What `make test` does before its tests, on all cores: types are checked, and kernels compiled that many tests share.

The workers of the tests would compile each of those for themselves, and mypy would leave the other cores idle.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

EXACT = [(size, warm) for warm in (False, True) for size in (8, 100, 300)]
"""Problems, by their side and whether they start warm, that need a form each of the exact solver's kernel."""


def check_types() -> str:
    """Run mypy; returns what it has against the code."""
    done = subprocess.run([sys.executable, "-m", "mypy"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def compile_exact(size: int, warm: bool) -> str:
    """Compile the exact solver's kernel for problems of a size, where that was not done before."""
    from otfew.transport.simplex.kernel import kernel_for

    kernel_for(size, size, warm)
    return ""


def main() -> None:
    """Do all of it; ends with what mypy said, where it was anything."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        waiting = [pool.submit(check_types), *(pool.submit(compile_exact, *form) for form in EXACT)]
        found = [each.result() for each in waiting]
    if any(found):
        sys.exit("".join(found))


if __name__ == "__main__":
    main()
