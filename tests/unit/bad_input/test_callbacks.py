"""Mistakes in the list of callbacks and in callback classes."""

import warnings

import keras
import pytest
from torch import nn

from fitkit import (
    Backward,
    Callback,
    CallbackOrderError,
    ConfigError,
    Event,
    FitLoop,
    Forward,
    TorchLoss,
    Turn,
    ZeroGrad,
    compiled,
    supervised,
)
from fitkit.loop import roster
from tests.unit.bad_input.mistakes import check_message, loop_of, refused, regression


class Greet(Callback):
    def on_epoch_end(self, state):
        print("hello")


def without(name):
    model, callbacks, loader = regression()
    left = [callback for callback in callbacks if type(callback).__name__ != name]
    return model, FitLoop(model, loader, callbacks=left)


@pytest.mark.parametrize(
    ("name", "event", "supplier"),
    [
        ("ZeroGrad", "ZERO_GRAD", "Add ZeroGrad"),
        ("Forward", "FORWARD", "Add Forward"),
        ("TorchLoss", "LOSS", "TorchLoss or KerasLoss"),
        ("Backward", "BACKWARD", "Add Backward"),
        ("TorchStep", "APPLY", "TorchStep or KerasApply"),
    ],
)
def test_a_role_is_missing(name, event, supplier):
    model, loop = without(name)
    with refused(CallbackOrderError, f"nothing fills {event}", supplier, "TrainMode", model=model):
        loop.fit(epochs=1)


def test_the_list_given_is_shown_without_what_the_loop_adds():
    with refused(CallbackOrderError, "Callbacks given: Greet.") as _:
        FitLoop(nn.Linear(4, 1), [1], callbacks=[Greet()]).fit(epochs=1)


def test_no_callbacks_at_all():
    with refused(CallbackOrderError, "Callbacks given: none", "supervised(loss=, optimizer=)"):
        FitLoop(nn.Linear(4, 1), [1]).fit(epochs=1)


@pytest.mark.parametrize("doubled", [ZeroGrad, Backward, Forward])
def test_two_callbacks_fill_one_action(doubled):
    model, callbacks, loader = regression()
    first = next(i for i, c in enumerate(callbacks) if isinstance(c, doubled))
    loop = FitLoop(model, loader, callbacks=[*callbacks, doubled()])
    name = doubled.__name__
    tokens = [f"callbacks[{first}] {name}", f"callbacks[{len(callbacks)}] {name}", "filled twice"]
    with refused(CallbackOrderError, *tokens, model=model):
        loop.fit(epochs=1)


def test_two_optimizers():
    model, callbacks, loader = regression()
    again = next(c for c in regression()[1] if type(c).__name__ == "TorchStep")
    loop = FitLoop(model, loader, callbacks=[*callbacks, again])
    with refused(CallbackOrderError, "APPLY", "callbacks[6] TorchStep", "callbacks[9] TorchStep"):
        loop.fit(epochs=1)


def test_a_callback_is_listed_before_one_it_needs():
    class Needs(Callback):
        after = ("Metrics",)

    model, callbacks, loader = regression()
    loop = FitLoop(model, loader, callbacks=[Needs(), *callbacks])
    tokens = ["callbacks[0] Needs", "callbacks[8] Metrics", "Right order: Metrics, Needs"]
    with refused(CallbackOrderError, *tokens, model=model):
        loop.fit(epochs=1)


def test_a_class_instead_of_an_instance():
    with refused(TypeError, "the class Greet", "Add ()"):
        FitLoop(nn.Linear(4, 1), callbacks=[Greet])


def test_a_class_inside_a_turn():
    with refused(TypeError, "the class ZeroGrad", "Add ()"):
        FitLoop(nn.Linear(4, 1), callbacks=[Turn("critic", [ZeroGrad])])


def test_a_keras_callback():
    class Mine(keras.callbacks.Callback):
        pass

    for callback, module in [
        (keras.callbacks.TerminateOnNaN(), "keras.src.callbacks"),
        (Mine(), Mine.__module__),
    ]:
        with refused(TypeError, module, type(callback).__name__, "Keras", "fitkit.Callback"):
            FitLoop(nn.Linear(4, 1), callbacks=[callback])


def test_a_callback_of_another_library():
    class ModelCheckpoint:
        def on_train_epoch_end(self, trainer, pl_module):
            raise NotImplementedError

    with refused(TypeError, ModelCheckpoint.__module__, "ModelCheckpoint", "Subclass fitkit"):
        loop_of().attach(ModelCheckpoint())


def test_a_function():
    def greet(state):
        return state

    with refused(TypeError, __name__, "greet", "@loop.on", "fitkit.Callback"):
        loop_of().attach(greet)


def test_a_stack_that_was_not_called():
    for stack in (supervised, compiled):
        with refused(
            TypeError, f"the function fitkit.{stack.__module__[7:]}", f"{stack.__name__}("
        ):
            loop_of().attach(stack)


@pytest.mark.parametrize("event", ["batch_end", Callback.on_batch_end, 13, None])
def test_a_function_for_something_that_is_no_event(event):
    loop = loop_of()
    with refused(TypeError, "is no event", "@loop.on(Event.BATCH_END)"):
        loop.on(event)(print)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("on_train_batch_ends", "on_batch_end"),
        ("on_epoch_ends", "on_epoch_end"),
        ("on_Batch_End", "on_batch_end"),
        ("on_train_begin", "on_"),
    ],
)
def test_a_misspelt_hook(wrong, right):
    with refused(ConfigError, f"Mine.{wrong}", right, "rename it"):
        type("Mine", (Callback,), {wrong: lambda self, state: None})


def test_a_hook_without_its_prefix_is_warned_of():
    with pytest.warns(UserWarning, match="on_batch_end") as caught:

        class Mine(Callback):
            def batch_end(self, state):
                raise NotImplementedError

    assert len(caught) == 1
    assert caught[0].filename == __file__
    check_message(str(caught[0].message), "Mine.batch_end", "never called")


def test_an_ordinary_method_is_no_hook():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        type("Mine", (Callback,), {"save": lambda self: None, "loss": 3, "on_cpu": True})


async def coroutine(self, state):
    raise NotImplementedError


def generator(self, state):
    yield


@pytest.mark.parametrize(
    ("hook", "found"),
    [
        (lambda self: None, "(self)"),
        (lambda self, state, batch: None, "(self, state, batch)"),
        (lambda self, *, state: None, "(self, *, state)"),
        (staticmethod(lambda state: None), "(state)"),
        (coroutine, "coroutine"),
        (generator, "generator"),
        (None, "None"),
    ],
)
def test_a_hook_with_the_wrong_signature(hook, found):
    with refused(TypeError, "Mine.on_batch_end", found, "def on_batch_end(self, state)"):
        type("Mine", (Callback,), {"on_batch_end": hook})


def test_the_same_instance_twice():
    greet = Greet()
    with refused(ConfigError, "callbacks[0]", "callbacks[1]", "'Greet'", "Greet(...)"):
        FitLoop(nn.Linear(4, 1), callbacks=[greet, greet])
    loop = FitLoop(nn.Linear(4, 1), callbacks=[greet])
    with refused(ConfigError, "callbacks[0]", "callbacks[1]", "same Greet instance"):
        loop.attach(Turn("critic", [greet]))
    assert loop.callbacks.count(greet) == 1


def test_that_the_check_of_doubled_instances_is_what_refuses(monkeypatch):
    monkeypatch.setattr(roster, "_check_unique", lambda callbacks: None)
    greet = Greet()
    assert FitLoop(nn.Linear(4, 1), callbacks=[greet, greet]).callbacks.count(greet) == 2


def test_two_turns_with_one_name():
    with refused(ConfigError, "'critic'", "turns 0 and 1"):
        FitLoop(nn.Linear(4, 1), callbacks=[Turn("critic", []), Turn("critic", [])])


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (None, "NoneType"),
        ("progress", "str"),
        ("progress" * 100, "str"),
        (Greet(), "Greet"),
        ((greet for greet in [Greet()]), "generator"),
        ({"a": Greet()}, "dict"),
    ],
)
def test_callbacks_are_no_list(given, kind):
    with refused(TypeError, kind, "callbacks=", "expected a list"):
        FitLoop(nn.Linear(4, 1), callbacks=given)


@pytest.mark.parametrize(
    ("item", "kind"), [([Greet()], "list"), (None, "NoneType"), ("History", "str"), (3, "int")]
)
def test_something_in_the_list_is_no_callback(item, kind):
    model = nn.Linear(4, 1)
    with refused(TypeError, kind):
        FitLoop(model, callbacks=[item])
    loop = FitLoop(model)
    with refused(TypeError, kind):
        loop.attach(item)
    assert len(loop.callbacks) == len(FitLoop(model).callbacks)


def test_a_callback_that_is_not_attached_is_detached():
    with refused(ConfigError, "Greet is not attached", "loop.callbacks"):
        loop_of().detach(Greet())


def test_a_listener_to_a_moment_that_never_fires():
    class Whole(Callback):
        fills = frozenset(e for e in Event if Event.ZERO_GRAD <= e <= Event.UPDATE_METRICS)

        def on_apply(self, state):
            raise NotImplementedError

    class Clip(Callback):
        def on_grads_ready(self, state):
            raise NotImplementedError

    loop = FitLoop(nn.Linear(4, 1), [1], callbacks=[Whole(), Clip()])
    with refused(CallbackOrderError, "callbacks[1] Clip", "GRADS_READY", "callbacks[0] Whole"):
        loop.fit(epochs=1)


def test_a_loss_class_instead_of_an_instance():
    with refused(TypeError, "MSELoss", "Pass an instance"):
        TorchLoss(nn.MSELoss)
