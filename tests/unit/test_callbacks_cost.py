"""The benchmark of the callbacks knows all of them, and its figures are what they say."""

import fitkit
from benchmarks import callback_kernels, callbacks_cost
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
    listed = [*callbacks_cost.REGISTRY, *callback_kernels.LEFT_OUT]
    assert sorted(listed) == sorted(exported())


def test_what_a_callback_adds_is_the_median_of_the_differences(monkeypatch):
    name = "ClipGradNorm"
    compared = callbacks_cost.compare
    times = {
        "bare": [100.0, 110.0, 90.0],
        name: [120.0, 140.0, 95.0],
        "kernels": [104.0, 116.0, 95.0],
    }

    def compare(contestants, **options):
        result = compared(contestants, **options)
        for each, values in times.items():
            result["cpu_us_per_step"][each]["all"] = values
        return result

    monkeypatch.setattr(callbacks_cost, "compare", compare)
    cost = callbacks_cost.cost(name, None, rounds=1, steps=4)
    assert cost["adds_us_per_step"] == 20.0
    assert cost["kernels_us_per_step"] == 5.0
    assert cost["allowed_us_per_step"] == 5 + 1.3 * 5
    row = {"eager": cost, "recorded": cost}
    assert callbacks_cost.line(name, row).endswith("above 11.5 us")


def test_callbacks_share_a_loop_unless_they_change_the_program():
    plain, clipping = fitkit.Limits(max_steps=10**6), fitkit.ClipGradNorm(1.0)
    other = fitkit.Throughput()
    runs = callbacks_cost.on_one_loop(
        {"bare": [], "a": [plain], "b": [clipping], "c": [other]}, "interpret", steps=4
    )
    assert runs["bare"]._loop is runs["a"]._loop is runs["c"]._loop
    assert runs["b"]._loop is not runs["a"]._loop
    runs["a"].enter()
    assert plain in runs["a"]._loop.callbacks
    assert other not in runs["a"]._loop.callbacks
    runs["bare"].enter()
    assert plain not in runs["a"]._loop.callbacks
    programs = runs["bare"]._loop.record_report().splitlines()[1:]
    assert len(programs) == 1  # with and without


def test_the_time_in_hooks_is_that_of_the_callback_and_of_no_fit(monkeypatch):
    now_ns = [0]
    monkeypatch.setattr(callbacks_cost.time, "perf_counter_ns", lambda: now_ns[0])

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

    entry = callback_kernels.Entry(lambda: [Slow()], kernels)
    assert entry.is_in_hooks
    found = callbacks_cost.hook_times(entry, "interpret", steps=4)
    medians = {name: each["median"] for name, each in found.items()}
    assert medians == {"callback": 8.0, "kernels": 2.0, "nothing": 0.0}
    row = {"recorded": {"adds_us_per_step": 0.0, "in_hooks_us_per_step": 8.0}}
    row["recorded"] |= {"hooks": found, "kernels_us_per_step": 2.0, "allowed_us_per_step": 7.6}
    assert callbacks_cost.line("Slow", row).endswith("above 7.6 us")


def test_who_works_elsewhere_is_not_judged_by_its_hooks():
    elsewhere = {name for name, each in callbacks_cost.REGISTRY.items() if not each.is_in_hooks}
    inside = {"Accumulate", "ClipGradNorm", "ClipGradValue", "NaNGuard"}
    assert elsewhere == inside | {"ActivationStats", "EventTrace", "Histograms"}
