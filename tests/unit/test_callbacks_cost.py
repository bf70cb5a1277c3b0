"""The benchmark of the callbacks knows all of them, and its figures are what they say."""

import numpy as np
import pytest
import torch

import fitkit
from benchmarks import callback_entries, callback_kernels, callbacks_cost, step_times
from benchmarks.callback_entries import CHECKS, LEFT_OUT, REGISTRY, Entry, is_recorded
from fitkit import Callback

FOLDERS = ("tune", "watch")


def exported():
    values = {name: getattr(fitkit, name) for name in fitkit.__all__}
    return {
        name
        for name, value in values.items()
        if isinstance(value, type)
        and issubclass(value, Callback)
        and value.__module__.split(".")[1] in FOLDERS
    }


def test_every_callback_of_tune_and_watch_is_timed_or_left_out_for_a_reason():
    assert sorted([*REGISTRY, *LEFT_OUT]) == sorted(exported())


def test_who_works_elsewhere_is_not_judged_by_its_hooks():
    in_step = {name for name, each in REGISTRY.items() if any(map(is_recorded, each.make()))}
    by_steps = {name for name, each in REGISTRY.items() if each.by_steps}
    # Histograms looks at gradients in steps that run eagerly, and only there.
    assert by_steps == in_step - {"Histograms"} | {"ActivationStats", "EventTrace"}


def test_kernels_of_a_recorded_callback_are_recorded():
    for name, each in REGISTRY.items():
        if any(map(is_recorded, each.make())) and name != "Histograms":
            assert each.kernels is not None, name
            assert is_recorded(each.kernels()), name


@pytest.mark.parametrize(
    ("adds", "kernels", "verdict"),
    [
        ([10.0, 12.0, 17.0], [10.0, 10.0, 10.0], "holds"),
        ([19.0, 25.0, 30.0], [10.0, 10.0, 10.0], "above"),
        ([17.0, 17.0, 19.0], [10.0, 10.0, 10.0], "within resolution"),
        ([4.0, 5.0, 5.0], [0.0, -40.0, 0.0], "holds"),  # less than nothing allows no less
    ],
)
def test_the_bar_is_held_or_not_where_all_instances_agree(adds, kernels, verdict):
    judged = callbacks_cost.judged(adds, kernels, 5.0)
    assert judged["verdict"] == verdict
    assert judged["adds_us_per_step"] == adds[1]
    assert judged["allowed_us_per_step"] == 5 + 1.3 * max(kernels[0], 0.0)
    assert judged["resolution_us"] == (adds[2] - adds[0]) / 2


def test_a_block_counts_with_the_median_of_each_kind_of_step():
    steps = np.array([30.0, 1.0, 1.0, 4.0] * 9 + [9000.0, 9000.0, 9000.0, 9000.0])
    assert step_times.typical(steps, callback_kernels.in_window) == (30 + 1 + 1 + 4) / 4
    # without the kinds, what windows take at their ends would be lost
    assert step_times.typical(steps[:-4], callback_kernels.same) == 2.5


def test_loops_take_turns_in_both_orders():
    order = []

    class Contestant:
        def __init__(self, name):
            self.name = name

        def block(self):
            order.append(self.name)
            return np.array([len(order), len(order)])

    pair = {"a": Contestant("a"), "b": Contestant("b")}
    times = step_times.in_turns(pair, 2, callback_kernels.same)
    assert order == ["a", "b", "b", "a"]
    assert times == {"a": [1, 4], "b": [2, 3]}
    assert step_times.differences(times["a"], times["b"]) == [-1, 1]


def test_what_a_callback_adds_is_the_median_over_the_rounds_of_every_instance(monkeypatch):
    found = iter(
        [
            {
                "bare": [100.0, 110.0, 90.0],
                "callback": [120.0, 140.0, 95.0],
                "kernels": [104.0] * 3,
            },
            {"bare": [100.0, 100.0, 100.0], "callback": [122.0] * 3, "kernels": [104.0] * 3},
            {"bare": [100.0, 100.0, 100.0], "callback": [121.0] * 3, "kernels": [104.0] * 3},
        ]
    )
    monkeypatch.setattr(callbacks_cost, "on_one_loop", lambda *_: {})
    monkeypatch.setattr(callbacks_cost, "in_turns", lambda *_: next(found))
    cost = callbacks_cost.cost("ClipGradNorm", "interpret", rounds=3, instances=3)
    assert cost["instances"] == {"adds": [20.0, 22.0, 21.0], "kernels": [4.0, 4.0, 4.0]}
    assert cost["adds_us_per_step"] == 21.0
    assert cost["allowed_us_per_step"] == 5 + 1.3 * 4
    text = callbacks_cost.line("ClipGradNorm", {"eager": cost, "recorded": cost})
    assert text.endswith("+-1.0 us    above")


def test_a_known_time_is_found(monkeypatch):
    """Negative control: a hook that lets nothing go by adds nothing like it."""
    monkeypatch.setattr(callbacks_cost, "RECORDED_STEPS", 8)
    spin = Entry(lambda: [callback_kernels.InStep(list, spin_us=2000)])
    monkeypatch.setitem(CHECKS, "a spin of 2 ms", spin)
    waits = callbacks_cost.cost("a spin of 2 ms", "interpret", rounds=5)
    nothing = callbacks_cost.cost("nothing", "interpret", rounds=5)
    assert 1500 < waits["adds_us_per_step"] < 3000
    assert abs(nothing["adds_us_per_step"]) < 1000


def test_callbacks_share_a_loop_unless_they_change_the_program():
    plain, clipping = fitkit.Limits(max_steps=10**6), fitkit.ClipGradNorm(1.0)
    other = fitkit.Throughput()
    runs = callbacks_cost.on_one_loop(
        {"bare": [], "a": [plain], "b": [clipping], "c": [other]}, "interpret", steps=4
    )
    assert runs["bare"].loop is runs["a"].loop is runs["c"].loop
    assert runs["b"].loop is not runs["a"].loop
    runs["a"].enter()
    assert plain in runs["a"].loop.callbacks
    assert other not in runs["a"].loop.callbacks
    runs["bare"].enter()
    assert plain not in runs["a"].loop.callbacks
    programs = runs["bare"].loop.record_report().splitlines()[1:]
    assert len(programs) == 1  # with and without


def test_weights_rest_and_looks_come_amid_a_block():
    stats = fitkit.ActivationStats()
    run = callbacks_cost.on_one_loop({"a": [stats]}, None, steps=100)["a"]
    before = [weight.clone() for weight in run.loop.model.parameters()]
    num_rows, first = len(stats.rows), run.loop.state.num_updates
    run.block()
    assert all(map(torch.equal, before, run.loop.model.parameters()))
    assert [at - first for at, _ in stats.rows[num_rows:]] == [51]  # counted by then
    assert [step for step in range(100) if callback_kernels.is_looked_at(step)] == [50]


@pytest.mark.parametrize("name", ["Accumulate", "ClipGradNorm", "ClipGradValue", "NaNGuard"])
def test_kernels_do_what_the_callback_does(name):
    entry = REGISTRY[name]
    runs = callbacks_cost.on_one_loop(callbacks_cost.stacks_of(entry), "interpret", steps=8)
    callback, kernels = runs["callback"].loop, runs["kernels"].loop
    for ours, theirs in zip(callback.model.parameters(), kernels.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for loop in (callback, kernels):
        assert " interpret " in loop.record_report()


def test_the_time_in_hooks_is_that_of_the_callback_and_of_no_fit(monkeypatch):
    now_ns = [0]
    monkeypatch.setattr(step_times.time, "perf_counter_ns", lambda: now_ns[0])

    class Slow(Callback):
        def on_fit_begin(self, state):
            now_ns[0] += 1_000_000

        def on_batch_end(self, state):
            now_ns[0] += 7000

        def on_epoch_end(self, state):
            now_ns[0] += 4000

    def kernels(weights, gradients):
        def compute(step):
            now_ns[0] += 2000

        return compute

    entry = Entry(lambda: [Slow()], lambda: callback_kernels.Bare(kernels))
    monkeypatch.setitem(callback_entries.CHECKS, "Slow", entry)
    found = callbacks_cost.in_hooks("Slow", "interpret", instances=2, steps=4)
    assert found["instances"] == {"adds": [8.0, 8.0], "kernels": [2.0, 2.0]}
    assert found["allowed_us_per_step"] == 5 + 1.3 * 2
    assert found["verdict"] == "above"
