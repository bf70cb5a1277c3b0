import io

import pytest

from fitkit import ConfigError, Event, PrintLog
from tests.unit.watch.helpers import Losses, counted_syncs, data, make_loop


def run(epochs=1, *, num_samples=40, val=None, **kwargs):
    file, losses = io.StringIO(), Losses()
    loop = make_loop(losses, PrintLog(file=file, **kwargs), num_samples=num_samples, val=val)
    history = loop.fit(epochs)
    return file.getvalue().splitlines(), losses.values, history


def test_the_lines_of_the_guide():
    lines, losses, history = run(every=5, num_samples=38, val=data(8))
    assert lines == [
        "Start of epoch 0",
        f"Training loss (for 1 batch) at step 0: {losses[0]:.4f}",
        "Seen so far: 4 samples",
        f"Training loss (for 1 batch) at step 5: {losses[5]:.4f}",
        "Seen so far: 24 samples",
        f"Epoch 0: loss {history['loss'][0]:.4f}  val_loss {history['val_loss'][0]:.4f}  lr 0.0100",
    ]


def test_the_ragged_last_batch_counts_what_it_has():
    lines, _, _ = run(every=9, num_samples=38)
    assert lines[4] == "Seen so far: 38 samples"


def test_every_epoch_starts_anew():
    lines, losses, _ = run(2, every=100, num_samples=40)
    assert [line for line in lines if "step" in line] == [
        f"Training loss (for 1 batch) at step 0: {losses[0]:.4f}",
        f"Training loss (for 1 batch) at step 0: {losses[10]:.4f}",
    ]
    assert lines[4] == "Start of epoch 1"
    assert lines[6] == "Seen so far: 4 samples"


def test_an_interval_counts_updates():
    lines, losses, _ = run(every="4 updates", num_samples=40)
    assert [line for line in lines if "step" in line] == [
        f"Training loss (for 1 batch) at step 3: {losses[3]:.4f}",
        f"Training loss (for 1 batch) at step 7: {losses[7]:.4f}",
    ]


@pytest.mark.parametrize("every", [0, -1, True, 2.5, "often", None])
def test_what_is_no_interval_is_refused(every):
    with pytest.raises(ConfigError, match="every"):
        PrintLog(every=every)


def test_a_stop_in_mid_epoch_still_prints_the_logs():
    file = io.StringIO()
    loop = make_loop(PrintLog(file=file))
    history = loop.fit(max_steps=3)
    *_, logs, reason = file.getvalue().splitlines()
    assert logs == f"Epoch 0, stopped: loss {history['loss'][0]:.4f}  lr 0.0100"
    assert reason == "Stopped: max_steps: 3 updates done"


def test_other_processes_are_silent():
    file = io.StringIO()
    loop = make_loop(PrintLog(file=file))
    loop.state.is_main = False
    loop.fit(1)
    assert file.getvalue() == ""


def test_turns_have_a_loss_each():
    file = io.StringIO()
    loop = make_loop(PrintLog(file=file))

    @loop.on(Event.UPDATE_METRICS)
    def split(state):
        del state.step_values["loss"]
        state.log("critic_loss", state.loss * 2)
        state.log("generator_loss", state.loss * 3)

    loop.fit(max_steps=1)
    assert "Training critic loss (for 1 batch) at step 0" in file.getvalue()
    assert "Training generator loss (for 1 batch) at step 0" in file.getvalue()


def test_one_sync_per_printed_loss(monkeypatch):
    loop = make_loop(PrintLog(every=4, file=io.StringIO()), num_samples=40)
    with counted_syncs(monkeypatch) as syncs:
        loop.fit(1)
    assert syncs == ["tolist"] * 4  # batches 0, 4, 8, and the metrics of the pass


def test_two_loggers_at_once():
    first, second = io.StringIO(), io.StringIO()
    make_loop(PrintLog(file=first), PrintLog(file=second)).fit(1)
    assert first.getvalue() == second.getvalue() != ""
