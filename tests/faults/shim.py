"""Stand between the program and the disk: count its calls, let the k-th fail, or keep a record."""

import os
from contextlib import contextmanager

CALLS = ("open", "write", "fsync", "mkdir", "rename", "unlink", "rmdir", "close")


class Crash(BaseException):
    """The process is gone: nothing that comes later reaches the disk."""


@contextmanager
def patched(around):
    """Replace the calls of `os`; `around(name, real, args, kwargs)` stands in for each."""
    real = {name: getattr(os, name) for name in CALLS}

    def standing_in(name):
        return lambda *args, **kwargs: around(name, real[name], args, kwargs)

    try:
        for name in CALLS:
            setattr(os, name, standing_in(name))
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def count_calls(action, names=CALLS):
    """How many calls of the disk an action makes."""
    count = 0

    def around(name, real, args, kwargs):
        nonlocal count
        count += name in names
        return real(*args, **kwargs)

    with patched(around):
        action()
    return count


def crash_at(number, *, after, action):
    """Run an action that dies right before, or right after, its n-th call."""
    count = 0

    def around(name, real, args, kwargs):
        nonlocal count
        if name == "close":
            return real(*args, **kwargs)  # the system closes the files of a dead process
        count += 1
        if count > number or (count == number and not after):
            raise Crash
        result = real(*args, **kwargs)
        if count == number:
            raise Crash
        return result

    try:
        with patched(around):
            action()
    except Crash:
        pass


@contextmanager
def failing_write(number, code, *, names=("write",), short=False):
    """Let the n-th call of these names fail with an errno; `short` writes half of it before."""
    count = 0

    def around(name, real, args, kwargs):
        nonlocal count
        if name not in names:
            return real(*args, **kwargs)
        count += 1
        if count == number and short and name == "write" and len(args[1]) > 1:
            return real(args[0], args[1][: len(args[1]) // 2])
        if count == number + short:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    with patched(around):
        yield


class Disk:
    """What a disk would hold after a power loss, replayed from a record of calls.

    A file is what its last fsync saw, a folder has the entries its last fsync saw; what came later
    may be there, be cut, or be missing.
    """

    def __init__(self):
        self.log = []

    @contextmanager
    def recording(self):
        paths = {}

        def around(name, real, args, kwargs):
            if name == "open":
                result = real(*args, **kwargs)
                base = paths.get(kwargs.get("dir_fd"), "")
                paths[result] = os.path.join(base, os.fspath(args[0]))
                if args[1] & os.O_CREAT:
                    self.log.append(("create", paths[result]))
                return result
            if name == "write":
                written = real(*args, **kwargs)
                self.log.append(("write", paths[args[0]], bytes(args[1][:written])))
                return written
            if name == "fsync":
                self.log.append(("fsync", paths[args[0]]))
            elif name in ("mkdir", "unlink", "rmdir"):
                base = paths.get(kwargs.get("dir_fd"), "")
                self.log.append((name, os.path.join(base, os.fspath(args[0]))))
            elif name == "rename":
                base = paths.get(kwargs.get("src_dir_fd"), "")
                self.log.append(("rename", *(os.path.join(base, os.fspath(a)) for a in args[:2])))
            return real(*args, **kwargs)

        with patched(around):
            yield

    def after(self, num_calls, *, data, parent, inner, root, start):
        """Write what is left after the first calls to the folder `root`.

        Args:
            num_calls: Of the record.
            data: "synced", "cut" or "all": how much of a file that was not synced is there.
            parent: Whether unsynced entries of the outermost folder are there.
            inner: Whether those of folders within are.
            root: Where to write; an empty folder.
            start: What the disk held before: {path: bytes} below the outermost folder.
        """
        nodes = Nodes(start)
        for call in self.log[:num_calls]:
            nodes.apply(*call)
        nodes.write(root, data, parent, inner)


class Nodes:
    """Files and folders by identity, with what is known to be on the disk."""

    def __init__(self, start):
        self.top = next(iter(start))
        self.root = {"entries": {}, "synced": {}}
        for path, content in start[self.top].items():
            *folders, name = path.split("/")
            node = self.root
            for folder in folders:
                node = node["entries"].setdefault(folder, {"entries": {}, "synced": {}})
            node["entries"][name] = {"data": content, "synced": content}
        self._sync_all(self.root)

    def _sync_all(self, node):
        node["synced"] = dict(node["entries"])
        for child in node["entries"].values():
            if "entries" in child:
                self._sync_all(child)

    def _parent(self, path):
        relative = os.path.relpath(path, self.top)
        *folders, name = relative.split("/")
        node = self.root
        for folder in folders:
            node = node["entries"][folder]
        return node, name

    def apply(self, name, path, *rest):
        if os.path.normpath(path) == os.path.normpath(self.top):
            if name == "fsync":
                self.root["synced"] = dict(self.root["entries"])
            return
        node, entry = self._parent(path)
        if name == "create":
            node["entries"][entry] = {"data": b"", "synced": b""}
        elif name == "mkdir":
            node["entries"][entry] = {"entries": {}, "synced": {}}
        elif name == "write":
            node["entries"][entry]["data"] += rest[0]
        elif name == "fsync":
            found = node["entries"][entry]
            found["synced"] = dict(found["entries"]) if "entries" in found else found["data"]
        elif name in ("unlink", "rmdir"):
            node["entries"].pop(entry, None)
        elif name == "rename":
            target, new = self._parent(rest[0])
            target["entries"][new] = node["entries"].pop(entry)

    def write(self, root, data, parent, inner):
        self._write(self.root, root, data, parent, inner)

    def _write(self, node, folder, data, here, inner):
        os.makedirs(folder, exist_ok=True)
        for name, child in (node["entries"] if here else node["synced"]).items():
            path = os.path.join(folder, name)
            if "entries" in child:
                self._write(child, path, data, inner, inner)
                continue
            rest = child["data"][len(child["synced"]) :]
            kept = {"synced": b"", "cut": rest[: len(rest) // 2], "all": rest}[data]
            with open(path, "wb") as file:
                file.write(child["synced"] + kept)
