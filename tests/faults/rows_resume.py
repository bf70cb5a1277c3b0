"""B1 to B8 and A10: a run that is cut anywhere and resumed ends as if it had not been cut."""

import itertools
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from fitkit import Callback, CheckpointError, CheckpointMismatchError, EarlyStopping, TensorLoader
from fitkit.interop import state_tensors
from fitkit.loop import resume as resume_module
from fitkit.loop import same as same_module
from fitkit.loop.snapshot import snapshot, versions
from tests.faults.programs import (
    BATCH,
    BATCHES,
    DOUBTED,
    EPOCHS,
    LOADERS,
    Cut,
    Seen,
    compiled_loop,
    interrupted,
    keras_loop,
    resumed,
    same,
    tensors,
    torch_loop,
)
from tests.faults.row import Row, failing

LIMITS = {"epochs": EPOCHS}
PROGRAMS = {"keras": keras_loop, "torch": torch_loop, "compiled": compiled_loop}


def whole(make, folder, limits=LIMITS, **options):
    """The end of a run that is never cut, and the samples it saw."""
    seen = Seen()
    loop = make(folder, extra=(seen,), **options)
    loop.fit(**limits)
    return same(loop), seen.ids


# -- B1: every step is a save point --------------------------------------------------------------


def every_step(root, make=keras_loop, **options):
    """Save at each of 120 steps; go on from each of them."""
    root = Path(root)
    without = whole(make, root / "without", every="100 epochs", **options)
    every = {"every": 1, "keep_last": None, **options}
    saving = whole(make, root / "all", **every)
    assert saving == without, "saving changes the run"
    paths = sorted((root / "all" / "checkpoints").glob("step-*"))
    assert len(paths) == BATCHES * EPOCHS

    def go_on(path):
        folder = root / path.name
        seen = Seen()
        loop = make(folder, extra=(seen,), **{**every, "every": "100 epochs"})
        loop.fit(**LIMITS, resume=path)
        shutil.rmtree(folder, ignore_errors=True)
        step = int(path.name[5:13])
        assert seen.ids == without[1][step:]
        assert same(loop) == without[0]

    return [lambda path=path: go_on(path) for path in paths]


def without_part(trials, part):
    """Go on from checkpoints that lack a part of the state: how many ends differ."""
    real = resume_module.restore

    def lacking(loop, saved, allowed=()):
        before = snapshot(loop)
        kept = {name: tensor.clone() for name, tensor in before.model.items()}
        streams = resume_module._restore_process
        if part == "streams":
            resume_module._restore_process = lambda streams: None
        real(loop, saved, allowed)
        resume_module._restore_process = streams
        if part == "seeds":
            with torch.no_grad():
                for name, tensor in state_tensors(loop.model).items():
                    if "seed" in name:
                        tensor.copy_(kept[name])

    resume_module.restore = lacking
    try:
        return failing(trials)
    finally:
        resume_module.restore = real


# -- B2: the matrix of loaders -------------------------------------------------------------------


def loaders(root, **options):
    cuts = (13, 2 * BATCHES + 5)
    return [
        lambda name=name, cut=cut, accumulate=accumulate: loader_trial(
            root, name, cut, accumulate, **options
        )
        for name in LOADERS
        for cut in cuts
        for accumulate in (1, 3)
    ]


def loader_trial(root, name, cut, accumulate):
    folder = Path(root) / f"{name}-{cut}-{accumulate}"
    options = {"loader": name, "accumulate": accumulate}
    end, all_ids = whole(torch_loop, folder / "whole", every="100 epochs", **options)
    options["every"] = 2 if accumulate > 1 else 6
    before = interrupted(torch_loop, folder / "cut", cut, LIMITS, **options)
    loop, after, told = resumed(torch_loop, folder / "cut", LIMITS, **options)
    done = int(len(all_ids) - len(after))
    assert 0 < done <= cut
    assert before[:done] + after == all_ids
    assert same(loop) == end
    may_differ = name in DOUBTED and (done % BATCHES != 0 or "persist" in name)
    assert len(told) == may_differ, (name, cut, accumulate, told)
    assert all("train_loader, a DataLoader" in line for line in told)
    if "replacement" not in name:
        for epoch in range(EPOCHS):
            ids = sorted(sum((before[:done] + after)[epoch * BATCHES : (epoch + 1) * BATCHES], []))
            assert ids == sorted(float(row) for row in range(BATCH * BATCHES))


def without_skipping(root):
    """Positions that are forgotten: the pass begins anew."""
    from fitkit.data.feed import Feed

    real = Feed.start_at
    Feed.start_at = lambda self, num_batches, opening, state=None: None
    try:
        return failing([lambda n=n: loader_trial(root, n, 13, 1) for n in ("TensorLoader", "map")])
    finally:
        Feed.start_at = real


# -- B3, B4, B8: how far ------------------------------------------------------------------------


def how_far(root):
    return [lambda: two_more(root), lambda: second_resume(root), lambda: other_workers(root)]


def two_more(root, folder="more"):
    folder = Path(root) / folder
    whole(torch_loop, folder, {"epochs": 2})
    loop, ids, _ = resumed(torch_loop, folder, {"epochs": 4})
    assert len(ids) == 2 * BATCHES
    assert [row["epoch"] for row in loop.history.rows] == [0, 1, 2, 3]
    assert same(loop) == whole(torch_loop, Path(root) / "four", {"epochs": 4})[0]


def second_resume(root):
    folder = Path(root) / "twice"
    end, ids = whole(torch_loop, Path(root) / "once", LIMITS, loader="map")
    for cut in (10, 45, 100):
        seen = Seen(cut)
        loop = torch_loop(folder, "map", extra=(seen,))
        with pytest.raises(Cut):
            loop.fit(**LIMITS, resume="auto")
    loop, last, _ = resumed(torch_loop, folder, LIMITS, loader="map")
    assert same(loop) == end
    assert ids[-len(last) :] == last


def other_workers(root):
    """The order of a map-style dataset does not depend on how many workers read it."""
    folder = Path(root) / "shift"
    end, ids = whole(torch_loop, Path(root) / "shift-whole", LIMITS, loader="map")
    before = interrupted(torch_loop, folder, 50, LIMITS, loader="map")
    _loop, after, told = resumed(torch_loop, folder, LIMITS, loader="workers")
    done = len(ids) - len(after)
    assert before[:done] + after == ids
    assert len(told) == 1
    stream = Path(root) / "stream"
    interrupted(torch_loop, stream, 50, LIMITS, loader="iterable")
    with pytest.raises(CheckpointMismatchError, match="num_workers"):
        resumed(torch_loop, stream, LIMITS, loader="iterable, workers")


def nothing_left(root):
    def trial(limits):
        folder = Path(root) / str(next(COUNTER))
        first = torch_loop(folder, extra=(Seen(), Events()))
        first.fit(**limits)
        end, events = same(first), Events()
        loop = torch_loop(folder, extra=(Seen(), events))
        loop.fit(**limits, resume="auto")
        assert events.seen == ["FIT_BEGIN", "FIT_END"]
        assert same(loop) == end

    return [lambda: trial({"epochs": 2}), lambda: trial({"max_steps": 50})]


COUNTER = itertools.count()


class Events(Callback):
    def __init__(self):
        self.seen = []

    def on_fit_begin(self, state):
        self.seen.append("FIT_BEGIN")

    def on_epoch_begin(self, state):
        self.seen.append("EPOCH_BEGIN")

    def on_pass_begin(self, state):
        self.seen.append("PASS_BEGIN")

    def on_fit_end(self, state):
        self.seen.append("FIT_END")


def counted_anew(root):
    """`epochs` counted from the resumed epoch on, as without resume=: it trains on."""
    folder = Path(root) / "anew"
    whole(torch_loop, folder, {"epochs": 1})
    loop = torch_loop(folder, extra=(Seen(),), dir=Path(root) / "other")
    ids = loop.callbacks[-2].ids
    loop.fit(epochs=1)
    return len(ids)


# -- B5, B6, B7, A10 -----------------------------------------------------------------------------


def randomness(root):
    """Programs, plain and recorded, cut at a few places."""
    cases = [
        (name, record, cut)
        for name, record in itertools.product(PROGRAMS, (None, "interpret"))
        for cut in (11, 40, 90)
    ]
    cases += [(name, "inductor", 90) for name in PROGRAMS]
    return [lambda case=case: program_trial(root, *case) for case in cases]


def program_trial(root, name, record, cut):
    folder, make = Path(root) / f"{name}-{record}-{cut}", PROGRAMS[name]
    end, ids = whole(make, folder / "whole", record=record)
    before = interrupted(make, folder / "cut", cut, LIMITS, record=record)
    loop, after, told = resumed(make, folder / "cut", LIMITS, record=record)
    assert before[: len(ids) - len(after)] + after == ids
    assert same(loop) == end
    assert told == []


def orders(root):
    """All orders of EarlyStopping, the plateau, EMA, a user's callback, Checkpoint."""
    limits = {"epochs": 2}

    def trial(order):
        folder = Path(root) / "".join(map(str, order))
        make_options = {"order": order, "every": "1 epoch"}
        end, _ = whole(keras_loop, folder / "whole", limits, **make_options)
        interrupted(keras_loop, folder / "cut", BATCHES + 3, limits, **make_options)
        loop, after, _ = resumed(keras_loop, folder / "cut", limits, **make_options)
        assert len(after) == BATCHES
        assert same(loop) == end
        shutil.rmtree(folder)

    return [lambda order=order: trial(order) for order in itertools.permutations(range(5))]


def saved_too_early(root):
    """Saved at EPOCH_END in list order, and not at SAVE: who is listed later is not in it."""
    from fitkit import Checkpoint

    real = Checkpoint.on_save
    Checkpoint.on_epoch_end = lambda self, state: real(self, state)
    Checkpoint.on_save = lambda self, state: None
    try:
        return failing(list(orders(root))[96:99])  # Checkpoint first
    finally:
        del Checkpoint.on_epoch_end
        Checkpoint.on_save = real


def changes(root):
    """Another program: what, the field that allows it, what the message names."""
    folder = Path(root) / "changed"
    interrupted(torch_loop, folder, 50, LIMITS)

    def changed(change, field, *tokens):
        copy = Path(root) / f"changed-{next(COUNTER)}"
        shutil.copytree(folder, copy)
        loop = torch_loop(copy, extra=(Seen(),))
        change(loop)
        before = weights_of(loop)
        with pytest.raises(CheckpointMismatchError) as caught:
            loop.fit(**LIMITS, resume="auto")
        for token in (*tokens, f"allow_changed=['{field}']"):
            assert token in str(caught.value), token
        assert len(str(caught.value).splitlines()[0]) <= 120
        assert weights_of(loop) == before
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loop.fit(**LIMITS, resume="auto", allow_changed=[field])

    def data(**options):
        def change(loop):
            loop.train_loader = TensorLoader(
                *options.pop("rows", tensors()),
                **{"batch_size": BATCH, "shuffle": True, "seed": 3, **options},
            )

        return change

    def optimizer(loop):
        step = next(c for c in loop.callbacks if type(c).__name__ == "TorchStep")
        step.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1)

    def added(loop):
        loop.attach(EarlyStopping("loss"))

    def removed(loop):
        loop.detach(next(c for c in loop.callbacks if type(c).__name__ == "EMA"))

    def other_version():
        real, same_module.versions = same_module.versions, lambda: {**versions(), "torch": "9"}
        try:
            changed(lambda loop: None, "versions", "torch: saved", "'9'")
        finally:
            same_module.versions = real

    return [
        lambda: changed(data(batch_size=8), "data", "batch_size: saved 4, now 8"),
        lambda: changed(data(rows=tensors(80)), "data", "num_samples: saved 160, now 80"),
        lambda: changed(data(seed=4), "data", "seed: saved 3, now 4"),
        lambda: changed(data(shuffle=False), "data", "shuffle: saved True, now False"),
        lambda: changed(optimizer, "optimizer", "saved 'AdamW', now 'SGD'"),
        lambda: changed(added, "callbacks", "EarlyStopping"),
        lambda: changed(removed, "callbacks", "EMA"),
        other_version,
    ]  # fmt: skip


def without_comparing(root):
    real = resume_module.check_same
    resume_module.check_same = lambda *args: None
    try:
        return failing(changes(root))
    finally:
        resume_module.check_same = real


def weights_of(loop):
    return [tensor.tolist() for tensor in state_tensors(loop.model).values()]


def failing_loads(root):
    """A load that raises half-way, at each component: the weights stay, the run does not begin."""
    folder = Path(root) / "loads"
    interrupted(keras_loop, folder, 50, LIMITS)
    count = len(keras_loop(folder, extra=(Seen(),)).callbacks)

    def trial(index):
        loop = keras_loop(folder, extra=(Seen(),))
        callback = loop.callbacks[index]
        if not callback.state_dict():
            return

        def broken(state):
            raise KeyError("of its own")

        callback.load_state_dict = broken
        before = weights_of(loop)
        with pytest.raises(CheckpointError, match=type(callback).__name__):
            loop.fit(**LIMITS, resume="auto")
        assert weights_of(loop) == before
        assert loop.callbacks[-1].store.names()

    return [lambda index=index: trial(index) for index in range(count)]


def weights_first(root):
    """Weights loaded before the callbacks: a failing callback leaves them changed."""
    real, load = resume_module.copy_weights, resume_module._load

    def early(key, callback, state, allowed):
        with torch.no_grad():
            for tensor in callback_weights:
                tensor.add_(1)
        load(key, callback, state, allowed)

    folder = Path(root) / "first"
    interrupted(keras_loop, folder, 50, LIMITS)
    loop = keras_loop(folder, extra=(Seen(),))
    callback_weights = [t for t in state_tensors(loop.model).values() if t.is_floating_point()]
    loop.callbacks[-1].load_state_dict = lambda state: 1 / 0
    before = weights_of(loop)
    resume_module._load = early
    try:
        with pytest.raises(CheckpointError):
            loop.fit(**LIMITS, resume="auto")
    finally:
        resume_module.copy_weights, resume_module._load = real, load
    return int(weights_of(loop) != before)


ROWS = [
    Row("A10", "a load that raises half-way", failing_loads, weights_first, share=5),
    Row("B1", "cut at each of 120 steps", every_step,
        lambda root: without_part(list(every_step(root))[5::60], "streams"),
        share=60, control_is_cheap=False),
    Row("B2", "every kind of loader, cut in epoch 1 and 3", loaders, without_skipping,
        share=24, control_is_cheap=False),
    Row("B3, B4", "resumed at an epoch's end, resumed again, other workers", how_far,
        lambda root: without_part([lambda: second_resume(root)], "streams"), share=1),
    Row("B5", "Keras, torch, compiled; plain, recorded, compiled by inductor", randomness,
        lambda root: without_part([lambda: program_trial(root, "keras", None, 90)], "seeds"),
        share=11),
    Row("B6", "all 120 orders of five callbacks with state", orders, saved_too_early,
        share=120, control_is_cheap=False),
    Row("B7", "another program", changes, without_comparing, share=2),
    Row("B8", "nothing left to do", nothing_left, counted_anew, share=1),
]  # fmt: skip
