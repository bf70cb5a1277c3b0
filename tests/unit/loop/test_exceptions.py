"""A callback raises at any event: everyone is closed, the error says where it came from."""

import contextlib
import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from fitkit import Callback, Event, FitLoop, Phase, TensorLoader, supervised
from fitkit.loop.events import BATCH_EVENTS, hook_name

X, Y = torch.randn(32, 4), torch.randn(32, 1)
RAISED = [RuntimeError, KeyboardInterrupt, SystemExit, StopIteration]
IN_RUN = [event for event in Event if event not in (Event.EXCEPTION, Event.CLOSE)]


class Witness(Callback):
    """Writes down when it is opened, told of an error, and closed."""

    def __init__(self, name, diary):
        self.name, self.diary = name, diary

    def on_open(self, state):
        self.diary.append(("open", self.name))

    def on_exception(self, state):
        self.diary.append(("exception", self.name))
        self.error = state.error

    def on_close(self, state):
        self.diary.append(("close", self.name))


def stack_and_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return model, optimizer, list(supervised(loss=nn.MSELoss(), optimizer=optimizer))


def loop_with(*callbacks, at=0):
    """A working loop with extra callbacks at a place of its list."""
    model, _, standard = stack_and_model()
    standard[at:at] = callbacks
    loader = TensorLoader(X, Y, batch_size=8, shuffle=True)
    return FitLoop(model, loader, TensorLoader(X, Y, batch_size=16), callbacks=standard)


IN_FIRST_BATCH = {*BATCH_EVENTS, Event.VALIDATE, Event.SAVE}  # the last two on request
ACTIONS = {Event.ZERO_GRAD, Event.FORWARD, Event.LOSS, Event.BACKWARD, Event.APPLY}


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("event", [event for event in IN_RUN if event not in ACTIONS])
def test_everyone_opened_is_closed_once_in_reverse_order(event, place, kind):
    error, diary = kind("broken"), []

    def fail(state):
        raise error

    witnesses = [Witness(name, diary) for name in "abc"]
    raiser = type("Raiser", (Callback,), {hook_name(event): lambda self, state: fail(state)})()
    index = {"first": 0, "middle": 2, "last": 3}[place]
    loop = loop_with(*witnesses[:index], raiser, *witnesses[index:], at=4)
    if event in (Event.VALIDATE, Event.SAVE):
        loop.on(Event.BATCH_END)(lambda state: state.request(event))
    with pytest.raises(kind) as caught:
        loop.fit(epochs=1)
    assert caught.value is error
    opened = "abc"[:index] if event is Event.OPEN else "abc"
    assert diary == [
        *(("open", name) for name in opened),
        *(("exception", name) for name in opened),
        *(("close", name) for name in reversed(opened)),
    ]
    assert all(witness.error is error for witness in witnesses[: len(opened)])
    notes = "\n".join(error.__notes__)
    assert f"raised in Raiser.{hook_name(event)} at {event.name}" in notes
    assert f"epoch {1 if event is Event.FIT_END else 0}" in notes
    assert "updates" in notes
    assert ("batch 0" in notes) == (event in IN_FIRST_BATCH)
    assert_is_as_before(loop)


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("event", sorted(ACTIONS))
def test_the_callback_of_an_action_raises(event, kind, monkeypatch):
    error, diary = kind("broken"), []
    standard = stack_and_model()[2]
    acting = next(type(c) for c in standard if hook_name(event) in vars(type(c)))
    act = getattr(acting, hook_name(event))

    def fail(self, state):
        if state.batch_index == 2:
            raise error
        act(self, state)

    monkeypatch.setattr(acting, hook_name(event), fail)
    loop = loop_with(Witness("a", diary), Witness("b", diary))
    with pytest.raises(kind) as caught:
        loop.fit(epochs=1)
    assert caught.value is error
    assert [who for what, who in diary if what == "close"] == ["b", "a"]
    notes = "\n".join(error.__notes__)
    assert f"raised in {acting.__name__}.{hook_name(event)} at {event.name}" in notes
    assert "in the train pass, batch 2, epoch 0, after 2 updates" in notes
    assert_is_as_before(loop)


def assert_is_as_before(loop):
    """Nothing of a failed run is left: modes, grad mode, frames, flags."""
    assert all(module.training for module in loop.model.modules())
    assert torch.is_grad_enabled()
    assert loop.running is None
    assert not hasattr(loop.state, "phase")
    assert not hasattr(loop.state, "loss")
    assert loop.state.error is None


def test_teardown_raises_too():
    class Closes(Callback):
        def __init__(self, error):
            self.error = error

        def on_close(self, state):
            raise self.error

    diary, first, second = [], ValueError("first"), KeyError("second")
    error = RuntimeError("the cause")

    def fail(state):
        raise error

    a, b, c = (Witness(name, diary) for name in "abc")
    loop = loop_with(a, Closes(first), b, Closes(second), c)
    loop.on(Event.BATCH_END)(fail)
    with pytest.raises(RuntimeError) as caught:
        loop.fit(epochs=1)
    assert caught.value is error
    assert [who for what, who in diary if what == "close"] == ["c", "b", "a"]
    notes = "\n".join(error.__notes__)
    assert "Closes.on_close raised too: ValueError('first')" in notes
    assert "Closes.on_close raised too: KeyError('second')" in notes
    assert_is_as_before(loop)


@pytest.mark.parametrize("kind", RAISED)
def test_only_teardown_raises(kind):
    class Closes(Callback):
        def __init__(self, error):
            self.error = error

        def on_close(self, state):
            raise self.error

    diary, first, second = [], kind("first"), ValueError("second")
    a, b = (Witness(name, diary) for name in "ab")
    loop = loop_with(a, Closes(second), Closes(first), b)
    with pytest.raises(kind) as caught:
        loop.fit(epochs=1)
    assert caught.value is first  # the last one listed is closed first
    assert diary[-2:] == [("close", "b"), ("close", "a")]
    notes = "\n".join(first.__notes__)
    assert "raised in Closes.on_close at CLOSE" in notes
    assert "after 4 updates" in notes
    assert "ValueError('second')" in notes
    assert_is_as_before(loop)


def test_on_exception_raises_too():
    class Worse(Callback):
        def on_exception(self, state):
            raise ValueError("even worse")

    diary, error = [], RuntimeError("the cause")

    def fail(state):
        raise error

    a, b = (Witness(name, diary) for name in "ab")
    loop = loop_with(a, Worse(), b)
    loop.on(Event.BATCH_END)(fail)
    with pytest.raises(RuntimeError) as caught:
        loop.fit(epochs=1)
    assert caught.value is error
    assert any("Worse.on_exception raised too: ValueError" in note for note in error.__notes__)
    assert [entry for entry in diary if entry[0] != "open"] == [
        *[("exception", "a"), ("exception", "b")],
        *[("close", "b"), ("close", "a")],
    ]


def test_the_loader_raises():
    def loader():
        yield X, Y
        raise OSError("the disk is gone")

    diary = []
    model, _, standard = stack_and_model()
    loop = FitLoop(model, loader(), callbacks=[*standard, Witness("a", diary)])
    with pytest.raises(OSError, match="disk") as caught:
        loop.fit(epochs=1)
    assert diary == [("open", "a"), ("exception", "a"), ("close", "a")]
    notes = "\n".join(caught.value.__notes__)
    assert "while fetching batch 1 of train loader" in notes
    assert "raised in no callback" in notes
    assert_is_as_before(loop)


class FailsOnce(Callback):
    """Raises once, in the second batch, and keeps what the run was then."""

    def __init__(self, event, optimizer):
        self.optimizer, self.kept = optimizer, None
        self.event = event

    def fire(self, state, event):
        if event is self.event and self.kept is None and state.num_batches >= 1:
            self.kept = copy.deepcopy([state.model, self.optimizer.state_dict()])
            self.rng = torch.get_rng_state()
            raise RuntimeError("once")

    def on_loss_ready(self, state):
        self.fire(state, Event.LOSS_READY)

    def on_grads_ready(self, state):
        self.fire(state, Event.GRADS_READY)

    def on_batch_end(self, state):
        self.fire(state, Event.BATCH_END)


@pytest.mark.parametrize("event", [Event.LOSS_READY, Event.GRADS_READY, Event.BATCH_END])
def test_fit_after_a_failure_equals_a_run_that_never_failed(event):
    model, optimizer, standard = stack_and_model()
    loader = TensorLoader(X, Y, batch_size=8, shuffle=True)
    validation = TensorLoader(X, Y, batch_size=16)
    failing = FailsOnce(event, optimizer)
    loop = FitLoop(model, loader, validation, callbacks=[*standard, failing])
    with pytest.raises(RuntimeError, match="once"):
        loop.fit(epochs=2)
    torch.set_rng_state(failing.rng)
    after = loop.fit(epochs=2).rows

    fresh, fresh_optimizer, standard = stack_and_model()
    fresh.load_state_dict(failing.kept[0].state_dict())
    fresh_optimizer.load_state_dict(failing.kept[1])
    never = FitLoop(
        fresh,
        TensorLoader(X, Y, batch_size=8, shuffle=True),
        TensorLoader(X, Y, batch_size=16),
        callbacks=standard,
    )
    torch.set_rng_state(failing.rng)
    expected = never.fit(epochs=2).rows

    assert all(map(torch.equal, model.state_dict().values(), fresh.state_dict().values()))
    assert [row["loss"] for row in after] == [row["loss"] for row in expected]
    assert [row["val_loss"] for row in after] == [row["val_loss"] for row in expected]


@pytest.mark.parametrize("call", ["evaluate", "predict"])
def test_a_nested_pass_raises_and_the_callback_carries_on(call):
    """The outer pass goes on in train mode, with its own metrics, as if nothing had happened."""

    def run(nested):
        loop = loop_with()

        @loop.on(Event.BATCH_END, phases=list(Phase))
        def nest(state):
            if state.phase is not Phase.TRAIN:
                raise OSError("in the nested pass")
            if nested:
                rng = torch.get_rng_state()
                with pytest.raises(OSError, match="in the nested pass") as caught:
                    getattr(loop, call)(TensorLoader(X, Y, batch_size=8))
                assert f"in the {Phase.VAL if call == 'evaluate' else Phase.PREDICT} pass" in (
                    "\n".join(caught.value.__notes__)
                )
                torch.set_rng_state(rng)
                assert state.phase is Phase.TRAIN
                assert torch.is_grad_enabled()
                assert loop.model.training

        loop.val_loaders.clear()
        rows = loop.fit(epochs=2).rows
        return loop, rows

    (plain, expected), (nested, found) = run(False), run(True)
    assert found == expected
    assert torch.equal(plain.model[0].weight, nested.model[0].weight)


def test_the_validation_of_a_run_raises():
    loop = loop_with()

    @loop.on(Event.FORWARD, phases=["predict"])  # an action of another phase does no harm
    def forward(state):
        raise NotImplementedError

    loop.detach(forward)

    @loop.on(Event.BATCH_END, phases=["val"])
    def fail(state):
        raise OSError("broken")

    with pytest.raises(OSError, match="broken") as caught:
        loop.fit(epochs=1)
    notes = "\n".join(caught.value.__notes__)
    assert "in the val pass, batch 0, epoch 0, after 4 updates" in notes
    assert "raised in fail.on_batch_end at BATCH_END" in notes
    assert_is_as_before(loop)


def test_evaluate_and_predict_in_a_callback_leave_the_training_alone():
    def run(nested):
        loop = loop_with()

        @loop.on(Event.BATCH_END)
        def nest(state):
            if nested:
                rng = torch.get_rng_state()
                before = {name: getattr(state, name) for name in ("batch", "loss", "batch_index")}
                inside = loop.evaluate()
                predicted = loop.predict(TensorLoader(X, Y, batch_size=5))
                assert inside["loss"] == pytest.approx(loss_of(predicted), rel=1e-5)
                assert all(getattr(state, name) is value for name, value in before.items())
                torch.set_rng_state(rng)

        return loop, loop.fit(epochs=2).rows

    (plain, expected), (nested, found) = run(False), run(True)
    assert found == expected
    assert torch.equal(plain.model[0].weight, nested.model[0].weight)


def loss_of(predicted):
    return float(((torch.from_numpy(predicted) - Y) ** 2).mean())


def test_evaluate_within_a_validation_pass_leaves_its_loss_alone():
    def run(nested):
        loop = loop_with()
        if nested:
            once = loop.on(Event.BATCH_END, phases=["val"], when=lambda s: s.prefix == "val_")
            once(lambda state: loop.evaluate(TensorLoader(X * 3, Y, batch_size=8)))
        return loop.fit(epochs=1).rows

    assert run(True) == run(False)


def test_predict_after_a_predict_that_failed():
    loop = loop_with()
    failing = loop.on(Event.BATCH_END, phases=["predict"], when=lambda s: s.batch_index == 1)

    @failing
    def fail(state):
        raise OSError("broken")

    loader = TensorLoader(X, Y, batch_size=8)
    with pytest.raises(OSError, match="broken"):
        loop.predict(loader)
    fail.remove()
    assert loop.predict(loader).shape == (32, 1)


@pytest.mark.parametrize("call", ["evaluate", "predict"])
def test_runs_without_training_close_too(call):
    diary, error = [], KeyboardInterrupt()
    loop = loop_with(Witness("a", diary), Witness("b", diary))

    @loop.on(Event.BATCH_END, phases=list(Phase))
    def fail(state):
        raise error

    with pytest.raises(KeyboardInterrupt) as caught:
        getattr(loop, call)(TensorLoader(X, Y))
    assert caught.value is error
    assert [who for what, who in diary if what == "close"] == ["b", "a"]
    assert_is_as_before(loop)


def test_a_callback_attached_in_mid_run_is_closed():
    diary = []
    loop = loop_with(Witness("a", diary))

    @loop.on(Event.BATCH_END)
    def grow(state):
        if state.num_batches == 1:
            loop.attach(Witness("late", diary))
        if state.num_batches == 3:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        loop.fit(epochs=1)
    assert [who for what, who in diary if what == "open"] == ["a", "late"]
    assert [who for what, who in diary if what == "close"] == ["late", "a"]


def test_a_caught_error_does_not_keep_the_model_alive():
    loop = loop_with()

    @loop.on(Event.BATCH_END)
    def fail(state):
        raise RuntimeError("broken")

    model = weakref.ref(loop.model)
    with contextlib.suppress(RuntimeError):
        loop.fit(epochs=1)
    del loop, fail
    gc.collect()
    assert model() is None
