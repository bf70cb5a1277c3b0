import math

import pytest
import torch

from fitkit.watch.step_buffer import StepBuffer


@pytest.fixture
def buffer():
    return StepBuffer(torch.device("cpu"))


def put(buffer, x, values, *, rates=None, samples=1):
    """One update; what is in `values` later is no matter."""
    buffer.hold(values, samples, (x, float(x), rates or {}))
    return buffer.settle()


def column(buffer, name):
    """{x: value} of all rows."""
    return {
        x: row[points.names.index(name)]
        for points in buffer.take()
        if name in points.names
        for x, row in zip(points.xs, points.values, strict=True)
    }


def test_what_was_computed_anew_is_kept_without_a_copy(buffer):
    losses = [torch.tensor(float(x)) for x in range(5)]
    for x, loss in enumerate(losses):
        assert put(buffer, x, {"loss": loss}) == x + 1
    held = [values["loss"] for _, values in buffer._rows]
    assert all(a is b for a, b in zip(held[2:], losses[2:], strict=True))  # the first two tell
    assert column(buffer, "loss") == dict(enumerate(map(float, losses)))
    assert len(buffer) == 0


def test_what_is_changed_in_place_is_copied(buffer):
    total = torch.zeros(())
    for x in range(5):
        put(buffer, x, {"total": total.add_(1)})
    assert column(buffer, "total") == {x: x + 1.0 for x in range(5)}


def test_memory_that_is_written_to_unnoticed_is_copied(buffer):
    total = torch.zeros(())
    for x in range(5):
        total.data += 1
        put(buffer, x, {"total": total.detach()})
    assert total._version == 0
    assert column(buffer, "total") == {x: x + 1.0 for x in range(5)}


def test_a_view_keeps_no_large_tensor_alive(buffer):
    for x in range(3):
        put(buffer, x, {"part": torch.full((1000,), float(x))[7].detach()})
    held = [values["part"].untyped_storage().nbytes() for _, values in buffer._rows]
    assert held == [4, 4, 4]
    assert column(buffer, "part") == {0: 0.0, 1: 1.0, 2: 2.0}


def test_a_value_changed_after_it_was_kept_is_not_known(buffer):
    values = [torch.tensor(float(x)) for x in range(4)]
    for x, value in enumerate(values):
        put(buffer, x, {"a": value})
    values[2] += 1
    found = column(buffer, "a")
    assert [found[x] for x in (0, 1, 3)] == [0, 1, 3]
    assert math.isnan(found[2])


def test_tensors_and_numbers_of_all_kinds_stand_side_by_side(buffer):
    rate = torch.tensor(0.5)
    put(buffer, 0, {"a": torch.tensor(3), "b": 4.0}, rates={"lr": 0.25})
    put(buffer, 1, {"a": torch.tensor(1.5, dtype=torch.float64), "b": 5}, rates={"lr": rate})
    put(buffer, 2, {"a": torch.tensor(True), "c": torch.tensor(9.0)}, rates={"lr": rate})
    first, second = buffer.take()
    assert (first.names, first.xs, first.walls_s) == (("a", "b", "lr"), (0, 1), (0.0, 1.0))
    assert first.values.tolist() == [[3, 4, 0.25], [1.5, 5, 0.5]]
    assert (second.names, second.values.tolist()) == (("a", "c", "lr"), [[1, 9, 0.5]])


def test_tensors_made_for_inference_are_copied(buffer):
    with torch.inference_mode():
        values = [torch.tensor(float(x)) for x in range(3)]
    for x, value in enumerate(values):
        put(buffer, x, {"a": value})
    assert column(buffer, "a") == {0: 0.0, 1: 1.0, 2: 2.0}
