"""A run goes on where it was killed, ends in time, and refuses names it does not know."""

import argparse
import io
import json
import time

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.suite import options, rounds, run
from benchmarks.suite.process import Settings
from benchmarks.suite.rounds import OutOfTimeError
from benchmarks.suite.show import Screen
from benchmarks.suite.store import Store

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


def test_who_cannot_take_part_is_a_row_with_the_reason(begin):
    rows = begin(["mlp-32"], len)["rows"]
    assert [row["contestant"] for row in rows] == ["hand-torch", "composer"]  # no CUDA, no row
    assert rows[0]["error"] == "not run: mlp-32"
    assert "torch < 2.7.1" in rows[1]["left_out"]
    assert rows[0]["versions"]["torch"].startswith("2.")


def test_what_there_is_no_time_for_is_named(begin):
    calls = []
    result = begin(["mlp-32", "batch=8"], calls.append, seconds=20)
    assert calls == ["batch=8"]  # needs less
    assert result["left_out"] == ["mlp-32"]

    def too_slow(name):
        raise OutOfTimeError

    assert begin(["cnn"], too_slow)["left_out"] == ["mlp-32", "cnn"]


class Turns:
    """A contestant whose epochs take a second of a clock of the test's own."""

    def __init__(self, clock):
        self.clock, self.alive, self.waits = clock, True, []
        self.wall, self.cpu, self.passes = [], [], []

    def order(self, order, timeout):
        self.waits.append(timeout)
        self.clock[0] += 1.0
        return {"wall_s": 1.0, "cpu_s": 1.0, "pass_s": 1.0}


@pytest.mark.parametrize(
    ("deadline", "done"), [(float("inf"), [6, 6]), (6.5, [2, 3]), (1.5, [0, 0])]
)
def test_at_the_deadline_the_rounds_so_far_are_kept(monkeypatch, deadline, done):
    clock = [0.0]
    monkeypatch.setattr(rounds.time, "monotonic", lambda: clock[0])
    workers = [Turns(clock), Turns(clock)]
    rounds.take_turns(workers, Settings(rounds=6, ready_s=300.0), until, print)
    assert [len(worker.wall) for worker in workers] == done
    if deadline < 10:  # nobody is waited for long after it
        assert max(max(worker.waits) for worker in workers) == rounds.GRACE_S


# -- what is asked for -----------------------------------------------------------------------------


def parsed(*words):
    parser = argparse.ArgumentParser()
    options.add_arguments(parser)
    return parser.parse_args(words)


def test_plans_unfold_groups_and_curves():
    assert run.plan(["built-in", "metrics"], "cpu", quick=True) == [
        "built-in", "metrics=10",
    ]  # fmt: skip
    assert run.plan(["large"], "cpu", quick=False) == []
    assert run.plan(["large"], "cuda", quick=False) == ["resnet50", "gpt2", "gpt2-torch"]
    everything = run.plan(None, "cpu", quick=False)
    assert {"mlp-32", "gan", "layers=64", "built-in"} <= set(everything)
    assert len(everything) == len(set(everything))


def test_the_three_groups_are_all_there_is_on_a_gpu():
    groups = run.plan(["small", "large", "rest"], "cuda", quick=False)
    assert sorted(groups) == sorted(run.plan(None, "cuda", quick=False))


def test_a_case_that_does_not_exist_is_refused():
    with pytest.raises(SystemExit, match="there is no case 'mpl'\nUse some of: mlp-32"):
        run.plan(["mpl"], "cpu", quick=False)


def test_contestants_are_chosen():
    case = run.find("mlp-32")
    everybody = run.chooser(parsed())(case)
    assert {"lightning", "keras-fit-jit", "floor"} <= set(everybody)
    assert "keras-fit-jit" not in run.chooser(parsed("--quick"))(case)
    some = run.chooser(parsed("--peers", "ignite"))(case)
    assert "ignite" in some
    assert "lightning" not in some
    assert run.chooser(parsed("--contestants", "fitkit"))(case) == ["fitkit"]
    assert "record-inductor" not in run.chooser(parsed("--quick"))(run.find("batch=8"))


def test_the_command_knows_its_three_words(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("run", "report", "compare"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(SystemExit, match="torch sees no CUDA device\nUse --device cpu"):
        main(["run", "--device", "cuda"])
