"""The benchmark harness alternates, pairs within a round, and says where it measured."""

import json
from importlib import metadata

import pytest

from benchmarks import harness


@pytest.fixture
def timed(monkeypatch):
    """A harness whose contestants take 100 us (a) and 80 us (b) per step, and the calls made."""
    calls = []

    def time_steps(run, steps, device):
        name = run(steps)
        calls.append((name, steps))
        return {"a": 100.0, "b": 80.0}[name], 120.0

    monkeypatch.setattr(harness, "time_steps", time_steps)
    return calls


def test_compare_alternates_and_takes_ratios_to_the_first(timed):
    result = harness.compare({"a": lambda n: "a", "b": lambda n: "b"}, steps=7, rounds=3)
    assert [name for name, _ in timed] == list("abbaabba")
    assert {steps for _, steps in timed} == {7}
    assert result["cpu_ratio"]["b"] == {"median": 0.8, "p5": 0.8, "p95": 0.8, "all": [0.8] * 3}
    assert result["wall_ratio"]["b"]["median"] == 1.0
    assert "0.800 (0.800 to 0.800)" in harness.table(result)


def test_times_are_per_step():
    cpu_us, wall_us = harness.time_steps(lambda n: sum(range(200_000)), 10, "cpu")
    assert 0 < cpu_us < 1e5
    assert 0 < wall_us < 1e5


def test_result_file_says_where_it_was_measured(timed, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    result = harness.compare({"a": lambda n: "a"}, rounds=2)
    written = json.loads(harness.write_result("example", result).read_text())
    assert written == result
    assert written["machine"]["threads"] == 1
    assert written["machine"]["versions"]["torch"] == metadata.version("torch")
