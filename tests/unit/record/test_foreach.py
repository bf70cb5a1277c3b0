"""Operations on lists of tensors that the compiler has no kernel for."""

import math

import pytest
import torch

from fitkit.record import trace
from fitkit.record.backends.inductor import inductor
from fitkit.record.passes import functionalize
from fitkit.record.passes.foreach import FOREACH

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


def norms_of(order):
    return lambda batch: [torch.stack(torch._foreach_norm(list(batch), order))]


@pytest.mark.parametrize("order", [1, 2, math.inf])
def test_compiled_norms_are_right(order):
    torch.manual_seed(0)
    tensors = [torch.randn(700, 64), torch.randn(7), torch.zeros(3)]
    step = trace(norms_of(order), tensors)
    (compiled,) = inductor(step, tensors)(tensors)
    (exact,) = norms_of(order)([tensor.double() for tensor in tensors])
    assert compiled.tolist() == pytest.approx(exact.tolist(), rel=1e-6)
    tensors[1][0] = math.nan
    (compiled,) = inductor(step, tensors)(tensors)
    assert compiled.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize(("decompositions", "left"), [({}, 1), (FOREACH, 0)])
def test_they_are_left_to_no_kernel_of_lists(decompositions, left):
    tensors = [torch.randn(7), torch.randn(3)]
    step = trace(norms_of(2), tensors)
    functionalize(step, tensors, decompositions=decompositions)
    targets = [str(node.target) for node in step.module.graph.nodes]
    assert sum("_foreach_norm" in target for target in targets) == left


def test_those_of_a_device_keep_theirs():
    [norm] = FOREACH.values()
    assert norm([torch.ones(3, device="meta")]) is NotImplemented
