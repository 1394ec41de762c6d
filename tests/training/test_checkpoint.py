"""States of trainings that can't be read now are not called damaged: nobody is to delete them."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from otfew.errors import UserError
from otfew.training import checkpoint


def test_too_many_open_files_are_no_damage(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    checkpoint.save_state(path, {"weights": torch.ones(3)})

    def fail(*_, **__):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "open_regular", fail)
        with pytest.raises(UserError, match="too many open files") as caught:
            checkpoint.load_state(path)
    assert "delete" not in str(caught.value)
    assert torch.equal((checkpoint.load_state(path) or {})["weights"], torch.ones(3))
