"""A1, A3, A15, A17: processes that are killed, and two of them at once. Each trial forks."""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from fitkit.checkpoint.lock import FolderLock
from fitkit.errors import ConfigError
from fitkit.store import Store, load, store
from tests.faults.off import NoLock, failing_without
from tests.faults.programs import Seen, same, torch_loop
from tests.faults.row import Row, failing
from tests.faults.rows_disk import content, filled, is_content, quiet_latest

LIMITS = {"epochs": 3}
TIMEOUT_S = 60


def forked(body):
    """Run `body` in a child; return its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    return pid


def ended(pid, kill_after_s=None):
    """Wait for a child, killing it after some seconds; return whether it ended by itself."""
    begun = time.monotonic()
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        waited = time.monotonic() - begun
        if waited > (TIMEOUT_S if kill_after_s is None else kill_after_s):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            assert kill_after_s is not None, "a child hangs"
            return False
        time.sleep(0.002)


def train(folder, resume="auto"):
    """A run in a child: it writes its end, and the samples it saw, to files."""
    seen = Seen()
    loop = torch_loop(folder, extra=(seen,))
    loop.fit(**LIMITS, resume=resume)
    (Path(folder) / "end").write_text(same(loop))


def reference(root):
    folder = Path(root) / "whole"
    begun = time.monotonic()
    assert ended(forked(lambda: train(folder)))
    return (folder / "end").read_text(), time.monotonic() - begun


def kills(root, number=200, kills_each=1, resume="auto"):
    made = {}

    def trial(index):
        if not made:
            made["end"], made["seconds"] = reference(root)
        rng = random.Random(index)
        folder = Path(root) / f"kill{index}"
        for _ in range(kills_each):
            after_s = rng.random() * made["seconds"]
            if ended(forked(lambda: train(folder, resume)), after_s):
                break
            torn = [
                n
                for n in Store(folder / "checkpoints").names()
                if not load(folder / "checkpoints" / n)
            ]
            assert not torn
        assert ended(forked(lambda: train(folder, resume)))
        assert (folder / "end").read_text() == made["end"]
        left = [name for name in os.listdir(folder / "checkpoints") if name.startswith(".")]
        assert left == [".lock"]
        shutil.rmtree(folder)

    return [lambda index=index: trial(index) for index in range(number)]  # fmt: skip


def without_resume(root):
    """The second process begins anew over the checkpoints of the first: refused, never silent."""
    return failing(kills(root, 2, resume=None))


def locks(root):
    def held(index):
        folder = Path(root) / f"lock{index}"
        folder.mkdir()
        reader, writer = os.pipe()

        def hold():
            FolderLock(folder)
            os.write(writer, b"x")
            time.sleep(TIMEOUT_S)

        child = forked(hold)
        os.read(reader, 1)
        try:
            FolderLock(folder)
        except ConfigError as error:
            message = str(error)
        else:
            raise AssertionError("two processes hold one folder")
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert str(child) in message
        assert os.uname().nodename in message
        assert (folder / ".lock").read_bytes()  # stale now: its process is dead
        FolderLock(folder).release()

    return [lambda index=index: held(index) for index in range(10)]


def without_lock(root):
    """Anybody is let in."""
    return failing_without(lambda: locks(root)[:2], (sys.modules[__name__], "FolderLock", NoLock))


def graces(root, number=50, size=400_000):
    """Killed within a save that had g seconds."""
    template = Path(root) / "template"
    filled(template, 7)
    begun = time.monotonic()
    Store(Path(root) / "timed").write(content(14, size))
    save_s = time.monotonic() - begun

    def trial(index):
        folder = Path(root) / f"grace{index}"
        shutil.copytree(template, folder)
        child = forked(lambda: Store(folder).write(content(14, size)))
        ended(child, save_s * 1.2 * index / number)
        found = quiet_latest(folder)
        step = found.meta["counters"]["num_updates"]
        assert step in (7, 14)
        assert step == 14 or is_content(found, 7)
        assert all(load(folder / name) for name in Store(folder).names())
        shutil.rmtree(folder)

    return [lambda index=index: trial(index) for index in range(number)]


def under_final_name(root):
    """A save that gives the folder its name before it is complete."""
    real = store.publish
    begun = time.monotonic()
    Store(Path(root) / "timed").write(content(14, 400_000))
    save_s = time.monotonic() - begun
    torn = 0
    for index in range(10):
        folder = Path(root) / f"named{index}"

        def save(folder=folder):
            target = folder / "step-00000014-epoch-0001"
            target.mkdir(parents=True)
            made = Store(folder / "made").write(content(14, 400_000))
            for path in made.iterdir():
                shutil.copy(path, target)
                time.sleep(save_s / 4)

        ended(forked(save), save_s * (1 + index / 10))
        try:
            found = Store(folder).latest()
            torn += found is None
        except Exception:
            torn += 1
    store.publish = real
    return torn


ROWS = [
    Row("A1", "kill -9 at any instant", kills, without_resume, share=100),
    Row("A3", "20 kills in one run", lambda root: kills(root, 20, kills_each=20),
        without_resume, share=20),
    Row("A15", "two processes, one folder; a stale lock", locks, without_lock, share=5),
    Row("A17", "kill -9 within a save", graces, under_final_name),
]  # fmt: skip
