"""A tenth of the fault matrix, with all controls of the cheap rows; the rest is one command."""

import pytest

from tests.faults import rows

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
