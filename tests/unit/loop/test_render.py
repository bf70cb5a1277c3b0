"""`print(loop)`: what will run, in firing order, per phase."""

from fitkit import Event, Turn
from tests.unit.loop.helpers import loader, make_loop, recorder


def section(loop, phase):
    return str(loop).split(f"\n{phase}:\n")[1].split("\n\n")[0].splitlines()


def test_rows_are_in_firing_order_with_file_and_marks():
    loop = make_loop(val=loader())
    rows = section(loop, "train")
    order = [Event[row[3:].split()[0]] for row in rows]
    assert order == sorted(order)
    forward = next(row for row in rows if " FORWARD " in row)
    assert forward.split() == ["|", "FORWARD", "[A]", "Forward", "fitkit/step/forward.py"]
    metrics = next(row for row in rows if "UPDATE_METRICS" in row)
    assert metrics.split() == ["|", "UPDATE_METRICS", "Metrics", "fitkit/passes/metrics.py"]


def test_phases_show_what_they_run():
    loop = make_loop()
    assert any("BACKWARD" in row for row in section(loop, "train"))
    assert not any("BACKWARD" in row for row in section(loop, "val"))
    assert not any("LOSS" in row for row in section(loop, "predict"))
    assert any("FORWARD" in row for row in section(loop, "predict"))


def test_first_line_says_model_and_device():
    assert str(make_loop()).splitlines()[0] == "FitLoop(Linear) on cpu"


def test_turns_are_named():
    loop = make_loop()
    loop.attach(Turn("critic", [recorder(Event.LOSS_READY, name="Gradient")]))
    rows = [row.split() for row in section(loop, "train") if "Gradient" in row]
    assert [row[:4] for row in rows] == [["|", "LOSS_READY", "critic", "Gradient"]]


def test_what_is_shown_is_what_runs():
    heard = recorder(Event.LOSS_READY, Event.GRADS_READY, Event.BATCH_END, name="Shown")
    loop = make_loop(heard)
    shown = [row[3:].split()[0] for row in section(loop, "train") if "Shown" in row]
    loop.fit(max_steps=1)
    assert shown == heard.heard
