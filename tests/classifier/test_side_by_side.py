"""Candidates side by side: each in one thread, in the caller's modes, and none keeps another from its end."""

import threading

import pytest
import torch

from otfew.classifier.side_by_side import side_by_side
from otfew.errors import UserError


@pytest.mark.parametrize("threads", [1, 3])
def test_each_has_one_thread_and_the_callers_modes(threads):
    seen = []

    def task():
        seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled(), torch.is_grad_enabled()))

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            assert side_by_side([task] * 5, threads) == [None] * 5
        with torch.no_grad():
            side_by_side([task], threads)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    own = 1 if threads > 1 else 2
    # A single task is not worth a pool.
    assert seen == [(own, True, False)] * 5 + [(2, False, False)]


def test_as_many_at_a_time_as_there_are_threads():
    meeting = threading.Barrier(3, timeout=60)
    assert side_by_side([lambda: meeting.wait() and None] * 3, 3) == [None] * 3


def test_an_error_stays_with_its_task():
    def refuse():
        raise UserError("no.")

    done = []
    found = side_by_side([lambda: done.append(1), refuse, lambda: done.append(3)], 2)
    assert [str(error) for error in found if error] == ["no."]
    assert found[1] is not None
    assert sorted(done) == [1, 3]
    with pytest.raises(ZeroDivisionError):
        side_by_side([lambda: None, lambda: 1 / 0], 2)
