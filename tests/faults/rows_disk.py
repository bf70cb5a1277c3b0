"""A2, A4 to A9, A11 to A14, A16: what a disk, or whoever writes to it, can do to checkpoints."""

import errno
import os
import random
import shutil
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch

from fitkit.checkpoint.policy import to_delete
from fitkit.checkpoint.writer import BackgroundWriter, Copier
from fitkit.errors import CheckpointCorruptError, CheckpointWriteError
from fitkit.store import Content, Store, load, manifest, saved, store
from tests.faults import off
from tests.faults.off import failing_without
from tests.faults.row import Row, failing
from tests.faults.shim import Disk, count_calls, crash_at, failing_write

FILES = ("model.safetensors", "state.safetensors", "state.json", "manifest.json")


def content(step, size=50):
    """A checkpoint that is told by its step, and that no other step has."""
    generator = torch.Generator().manual_seed(step)
    counters = {"num_updates": step, "epoch": step // 10}
    model = {"weight": torch.randn(size, 7, generator=generator), "bias": torch.full((3,), step)}
    state = {"step": step, "moments": [torch.randn(size, generator=generator), None, 0.1 * step]}
    return Content({"counters": counters, "monitored": 1.0 / step}, model, state)


def is_content(found, step):
    wanted = content(step)
    return (
        found.state["step"] == step
        and all(torch.equal(found.model[name], wanted.model[name]) for name in wanted.model)
        and torch.equal(found.state["moments"][0], wanted.state["moments"][0])
    )


def filled(folder, *steps):
    made = Store(Path(folder))
    for step in steps:
        made.write(content(step))
    return made


def quiet_latest(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Store(Path(folder)).latest()


def save_and_prune(folder, step, keep):
    target = Store(Path(folder))
    target.write(content(step))
    target.delete(to_delete(target.metas(), keep, 0, "min", None))


# -- A2: a crash at every call of a save ---------------------------------------------------------


def crashes(root, save=save_and_prune):
    template = Path(root) / "template"
    filled(template, 7, 14)
    trials = []
    for keep in (1, 2):
        folder = Path(root) / f"count{keep}"
        shutil.copytree(template, folder)
        num = count_calls(lambda f=folder, k=keep: save(f, 21, k))
        trials += [
            lambda n=n, after=after, keep=keep: crash(root, template, n, after, keep, save)
            for n in range(1, num + 1)
            for after in (False, True)
        ]
    return trials


def crash(root, template, number, after, keep, save):
    folder = Path(root) / f"crash-{number}-{after}-{keep}"
    shutil.copytree(template, folder)
    crash_at(number, after=after, action=lambda: save(folder, 21, keep))
    found = quiet_latest(folder)
    assert found is not None
    step = found.meta["counters"]["num_updates"]
    assert step in (14, 21)
    assert is_content(found, step)
    assert all(load(folder / name) for name in Store(folder).names()), "a torn one is visible"
    Store(folder).sweep()
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
    save_and_prune(folder, 28, keep)
    assert is_content(quiet_latest(folder), 28)
    shutil.rmtree(folder)


def save_in_place(folder, step, keep):
    """As programs do that write under the final name: the old goes before the new is there."""
    target = Store(Path(folder))
    for name in target.names():
        shutil.rmtree(target.folder / name)
    made = target.folder / store.name_of(content(step).meta)
    made.mkdir()
    elsewhere = Path(folder).parent / "elsewhere"
    shutil.rmtree(elsewhere, ignore_errors=True)
    for name in FILES:
        data = (
            (filled(elsewhere, step).folder / made.name / name).read_bytes()
            if not (elsewhere / made.name).exists()
            else (elsewhere / made.name / name).read_bytes()
        )
        descriptor = os.open(made / name, os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, data)
        os.close(descriptor)


# -- A4: power loss -----------------------------------------------------------------------------


def power_losses(root, sync=True):
    folder = Path(root) / "disk"
    filled(folder, 7, 14)
    start = {
        str(folder): {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
    }
    disk = Disk()
    with disk.recording():
        save_and_prune(folder, 21, 2)
    if not sync:
        disk.log = [call for call in disk.log if call[0] != "fsync"]
    return [
        lambda n=n, data=data, parent=parent, inner=inner: power_loss(
            root, disk, start, n, data, parent, inner
        )
        for n in range(len(disk.log) + 1)
        for data in ("synced", "cut", "all")
        for parent, inner in ((True, True), (True, False), (False, True), (False, False))
    ]


def power_loss(root, disk, start, num_calls, data, parent, inner):
    folder = Path(root) / "left"
    shutil.rmtree(folder, ignore_errors=True)
    disk.after(num_calls, data=data, parent=parent, inner=inner, root=folder, start=start)
    found = Store(folder).latest()  # a warning is an error: nothing torn may be visible
    assert found is not None
    assert is_content(found, found.meta["counters"]["num_updates"])
    assert found.meta["counters"]["num_updates"] in (14, 21)
    finished = num_calls >= published(disk.log)
    assert not finished or found.meta["counters"]["num_updates"] == 21


def published(log):
    """After how many calls a checkpoint is promised to be there: the fsync after its rename."""
    renamed = next(i for i, call in enumerate(log) if call[0] == "rename")
    return (
        next((i for i, call in enumerate(log) if i > renamed and call[0] == "fsync"), 1 << 30) + 1
    )


# -- A5: the disk is full -----------------------------------------------------------------------


def full_disks(root, promise=CheckpointWriteError):
    template = Path(root) / "template"
    filled(template, 7, 14)
    folder = Path(root) / "count"
    shutil.copytree(template, folder)
    codes = (errno.ENOSPC, errno.EIO, errno.EDQUOT)
    num = count_calls(lambda: Store(folder).write(content(21)), FAILING)
    whole = [(n, False, FAILING) for n in range(2, num + 1)]  # the folder itself is there already
    cut = [(n, True, ("write",)) for n in range(1, 5)]
    return [
        lambda n=n, code=code, short=short, names=names: full_disk(
            root, template, n, code, short, names, promise
        )
        for n, short, names in whole + cut
        for code in codes
    ]


FAILING = ("write", "fsync", "mkdir", "open", "rename")


def full_disk(root, template, number, code, short, names, promise):
    folder = Path(root) / "full"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    try:
        with failing_write(number, code, names=names, short=short):
            Store(folder).write(content(21))
    except promise as error:
        text = str(error)
        for token in (str(folder), errno.errorcode[code], "bytes", "free"):
            assert token in text, token
        assert len(text.splitlines()[0]) <= 120 + len(str(folder))
    else:
        raise AssertionError("nothing was raised")
    left = sorted(os.listdir(folder))
    newest = load(folder / left[-1])  # published, if the very last call was the one that failed
    assert left[:2] == sorted(os.listdir(template))
    assert len(left) == 2 or is_content(newest, 21), "something is left"
    assert is_content(load(folder / left[1]), 14)
    Store(folder).write(content(21))
    assert is_content(quiet_latest(folder), 21)


# -- A6 to A9, A11: damaged, mixed, lying --------------------------------------------------------


def truncations(root, number=500):
    folder = filled(Path(root) / "cut", 7, 14).folder
    rng = random.Random(6)
    newest = folder / Store(folder).names()[-1]
    sizes = {name: (newest / name).stat().st_size for name in FILES}
    picks = [(name, 0) for name in FILES] + [
        (name, rng.randrange(sizes[name])) for name in rng.choices(FILES, k=number - len(FILES))
    ]
    return [
        lambda name=name, size=size: damage(folder, newest, name, lambda b: b[:size])
        for name, size in picks
    ]


def flips(root, number=2000, files=FILES):
    folder = filled(Path(root) / "rot", 7, 14).folder
    rng = random.Random(7)
    newest = folder / Store(folder).names()[-1]
    sizes = {name: (newest / name).stat().st_size for name in files}

    def flip(name, at, bit):
        damage(folder, newest, name, lambda d: d[:at] + bytes([d[at] ^ bit]) + d[at + 1 :])

    trials = []
    for name in rng.choices(files, weights=[sizes[n] for n in files], k=number):
        at, bit = rng.randrange(sizes[name]), 1 << rng.randrange(8)
        trials.append(partial(flip, name, at, bit))
    return trials


def damage(folder, newest, name, change):
    """Change a file of the newest checkpoint: it is refused, the one before it is found."""
    path = newest / name
    good = path.read_bytes()
    path.write_bytes(change(good))
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = Store(folder).latest()
        assert is_content(found, 7)
        assert len(told) == 1
        assert str(newest) in str(told[0].message)
        assert str(found.path) in str(told[0].message)
    finally:
        path.write_bytes(good)


def mixtures(root):
    trials = []
    for name in FILES:
        for kind in ("swap", "delete", "add", "link"):
            trials.append(lambda name=name, kind=kind: mixture(root, name, kind))
    return trials


def mixture(root, name, kind):
    folder = Path(root) / f"mix-{kind}-{name}"
    filled(folder, 7, 14)
    old, new = (folder / each for each in Store(folder).names())
    if kind == "swap":
        (new / name).write_bytes((old / name).read_bytes())
    elif kind == "delete":
        (new / name).unlink()
    elif kind == "add":
        (new / f"{name}.more").write_bytes(b"x")
    else:
        (new / name).rename(folder / "elsewhere")
        (new / name).symlink_to(folder / "elsewhere")
    assert is_content(quiet_latest(folder), 7)
    with pytest.raises(CheckpointCorruptError):
        load(new)


def all_bad(root):
    return [lambda number=number: one_all_bad(root, number) for number in (1, 2, 5)]


def one_all_bad(root, number):
    folder = filled(Path(root) / f"bad{number}", *range(1, number + 1)).folder
    for name in Store(folder).names():
        (folder / name / "state.json").write_bytes(b"{}")
    with pytest.raises(CheckpointCorruptError) as caught:
        quiet_latest(folder)
    for name in Store(folder).names():
        assert str(folder / name) in str(caught.value)


def lying_times(root, number=50):
    return [lambda seed=seed: lying_time(root, seed) for seed in range(number)]


def lying_time(root, seed):
    rng = random.Random(seed)
    steps = sorted(rng.sample(range(1, 10 ** rng.randint(2, 9)), 5))
    folder = Path(root) / f"times{seed}"
    filled(folder, *rng.sample(steps, 5))
    for name in os.listdir(folder):
        when = rng.randrange(2**31)
        os.utime(folder / name, (when, when))
    if seed % 2:
        folder = Path(shutil.copytree(folder, f"{folder}-copy"))
    found = Store(folder).latest()
    assert found.meta["counters"]["num_updates"] == steps[-1]
    shutil.rmtree(folder)


# -- A12 to A14, A16: retention, a folder that changes, a torn copy ------------------------------


def foreigners(root):
    return [lambda keep=keep: foreign(root, keep) for keep in (1, 2, 3)]


def foreign(root, keep):
    folder = filled(Path(root) / f"foreign{keep}", *range(1, 7)).folder
    others = ["backup-step-50", "step-100.tmp", "step-00000099-epoch-0009x", "mine", ".tmp-short"]
    for name in others:
        (folder / name).mkdir()
        (folder / name / "file").write_text("mine")
    for step in range(90, 95):  # torn ones, under names of ours
        torn = folder / f"step-{step:08d}-epoch-0009"
        torn.mkdir()
        (torn / "manifest.json").write_bytes(b"{")
    target = Store(folder)
    target.delete(to_delete(target.metas(), keep, 0, "min", "step-00000001-epoch-0000"))
    left = [int(name[5:13]) for name in target.metas()]
    assert left == sorted({1, *range(7 - keep, 7)})
    assert all((folder / name / "file").read_text() == "mine" for name in others)


def deletions(root):
    return [lambda n=n: failing_deletion(root, n) for n in range(1, 5)]


def failing_deletion(root, number):
    folder = filled(Path(root) / f"delete{number}", 1, 2, 3).folder
    target = Store(folder)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in (4, 5):
            target.write(content(step))
            with failing_write(number, errno.EACCES, names=("unlink", "rmdir", "rename")):
                target.delete(to_delete(target.metas(), 2, 0, "min", None))
    assert len(told) == 1
    assert str(folder) in str(told[0].message)
    target.write(content(6))
    target.delete(to_delete(target.metas(), 2, 0, "min", None))
    assert [int(name[5:13]) for name in target.names()] == [5, 6]
    assert sorted(os.listdir(folder)) == target.names()


def moved_folders(root):
    return [
        lambda kind=kind: moved_folder(root, kind) for kind in ("gone", "file", "long", "emfile")
    ]


def moved_folder(root, kind):
    folder = Path(root) / ("x" * 300 if kind == "long" else kind)
    if kind == "gone":
        target = filled(folder, 7)
        shutil.rmtree(folder)
        target.write(content(14))
        assert is_content(target.latest(), 14)
        return
    if kind == "file":
        folder.write_text("mine")
    number = 2 if kind == "emfile" else 1 << 30
    with pytest.raises(CheckpointWriteError) as caught:  # noqa: SIM117
        with failing_write(number, errno.EMFILE, names=("open",)):
            Store(folder).write(content(7))
    assert str(folder) in str(caught.value)
    assert kind != "file" or folder.read_text() == "mine"


def torn_copies(root, number=100, copy=None):
    copy = copy or Copier().copy
    return [lambda n=n: torn_copy(root, n, copy) for n in range(number)]


def torn_copy(root, number, copy):
    """Change every tensor in place right after the save returned, before anything is written."""
    target = Store(Path(root) / f"async{number}")
    live, writer = content(7), BackgroundWriter()
    taken = copy(live)
    for tensor in (*live.model.values(), live.state["moments"][0]):
        tensor.add_(number + 1)
    live.state["moments"][2] = -1.0
    live.meta["counters"]["num_updates"] = 8
    writer.start(lambda: target.write(taken))
    writer.wait()
    assert is_content(target.latest(), 7)
    assert target.latest().state["moments"][2] == 0.1 * 7
    if number % 10 == 0:
        writer.start(lambda: Store(Path("/dev/null/x")).write(taken))
        with pytest.raises(CheckpointWriteError):
            writer.wait()


def without_verification(root, trials):
    """Run trials with the check of the digests switched off."""
    real, sizes = saved.verify, manifest.check_sizes
    saved.verify = lambda folder, files: None
    try:
        return failing(trials)
    finally:
        saved.verify, manifest.check_sizes = real, sizes


def without_reading(trials):
    """Run trials with the newest checkpoint believed by its name."""
    real, store.load = store.load, lambda path: content(int(path.name[5:13]))
    try:
        return failing(trials)
    finally:
        store.load = real


ROWS = [
    Row("A2", "kill at every call of a save", crashes,
        lambda root: failing(crashes(root, save_in_place)[::10])),
    Row("A4", "power loss after every call of a save", power_losses,
        lambda root: failing(power_losses(root, sync=False)[::5])),
    Row("A5", "disk full, at every call of a save", full_disks,
        lambda root: failing(full_disks(root, promise=CheckpointCorruptError)[::5])),
    Row("A6", "a file cut short", truncations,
        lambda root: without_reading(truncations(root, 40))),
    Row("A7", "one bit flipped", flips,
        lambda root: without_verification(root, flips(root, 40, ("model.safetensors",)))),
    Row("A8", "files of two checkpoints mixed", mixtures,
        lambda root: without_verification(root, mixtures(root)), share=2),
    Row("A9", "all checkpoints damaged", all_bad,
        lambda root: without_reading(all_bad(root)), share=1),
    Row("A11", "times that lie", lying_times,
        lambda root: failing_without(lambda: lying_times(root, 10), *off.BY_TIME)),
    Row("A12", "torn and foreign folders beside checkpoints", foreigners,
        lambda root: failing_without(lambda: foreigners(root), *off.UNVERIFIED), share=1),
    Row("A13", "an old checkpoint cannot be deleted", deletions,
        lambda root: failing_without(lambda: deletions(root), *off.DELETING), share=1),
    Row("A14", "the folder vanishes, is a file, has no name", moved_folders,
        lambda root: failing_without(lambda: moved_folders(root), *off.BARE), share=1),
    Row("A16", "weights change while a thread writes", torn_copies,
        lambda root: failing(torn_copies(root, 10, copy=lambda content: content))),
]  # fmt: skip
