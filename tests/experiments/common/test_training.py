"""Progress of trainings where nobody watches a bar."""

from __future__ import annotations

import io

from rich.console import Console

from otfew.experiments.common.training import Bars


def test_a_line_a_minute_where_output_is_a_pipe():
    out, now = io.StringIO(), [0.0]
    with Bars(Console(file=out, width=200), lambda: now[0]) as bars:
        job = bars.add_task("", total=600)
        for step in range(1, 601):
            now[0] += 1
            bars.update(job, completed=step, description=f"[red] epoch 1/1 loss {1 / step:.1f}")
    lines = out.getvalue().splitlines()
    assert [line.partition(" of ")[0].rpartition(" ")[2] for line in lines] == [str(61 + 60 * i) for i in range(9)]
    assert lines[0] == "[red] epoch 1/1 loss 0.0 61 of 600, about 9 min left"


def test_nothing_where_a_minute_is_not_over():
    out = io.StringIO()
    with Bars(Console(file=out), lambda: 0.0) as bars:
        job = bars.add_task("arms", total=3)
        for _ in range(3):
            bars.advance(job)
    assert out.getvalue() == ""
