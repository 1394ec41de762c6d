"""timm as it is, where it is installed: tox -e timm."""

from __future__ import annotations

import pytest

from .operators import declare

timm_missing = None
try:
    declare()
    import timm  # noqa: F401
except ImportError:
    timm_missing = "timm is not installed: tox -e timm"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip this folder's tests where timm is not installed."""
    if timm_missing:
        for item in items:
            if "tests/timm/" in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason=timm_missing))
