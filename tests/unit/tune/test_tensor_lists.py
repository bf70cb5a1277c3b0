"""Lists of tensors of any kind are copied in place."""

import pytest
import torch

from fitkit.tune.tensor_lists import copy_


def test_values_come_into_the_very_tensors_also_into_weights():
    kinds = (torch.float32, torch.bfloat16, torch.complex64, torch.int64, torch.uint32, torch.bool)
    tensors = [torch.nn.Parameter(torch.zeros(2, 3)), torch.zeros(3, 2).t(), torch.empty(0)]
    tensors += [torch.zeros((), dtype=kind) for kind in kinds]
    others = [torch.full(t.shape, 1, dtype=t.dtype) for t in tensors]
    places = [t.data_ptr() for t in tensors]
    copy_(tensors, others)
    assert all(map(torch.equal, tensors, others))
    assert [t.data_ptr() for t in tensors] == places
    assert tensors[0].requires_grad  # and nothing has been added to a graph
    assert tensors[0].is_leaf


def test_the_dtype_stays_that_of_the_target():
    target = torch.zeros(2)
    copy_([target], [torch.tensor([0.5, 2.0], dtype=torch.float64)])
    assert target.tolist() == [0.5, 2.0]
    assert target.dtype == torch.float32


def test_lists_of_two_lengths_are_refused_and_empty_ones_are_nothing_to_do():
    copy_([], [])
    with pytest.raises(RuntimeError, match="same"):
        copy_([torch.zeros(1)], [torch.zeros(1), torch.zeros(1)])
