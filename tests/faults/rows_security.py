"""S1 to S3 and S6 to S12, S14 to S16: what a checkpoint from a stranger can do."""

import hashlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import time
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from fitkit import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointMismatchError,
    CheckpointWriteError,
)
from fitkit.checkpoint import load_weights_into
from fitkit.checkpoint.lock import FolderLock
from fitkit.store import Content, Store, find, load, manifest
from fitkit.store.codec import to_json
from tests.faults import off
from tests.faults.off import failing_without
from tests.faults.programs import Seen, torch_loop
from tests.faults.row import Row
from tests.faults.rows_disk import FILES, content, filled, is_content, quiet_latest
from tests.faults.shim import patched

EVENTS = (
    "exec",
    "os.system",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "marshal.loads",
)
HERE = sys.modules[__name__]
HEARD = []
LISTENING = []


def listen(event, arguments):
    """An audit hook cannot be removed, so it is told when to listen."""
    if LISTENING and event in EVENTS:
        HEARD.append((event, str(arguments)[:80]))


def heard(action):
    """Which forbidden things an action does."""
    if not hasattr(sys, "_fitkit_audit"):
        sys._fitkit_audit = True
        sys.addaudithook(listen)
    HEARD.clear()
    LISTENING.append(True)
    try:
        action()
    finally:
        LISTENING.pop()
    return list(HEARD)


class Payload:
    """Pickled, it runs something when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def resealed(folder, name, data):
    """Put other bytes into a checkpoint, with a manifest that fits: what an attacker would do."""
    (folder / name).write_bytes(data)
    files = {}
    for each in FILES[:-1]:
        parts = (folder / each).read_bytes()
        chunks = [parts[at : at + manifest.CHUNK] for at in range(0, len(parts), manifest.CHUNK)]
        digests = [hashlib.sha256(chunk).hexdigest() for chunk in chunks]
        files[each] = {"bytes": len(parts), "sha256": digests}
    (folder / "manifest.json").write_bytes(manifest.manifest_of(files))


def good(root, name="good"):
    folder = filled(Path(root) / name, 7).folder
    path = folder / Store(folder).names()[0]
    assert is_content(load(path), 7)  # the positive control
    return path


# -- S1 to S3: code ------------------------------------------------------------------------------


def pickles(root):
    """60 payloads: what they call, how they are wrapped, in which protocol, in which file."""
    marker = Path(root) / "executed"
    calls = [
        Payload(os.system, f"touch {marker}"),
        Payload(eval, f"open({str(marker)!r}, 'w').close()"),
        Payload(exec, f"open({str(marker)!r}, 'w').close()"),
        Payload(getattr, "", "upper"),
        Payload(Path.touch, marker),
    ]
    trials = []
    for protocol in range(6):
        for index, call in enumerate(calls):
            for wrapped in (call, {"state": [call], "tensor": torch.ones(2)}):
                data = pickle.dumps(wrapped, protocol)
                name = FILES[index % 3]
                trials.append(lambda data=data, name=name: refused(root, name, data, marker))
    return trials


def refused(root, name, data, marker=None):
    path = good(root, f"c{random.getrandbits(48):x}")
    resealed(path, name, data)

    def read():
        with pytest.raises(CheckpointCorruptError):
            load(path)

    assert heard(read) == []
    assert marker is None or not marker.exists()
    shutil.rmtree(path.parent)


def disguises(root):
    """Files of other formats under our names, and as what is to be resumed."""
    packed = io.BytesIO()
    torch.save({"a": torch.ones(3)}, packed)
    legacy = io.BytesIO()
    torch.save({"a": torch.ones(3)}, legacy, _use_new_zipfile_serialization=False)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../outside"), io.BytesIO())
    datas = {"zip": packed, "legacy": legacy, "tar": tar}
    datas = {name: data.getvalue() for name, data in datas.items()}
    datas |= {"pickle": pickle.dumps({"a": 1}), "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100)}

    def as_resume(name):
        path = Path(root) / f"model.{name}"
        path.write_bytes(datas[name])
        with pytest.raises(CheckpointError, match="expected a folder"):
            find(path)

    return [
        *(lambda d=d, n=n: refused(root, n, d) for d in datas.values() for n in FILES[:3]),
        *(lambda name=name: as_resume(name) for name in datas),
    ]


def names(root):
    """JSON that names classes and functions: they stay strings."""
    marker = Path(root) / "executed"

    def trial(value):
        made = Store(Path(root) / f"names{random.getrandbits(48):x}")
        made.write(Content(content(7).meta, {}, {"callbacks": value}))
        found = []
        assert heard(lambda: found.append(made.latest())) == []
        assert found[0].state["callbacks"] == value
        assert not marker.exists()

    values = [
        {"_instantiator": "os.system", "args": [f"touch {marker}"]},
        {"class_name": "Lambda", "module": "builtins", "config": {"function": "eval"}},
        {"__reduce__": ["os.system", "true"]},
        {"$import": "os", "more": 1},
        {"!!python/object/apply:os.system": ["true"]},
    ]
    unknown = to_json({"meta": {}, "model": {}, "state": {"$import": "os"}})
    return [
        *(lambda value=value: trial(value) for value in values),
        lambda: refused(root, "state.json", unknown),
    ]


# -- S6 to S9: archives, bombs, broken headers, other shapes --------------------------------------


def archives(root):
    """No reader of fitkit opens an archive: whatever is in one, it is refused as one."""
    members = ["../x", "/tmp/x", "..\\x", "a\x00b", "a/../../x", "x" * 5000, "link", "twice"]
    members += ["broken", "locked", "C:\\x", "nested/../../../x", "\n", ".", "state.json"]

    def archive_of(member, method):
        data = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(data, "w", method) as archive:
            warnings.simplefilter("ignore")
            info = zipfile.ZipInfo(member)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16 if member == "link" else 0
            archive.writestr(info, b"../" * 33)
            archive.writestr(member, b"y")
        found = bytearray(data.getvalue())
        if member == "broken":
            found[14] ^= 1  # the sum over its bytes
        elif member == "locked":
            found[6] |= 1  # it says that it is encrypted
        return bytes(found)

    def trial(member, method):
        data = archive_of(member, method)
        before = sorted(Path(root).parent.iterdir())
        path = Path(root) / "archive.keras"
        path.write_bytes(data)
        with pytest.raises(CheckpointError):
            find(path)
        refused(root, "state.safetensors", data)
        assert sorted(Path(root).parent.iterdir()) == before

    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    return [lambda m=m, k=k: trial(m, k) for m in members for k in methods]


def header(entries, data=b""):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), at=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(at)}


def headers(root):
    """Headers of safetensors that lie, and random damage to a good one."""
    sixteen = bytes(16)

    def lying(data=sixteen, **changes):
        """Two tensors under the names that the checkpoint has; one of them lies."""
        return header({"bias": entry(), "weight": {**entry(at=(8, 16)), **changes}}, data)

    bad = [
        lying(data_offsets=[0, 8]),  # overlap
        lying(bytes(20), data_offsets=[12, 20]),  # a hole
        lying(shape=[3]),  # too short for its shape
        lying(shape=[1]),  # too long
        lying(shape=[2**40, 2**40]),  # the product overflows
        lying(data_offsets=[8, 2**60]),  # past the end
        lying(data_offsets=[16, 8]),
        lying(data_offsets=[8]),
        lying(data_offsets=[8.0, 16.0]),
        lying(dtype="PICKLE"),
        lying(dtype=None),
        lying(shape=[-2]),
        lying(shape=["2"]),
        lying(shape=2),
        lying(bytes(20)),  # more behind the last one
        lying(bytes(12)),  # less
        header({"bias": 3, "weight": entry()}, sixteen),
        header([1, 2], sixteen),
        header(b'{"bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]', sixteen),
        header(b"", b""),
        (2**63).to_bytes(8, "little") + b"{}",
        (10**9).to_bytes(8, "little") + b"{}",
        b"",
        b"\x00" * 7,
    ]
    twice = json.dumps({"bias": entry(), "weight": entry(at=(8, 16))})[:-1]
    bad.append(header(f'{twice},"weight":{json.dumps(entry())}}}'.encode(), sixteen))

    return [
        *(lambda data=data: refused(root, "model.safetensors", data) for data in bad),
        *(lambda seed=seed: fuzzed(root, seed) for seed in range(200)),
    ]


def fuzzed(root, seed):
    """Change a few bytes of a good file at random: it is refused, or read as other numbers."""
    path = good(root, f"fuzz{seed}")
    rng = random.Random(seed)
    name = FILES[rng.randrange(3)]
    data = bytearray((path / name).read_bytes())
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(min(200, len(data)))] = rng.randrange(256)
    resealed(path, name, bytes(data))
    with suppress(CheckpointCorruptError):
        load(path)
    shutil.rmtree(path.parent)


def bombs(root):
    """Small files that claim, or unfold to, much: refused at once and in little memory."""
    nested = b"[" * 100_000 + b"]" * 100_000
    one = json.dumps(entry(at=(0, 0), shape=(0,)))
    many = ("{" + ",".join(f'"t{i}":{one}' for i in range(300_000)) + "}").encode()
    texts = [
        nested,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"meta":' + b"9" * 100_000 + b"}",
        b'{"meta":NaN}',
        b'{"meta":{},"meta":{}}',
        b"[" + b"[]," * 4_000_000 + b"1]",
        b'{"meta":{},"model":{"a":{"$tensor":"none"}},"state":{}}',
        b'{"meta":{},"model":{},"state":{"$array":["O8",[1],"x"]}}',
        b'{"meta":{},"model":{},"state":{"$array":["f8",[1099511627776],"x"]}}',
        b'{"meta":{},"model":{},"state":{"$scalar":["f8",[],"x"]}}',
        b'{"meta":{},"model":{},"state":{"$dict":[[{"$dict":[]},1]]}}',
        b'{"meta":{},"model":{},"state":{"$dict":7}}',
        b'{"meta":{},"model":{},"state":{"$tuple":"abc"',
        b'{"meta":{},"model":{},"state":{"$float":"1e999999"}}',
        b'{"meta":{},"model":{},"state":{"$float":[]}}',
        b'{"meta":{},"model":{},"state":Infinity}',
        b'{"meta":[],"model":{},"state":{"NaN":NaN}}',
        b'"' + b"x" * 9_000_000 + b'"',
        b"\xff\xfe" * 1000,
        b"9" * 5000,
    ]

    def trial(name, data):
        path = good(root, f"bomb{random.getrandbits(48):x}")
        resealed(path, name, data)
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        with pytest.raises(CheckpointCorruptError):
            load(path)
        assert time.process_time() - begun < 1
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
        shutil.rmtree(path.parent)

    def claimed():
        path = good(root, "claimed")
        said = json.loads((path / "manifest.json").read_bytes())
        said["files"]["model.safetensors"]["bytes"] = 2**53
        (path / "manifest.json").write_bytes(to_json(said))
        with pytest.raises(CheckpointCorruptError):
            load(path)

    return [
        *(lambda text=text: trial("state.json", text) for text in texts),
        lambda: trial("model.safetensors", header(many)),
        lambda: trial("model.safetensors", (8 << 50).to_bytes(8, "little") + b"{}"),
        claimed,
    ]


def other_shapes(root):
    """Names, shapes, dtypes that are not the model's: refused before any copy."""
    saved = filled(Path(root) / "shapes", 7).latest()

    def trial(model):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(CheckpointMismatchError, match="another model"):
            load_weights_into(model, saved.path)
        assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())

    def module(**tensors):
        made = torch.nn.Module()
        for name, tensor in tensors.items():
            made.register_buffer(name, tensor)
        return made

    weight, bias = saved.model["weight"], saved.model["bias"]
    right = module(weight=torch.zeros_like(weight), bias=torch.zeros_like(bias))
    load_weights_into(right, saved.path)
    assert torch.equal(right.weight, weight)
    return [
        lambda: trial(module(weight=torch.zeros(50, 7))),
        lambda: trial(module(weight=torch.zeros(50, 7), bias=bias.clone(), more=torch.ones(1))),
        lambda: trial(module(weight=torch.zeros(7, 50), bias=bias.clone())),
        lambda: trial(module(weight=torch.zeros(1, 7), bias=bias.clone())),
        lambda: trial(module(weight=torch.zeros(50, 7), bias=bias.float())),
        lambda: trial(module(weights=torch.zeros(50, 7), bias=bias.clone())),
    ]


# -- S10 to S12, S14 to S16: links, names, rights, secrets, network, import ------------------------


def links(root):
    victim = Path(root) / "victim"
    victim.mkdir()
    (victim / "file").write_text("mine")

    def folder_link(kind):
        folder = Path(root) / f"link-{kind}"
        filled(folder, 7, 14)
        old, new = (folder / name for name in Store(folder).names())
        if kind == "checkpoint":
            shutil.rmtree(old)
            old.symlink_to(victim)
        elif kind == "temporary":
            (folder / f".tmp-{'0' * 16}").symlink_to(victim)
        elif kind == "deleted":
            (folder / f".old-{'0' * 16}").symlink_to(victim)
        elif kind == "inner":
            (old / "link").symlink_to(victim)
        elif kind == "lock":
            (folder / ".lock").symlink_to(victim / "file")
            with pytest.raises(OSError, match="symbolic"):
                FolderLock(folder)
        elif kind == "new":  # the very name that comes next
            (folder / "step-00000021-epoch-0002").symlink_to(victim)
        elif kind in FILES:
            (new / kind).unlink()
            (new / kind).symlink_to(victim / "file")
        target = Store(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.sweep()
            with suppress(*[CheckpointWriteError] if kind == "new" else []):
                target.write(content(21))
            target.delete(target.names()[:-1])
        assert kind == "new" or is_content(quiet_latest(folder), 21)
        assert os.listdir(victim) == ["file"]
        assert (victim / "file").read_text() == "mine"

    def swapped(tries=1000):
        """A file is a link now and then while it is read."""
        folder = filled(Path(root) / "race", 7).folder
        path = folder / Store(folder).names()[0]
        model, kept = path / "model.safetensors", path.parent / "kept"
        kept.write_bytes(model.read_bytes())
        ended = threading.Event()

        def swap():
            while not ended.is_set():
                (path.parent / "link").symlink_to(victim / "file")
                os.replace(path.parent / "link", model)
                os.link(kept, path.parent / "link")
                os.replace(path.parent / "link", model)

        thread = threading.Thread(target=swap)
        thread.start()
        num_read = 0
        try:
            for _ in range(tries):
                with suppress(CheckpointCorruptError):
                    assert is_content(load(path), 7)
                    num_read += 1
        finally:
            ended.set()
            thread.join()
        assert num_read > 0
        assert (victim / "file").read_text() == "mine"

    return [*(lambda kind=kind: folder_link(kind) for kind in LINKS), swapped]


LINKS = ("checkpoint", "temporary", "deleted", "inner", "lock", *FILES[:2], "manifest.json", "new")


def odd_names(root):
    """Names of metrics and callbacks are never paths, and are shown without control characters."""
    from fitkit.checkpoint.__main__ import _shown

    pieces = ["/", "..", "\x00", "\n", "\r", "\x1b[31m", "\x1b]0;x\x07", "\\", "\u202e", "\u2028"]
    bad = [form.format(piece) for piece in pieces for form in ("{}", "a{}", "{}a", "a{0}b{0}")]
    bad += ["../../x", "x" * 5000, "CON", "$x", "", "~", "-rf", "*", "`id`", "$(id)"]

    def trial(name):
        folder = Path(root) / f"odd{random.getrandbits(48):x}"
        state = {"callbacks": {name: {"value": torch.ones(2), name: 1}}, "logs": {name: 0.5}}
        Store(folder).write(
            Content({**content(7).meta, "logs": {name: 0.5}}, {name: torch.ones(1)}, state)
        )
        found = Store(folder).latest()
        assert found.state["logs"] == {name: 0.5}
        assert set(found.model) == {name}
        assert sorted(os.listdir(folder / Store(folder).names()[0])) == sorted(FILES)
        assert _shown(name).isprintable()

    return [lambda name=name: trial(name) for name in bad]


def rights(root):
    """Nobody else can read a checkpoint, at any time of its making."""

    def trial(mask):
        folder = Path(root) / f"rights{mask}"
        old, modes = os.umask(mask), []

        def around(name, real, args, kwargs):
            result = real(*args, **kwargs)
            if name in ("mkdir", "open", "write") and folder.exists():
                modes.extend(path.lstat().st_mode for path in folder.rglob("*"))
            return result

        try:
            with patched(around):
                Store(folder).write(content(7))
        finally:
            os.umask(old)
        assert modes
        assert all(stat.S_IMODE(mode) & 0o077 == 0 for mode in modes)

    return [lambda mask=mask: trial(mask) for mask in (0o000, 0o022, 0o077)]


def secrets(root):
    """Nothing of the environment, the batches or the home folder is in a checkpoint or an error."""

    def trial():
        canary = "canary-7f3a"
        os.environ["FITKIT_TEST_SECRET"] = canary
        sys.argv.append(canary)
        try:
            loop = torch_loop(Path(root) / canary, extra=(Seen(),))
            loop.fit(epochs=1)
            path = loop.callbacks[-1].store.folder
            data = b"".join(p.read_bytes() for p in path.rglob("*") if p.is_file())
            for secret in (canary, str(Path.home()), str(root)):
                assert secret.encode() not in data
        finally:
            del os.environ["FITKIT_TEST_SECRET"]
            sys.argv.remove(canary)

    return [trial]


def network(root):
    def trial():
        folder = Path(root) / "quiet"
        loop = torch_loop(folder, extra=(Seen(),))
        assert heard(lambda: loop.fit(epochs=1)) == []
        again = torch_loop(folder, extra=(Seen(),))
        assert heard(lambda: again.fit(epochs=2, resume="auto")) == []

    return [trial]


def heard_connecting(root):
    import socket

    def connect():
        with socket.socket() as client, pytest.raises(OSError):  # noqa: PT011
            client.connect(("127.0.0.1", 9))

    return len(heard(connect))


PROBE = """
import sys, threading, signal
import torch
events = []
handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
def hook(event, arguments):
    writing = event == "open" and isinstance(arguments[1], str) and arguments[1][:1] in "wax"
    if writing and "__pycache__" not in str(arguments[0]) or event in (
        "socket.connect", "subprocess.Popen", "os.system", "os.fork", "os.mkdir", "os.rename"):
        if "__pycache__" not in str(arguments):
            events.append((event, str(arguments)[:100]))
sys.addaudithook(hook)
import fitkit, fitkit.checkpoint
assert events == [], events
assert threading.active_count() == 1
assert handlers == {s: signal.getsignal(s) for s in handlers}
assert "safetensors" not in sys.modules and "keras" not in sys.modules
"""


def imports(root):
    def trial():
        done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return [trial]


def import_that_writes(root):
    code = PROBE.replace("import fitkit, fitkit.checkpoint", f"open({str(root)!r} + '/x', 'w')")
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode


def planted(root):
    """The search for secrets finds one that is there."""
    Store(Path(root)).write(Content(content(7).meta, {}, {"path": str(Path.home())}))
    return sum(str(Path.home()).encode() in p.read_bytes() for p in Path(root).rglob("*.json"))


ROWS = [
    Row("S1", "pickles that run something", pickles,
        lambda root: failing_without(lambda: pickles(root)[::7], *off.UNPICKLING)),
    Row("S2", "other formats under our names", disguises,
        lambda root: failing_without(lambda: disguises(root)[-5:], (HERE, "find", off.opened)),
        share=4),
    Row("S3", "JSON that names classes and functions", names,
        lambda root: failing_without(lambda: names(root), *off.IMPORTING), share=3),
    Row("S6", "archives", archives,
        lambda root: failing_without(lambda: archives(root), (HERE, "find", zipfile.ZipFile)),
        share=4),
    Row("S7", "bombs", bombs,
        lambda root: failing_without(lambda: bombs(root)[:5], *off.UNBOUNDED), share=2),
    Row("S8", "headers that lie, and 200 files damaged at random", headers,
        lambda root: failing_without(lambda: headers(root)[:16], *off.BELIEVING)),
    Row("S9", "tensors that are not the model's", other_shapes,
        lambda root: failing_without(lambda: other_shapes(root), *off.BROADCASTING), share=1),
    Row("S10", "links in the way", links,
        lambda root: failing_without(lambda: links(root)[:9], *off.FOLLOWING), share=3),
    Row("S11", "names that are paths or commands", odd_names,
        lambda root: failing_without(lambda: odd_names(root), *off.SHOWN_AS_IT_IS)),
    Row("S12", "rights of files, at every call", rights,
        lambda root: failing_without(lambda: rights(root), *off.OPEN_TO_ALL), share=1),
    Row("S14", "secrets in what is written", secrets, planted, share=1),
    Row("S15", "network", network, heard_connecting, share=1),
    Row("S16", "what an import does", imports, import_that_writes, share=1, control_is_cheap=False),
]  # fmt: skip
