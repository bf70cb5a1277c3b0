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


def test_all_rows_are_taken_once(buffer):
    for x in range(5):
        assert put(buffer, x, {"loss": torch.tensor(float(x))}) == x + 1
    assert column(buffer, "loss") == {x: float(x) for x in range(5)}
    assert len(buffer) == 0
    assert buffer.take() == []


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
    assert [row.tensor.untyped_storage().nbytes() for row in buffer._rows] == [4, 4, 4]
    assert column(buffer, "part") == {0: 0.0, 1: 1.0, 2: 2.0}


def test_what_is_changed_after_it_was_logged_was_copied(buffer):
    values = [torch.tensor(float(x)) for x in range(4)]
    for x, value in enumerate(values):
        put(buffer, x, {"a": value})
    values[2] += 1
    assert column(buffer, "a") == {0: 0.0, 1: 1.0, 2: 2.0, 3: 3.0}


def test_tensors_and_numbers_of_all_kinds_stand_side_by_side(buffer):
    rate = torch.tensor(0.5)
    put(buffer, 0, {"a": torch.tensor(3), "b": 4.0}, rates={"lr": 0.25})
    put(buffer, 1, {"a": torch.tensor(1.5, dtype=torch.float64), "b": 5}, rates={"lr": rate})
    put(buffer, 2, {"a": torch.tensor(True), "c": torch.tensor(9.0)}, rates={"lr": rate})
    first, second, third = buffer.take()
    assert (first.names, first.xs, first.walls_s) == (("a", "b", "lr"), [0], [0.0])
    assert first.values.tolist() == [[3, 4, 0.25]]
    assert (second.names, second.xs, second.values.tolist()) == (first.names, [1], [[1.5, 5, 0.5]])
    assert (third.names, third.values.tolist()) == (("a", "c", "lr"), [[1, 9, 0.5]])


def test_tensors_made_for_inference_are_copied(buffer):
    with torch.inference_mode():
        values = [torch.tensor(float(x)) for x in range(3)]
    for x, value in enumerate(values):
        put(buffer, x, {"a": value})
    assert column(buffer, "a") == {0: 0.0, 1: 1.0, 2: 2.0}
