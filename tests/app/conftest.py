"""A page and a browser that shows it."""

from __future__ import annotations

import pytest

from otfew.app import Session


@pytest.fixture
def session():
    from .albums import fit  # skips where what the page is made with is not installed

    return Session(fit())


@pytest.fixture
def client(session):
    from .albums import connect

    return connect(session)
