"""Logs cost nothing until somebody looks, and are an ordinary dict from then on."""

import json
from weakref import ref

import pytest

from fitkit.tune.lazy_logs import LazyLogs


@pytest.fixture
def source():
    """A function that counts its calls."""

    def read():
        read.calls += 1
        return {"loss": 1.5, "mae": 2.0}

    read.calls = 0
    return read


LOOKS = {
    "get": lambda logs: logs.get("loss") == 1.5,
    "index": lambda logs: logs["mae"] == 2.0,
    "truth": bool,
    "or": lambda logs: (logs or {})["loss"] == 1.5,
    "dict": lambda logs: dict(logs) == {"loss": 1.5, "mae": 2.0},
    "spread": lambda logs: {**logs} == {"loss": 1.5, "mae": 2.0},
    "update": lambda logs: _updated(logs) == {"loss": 1.5, "mae": 2.0},
    "items": lambda logs: list(logs.items()) == [("loss", 1.5), ("mae", 2.0)],
    "list": lambda logs: list(logs) == ["loss", "mae"],
    "sorted": lambda logs: sorted(logs) == ["loss", "mae"],
    "in": lambda logs: "loss" in logs,
    "len": lambda logs: len(logs) == 2,
    "repr": lambda logs: repr(logs) == "{'loss': 1.5, 'mae': 2.0}",
    "equal": lambda logs: logs == {"loss": 1.5, "mae": 2.0},
    "union": lambda logs: (logs | {"a": 1})["loss"] == 1.5,
    "copy": lambda logs: logs.copy()["loss"] == 1.5,
    "format": lambda logs: "{loss}".format(**logs) == "1.5",
    "write": lambda logs: _written(logs) == {"loss": 0.0, "mae": 2.0},
}


def _updated(logs):
    other = {}
    other.update(logs)
    return other


def _written(logs):
    logs["loss"] = 0.0
    return logs


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_any_look_reads_once(look, source):
    logs = LazyLogs(source)
    assert isinstance(logs, dict)
    assert source.calls == 0
    assert look(logs)
    assert look(logs)
    assert source.calls == 1
    assert json.dumps(logs)


def test_one_value_is_had_without_reading_all(source):
    logs = LazyLogs(source, {"loss": 0.5}.get)
    assert logs
    assert (logs or {}).get("loss") == logs["loss"] == 0.5
    assert source.calls == 0
    assert logs.get("mae") == 2.0  # the others are read together
    assert source.calls == 1
    assert dict(logs) == {"loss": 1.5, "mae": 2.0}
    assert logs.get("none", 3) == 3


def test_what_somebody_kept_is_seen(source):
    def outlives(keep):
        logs = LazyLogs(source)
        for hook in [keep]:
            hook(logs)
        kept = ref(logs)
        del logs
        return kept() is not None

    kept = []
    assert not outlives(str)
    assert not outlives(lambda logs: logs.get("loss"))
    assert outlives(kept.append)


def test_what_was_settled_is_not_read_again(source):
    logs = LazyLogs(source)
    logs.settle()
    assert source.calls == 1
    assert logs["loss"] == 1.5
    assert source.calls == 1


def test_settling_what_was_read_changes_nothing(source):
    logs = LazyLogs(source)
    assert logs["loss"] == 1.5
    logs.settle()
    assert logs == {"loss": 1.5, "mae": 2.0}
    assert source.calls == 1
