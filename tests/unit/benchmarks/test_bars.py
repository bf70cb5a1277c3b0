"""What is to be reached is worked out from the rows, with its spread; what misses it says so."""

import pytest

from benchmarks.suite import bars, words
from tests.unit.benchmarks.rows import OFF, result, row


def timed(name, family, times, rounds=6, **more):
    made = row(name, name, family, 1.0, rounds=rounds, **more)
    times = (times * rounds)[:rounds]
    made["us_per_step"] |= {"median": sorted(times)[len(times) // 2], "all": times}
    del made["ratio"]
    return made


def verdicts(*rows):
    return {(bar.what, bar.least): (bar.median, bar.verdict) for bar in bars.bars(result(*rows))}


def test_eager_is_held_to_those_who_have_the_same_parts():
    found = verdicts(
        timed("fitkit", "fitkit", [110.0]),
        timed("fitkit-torch", "fitkit", [80.0]),
        timed("skorch", "peer", [100.0]),
        timed("keras-fit", "keras", [220.0]),
        timed("hand-keras", "hand", [99.0]),
        timed("hand-torch", "hand", [60.0]),
    )
    assert found == {
        ("fitkit-torch against skorch", 1.0): (1.25, bars.HELD),
        ("fitkit against keras-fit", 1.0): (2.0, bars.HELD),
        ("fitkit against hand-keras", 1.0): (0.9, bars.NOT_HELD),
    }


def test_recorded_is_held_to_the_fastest_other_which_trains_the_same():
    rows = [
        timed("record-inductor", "record", [10.0]),
        timed("tuned-compile", "hand", [9.0]),
        timed("hand-keras", "hand", [50.0]),
        timed("floor", "floor", [1.0]),
    ]
    assert verdicts(*rows) == {("record-inductor against the fastest other, tuned-compile", 1.0):
                               (0.9, bars.NOT_HELD)}  # fmt: skip
    rows[1]["fair"] = OFF
    assert verdicts(*rows) == {("record-inductor against the fastest other, hand-keras", 1.0):
                               (5.0, bars.HELD)}  # fmt: skip


def test_what_a_gpu_is_to_show():
    def on_cuda(case, own, other, keras):
        more = {"case": case, "device": "cuda"}
        return verdicts(timed("record", "record", [own], **more),
                        timed("hand-keras", "hand", [other], **more),
                        timed("keras-fit", "keras", [keras], **more))  # fmt: skip

    assert on_cuda("mlp-32", 10.0, 110.0, 190.0) == {
        ("record against the fastest other, hand-keras", 1.0): (11.0, bars.HELD),
        ("record against keras-fit", 20.0): (19.0, bars.NOT_HELD),
        ("record against hand-keras", 10.0): (11.0, bars.HELD),
    }
    (bar,) = on_cuda("mlp-1024", 10.0, 12.0, 20.0).items()
    assert bar == (("record against the fastest other, hand-keras", 1.3), (1.2, bars.NOT_HELD))
    (bar,) = on_cuda("gpt2", 100.0, 99.0, 120.0).items()
    assert bar == (("record against the fastest other, hand-keras", 0.98), (0.99, bars.HELD))


def verdict_of(*others):
    rows = [timed("fitkit-torch", "fitkit", [100.0], rounds=len(others)),
            timed("skorch", "peer", list(others), rounds=len(others))]  # fmt: skip
    return [bar.verdict for bar in bars.bars(result(*rows))]


def test_a_difference_within_the_spread_is_a_tie_on_both_sides():
    assert verdict_of(101, 102, 103, 104, 105, 106) == [bars.HELD]
    assert verdict_of(99, 102, 103, 104, 105, 106) == [bars.TIE]
    assert verdict_of(94, 95, 96, 97, 98, 101) == [bars.TIE]
    assert verdict_of(94, 95, 96, 97, 98, 99) == [bars.NOT_HELD]
    # one of eleven may be anywhere
    assert verdict_of(1, *range(101, 111)) == [bars.HELD]
    assert verdict_of(1, 2, *range(101, 110)) == [bars.TIE]


def test_too_few_rounds_say_nothing_and_that_is_said():
    assert verdict_of(200, 200, 200, 200) == []
    few = result(timed("skorch", "peer", [1.0], rounds=4))
    assert list(words.doubts(few)) == ["MLP, batch 32: only 4 rounds, too few to compare."]


@pytest.mark.parametrize(("num", "k"), [(5, 1), (10, 1), (11, 2), (13, 2), (15, 3)])
def test_the_interval_of_a_median_is_that_of_the_sign_test(num, k):
    values = [float(value) for value in range(num, 0, -1)]
    assert bars.interval(values) == (k, num + 1 - k)


def test_contestants_that_were_not_in_memory_together_compare_by_their_baseline():
    """The machine was twice as slow when the second was measured, and so was its baseline."""
    own = timed("record", "record", [100.0])
    other = timed("tuned", "hand", [180.0])
    assert bars.ratios(other, own) == [1.8] * 6
    for each, base in ((own, 400.0), (other, 800.0)):
        times = each["us_per_step"]["all"]
        each |= {"baseline": "hand-keras", "ratio": {"all": [time / base for time in times]}}
    assert bars.ratios(other, own) == pytest.approx([0.9] * 6)


def test_what_misses_is_said_with_its_spread():
    missed = result(timed("fitkit-torch", "fitkit", [100.0]), timed("skorch", "peer", [80.0, 90.0]))
    assert list(bars.sentences(missed)) == [
        "0 of 1 requirements held, 0 tied: what is asked for lies within the spread of what was "
        "measured.",
        "Not held: MLP, batch 32, fitkit-torch against skorch: 0.85 (0.8 to 0.9), at least 1.",
    ]
    assert bars.table(missed)[1:] == [["fitkit-torch against skorch", "0.85 (0.8 to 0.9) NOT HELD"]]
    assert bars.table(result()) == []


def test_a_tie_with_the_median_on_the_wrong_side_is_said():
    tied = result(timed("fitkit-torch", "fitkit", [100.0]), timed("skorch", "peer", [80.0, 101.0]))
    assert list(bars.sentences(tied))[1:] == [
        "Tied, the median below: MLP, batch 32, fitkit-torch against skorch 0.905."
    ]
    above = result(timed("fitkit-torch", "fitkit", [100.0]), timed("skorch", "peer", [99.0, 120.0]))
    assert len(list(bars.sentences(above))) == 1


def test_the_fastest_is_so_by_the_baseline_of_its_own_rounds():
    """The machine was twice as slow when the second group was measured."""
    rows = [timed("tuned", "hand", [100.0]), timed("skorch", "peer", [180.0])]
    assert bars.first(rows) is rows[0]
    for each, ratio in zip(rows, (1.0, 0.9), strict=True):
        each |= {"baseline": "hand-keras", "ratio": {"median": ratio}}
    assert bars.first(rows) is rows[1]
    rows[1]["baseline"] = "hand-torch"  # of another kind: the times are what there is
    assert bars.first(rows) is rows[0]
    assert bars.first([]) is None
