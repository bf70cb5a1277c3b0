import io
import math
import os

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from fitkit.watch import records
from fitkit.watch.records import PointFormat, framed

LENGTHS = [4, 5, 8, 9, 70, 70, 71, 511, 512, 513, 1023, 1024, 1025, 5000, 100_003, 30]


def by_tensorboard(contents):
    file = io.BytesIO()
    writer = RecordWriter(file)
    for content in contents:
        writer.write(content)
    writer.flush()
    return file.getvalue()


def test_records_are_framed_as_tensorboard_does_it():
    contents = [os.urandom(length) for length in LENGTHS]
    assert framed(contents) == by_tensorboard(contents)


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_zeros_and_ones_count(byte):
    contents = [byte * length for length in LENGTHS]
    assert framed(contents) == by_tensorboard(contents)


def test_a_wrong_polynomial_is_seen(monkeypatch):
    records._tables.cache_clear()
    records._head_of.cache_clear()
    monkeypatch.setattr(records, "_POLYNOMIAL", records.np.uint32(0xEDB88320))
    try:
        assert framed([b"12345678"]) != by_tensorboard([b"12345678"])
    finally:
        records._tables.cache_clear()
        records._head_of.cache_clear()


XS = [0, 1, 2, 127, 128, 129, 16_383, 16_384, 10**12, -1, 3]


LONG = [f"{k}/" + "x" * k for k in range(0, 1300, 50)]


@pytest.mark.parametrize("tags", [["step/loss"], ["a", "Größe" * 60, "step/lr"], LONG])
@pytest.mark.parametrize("xs", [XS, XS[:1], XS[1:3], XS[-2:-1]])
def test_points_are_those_of_protobuf(tags, xs):
    values = [([0.1 + x, -3.0 * x, 1e-45] * 9)[: len(tags)] for x in xs]
    walls_s = [1234.5 + k for k in range(len(xs))]
    wanted = []
    for x, wall_s, row in zip(xs, walls_s, values, strict=True):
        listed = [Summary.Value(tag=t, simple_value=v) for t, v in zip(tags, row, strict=True)]
        event = Event(wall_time=wall_s, step=x, summary=Summary(value=listed))
        wanted.append(event.SerializeToString())
    assert PointFormat(tags).framed(xs, walls_s, np.array(values)) == by_tensorboard(wanted)


def test_numbers_too_large_and_no_numbers():
    written = PointFormat("abc").framed([1], [2.0], np.array([[1e300, -1e300, math.nan]]))
    values = [value.simple_value for value in Event.FromString(written[12:-4]).summary.value]
    assert values[:2] == [math.inf, -math.inf]
    assert math.isnan(values[2])
