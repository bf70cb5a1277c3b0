import pytest
import torch

from fitkit.loop.packed import Packed
from fitkit.watch.step_buffer import StepBuffer


def make_buffer(*rates):
    options = {"place": None, "clock": None, "rates": dict.fromkeys(rates)}
    return StepBuffer(torch.device("cpu"), **options)


@pytest.fixture
def buffer():
    return make_buffer()


def put(buffer, x, values, *, rates=(), samples=1, packed=None):
    """One update; what is in `values` later is no matter."""
    buffer._held = values, packed, samples, True, x, float(x), rates
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
    assert [row[4].untyped_storage().nbytes() for row in buffer._rows] == [4, 4, 4]
    assert column(buffer, "part") == {0: 0.0, 1: 1.0, 2: 2.0}


def test_what_is_changed_after_it_was_logged_was_copied(buffer):
    values = [torch.tensor(float(x)) for x in range(4)]
    for x, value in enumerate(values):
        put(buffer, x, {"a": value})
    values[2] += 1
    assert column(buffer, "a") == {0: 0.0, 1: 1.0, 2: 2.0, 3: 3.0}


def test_tensors_and_numbers_of_all_kinds_stand_side_by_side():
    buffer, rate = make_buffer("lr", "lr_d"), torch.tensor(0.5)
    put(buffer, 0, {"b": 4.0, "a": torch.tensor(3)}, rates=(0.25, 1.0))
    put(buffer, 1, {"b": 5, "a": torch.tensor(1.5).double()}, rates=(rate, 2.0))
    put(buffer, 2, {"a": torch.tensor(True), "c": torch.tensor(9.0)}, rates=(rate, 3.0))
    put(buffer, 3, {"a": 7.0}, rates=(rate, 3.0))
    first, second, third = buffer.take()
    assert (first.names, first.xs, first.walls_s) == (("a", "b", "lr", "lr_d"), (0, 1), (0.0, 1.0))
    assert first.values.tolist() == [[3, 4, 0.25, 1], [1.5, 5, 0.5, 2]]
    assert (second.names, second.values.tolist()) == (("a", "c", "lr", "lr_d"), [[1, 9, 0.5, 3]])
    assert (third.names, third.values.tolist()) == (("a", "lr", "lr_d"), [[7, 0.5, 3]])


def test_a_count_beside_a_bfloat16_keeps_its_digits(buffer):
    put(buffer, 0, {"half": torch.tensor(1.5).bfloat16(), "count": torch.tensor(1013)})
    assert buffer.take()[0].values.tolist() == [[1.5, 1013]]


def packed_of(values):
    return Packed(values.copy(), torch.stack([*values.values()]))


def test_what_the_step_has_copied_is_kept_as_it_is(buffer):
    values = {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}
    packed = packed_of(values)
    values["a"] += 5
    put(buffer, 0, values, packed=packed)
    assert buffer._rows[0][4] is packed.copies
    assert buffer.take()[0].values.tolist() == [[1, 2]]


@pytest.mark.parametrize("change", ["more", "other", "fewer"])
def test_what_was_logged_after_the_step_counts(buffer, change):
    values = {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}
    packed = packed_of(values)
    if change == "more":
        values["c"] = torch.tensor(3.0)
    elif change == "other":
        values["b"] = torch.tensor(3.0)
    else:
        del values["a"]
    wanted = {name: value.tolist() for name, value in values.items()}
    packed.values["a"].add_(5)  # the step is over: what it logged stands
    put(buffer, 0, values, packed=packed)
    [points] = buffer.take()
    assert dict(zip(points.names, points.values[0].tolist(), strict=True)) == wanted


def test_tensors_made_for_inference_are_copied(buffer):
    with torch.inference_mode():
        values = [torch.tensor(float(x)) for x in range(3)]
    for x, value in enumerate(values):
        put(buffer, x, {"a": value})
    assert column(buffer, "a") == {0: 0.0, 1: 1.0, 2: 2.0}
