"""Leaks are those of the test itself."""

import pytest

from tests.unit.record import loops


@pytest.fixture(autouse=True)
def _fakes_of_others():
    loops.remember_fakes()
