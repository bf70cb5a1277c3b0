"""What is to be reached is worked out from the rows, with its spread; what misses it says so."""

from benchmarks.suite import bars
from tests.unit.benchmarks.rows import OFF, result, row


def timed(name, family, times, **more):
    made = row(name, name, family, 1.0, **more)
    made["us_per_step"] |= {"median": sorted(times)[len(times) // 2], "all": times}
    return made


def verdicts(*rows):
    return {(bar.what, bar.least): (bar.median, bar.holds) for bar in bars.bars(result(*rows))}


def test_eager_is_held_to_every_library_with_both_kinds_of_parts():
    found = verdicts(
        timed("fitkit", "fitkit", [100.0, 110.0, 120.0]),
        timed("fitkit-torch", "fitkit", [80.0, 80.0, 80.0]),
        timed("skorch", "peer", [100.0, 88.0, 96.0]),
    )
    assert found == {
        ("fitkit against skorch", 1.0): (0.8, False),
        ("fitkit-torch against skorch", 1.0): (1.2, True),
    }


def test_recorded_is_held_to_the_fastest_other_which_trains_the_same():
    rows = [
        timed("record-inductor", "record", [10.0]),
        timed("tuned-compile", "hand", [9.0]),
        timed("hand-keras", "hand", [50.0]),
        timed("floor", "floor", [1.0]),
    ]
    assert verdicts(*rows) == {("record-inductor against the fastest other, tuned-compile", 1.0):
                               (0.9, False)}  # fmt: skip
    rows[1]["fair"] = OFF
    assert verdicts(*rows) == {("record-inductor against the fastest other, hand-keras", 1.0):
                               (5.0, True)}  # fmt: skip


def test_what_a_gpu_is_to_show():
    def on_cuda(case, own, other, keras):
        more = {"case": case, "device": "cuda"}
        return verdicts(timed("record", "record", [own], **more),
                        timed("hand-keras", "hand", [other], **more),
                        timed("keras-fit", "keras", [keras], **more))  # fmt: skip

    assert on_cuda("mlp-32", 10.0, 110.0, 190.0) == {
        ("record against the fastest other, hand-keras", 1.0): (11.0, True),
        ("record against keras-fit", 20.0): (19.0, False),
        ("record against hand-keras", 10.0): (11.0, True),
    }
    (bar,) = on_cuda("mlp-1024", 10.0, 12.0, 20.0).items()
    assert bar == (("record against the fastest other, hand-keras", 1.3), (1.2, False))
    (bar,) = on_cuda("gpt2", 100.0, 99.0, 120.0).items()
    assert bar == (("record against the fastest other, hand-keras", 0.98), (0.99, True))


def test_what_misses_is_said_with_its_spread():
    missed = result(
        timed("fitkit", "fitkit", [100.0, 100.0]), timed("skorch", "peer", [80.0, 90.0])
    )
    assert list(bars.sentences(missed)) == [
        "0 of 1 requirements held.",
        "Not held: MLP, batch 32, fitkit against skorch: 0.85 (0.805 to 0.895), at least 1.",
    ]
    assert bars.table(missed)[1][-1] == "NOT HELD"
    assert bars.table(result()) == []
