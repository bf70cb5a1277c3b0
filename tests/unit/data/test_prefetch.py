"""The order of copies, told by a copier that only writes down what it is asked."""

import pytest

from fitkit.data.prefetch import Prefetch


class Diary:
    def __init__(self):
        self.lines = []

    def source(self, num_batches, error=None):
        for index in range(num_batches):
            self.lines.append(f"fetch {index}")
            yield index
        if error:
            raise error

    def start(self, batch):
        self.lines.append(f"start {batch}")
        return batch

    def finish(self, ticket):
        self.lines.append(f"finish {ticket}")
        return ticket


def test_the_next_copy_starts_before_a_batch_is_given():
    diary = Diary()
    for batch in Prefetch(diary.source(3), diary):
        diary.lines.append(f"use {batch}")
    assert diary.lines == [
        *["fetch 0", "start 0"],
        *["fetch 1", "start 1", "finish 0", "use 0"],
        *["fetch 2", "start 2", "finish 1", "use 1"],
        *["finish 2", "use 2"],
    ]


@pytest.mark.parametrize("num_batches", [0, 1, 2])
def test_short_sources(num_batches):
    diary = Diary()
    prefetch = Prefetch(diary.source(num_batches), diary)
    assert list(prefetch) == list(range(num_batches))
    assert list(prefetch) == []  # at its end it stays there


def test_an_error_comes_after_the_batches_before_it():
    diary = Diary()
    prefetch = Prefetch(diary.source(2, OSError("disk")), diary)
    assert [next(prefetch), next(prefetch)] == [0, 1]
    with pytest.raises(OSError, match="disk"):
        next(prefetch)


def test_a_source_is_not_asked_again_after_its_end():
    class Reviving:
        def __init__(self):
            self.asked = 0

        def __next__(self):
            self.asked += 1
            if self.asked == 2:
                raise StopIteration
            return self.asked

    source = Reviving()
    prefetch = Prefetch(source, Diary())
    assert [next(prefetch), next(prefetch, None), next(prefetch, None)] == [1, None, None]
    assert source.asked == 2


def test_an_interrupt_is_not_kept_back():
    diary = Diary()
    prefetch = Prefetch(diary.source(1, KeyboardInterrupt()), diary)
    with pytest.raises(KeyboardInterrupt):
        next(prefetch)


def test_nothing_is_read_before_the_first_batch_is_asked_for():
    diary = Diary()
    Prefetch(diary.source(2), diary)
    assert diary.lines == []
