"""Samplers, stateful loaders and PyDatasets that keep their order themselves go on with it."""

import pytest

from fitkit.data import streams
from tests.faults.rows_resume import loader_trial

CUT = 45  # in the second pass


@pytest.mark.parametrize("name", ["own sampler", "stateful", "PyDataset, state"])
def test_the_rest_of_the_run_is_the_same(name, tmp_path):
    loader_trial(tmp_path, name, CUT, 3)


@pytest.mark.parametrize("name", ["own sampler", "PyDataset, state"])
def test_what_is_not_kept_is_another_order(name, tmp_path, monkeypatch):
    """The negative control."""
    monkeypatch.setattr(streams, "_keepers", lambda loader: {})
    with pytest.raises(AssertionError):
        loader_trial(tmp_path, name, CUT, 3)
