"""Functions attached with `loop.on`: filters, phases, removal."""

import pytest

from fitkit import Callback, Checkpoint, ConfigError, Event, Phase
from tests.unit.loop.helpers import loader, make_loop


def heard(loop, event, epochs=2, **filters):
    """The number of batches counted at each call."""
    calls = []
    loop.on(event, **filters)(lambda state: calls.append(state.num_batches))
    loop.fit(epochs=epochs)
    return calls


def test_every_counts_firings():
    assert heard(make_loop(), Event.BATCH_END, every=3) == [3, 6]


def test_every_in_the_step_region():
    assert heard(make_loop(), Event.GRADS_READY, every=3) == [2, 5]  # not counted yet


def test_every_as_interval():
    assert heard(make_loop(), Event.BATCH_END, every="5 updates") == [5]
    assert heard(make_loop(), Event.EPOCH_END, epochs=4, every="2 epochs") == [8, 16]


@pytest.mark.parametrize("event", [Event.BATCH_END, Event.LOSS_READY])
def test_once(event):
    loop, calls = make_loop(), []
    loop.on(event, once=True)(lambda state: calls.append(state.num_batches))
    loop.fit(epochs=2)
    loop.fit(epochs=1)
    assert len(calls) == 1


@pytest.mark.parametrize("event", [Event.BATCH_END, Event.LOSS_READY])
def test_once_is_once_in_a_resumed_run(event, tmp_path):
    def run(epochs, resume):
        loop, calls = make_loop(Checkpoint(tmp_path)), []
        loop.on(event, once=True)(lambda state: calls.append(state.num_batches))
        loop.fit(epochs, resume=resume)
        return len(calls)

    assert run(1, None) == 1
    assert run(3, "auto") == 0


def test_when():
    def odd(state):
        return state.batch_index % 2 == 1

    assert heard(make_loop(), Event.BATCH_END, epochs=1, when=odd) == [2, 4]
    assert heard(make_loop(), Event.LOSS_READY, epochs=1, when=odd) == [1, 3]


def test_once_and_when_together_wait_for_the_condition():
    late = heard(make_loop(), Event.BATCH_END, once=True, when=lambda state: state.num_batches > 4)
    assert late == [5]


def test_filters_in_the_step_region_are_decided_at_batch_begin():
    """A recorded step must not hold a decision, so it is part of what the step depends on."""
    loop, decided = make_loop(), []
    handle = loop.on(Event.LOSS_READY, every=2)(lambda state: None)
    loop.on(Event.LOSS_READY)(lambda state: decided.append(handle.step_key))
    loop.fit(epochs=1)
    assert decided == [False, True, False, True]


def test_phases():
    loop, phases = make_loop(val=loader(2)), []

    @loop.on(Event.BATCH_END, phases=Phase)
    def note(state):
        phases.append(str(state.phase))

    assert heard(loop, Event.BATCH_END, epochs=1) == [1, 2, 3, 4]  # training only by default
    assert phases == ["train"] * 4 + ["val"] * 2


@pytest.mark.parametrize("phases", ["train", ["training"]])
def test_phases_that_are_none(phases):
    with pytest.raises(ConfigError, match="phases is frozenset"):
        make_loop().on(Event.BATCH_END, phases=phases)(print)


def test_a_decorator_without_an_event_is_refused():
    with pytest.raises(TypeError, match="is no event"):

        @make_loop().on
        def never_called(state): ...


def test_a_function_that_always_runs_is_no_part_of_a_saved_run():
    loop = make_loop()
    always, once = (loop.on(Event.BATCH_END, once=flag)(lambda state: None) for flag in (0, 1))
    loop.fit(epochs=1)
    assert always.state_dict() == {}
    assert once.state_dict() == {"num_firings": 1, "is_done": True}


def test_handle_is_callable_and_removable():
    loop, calls = make_loop(), []

    @loop.on(Event.BATCH_END)
    def note(state):
        calls.append(state.num_batches)
        if state.num_batches == 2:
            note.remove()

    loop.fit(epochs=1)
    assert calls == [1, 2]
    assert note not in loop.callbacks
    note(loop.state)
    assert calls == [1, 2, 4]
    note.remove()  # a second time is harmless


def test_handle_is_a_callback_named_like_the_function():
    loop = make_loop()

    @loop.on(Event.EPOCH_END)
    def at_the_end(state):
        """Nothing."""

    assert isinstance(at_the_end, Callback)
    assert "at_the_end" in str(loop)
    assert "test_listener.py" in str(loop)


def test_a_function_can_fill_an_action():
    loop = make_loop()
    backward = next(c for c in loop.callbacks if type(c).__name__ == "Backward")
    loop.detach(backward)
    loop.on(Event.BACKWARD)(lambda state: state.loss.backward())
    before = loop.model.weight.item()
    loop.fit(epochs=1)
    assert loop.model.weight.item() != before
