"""Events: the docstring's diagram, the hooks and what a run really fires are one and the same."""

import re

import pytest
import torch

from fitkit import Callback, Event, FitLoop, Phase, TensorLoader
from fitkit.loop.events import ACTIONS, REGION, hook_name
from tests.contract.source import ROOT

LINE = re.compile(r"^( *)([A-Z_]+)((?:\s+\[A\])?)((?:\s+(?:train|val|predict))*)(?:\s{2,}\S.*)?$")


def diagram():
    """The rows of the diagram: depth, event, is an action, phases (all if none is named)."""
    block = (Event.__doc__ or "").split("```")[1]
    rows = []
    for line in block.splitlines():
        if not line.strip():
            continue
        found = LINE.match(line.removeprefix("    "))
        assert found, f"cannot read the line {line!r}"
        indent, name, action, phases = found.groups()
        named = frozenset(Phase(phase) for phase in phases.split()) or frozenset(Phase)
        rows.append((len(indent) // 2, Event[name], bool(action), named))
    return rows


def expected_pass(phase, num_batches):
    """The events of a pass, as the diagram has them: what is indented below PASS_BEGIN."""
    batch = [event for depth, event, _, phases in diagram() if depth >= 3 and phase in phases]
    return [Event.PASS_BEGIN, *batch * num_batches, Event.PASS_END]


def expected_run(train_batches, val_batches):
    """One epoch with validation, as the diagram has it."""
    in_pass = {event for depth, event, _, _ in diagram() if depth >= 2}
    order = []
    for _, event, _, _ in diagram():
        if event is Event.PASS_BEGIN:
            order += expected_pass(Phase.TRAIN, train_batches)
        elif event is Event.VALIDATE:
            order += [event, *expected_pass(Phase.VAL, val_batches)]
        elif event not in in_pass and event is not Event.EXCEPTION:
            order.append(event)
    return order


def recorder(into):
    """A callback that listens to every event, fills every action and validates at VALIDATE."""

    def hook_of(event):
        def hook(self, state):
            into.append(event)
            if event is Event.FORWARD:
                state.outputs = state.inputs
            if event is Event.VALIDATE:
                self.loop.runner.run_pass(Phase.VAL, self.loop.val_loaders[""], prefix="val_")

        hook.__name__ = hook_name(event)
        return hook

    def attach(self, loop):
        self.loop = loop

    hooks = {hook_name(event): hook_of(event) for event in Event}
    return type("Recorder", (Callback,), {**hooks, "attach": attach})()


def loop_with(callback, num_batches=2):
    batches = TensorLoader(torch.zeros(2 * num_batches, 1), batch_size=2)
    val = TensorLoader(torch.zeros(3, 1), batch_size=1)
    return FitLoop(torch.nn.Linear(1, 1), batches, val, callbacks=[callback])


def test_the_recorded_order_is_the_diagram():
    events = []
    loop_with(recorder(events)).fit(epochs=1)
    assert events == expected_run(train_batches=2, val_batches=3)


def test_an_epoch_is_not_the_diagram_of_another():
    events = []
    loop_with(recorder(events), num_batches=3).fit(epochs=1)
    assert events != expected_run(train_batches=2, val_batches=3)


def test_evaluate_and_predict_fire_their_part_of_the_diagram():
    events = []
    loop = loop_with(recorder(events))
    loop.evaluate()
    assert events == [Event.OPEN, *expected_pass(Phase.VAL, 3), Event.CLOSE]
    events.clear()
    loop.predict(loop.train_loader)
    assert events == [Event.OPEN, *expected_pass(Phase.PREDICT, 2), Event.CLOSE]


def test_the_diagram_names_every_event_in_order():
    assert [event for _, event, _, _ in diagram()] == list(Event)
    assert [event.value for event in Event] == list(range(len(Event)))


def test_the_diagram_marks_the_actions_and_the_region():
    for phase in Phase:
        marked = tuple(e for _, e, action, phases in diagram() if action and phase in phases)
        assert marked == ACTIONS[phase]
        region = tuple(e for depth, e, _, phases in diagram() if depth == 4 and phase in phases)
        assert region == REGION[phase]


def test_the_loop_as_the_docs_print_it_fires_every_event_of_a_run():
    page = (ROOT / "docs" / "index.md").read_text()
    named = [Event[name] for name in re.findall(r"emit\((\w+)\)", page)]
    assert named == [event for event in Event if Event.FIT_BEGIN <= event <= Event.FIT_END]


def test_hooks_are_events_both_ways():
    hooks = {name for name in vars(Callback) if name.startswith("on_")}
    assert hooks == {hook_name(event) for event in Event}
    assert all(getattr(Callback, name).__doc__ for name in hooks)


@pytest.mark.parametrize("name", ["on_batch_start", "on_backwards", "on_fit_ends"])
def test_a_hook_that_is_no_event_is_refused_with_the_nearest_name(name):
    with pytest.raises(ValueError, match=f"{name} is no hook") as caught:
        type("Mine", (Callback,), {name: lambda self, state: None})
    nearest = re.search(r"nearest one is (\w+)", str(caught.value))
    assert nearest
    assert nearest[1] in {hook_name(event) for event in Event}


MOMENTS = [event for event in Event if event not in ACTIONS[Phase.TRAIN]]


@pytest.mark.parametrize("event", MOMENTS, ids=lambda event: event.name)
def test_an_error_at_any_moment_closes_what_was_opened(event):
    def hook(self, state):
        raise KeyError("mine")

    events = []
    loop = loop_with(recorder(events))
    loop.attach(type("Fails", (Callback,), {hook_name(event): hook})())
    if event is Event.EXCEPTION:
        loop.fit(epochs=1)  # which never fires by itself
    else:
        with pytest.raises(KeyError, match="mine"):
            loop.fit(epochs=1)
    assert events.count(Event.CLOSE) == 1
    assert events[-1] is Event.CLOSE
