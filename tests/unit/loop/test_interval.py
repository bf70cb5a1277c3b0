"""Intervals: their grammar, and when they are due."""

import pytest
import torch
from torch import nn

from fitkit import State
from fitkit.errors import ConfigError
from fitkit.loop import Interval


@pytest.fixture
def state():
    return State(nn.Identity(), device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("text", "count", "unit"),
    [
        (7, 7, "update"),
        ("1 epoch", 1, "epoch"),
        ("2 epochs", 2, "epoch"),
        (" 500 updates ", 500, "update"),
        ("1 update", 1, "update"),
        ("10 minutes", 10, "minute"),
        ("0.5 minutes", 0.5, "minute"),
    ],
)
def test_grammar(text, count, unit):
    interval = Interval.parse(text)
    assert (interval.count, interval.unit) == (count, unit)


@pytest.mark.parametrize(
    "text",
    [
        0,
        -1,
        True,
        1.0,
        None,
        "",
        "epoch",
        "0 epochs",
        "1.5 epochs",
        "3 steps",
        "1epoch",
        "-1 epoch",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(ConfigError, match="every"):
        Interval.parse(text)


def test_argument_is_named():
    with pytest.raises(ConfigError, match="save_every"):
        Interval.parse("often", argument="save_every")


def due_at(interval, state, field, values):
    due = []
    for value in values:
        setattr(state, field, value)
        if interval.due(state):
            interval.mark(state)
            due.append(value)
    return due


def test_due_at_multiples(state):
    interval = Interval.parse(3)
    interval.start(state)
    assert due_at(interval, state, "num_updates", range(10)) == [3, 6, 9]


def test_due_once_until_marked(state):
    interval = Interval.parse(2)
    interval.start(state)
    state.num_updates = 2
    assert interval.due(state)
    assert interval.due(state)
    interval.mark(state)
    assert not interval.due(state)


def test_jumping_over_a_multiple_is_due_and_keeps_the_rhythm(state):
    interval = Interval.parse(4)
    interval.start(state)
    assert due_at(interval, state, "num_updates", [3, 5, 7, 8, 13]) == [5, 8, 13]


def test_a_resumed_run_keeps_the_rhythm(state):
    interval = Interval.parse(4)
    state.num_updates = 6
    interval.start(state)
    assert due_at(interval, state, "num_updates", range(6, 14)) == [8, 12]


def test_epochs(state):
    interval = Interval.parse("2 epochs")
    interval.start(state)
    assert due_at(interval, state, "num_epochs", range(7)) == [2, 4, 6]


def test_minutes(state, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("fitkit.loop.state.time.perf_counter", lambda: now[0])
    state.started_at = 100.0
    interval = Interval.parse("2 minutes")
    interval.start(state)
    due = []
    for seconds in range(0, 400, 50):
        now[0] = 100.0 + seconds
        if interval.due(state):
            interval.mark(state)
            due.append(seconds)
    assert due == [150, 250]
