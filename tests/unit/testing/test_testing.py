"""The helpers for users' own callbacks: what they let through, and what they find."""

import random

import pytest
import torch

from fitkit import EMA, Callback, Event, Phase
from fitkit.testing import (
    RecordingCallback,
    assert_event_order,
    assert_no_sync,
    assert_resume_exact,
    assert_same_as_loop,
    tiny_batches,
    tiny_keras_model,
    tiny_loop,
    tiny_model,
)

KINDS = {"torch": tiny_model, "keras": tiny_keras_model}
NUM_BATCHES = 5


class Noise(Callback):
    """Has state, and forgets it if it is told to."""

    def __init__(self, *, forgets=False):
        self.total, self.forgets = 0.0, forgets

    def on_batch_end(self, state):
        if state.phase is Phase.TRAIN:
            self.total += random.random()

    def state_dict(self):
        return {} if self.forgets else {"total": self.total}

    def load_state_dict(self, state):
        self.total = state.get("total", 0.0)

    def on_epoch_end(self, state):
        state.logs["noise"] = self.total


def noisy(kind, **options):
    def make(run_dir):
        random.seed(0)
        return tiny_loop(Noise(**options), EMA(0.9), model=KINDS[kind](), run_dir=run_dir)

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_a_callback_that_keeps_its_state_resumes(kind):
    assert_resume_exact(noisy(kind), epochs=2, cut_at=(1, NUM_BATCHES, NUM_BATCHES + 2))


def test_a_callback_that_forgets_is_found():
    with pytest.raises(AssertionError, match="cut after batch 3, it ends otherwise: .*noise"):
        assert_resume_exact(noisy("torch", forgets=True), epochs=2, cut_at=[3])


def test_seeds_that_differ_are_found():
    def make(run_dir):
        return tiny_loop(model=tiny_model(seed=random.randrange(10**6)), run_dir=run_dir)

    assert_resume_exact(make, epochs=1, cut_at=[4][:0])  # nothing to compare
    with pytest.raises(AssertionError, match="model.0.weight by"):
        assert_resume_exact(make, epochs=1, cut_at=[2])


class Peeks(Callback):
    def on_loss_ready(self, state):
        if state.loss.detach() > 1e9:
            state.request_stop("diverged")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_reads_nothing(kind):
    assert_no_sync(tiny_loop(EMA(0.9), model=KINDS[kind]()))


def test_a_callback_that_reads_is_named():
    reads = 2 * (NUM_BATCHES - 1) + 2  # training and validation, without the first batch each
    told = f"{reads} x Peeks.on_loss_ready: on_loss_ready __bool__"
    with pytest.raises(AssertionError, match=told):
        assert_no_sync(tiny_loop(Peeks()))
    peeks = Peeks()
    with pytest.raises(AssertionError, match="Peeks"):
        assert_no_sync(tiny_loop(peeks), of=peeks)
    average = EMA(0.9)
    assert_no_sync(tiny_loop(Peeks(), average), of=average)


def test_the_order_of_events():
    epoch = [Event.EPOCH_BEGIN, *[Event.BATCH_END] * 7, Event.EPOCH_END]
    assert_event_order(tiny_loop(), [*epoch, *epoch], epochs=2)
    with pytest.raises(AssertionError, match="event 1 is BATCH_END, expected EPOCH_END"):
        assert_event_order(tiny_loop(), [Event.EPOCH_BEGIN, Event.EPOCH_END, Event.BATCH_END])
    with pytest.raises(AssertionError, match="there were 7 of these events, expected 6"):
        assert_event_order(tiny_loop(), [Event.BATCH_END] * 6)


def by_hand(rate=0.01, epochs=2):
    def train():
        state = torch.get_rng_state()
        model = tiny_model()
        torch.set_rng_state(state)
        optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
        loader = tiny_batches(shuffle=True)
        for epoch in range(epochs):
            loader.set_epoch(epoch)
            for x, y in loader:
                optimizer.zero_grad()
                torch.nn.functional.mse_loss(model(x), y).backward()
                optimizer.step()
        return model

    return train


def test_a_loop_by_hand():
    assert_same_as_loop(tiny_loop(), by_hand(), epochs=2)
    with pytest.raises(AssertionError, match=r"not the loop by hand: .*0.weight by 0\.0"):
        assert_same_as_loop(tiny_loop(), by_hand(rate=0.0101), epochs=2)


def test_what_was_heard():
    recording = RecordingCallback(lambda state: state.num_updates)
    tiny_loop(recording).fit(1)
    assert recording.events[:2] == [Event.OPEN, Event.FIT_BEGIN]
    assert (Event.BATCH_END, Phase.VAL) in recording.heard
    assert recording.heard.count((Event.BATCH_END, Phase.TRAIN)) == NUM_BATCHES
    assert recording.values[-1] == NUM_BATCHES
    assert Event.APPLY not in recording.events
    assert Event.GRADS_READY in recording.events
