"""Compiled steps take denormal numbers for zero, and nobody else does."""

import pytest
import torch

from fitkit.record.backends import inductor


def is_flushed():
    return bool((torch.tensor([1e-39]) * 1.0 == 0).item())


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="the processor cannot")
def test_they_are_flushed_inside_and_nowhere_else():
    assert not is_flushed()
    with inductor.flushed_denormals():
        assert is_flushed()
    assert not is_flushed()
    with pytest.raises(ValueError, match="a kernel"), inductor.flushed_denormals():
        raise ValueError("a kernel")
    assert not is_flushed()


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="the processor cannot")
def test_a_program_that_flushes_all_the_time_goes_on_to_do_so():
    torch.set_flush_denormal(True)
    try:
        with inductor.flushed_denormals():
            assert is_flushed()
        assert is_flushed()
    finally:
        torch.set_flush_denormal(False)
