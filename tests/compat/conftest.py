"""Random problems, as arrays of numpy or of torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

LIBRARIES = {
    "numpy64": np.asarray,
    "numpy32": lambda x: np.asarray(x, np.float32),
    "torch64": lambda x: torch.tensor(np.asarray(x)),
    "torch32": lambda x: torch.tensor(np.asarray(x), dtype=torch.float32),
}


@pytest.fixture(params=LIBRARIES, ids=str)
def library(request):
    """Turn an array into one of a library and dtype."""
    return LIBRARIES[request.param]


@pytest.fixture
def random_problem():
    """Make weights of total 1 and costs in general position: one optimal plan, potentials up to a constant."""

    def make(seed, n=7, m=9):
        rng = np.random.default_rng(seed)
        return rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m)), rng.random((n, m))

    return make
