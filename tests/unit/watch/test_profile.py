"""Profile: the table adds up to the step, the trace has the ranges, other steps cost nothing."""

import io
import json
import time
import warnings
from functools import partial

import pytest
import torch

from fitkit import Accumulate, Callback, ConfigError, Event, EventTrace, Phase, Profile, Record
from fitkit.watch import profile as module
from fitkit.watch import trace_files
from fitkit.watch.step_times import StepTimes
from tests.unit.watch.helpers import data, make_loop, validate_every

ACTIVE = 4


@pytest.fixture
def profiled(tmp_path):
    """Make a loop with a Profile; both in quiet."""

    def make(*callbacks, first=(), **options):
        options = {"active": ACTIVE, "wait": 2, "warmup": 1, "file": io.StringIO()} | options
        loop_options = {k: options.pop(k) for k in ("val", "num_samples") if k in options}
        profile = Profile(options.pop("active"), **options)
        loop_options = {"num_samples": 80, **loop_options}
        loop = make_loop(profile, *callbacks, run_dir=tmp_path, first=first, **loop_options)
        return profile, loop

    return make


class Clock:
    """Nanoseconds, moved by hand."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


class Spends(Callback):
    """Let the clock run by so many microseconds per event."""

    phases = frozenset({Phase.TRAIN})

    def __init__(self, clock, **us):
        self.clock, self.us = clock, us

    def spend(self, event):
        self.clock.now += 1000 * self.us.get(event, 0)

    def on_batch_begin(self, state):
        self.spend("batch_begin")

    def on_loss_ready(self, state):
        self.spend("loss_ready")

    def on_batch_end(self, state):
        self.spend("batch_end")

    def on_epoch_end(self, state):
        self.spend("epoch_end")

    def on_save(self, state):
        self.spend("save")


def us_of(table, callback):
    return {row.event: row.us for row in table.rows if row.callback == callback}


@pytest.mark.parametrize("in_front", [True, False])
def test_each_hook_has_the_time_it_took(profiled, monkeypatch, in_front):
    clock = Clock()
    monkeypatch.setattr(module, "StepTimes", partial(StepTimes, clock=clock))
    monkeypatch.setattr(Profile, "_start_tracing", lambda self, state: None)
    spends = Spends(clock, batch_begin=7, loss_ready=20, batch_end=5, epoch_end=900, save=300)
    around = {"first": [spends]} if in_front else {}
    profile, loop = profiled(*([] if in_front else [spends]), num_samples=12, **around)
    loop.fit(epochs=4)  # epochs of 3 steps: ends of epochs lie between
    [table] = profile.tables
    assert us_of(table, "Spends") == {"BATCH_BEGIN": 7, "LOSS_READY": 20, "BATCH_END": 5}
    assert {r.calls for r in table.rows if r.callback == "Spends"} == {ACTIVE}
    assert table.num_steps == ACTIVE
    assert table.step_us == pytest.approx(32)
    assert sum(row.us for row in table.rows) == pytest.approx(table.step_us)
    assert table.share("callback") == pytest.approx(1.0)  # it fills no action


class Between(Callback):
    """The time between two of its calls, by another clock than the profile's."""

    phases = frozenset({Phase.TRAIN})

    def __init__(self):
        self.at = []

    def on_batch_end(self, state):
        self.at.append(time.thread_time_ns())


@pytest.mark.parametrize("record", [False, True])
def test_the_rows_add_up_to_the_step(profiled, monkeypatch, record):
    monkeypatch.setattr(module, "StepTimes", partial(StepTimes, clock=time.thread_time_ns))
    between = Between()
    recorded = [Record("interpret")] if record else []
    options = {"active": 40, "wait": 25, "num_samples": 600}
    profile, loop = profiled(*recorded, first=[between], **options)
    loop.fit(epochs=1)
    [table] = profile.tables
    measured = (between.at[25 + 41 - 1] - between.at[25]) / 40 / 1e3
    assert sum(row.us for row in table.rows) == pytest.approx(table.step_us)
    assert table.step_us == pytest.approx(measured, rel=0.03)
    if record:
        assert table.num_replayed > 30  # but for the replays that are audited
        assert table.share("recorded") > 0.4
        assert "were replayed from a recording" in str(table)
    else:
        assert table.num_replayed == 0
        assert table.share("action") > 0.4
        assert "(recorded step)" not in str(table)
        names = [(row.event, row.callback) for row in table.rows]
        assert ("FORWARD", "Forward") in names
        assert [n for n, _ in names[:-3]] == sorted((n for n, _ in names[:-3]), key=_position)


def _position(name):
    return Event[name]


def test_a_validation_within_the_steps_is_left_out(profiled, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "StepTimes", partial(StepTimes, clock=clock))
    monkeypatch.setattr(Profile, "_start_tracing", lambda self, state: None)

    class Slow(Callback):
        phases = frozenset({Phase.VAL})

        def on_batch_begin(self, state):
            clock.now += 1_000_000

    profile, loop = profiled(Slow(), Spends(clock, batch_end=10), val=data(8))
    validate_every(loop, 1)
    loop.on(Event.BATCH_END, when=lambda s: s.num_updates == 5)(lambda s: loop.evaluate())
    loop.fit(epochs=1)
    [table] = profile.tables
    assert table.step_us == pytest.approx(10)
    assert us_of(table, "Spends") == {"BATCH_BEGIN": 0, "LOSS_READY": 0, "BATCH_END": 10}


def ranges(path):
    """(name, begin, end) of the annotations and operators of a trace, by kind."""
    events = json.loads(path.read_text())["traceEvents"]
    found = {"user_annotation": [], "cpu_op": []}
    for event in events:
        if event.get("ph") == "X" and event.get("cat") in found:
            name, begin = event["name"], event["ts"]
            found[event["cat"]].append((name, begin, begin + event["dur"]))
    return found["user_annotation"], found["cpu_op"]


def inside(inner, outers):
    return [o for o in outers if o[1] <= inner[1] and inner[2] <= o[2]]


def named(found, name):
    return [each for each in found if each[0] == name]


def test_the_trace_has_a_range_for_each_hook_inside_the_step(profiled, tmp_path):
    profile, loop = profiled()
    loop.fit(epochs=1)
    [path] = profile.traces
    assert path.parent == tmp_path / "profile"
    assert path.name.endswith(".pt.trace.json")
    annotations, operators = ranges(path)
    steps = [a for a in annotations if a[0].startswith("ProfilerStep#")]
    regions = named(annotations, "step region")
    assert len(steps) == len(regions) == ACTIVE
    for name in ("FORWARD Forward", "LOSS TorchLoss", "BACKWARD Backward", "APPLY TorchStep"):
        found = named(annotations, name)
        assert len(found) == ACTIVE
        for each in found:
            assert len(inside(each, regions)) == 1
            assert len(inside(each, steps)) == 1
    forward = named(annotations, "FORWARD Forward")
    backward = named(annotations, "BACKWARD Backward")
    assert all(inside(op, forward) for op in named(operators, "aten::linear"))
    assert len(named(operators, "aten::linear")) == ACTIVE
    assert all(inside(op, backward) for op in named(operators, "aten::mse_loss_backward"))
    for one in annotations:  # no range crosses the end of another
        for other in annotations:
            crosses = one[1] < other[1] < one[2] < other[2]
            assert not crosses, (one, other)
    assert not any("Profile" in name and "#" not in name for name, _, _ in annotations)


def test_a_replayed_step_is_one_range(profiled):
    profile, loop = profiled(Record("interpret"), wait=12, num_samples=120)
    loop.fit(epochs=1)
    annotations, _ = ranges(profile.traces[0])
    assert len(named(annotations, "step region")) == ACTIVE
    assert named(annotations, "FORWARD Forward") == []
    assert len(named(annotations, "BATCH_BEGIN TrainMode")) == ACTIVE


def test_what_is_printed_is_beside_the_trace(profiled):
    file = io.StringIO()
    profile, loop = profiled(file=file)
    loop.fit(epochs=1)
    [path] = profile.traces
    assert all(row.us >= 0 for row in profile.tables[0].rows)
    table = path.with_name(path.name.replace(".pt.trace.json", ".txt")).read_text()
    assert table == f"{profile.tables[0]}\n"
    assert file.getvalue() == f"{table}trace: {path}\n"
    head, *rows = table.splitlines()
    assert head.split() == ["event", "callback", "calls", "us/step", "share"]
    assert any(row.startswith("FORWARD [A]") for row in rows)


def test_only_the_updates_that_are_profiled_know_of_it(profiled):
    profile, loop = profiled()
    traced = []

    @loop.on(Event.BATCH_BEGIN)
    def look(state):
        traced.append(("emit" in vars(loop.bus), "run_step" in vars(loop.runner)))

    loop.fit(epochs=1)
    first, last = 2, 2 + 1 + 2 * ACTIVE + 1  # wait; one more, time, warm up, trace
    assert traced == [(first <= number < last,) * 2 for number in range(20)]
    assert len(profile.tables) == len(profile.traces) == 1


def test_it_can_be_repeated_and_each_fit_begins_anew(profiled):
    profile, loop = profiled(active=1, repeat=2)
    loop.fit(epochs=1)
    assert len(profile.tables) == len(profile.traces) == len(set(profile.traces)) == 2
    loop.fit(epochs=1)
    assert len(profile.tables) == 4


def test_updates_are_counted_and_not_batches(profiled):
    profile, loop = profiled(Accumulate(2), active=2, num_samples=80)
    loop.fit(epochs=1)
    [table] = profile.tables
    assert table.num_steps == 4  # batches
    calls = {row.event: row.calls for row in table.rows if row.event}
    assert (calls["FORWARD"], calls["APPLY"]) == (4, 2)


def test_a_profile_changes_no_weight(profiled):
    plain = make_loop(num_samples=80)
    plain.fit(epochs=1)
    _, loop = profiled()
    loop.fit(epochs=1)
    assert all(map(torch.equal, plain.model.parameters(), loop.model.parameters()))


@pytest.mark.parametrize("at", [4, 7, 9])
def test_an_error_leaves_nothing_running(profiled, at):
    profile, loop = profiled()

    @loop.on(Event.LOSS_READY)
    def fail(state):
        if state.num_updates == at:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        loop.fit(epochs=1)
    assert "emit" not in vars(loop.bus)
    assert "run_step" not in vars(loop.runner)
    fail.remove()
    before = len(profile.traces)
    loop.fit(epochs=1)
    assert len(profile.traces) == before + 1


def warned(loop, **options):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        loop.fit(**options)
    return [str(warning.message) for warning in told]


def test_a_run_that_is_too_short_says_so(profiled):
    profile, loop = profiled()
    [message] = warned(loop, max_steps=5)
    assert message.startswith(f"Profile needs {2 + 1 + 2 * ACTIVE + 1} updates")
    assert [table.num_steps for table in profile.tables] == [2]  # what there is


def test_a_disk_that_fails_is_a_warning(profiled, tmp_path):
    profile, loop = profiled()
    (tmp_path / "profile").write_text("a file where the folder should be")
    [message] = warned(loop, epochs=1)
    assert message.startswith(f"Profile cannot write {tmp_path}")
    assert profile.traces == []
    assert len(profile.tables) == 1
    assert len(loop.history) == 1


def test_another_profiler_is_a_warning(profiled):
    profile, loop = profiled()
    with torch.profiler.profile():
        [message] = warned(loop, epochs=1)
    assert message.startswith("Profile cannot trace: ")
    assert len(profile.tables) == 1
    assert "emit" not in vars(loop.bus)


def test_an_event_trace_goes_on_afterwards(profiled):
    trace = EventTrace()
    _, loop = profiled(trace)
    loop.fit(epochs=1)
    forward = {row.batch for row in trace.rows if row.event is Event.FORWARD}
    assert forward == set(range(20)) - set(range(2, 2 + 1 + 2 * ACTIVE + 1))


def test_other_processes_do_nothing(profiled):
    profile, loop = profiled()
    loop.state.is_main = False
    assert warned(loop, epochs=1) == []
    assert profile.tables == []


def test_a_second_one_and_bad_counts_are_refused(profiled):
    _, loop = profiled()
    with pytest.raises(ConfigError, match="One at a time"):
        loop.attach(Profile()).fit(1)
    for name in ("wait", "warmup", "repeat"):
        with pytest.raises(ConfigError, match=f"{name}=0"):
            Profile(**{name: 0})
    with pytest.raises(ConfigError, match="active=-1"):
        Profile(-1)


def test_the_memory_of_a_gpu_is_written_beside_the_trace(monkeypatch, tmp_path):
    calls = []

    class Memory:
        def _record_memory_history(self, **options):
            calls.append(options)

        def _dump_snapshot(self, path):
            calls.append(path)

    monkeypatch.setattr(trace_files.torch.cuda, "memory", Memory())
    tracing = trace_files.Tracing(
        tmp_path, Callback(), warmup=1, active=1, device=torch.device("cuda")
    )
    for _ in range(2):
        tracing.step()
    tracing.stop()
    begin, snapshot, end = calls
    assert begin["max_entries"] > 0
    assert snapshot == str(tracing.path).replace(".pt.trace.json", ".memory.pickle")
    assert end == {"enabled": None}
