"""The blackboard: unset fields, lazy batches, frames, logs, requests."""

import pytest
import torch
from torch import nn

from fitkit import Event, FitLoop, Phase, State, TensorLoader, TorchLoss, supervised
from fitkit.data import Gather
from fitkit.errors import ConfigError, UnsetError
from fitkit.loop.lifetime import begin_batch, count_batch, end_region, frame, separate_logs


@pytest.fixture
def state():
    return State(nn.Identity(), device=torch.device("cpu"))


@pytest.fixture
def in_pass(state):
    with frame(state, Phase.TRAIN, "", 3):
        yield state


def rows(start, count=4):
    return torch.arange(start, start + count).float().unsqueeze(1)


@pytest.mark.parametrize(
    ("field", "event"),
    [
        ("phase", "PASS_BEGIN"),
        ("batch", "BATCH_BEGIN"),
        ("targets", "BATCH_BEGIN"),
        ("outputs", "FORWARD"),
        ("loss", "LOSS"),
        ("step_logs", "UPDATE_METRICS"),
    ],
)
def test_unset_field_names_the_event_that_writes_it(state, field, event):
    with pytest.raises(UnsetError, match=rf"state\.{field} .*\n.*{event}.*on_{event.lower()}"):
        getattr(state, field)
    assert not hasattr(state, field)


def test_outputs_that_are_gone_say_how_to_keep_them(in_pass):
    begin_batch(in_pass, (rows(0), rows(4)), 0, 0.0)
    in_pass.outputs = rows(0)
    end_region(in_pass)
    with pytest.raises(
        UnsetError,
        match=r'unset or outside of the step\n.*on_forward.*needs = .*"outputs"',
    ):
        _ = in_pass.outputs


def test_no_other_fields(state):
    with pytest.raises(AttributeError, match="nonsense"):
        _ = state.nonsense
    with pytest.raises(AttributeError):
        state.nonsense = 1


def test_batch_is_unpacked(in_pass):
    begin_batch(in_pass, (rows(0), rows(4), torch.ones(4)), 0, 0.0)
    assert in_pass.inputs is in_pass.batch[0]
    assert in_pass.targets is in_pass.batch[1]
    assert in_pass.sample_weight is in_pass.batch[2]
    assert in_pass.batch_size == 4
    assert in_pass.opens_update
    assert in_pass.closes_update


def test_gather_waits_until_somebody_reads(in_pass):
    gather = Gather((rows(0, 8), rows(8, 8)), torch.tensor([6, 1]))
    begin_batch(in_pass, gather, 0, 0.0)
    assert in_pass.batch_size == 2
    assert in_pass.pending is gather
    assert in_pass.targets.tolist() == [[14.0], [9.0]]
    assert in_pass.pending is None
    assert in_pass.inputs.tolist() == [[6.0], [1.0]]
    assert in_pass.sample_weight is None


def test_next_batch_unsets_what_the_last_one_had(in_pass):
    begin_batch(in_pass, (rows(0), rows(4)), 0, 0.0)
    in_pass.outputs = in_pass.loss = torch.tensor(1.0)
    in_pass.extra.noise = 1
    begin_batch(in_pass, (rows(4), rows(8)), 1, 0.5)
    assert not hasattr(in_pass, "outputs")
    assert not hasattr(in_pass, "loss")
    assert vars(in_pass.extra) == {}
    assert (in_pass.batch_index, in_pass.data_wait_s) == (1, 0.5)


def test_inner_pass_has_a_frame_of_its_own(in_pass):
    begin_batch(in_pass, (rows(0), rows(4)), 1, 0.25)
    in_pass.loss, extra, batch = torch.tensor(7.0), in_pass.extra, in_pass.batch
    with frame(in_pass, Phase.VAL, "val_", None):
        assert not hasattr(in_pass, "batch")
        assert not hasattr(in_pass, "loss")
        assert (in_pass.phase, in_pass.prefix) == (Phase.VAL, "val_")
        begin_batch(in_pass, (rows(9), rows(9)), 0, 0.0)
    assert in_pass.batch is batch
    assert in_pass.extra is extra
    assert in_pass.loss == 7.0
    assert (in_pass.phase, in_pass.prefix, in_pass.batch_index) == (Phase.TRAIN, "", 1)
    assert (in_pass.num_batches_expected, in_pass.data_wait_s) == (3, 0.25)


def test_frame_is_put_back_when_the_pass_raises(in_pass):
    begin_batch(in_pass, (rows(0), rows(4)), 2, 0.0)

    def fail():
        begin_batch(in_pass, (rows(9), rows(9)), 5, 0.0)
        raise KeyError("x")

    with pytest.raises(KeyError) as caught, frame(in_pass, Phase.VAL, "val_", None):
        fail()
    assert in_pass.batch_index == 2
    assert caught.value.__notes__ == ["in the val pass, batch 5, epoch 0, after 0 updates"]


def test_frame_keeps_a_batch_lazy(in_pass):
    gather = Gather((rows(0, 8),), torch.tensor([1]))
    begin_batch(in_pass, gather, 0, 0.0)
    with frame(in_pass, Phase.VAL, "val_", None):
        assert in_pass.pending is None
    assert in_pass.pending is gather


def test_end_of_region_leaves_no_graph(in_pass):
    begin_batch(in_pass, (rows(0), rows(4)), 0, 0.0)
    weight = torch.ones(1, requires_grad=True)
    in_pass.outputs = in_pass.inputs * weight
    in_pass.loss = in_pass.outputs.mean()
    in_pass.losses["added"] = in_pass.loss * 2
    end_region(in_pass)
    assert in_pass.loss.grad_fn is None
    assert in_pass.losses["added"].grad_fn is None
    assert not hasattr(in_pass, "outputs")


def test_outputs_outlive_the_region_where_needed(in_pass):
    in_pass.needs = frozenset({"outputs"})
    begin_batch(in_pass, (rows(0), rows(4)), 0, 0.0)
    in_pass.outputs = {"a": (in_pass.inputs * torch.ones(1, requires_grad=True),)}
    end_region(in_pass)
    assert in_pass.outputs["a"][0].grad_fn is None


def test_counters(in_pass):
    for index, closes in enumerate([False, True, True]):
        begin_batch(in_pass, (rows(0, 4 - index), rows(0, 4 - index)), index, 0.0)
        in_pass.closes_update = closes
        count_batch(in_pass, updated=True)
    assert (in_pass.num_batches, in_pass.num_samples, in_pass.num_updates) == (3, 9, 2)


def test_log_publishes_a_detached_value_and_accumulates(in_pass):
    for size, value in ((4, 1.0), (2, 4.0)):
        begin_batch(in_pass, (rows(0, size),), 0, 0.0)
        in_pass.log("x", torch.tensor(value, requires_grad=True) * 1)
        assert in_pass.step_values["x"] == value
        assert not in_pass.step_values["x"].requires_grad
    assert in_pass.log_buffer.read() == {"x": 2.0}


def test_phases_log_apart(in_pass):
    begin_batch(in_pass, (rows(0),), 0, 0.0)
    in_pass.log("x", torch.tensor(1.0))
    with frame(in_pass, Phase.VAL, "val_", None):
        begin_batch(in_pass, (rows(0),), 0, 0.0)
        in_pass.log("x", torch.tensor(5.0))
        assert in_pass.log_buffer.read() == {"x": 5.0}
    assert in_pass.log_buffer.read() == {"x": 1.0}


def test_first_reason_to_stop_is_kept(state):
    state.request_stop("first")
    state.request_stop("second")
    assert state.stop
    assert state.stop_reason == "first"


def test_only_validate_and_save_can_be_requested(state):
    state.request(Event.SAVE)
    state.request(Event.VALIDATE)
    assert state.requests == {Event.SAVE, Event.VALIDATE}
    with pytest.raises(ConfigError, match="EPOCH_END"):
        state.request(Event.EPOCH_END)


def test_separate_logs(state):
    state.logs["loss"] = 1.0
    with separate_logs(state) as logs:
        state.logs["loss"] = 2.0
    assert logs == {"loss": 2.0}
    assert state.logs == {"loss": 1.0}


def test_last_batch_is_known_from_the_length(in_pass):
    known = []
    for index in range(3):
        begin_batch(in_pass, (rows(0),), index, 0.0)
        known.append(in_pass.is_last_batch)
    assert known == [False, False, True]


def test_what_a_callback_writes_before_the_batch_is_gathered_stays(in_pass):
    begin_batch(in_pass, Gather((rows(0, 8), rows(8, 8)), torch.arange(4)), 0, 0.0)
    in_pass.targets = "mine"
    assert in_pass.inputs.ravel().tolist() == [0.0, 1.0, 2.0, 3.0]
    assert in_pass.targets == "mine"


UNPACKS = [None, lambda batch: (*batch, None)]


@pytest.mark.parametrize("look", [False, True], ids=["lazy", "gathered"])
@pytest.mark.parametrize("unpack", UNPACKS, ids=["default", "unpack"])
def test_a_batch_replaced_at_batch_begin_is_refused(unpack, look):
    """Inputs and targets were taken from the old one; the new one would have no effect."""
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stack = supervised(loss=nn.MSELoss(), optimizer=optimizer)
    data = TensorLoader(rows(0), rows(4), batch_size=2)
    loop = FitLoop(model, data, data, callbacks=stack, unpack=unpack)
    before = model.weight.detach().clone()

    @loop.on(Event.BATCH_BEGIN, phases=[Phase.TRAIN, Phase.VAL])
    def replace(state):
        if look:
            assert state.batch[0].shape == (2, 1)
        state.batch = (torch.zeros(2, 1), torch.zeros(2, 1))

    for run in (lambda: loop.fit(epochs=1), loop.evaluate):
        with pytest.raises(ConfigError, match=r"state\.batch was replaced(.|\n)*state\.inputs"):
            run()
    assert torch.equal(model.weight, before)


def test_a_batch_that_is_only_read_or_written_back_is_not_refused():
    data = TensorLoader(rows(0), rows(4), batch_size=2)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    loop = FitLoop(model, data, data, callbacks=supervised(loss=nn.MSELoss(), optimizer=optimizer))

    @loop.on(Event.BATCH_BEGIN)
    def write_back(state):
        loop.evaluate()  # a pass within: its batches are others
        state.batch = state.batch

    assert loop.fit(epochs=1)["loss"][0] > 0


@pytest.mark.parametrize("unpack", UNPACKS)
def test_a_step_sees_what_a_callback_wrote_at_batch_begin(unpack):
    data = TensorLoader(rows(0), rows(4), batch_size=2)
    loop = FitLoop(nn.Linear(1, 1), data, unpack=unpack)
    optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.0)
    loss = TorchLoss(nn.MSELoss(reduction="none"))
    loop.attach(supervised(loss=loss, optimizer=optimizer))
    pending = []

    @loop.on(Event.BATCH_BEGIN)
    def without_weight(state):
        state.sample_weight = torch.zeros(state.batch_size)

    @loop.on(Event.LOSS_READY)
    def look(state):
        pending.append(state.pending)

    assert loop.fit(epochs=1)["loss"] == [0.0]
    assert pending == [None, None]
