"""Which kernel solves what, from which text."""

from __future__ import annotations

import pytest
import torch

from otfew.transport.cuda import programs

F32, F64 = torch.float32, torch.float64
LEAST_ROOM = 99 * 1024
"""Bytes of shared memory that a block may have on any GPU from sm_80 on."""


def test_kernels_are_told_apart_by_slots_and_dtype():
    assert programs.exact(32, 32, F32).name == programs.exact(1, 17, F32).name == "exact_1_1_f32"
    assert programs.exact(33, 64, F64).name == "exact_2_2_f64"
    assert programs.exact(65, 32, F64).name == "exact_4_1_f64"
    with pytest.raises(ValueError, match="up to 128 rows and columns, got 129"):
        programs.exact(129, 3, F32)
    with pytest.raises(ValueError, match="got 0"):
        programs.slots(0)


def test_each_name_means_one_text():
    kernels = programs.all_kernels()
    assert len({kernel.name for kernel in kernels}) == len({kernel.digest for kernel in kernels}) == len(kernels)
    for n, m in ((3, 4), (32, 32)):
        assert programs.exact(n, m, F32).digest == programs.exact(20, 20, F32).digest


@pytest.mark.parametrize("kernel", programs.all_kernels(), ids=lambda kernel: kernel.name)
def test_sources_stand_by_themselves(kernel):
    assert "#include" not in kernel.source
    assert "#pragma once" not in kernel.source
    assert kernel.source.endswith(kernel.instance + "\n")
    assert kernel.name in kernel.instance


@pytest.mark.parametrize("kernel", programs.all_kernels(), ids=lambda kernel: kernel.name)
def test_a_warp_fits_every_gpu(kernel):
    assert 0 <= kernel.shared_bytes <= LEAST_ROOM
    assert kernel.shared_bytes % 16 == 0
