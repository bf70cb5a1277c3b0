"""A run goes on where it was killed, ends in time, and refuses names it does not know."""

import argparse
import dataclasses
import io
import json
import time
from typing import ClassVar

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.suite import bars, cases, options, plan, ready, rounds, run
from benchmarks.suite.contestants import CONTESTANTS
from benchmarks.suite.process import Settings
from benchmarks.suite.ready import OutOfTimeError
from benchmarks.suite.show import Screen
from benchmarks.suite.store import Store
from benchmarks.suite.words import NO_TIME

INF = float("inf")
SETTINGS = {"device": "cpu", "rounds": 3, "probes": ("kernels",)}


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Begin a run of given cases over a file; a case is measured by calling `measure(name)`."""

    def begun(names, measure, seconds=1e6, settings=SETTINGS):
        def run_case(case, able, settings, **options):
            measure(case.name)
            return {name: {"error": f"not run: {case.name}"} for name in able}

        monkeypatch.setattr(run, "run_case", run_case)
        store = Store(tmp_path / "results" / "a.json", settings)
        suite = run.Suite(
            store, Settings(), lambda case: ["hand-torch", "composer", "record-cudagraph"],
            time.monotonic() + seconds, Screen(io.StringIO()),
        )  # fmt: skip
        suite.measure([name for name in names if not suite.is_done(name)])
        return json.loads(store.path.read_text())

    return begun


def test_a_killed_run_goes_on_with_the_case_it_was_in(begin):
    calls = []

    def killed(name):
        calls.append(name)
        if name == "cnn":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin(["mlp-32", "cnn", "bag"], killed)
    result = begin(["mlp-32", "cnn", "bag"], calls.append)
    assert calls == ["mlp-32", "cnn", "cnn", "bag"]
    assert [row["case"] for row in result["rows"][::2]] == ["mlp-32", "cnn", "bag"]


def test_other_settings_begin_anew_and_keep_the_old_file(begin, tmp_path):
    calls = []
    begin(["mlp-32"], calls.append)
    begin(["mlp-32"], calls.append, settings={**SETTINGS, "rounds": 5})
    assert calls == ["mlp-32", "mlp-32"]
    (old,) = (tmp_path / "results").glob("a.*.old")
    assert json.loads(old.read_text())["settings"]["rounds"] == 3


def test_a_case_in_which_somebody_had_no_time_is_measured_anew(begin, tmp_path):
    calls = []
    result = begin(["mlp-32", "bag"], calls.append)
    row = result["rows"][0]
    row["left_out"] = f"{NO_TIME}: {row.pop('error')}"
    (tmp_path / "results" / "a.json").write_text(json.dumps(result))
    begin(["mlp-32", "bag"], calls.append)
    assert calls == ["mlp-32", "bag", "mlp-32"]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The command `run` over a file; nobody trains. Returns who was measured, and what was said."""

    def ran(*words):
        calls = []

        def run_case(case, able, settings, **options):
            calls.append((case.name, able))
            return {name: {"error": "not run"} for name in able}

        monkeypatch.setattr(run, "run_case", run_case)
        arguments = parsed("--out", str(tmp_path / "a.json"), *words)
        assert run.run(arguments, "cpu") == 0
        return calls, json.loads((tmp_path / "a.json").read_text()), capsys.readouterr().out

    return ran


def test_a_second_command_adds_its_cases_to_the_file(command):
    some = ("--contestants", "hand-torch", "ignite")
    calls, _, _ = command("--cases", "mlp-32", *some)
    assert calls == [("mlp-32", ["hand-torch", "ignite"])]
    calls, result, out = command("--cases", "mlp-32", "bag", *some)
    assert [name for name, _ in calls] == ["bag"]
    assert {row["case"] for row in result["rows"]} == {"mlp-32", "bag"}
    assert "1 of 2 are there" in out
    assert "cases to measure: 1, about 2 minutes" in out


def test_who_is_missing_is_measured_beside_those_who_are_there(command):
    command("--cases", "bag", "--contestants", "hand-torch", "ignite")
    calls, result, _ = command("--cases", "bag", "--contestants", "skorch")
    assert calls == [("bag", ["hand-torch", "ignite", "skorch"])]
    assert [row["contestant"] for row in result["rows"]] == ["hand-torch", "ignite", "skorch"]


def test_a_command_whose_cases_are_all_there_measures_them_anew(command, tmp_path):
    some = ("--cases", "bag", "--contestants", "ignite")
    command(*some)
    calls, _, out = command(*some)
    assert calls == [("bag", ["ignite"])]
    (old,) = tmp_path.glob("a.*.old")
    assert str(old) in out


def test_what_was_left_out_stays_named_until_it_is_done(command):
    some = ("--contestants", "ignite")
    _, result, _ = command("--cases", "mlp-32", "bag", "--minutes", "0.001", *some)
    assert result["left_out"] == ["mlp-32", "bag"]
    _, result, _ = command("--cases", "bag", *some)
    assert result["left_out"] == ["mlp-32"]


def test_rows_stand_in_the_order_of_the_cases_whenever_they_were_measured(begin):
    names = ["layers=4", "batch=128", "cnn", "batch=8", "mlp-32"]
    begin(names[:3], len)
    rows = begin(names, len)["rows"]
    found = list(dict.fromkeys(row["case"] for row in rows))
    assert found == ["mlp-32", "cnn", "batch=8", "batch=128", "layers=4"]


def test_who_cannot_take_part_is_a_row_with_the_reason(begin):
    rows = begin(["mlp-32"], len)["rows"]
    assert [row["contestant"] for row in rows] == ["hand-torch", "composer"]  # no CUDA, no row
    assert rows[0]["error"] == "not run: mlp-32"
    assert "torch < 2.7.1" in rows[1]["left_out"]
    assert rows[0]["versions"]["torch"].startswith("2.")


def test_what_there_is_no_time_for_is_named(begin):
    calls = []
    result = begin(["mlp-32", "batch=8"], calls.append, seconds=5)
    assert calls == ["batch=8"]  # needs less
    assert result["left_out"] == ["mlp-32"]

    def too_slow(name):
        raise OutOfTimeError

    assert begin(["cnn"], too_slow)["left_out"] == ["mlp-32", "cnn"]


class Turns:
    """A contestant whose epochs take a second of a clock of the test's own."""

    def __init__(self, clock):
        self.clock, self.alive, self.waits, self.row = clock, True, [], {}
        self.wall, self.cpu, self.passes = [], [], []

    def order(self, order, timeout):
        self.waits.append(timeout)
        self.clock[0] += 1.0
        return {"wall_s": 1.0, "cpu_s": 1.0, "pass_s": 1.0}


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(rounds.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("share", "deadline", "done"),
    [
        (INF, INF, [8, 8]),
        (INF, 6.5, [2, 3]),
        (INF, 1.5, [0, 0]),
        (15.5, INF, [6, 6]),  # a warm-up and six rounds take 14 s; one more would end at 16 s
        (3.0, INF, [5, 5]),  # the least that says something
        (3.0, 6.5, [2, 3]),
    ],
)
def test_rounds_end_with_the_time_of_the_case_or_of_the_run(clock, share, deadline, done):
    workers, until = [Turns(clock), Turns(clock)], ready.Until(share, deadline)
    rounds.take_turns(workers, Settings(rounds=8, ready_s=300.0), until, len)
    assert [len(worker.wall) for worker in workers] == done
    if deadline < 10:  # nobody is waited for long after it
        assert max(max(worker.waits) for worker in workers) == rounds.GRACE_S


LATE = "no answer within 300 s"
DIED = "its process died"


@pytest.mark.parametrize(
    ("error", "deadline", "row"),
    [
        (LATE, 50.0, {}),  # the time of the run is over: the rounds so far are what there is
        (LATE, 500.0, {"error": LATE}),
        (DIED, 50.0, {"error": DIED}),
    ],
)
def test_who_is_at_an_epoch_after_the_deadline_keeps_its_rounds(clock, error, deadline, row):
    class Slow(Turns):
        def order(self, order, timeout):
            if len(self.wall) < 3:
                return super().order(order, timeout)
            self.clock[0] += timeout
            self.row["error"], self.alive = error, False
            return {"error": error}

    slow, until = Slow(clock), ready.Until(INF, deadline)
    rounds.take_turns([slow], Settings(rounds=8, warmup=0, ready_s=300.0), until, len)
    assert slow.row == row
    assert len(slow.wall) == 3
    assert clock[0] == min(303.0, deadline)


# -- memory and time of the cases ------------------------------------------------------------------


def test_large_cases_have_three_in_memory_with_the_baseline_among_them():
    names = run.chooser(parsed(), "cuda")(run.find("gpt2"))
    groups = rounds.groups_of(names, run.find("gpt2").together)
    assert max(map(len, groups)) == 3
    assert all(group[0] == "hand-keras" for group in groups)
    others = [name for group in groups for name in group[1:]]
    assert sorted(others) == sorted(names[1:])
    assert others[-4:] == ["tuned-compile", "record-inductor", "record-torch", "record-cudagraph"]
    assert rounds.groups_of(names, None) == [names]


class Pretend:
    """A contestant that takes its time on a clock of the test's own, and counts who is alive."""

    orders: ClassVar[list[tuple[str, str]]] = []
    costs: ClassVar[dict[str, tuple[float, float]]] = {}
    alive_now, most_alive, start_s, compile_s, round_s = 0, 0, 1.0, 20.0, 0.2
    callback_s = 6.0

    def __init__(self, name, case, settings, scratch, clock):
        self.name, self.clock, self.row, self.alive = name, clock, {"steps": 1}, True
        self.wall, self.cpu, self.passes, self.losses, self.states = [], [], [], {}, {}
        self.started, self.pipe = clock[0], object()
        usual = self.compile_s, self.round_s / (3 if case.axis else 1)
        compile_s, self.round_s = self.costs.get(case.name, usual)
        compile_s = 2 * self.start_s if name.endswith("cudagraph") else compile_s
        self.ready_at = clock[0] + (compile_s if CONTESTANTS[name].compiles else self.start_s)
        Pretend.alive_now += 1
        Pretend.most_alive = max(Pretend.most_alive, Pretend.alive_now)

    def receive(self, timeout):
        return {"since_begin_s": self.ready_at - self.started, "steps": 1}

    def order(self, order, timeout):
        Pretend.orders.append((self.name, order))
        self.clock[0] += self.round_s
        return {"wall_s": 1e-3, "cpu_s": 1e-3, "pass_s": 1e-3}

    def end(self):
        self.alive = False
        Pretend.alive_now -= 1


@pytest.fixture
def pretend(monkeypatch, clock):
    """Run cases with contestants that only let a clock go on."""
    alive = {}

    def started(name, case, settings, scratch):
        worker = Pretend(name, case, settings, scratch, clock)
        alive[worker.pipe] = worker
        return worker

    def wait(pipes, timeout):
        first = min(alive[pipe].ready_at for pipe in pipes)
        clock[0] = max(clock[0], min(first, clock[0] + timeout))
        return [pipe for pipe in pipes if alive[pipe].ready_at <= clock[0]]

    monkeypatch.setattr(ready, "Worker", started)
    monkeypatch.setattr(ready, "wait", wait)
    monkeypatch.setattr(Pretend, "most_alive", 0)
    monkeypatch.setattr(Pretend, "alive_now", 0)
    monkeypatch.setattr(Pretend, "orders", [])

    def measured(device, *words):
        arguments = parsed("--device", device, *words)
        at_once = {"cpu": 2, "cuda": 4}[device]
        settings = dataclasses.replace(run.settings_of(arguments, device), at_once=at_once)
        names = plan.plan(arguments.cases, device, arguments.quick)
        seconds = 60 * (arguments.minutes or run.QUICK_MINUTES)
        rows = {}

        def rows_of(case, found, settings):
            rows[case.name] = {name: len(row.get("us", ())) for name, row in found.items()}
            return []

        def callback_row(name, settings):
            clock[0] += Pretend.callback_s
            return {"case": "built-in", "contestant": name}

        monkeypatch.setattr(run, "rows_of", rows_of)
        monkeypatch.setattr(run, "callback_row", callback_row)
        store = Memory(quick=arguments.quick)
        suite = run.Suite(
            store, settings, run.chooser(arguments, device), seconds, Screen(io.StringIO())
        )
        suite.measure(names)
        return rows, store

    return measured


class Memory:
    """A store that writes nothing."""

    def __init__(self, quick):
        self.settings, self.result, self.left_out = {"quick": quick}, {"rows": []}, []

    def done(self, case):
        return []

    def put(self, case, rows):
        self.result["rows"] = rows

    def leave_out(self, case):
        self.left_out.append(case)

    def write(self):
        pass


GPU = ("--minutes", "7.5", "--rounds", "7", "--cases")
MATTER = {"hand-keras", "hand-torch", "tuned", "keras-fit", "lightning", "fitkit", "floor",
          "record-cudagraph"}  # fmt: skip


@pytest.mark.parametrize("group", ["small", "large", "rest"])
def test_each_command_for_a_gpu_covers_its_cases_in_eight_minutes(
    pretend, clock, monkeypatch, group
):
    monkeypatch.setattr(Pretend, "start_s", 4.0)
    monkeypatch.setattr(Pretend, "compile_s", 30.0)
    monkeypatch.setattr(Pretend, "round_s", 0.05 if group != "large" else 0.4)
    rows, store = pretend("cuda", *GPU, group)
    assert clock[0] <= 8 * 60
    assert store.left_out == []
    assert set(rows) == set(plan.plan([group], "cuda", quick=False)) - {"built-in"}
    for name, found in rows.items():
        wanted = run.chooser(parsed(), "cuda")(cases.find(name))
        case = cases.find(name)
        matter = {n for n in MATTER & set(wanted) if not CONTESTANTS[n].why_not(case, "cuda")}
        assert {each for each in matter if found[each] < bars.MIN_ROUNDS} == set(), name
    assert Pretend.alive_now == 0
    if group == "large":
        assert Pretend.most_alive == 3


TWO_CORES = {
    "mlp-32": (12.0, 0.22), "mlp-1024": (12.0, 0.12), "mlp-metrics": (16.0, 0.18),
    "mlp-torch": (14.0, 0.17), "bag": (16.0, 0.18), "cnn": (34.0, 0.22), "gpt-tiny": (34.0, 0.17),
    "gpt-tiny-torch": (28.0, 0.12), "gan": (40.0, 0.26), "layers=32": (40.0, 0.7),
    "layers=64": (80.0, 1.3), "batch=8192": (14.0, 0.5), "metrics=10": (25.0, 0.5),
    **{f"batch={size}": (12.0, 0.15) for size in (8, 128, 512, 2048)},
}  # fmt: skip
"""Seconds of a compile, one core of two, and of a contestant's epoch with what surrounds it."""


def slower(times):
    return {name: (times * compile_s, times * s) for name, (compile_s, s) in TWO_CORES.items()}


def rounds_of(rows, matter):
    """Per case and contestant that matters the rounds it has."""
    return {
        (case, name): num
        for case, found in rows.items()
        for name, num in found.items()
        if name in matter and not CONTESTANTS[name].why_not(cases.find(case), "cpu")
    }


COMPARED = {"hand-keras", "hand-torch", "keras-fit", "lightning", "ignite", "accelerate", "fitkit",
            "fitkit-torch", "record-interpret"}  # fmt: skip


@pytest.mark.parametrize("times", [0.5, 1.0, 1.2])
def test_the_quick_suite_covers_its_cases_in_eight_minutes(pretend, clock, monkeypatch, times):
    monkeypatch.setattr(Pretend, "costs", slower(times))
    monkeypatch.setattr(Pretend, "start_s", 1.2 * times)
    rows, store = pretend("cpu", "--quick")
    assert clock[0] <= 7.6 * 60  # the rest is for imports and the report
    assert store.left_out == []
    compiled = {"record-inductor", "record-torch"} if times <= 1 else set()
    found = rounds_of(rows, COMPARED | compiled)
    assert min(found.values()) >= bars.MIN_ROUNDS
    assert {"mlp-32", "cnn", "gan", "bag", "gpt-tiny", "gpt-tiny-torch", "batch=2048"} <= set(rows)


@pytest.mark.parametrize(("times", "late"), [(0.5, 0), (1.0, 0), (1.3, 0), (2.0, 40)])
def test_everything_is_measured_in_the_time_there_is(pretend, clock, monkeypatch, times, late):
    """On a machine that is slower, too: there, some who compile are late."""
    monkeypatch.setattr(Pretend, "costs", slower(times))
    monkeypatch.setattr(Pretend, "start_s", 1.2 * times)
    monkeypatch.setattr(Pretend, "callback_s", 15.0 * times)
    rows, store = pretend("cpu", "--minutes", "65")
    assert clock[0] <= 65.5 * 60
    assert store.left_out == ["built-in"] * (times > 1.3)  # the longest; what it has is kept
    assert set(rows) == set(plan.plan(None, "cpu", quick=False)) - {"built-in"}
    found = rounds_of(rows, set(CONTESTANTS))
    assert sum(num < bars.MIN_ROUNDS for num in found.values()) <= late
    matter = rounds_of(rows, {n for n in CONTESTANTS if n == "record-inductor" or not
                              CONTESTANTS[n].compiles})  # fmt: skip
    assert min(matter.values()) >= bars.MIN_ROUNDS


def test_those_that_matter_start_first_and_one_compiles_beside_the_others():
    case = cases.find("mlp-32")
    names = [n for n in run.chooser(parsed("--quick"), "cpu")(case) if not CONTESTANTS[n].missing]
    names = [n for n in names if CONTESTANTS[n].device is None]
    first = ["hand-keras", "hand-torch", "fitkit", "fitkit-torch", "fitkit-torch-loader",
             "record-interpret", "floor"]  # fmt: skip
    rest = ["keras-fit", "lightning", "ignite", "accelerate", "skorch", "poutyne", "tuned-compile"]
    assert ready.in_order_of_start(names, 2) == ["record-inductor", *first, *rest]
    assert ready.in_order_of_start(names, 1) == [*first, "record-inductor", *rest]


def test_probes_watch_an_epoch_each_after_the_rounds_of_all(pretend):
    settings = Settings(rounds=2, probes=("kernels", "syncs"))
    rounds.run_case(cases.find("mlp-32"), ["hand-keras", "skorch"], settings)
    orders = [order for _, order in Pretend.orders]
    # what a profiler attaches stays: nobody may be measured after the first of them
    assert orders == ["go"] * 6 + ["kernels"] * 2 + ["syncs"] * 2
    assert [name for name, _ in Pretend.orders[-4:]] == ["hand-keras", "skorch"] * 2


def test_who_is_not_ready_in_time_is_told_and_holds_nobody_up(pretend, clock, monkeypatch):
    monkeypatch.setattr(Pretend, "compile_s", 1e4)
    names, settings = ["hand-keras", "tuned-compile", "skorch"], Settings(at_once=2, rounds=9)
    found = rounds.run_case(cases.find("mlp-32"), names, settings, until=ready.Until(100.0, INF))
    assert found["tuned-compile"] == {
        "left_out": "no time: not through its first epoch within 70 s"
    }
    assert len(found["skorch"]["us"]) == 9
    assert clock[0] < 100.0


# -- what is asked for -----------------------------------------------------------------------------


def parsed(*words):
    parser = argparse.ArgumentParser()
    options.add_arguments(parser)
    return parser.parse_args(words)


def test_plans_unfold_groups_and_curves():
    assert run.plan(["built-in", "batch"], "cpu", quick=True) == [
        "built-in", "batch=8", "batch=128", "batch=2048",
    ]  # fmt: skip
    assert run.plan(["large"], "cpu", quick=False) == []
    assert run.plan(["large"], "cuda", quick=False) == ["resnet50", "gpt2", "gpt2-torch"]
    everything = run.plan(None, "cpu", quick=False)
    assert {"mlp-32", "gan", "layers=64", "built-in"} <= set(everything)
    assert len(everything) == len(set(everything))


def test_the_three_groups_are_all_there_is_on_a_gpu():
    groups = run.plan(["small", "large", "rest"], "cuda", quick=False)
    assert sorted(groups) == sorted(run.plan(None, "cuda", quick=False))


def test_everything_begins_with_what_is_short_and_says_how_long_it_takes():
    names = plan.plan(None, "cpu", quick=False)
    assert plan.estimate(names[:2], False) == 40 + 41
    assert names[-2:] == ["layers=64", "built-in"]
    assert plan.plan(None, "cpu", quick=True)[0] == "mlp-32"
    assert 7 * 60 <= plan.estimate(plan.plan(None, "cpu", quick=True), True) <= 8 * 60
    assert 50 * 60 <= plan.estimate(names, False) <= 60 * 60
    assert [plan.said(s) for s in (60, 300, 3900)] == [
        "about a minute", "about 5 minutes", "about 65 minutes",
    ]  # fmt: skip


def test_callbacks_that_were_measured_are_kept(pretend, monkeypatch, tmp_path):
    done = []

    def callback_row(name, settings):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(name)
        return {"case": "built-in", "contestant": name}

    monkeypatch.setattr(run, "callback_row", callback_row)
    store = Store(tmp_path / "a.json", {"device": "cpu"})

    def measure():
        suite = run.Suite(store, Settings(), len, INF, Screen(io.StringIO()))
        suite.measure(["built-in"])

    with pytest.raises(KeyboardInterrupt):
        measure()
    assert Store(tmp_path / "a.json", {"device": "cpu"}).done("built-in") == done
    first = done.copy()
    monkeypatch.setattr(run.callbacks_cost, "REGISTRY", dict.fromkeys([*first, "Other"]))
    done.clear()
    measure()
    assert done == ["Other"]
    assert store.done("built-in") == [*first, "Other"]


def test_a_case_that_does_not_exist_is_refused():
    with pytest.raises(SystemExit, match="there is no case 'mpl'\nUse some of: mlp-32"):
        run.plan(["mpl"], "cpu", quick=False)


def test_contestants_are_chosen():
    case = run.find("mlp-32")
    everybody = run.chooser(parsed(), "cpu")(case)
    assert {"lightning", "keras-fit-jit", "floor"} <= set(everybody)
    assert "keras-fit-jit" not in run.chooser(parsed("--quick"), "cpu")(case)
    some = run.chooser(parsed("--peers", "ignite"), "cpu")(case)
    assert "ignite" in some
    assert "lightning" not in some
    assert run.chooser(parsed("--contestants", "fitkit"), "cpu")(case) == ["fitkit"]
    assert "record-inductor" not in run.chooser(parsed("--quick"), "cpu")(run.find("batch=8"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--peers", "ligtning"), "there is no peer 'ligtning'\nUse some of: lightning,"),
        (("--peers", "ignite", "fitkit"), "there is no peer 'fitkit'\nUse some of: lightning,"),
        (("--contestants", "fitkti"), "there is no contestant 'fitkti'\nUse some of: hand-keras,"),
    ],
)
def test_a_contestant_that_does_not_exist_is_refused(given, said):
    with pytest.raises(SystemExit, match=said):
        run.chooser(parsed(*given), "cpu")
    assert run.chooser(parsed("--peers"), "cpu")(run.find("mlp-32"))  # none of them


def test_the_command_knows_its_three_words(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("run", "report", "compare"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(SystemExit, match="torch sees no CUDA device\nUse --device cpu"):
        main(["run", "--device", "cuda"])
