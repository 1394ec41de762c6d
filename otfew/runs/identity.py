"""What a run depends on besides its protocol: the code."""

from __future__ import annotations

import ast
import hashlib
from importlib.util import find_spec
from pathlib import Path


def code_digest(*packages: str) -> str:
    """Digest the syntax trees of packages: comments and layout change nothing.

    Args:
        *packages: Names, as "otfew.training".
    """
    total = hashlib.sha256()
    for package in sorted(packages):
        found = find_spec(package)
        for folder in (found.submodule_search_locations or []) if found else []:
            for path in sorted(Path(folder).rglob("*.py")):
                total.update(f"{package}/{path.relative_to(folder).as_posix()}\n".encode())
                total.update(ast.dump(ast.parse(path.read_bytes())).encode())
    return total.hexdigest()
