"""A tenth of the fault matrix, with all controls of the cheap rows; the rest is one command."""

import itertools
import time

import pytest

from tests.faults import rows, rows_security

pytestmark = pytest.mark.faults

BY_NAME = {row.name: row for row in rows.ROWS}


@pytest.mark.parametrize("name", BY_NAME)
def test_no_harm(name, tmp_path):
    row = BY_NAME[name]
    trials = list(row.trials(tmp_path))[:: row.share]
    assert trials
    for trial in trials:
        trial()


@pytest.mark.parametrize("name", [row.name for row in rows.ROWS if row.control_is_cheap])
def test_without_the_protection_it_fails(name, tmp_path):
    assert BY_NAME[name].control(tmp_path) > 0


@pytest.mark.slow
def test_ten_minutes_of_damage_at_random(tmp_path):
    """Files damaged at random, without end: refused, or read as other numbers, never a crash."""
    end = time.monotonic() + 600
    for seed in itertools.count(1_000_000):
        rows_security.fuzzed(tmp_path, seed)
        if time.monotonic() > end:
            return
