"""U11 to U14 and U41 to U46: mistakes with checkpoints, and what the message must name."""

from pathlib import Path

import pytest
import torch

from fitkit import Checkpoint, CheckpointError, CheckpointMismatchError, ConfigError, FitLoop
from fitkit.store import Store
from fitkit.store.codec import to_json
from fitkit.store.manifest import FORMAT
from tests.faults import off
from tests.faults.off import failing_without
from tests.faults.programs import Seen, torch_loop
from tests.faults.row import Row
from tests.faults.rows_resume import weights_of
from tests.faults.shim import patched


def told(action, kind, *tokens, loop=None):
    """An action raises `kind`; the message names the tokens and is built as all are."""
    before = None if loop is None else weights_of(loop)
    with pytest.raises(kind) as caught:
        action()
    lines = str(caught.value).splitlines()
    for token in tokens:
        assert token in str(caught.value), (token, str(caught.value))
    assert len(lines) >= 2
    assert len(lines[0].replace(str(Path.cwd()), "")) <= 250  # a path may be long
    assert lines[-1][0].isupper()
    assert before is None or weights_of(loop) == before


def arguments(root):
    """U13, U14: arguments of Checkpoint."""
    cases = [
        ({"monitor": "val_mystery"}, "val_mystery", 'mode="min"'),
        ({"monitor": "val_loss", "mode": "least"}, "'least'", "min"),
        ({"mode": "min"}, "monitor="),
        ({"keep_best": 2}, "monitor="),
        ({"keep_last": 0}, "keep_last=0"),
        ({"keep_last": -1}, "keep_last=-1"),
        ({"keep_last": True}, "keep_last=True"),
        ({"keep_last": 2.5}, "keep_last=2.5"),
        ({"keep_best": float("nan"), "monitor": "loss"}, "keep_best=nan"),
        ({"every": 0}, "every=0"),
        ({"every": "2 weeks"}, "2 weeks", "500 updates"),
        ({"on_error": "ignore"}, "'ignore'", "'warn'"),
    ]
    return [lambda c=c: told(lambda: Checkpoint(**c[0]), ConfigError, *c[1:]) for c in cases]


def monitors(root):
    """U11, U12: a monitor nobody logs."""

    def trial(name, *tokens):
        loop = torch_loop(Path(root) / name, every="1 epoch", monitor=name, mode="min")
        told(lambda: loop.fit(epochs=1), ConfigError, name, *tokens)

    def without_val():
        loop = torch_loop(Path(root) / "no-val", every="1 epoch", monitor="val_loss")
        loop.val_loaders = {}
        told(lambda: loop.fit(epochs=1), ConfigError, "val_loss", "val_loader", "loss")

    return [
        lambda: trial("val_losss", "val_loss", "Did you mean"),
        lambda: trial("accuracy", "loss", "lr"),
        without_val,
    ]


def resumes(root):
    """U41, U42, U44: what resume= leads to."""
    root = Path(root)

    def trial(resume, kind, *tokens, change=None):
        folder = root / f"run{len(list(root.iterdir()))}"
        if change is not None:
            torch_loop(folder).fit(epochs=1)
            change(folder / "checkpoints")
        loop = torch_loop(root / "new", extra=(Seen(),))
        path = folder if resume is None else resume
        told(lambda: loop.fit(epochs=2, resume=path), kind, *tokens, loop=loop)

    def typo():
        (root / "run-of-monday").mkdir()
        trial(root / "run-of-mondy", CheckpointError, "run-of-mondy", "run-of-monday")

    def empty():
        (root / "empty").mkdir()
        trial(root / "empty", CheckpointError, "empty", "nothing")

    def of_another_model():
        folder = root / "other"
        torch_loop(folder).fit(epochs=1)
        model = torch.nn.Sequential(torch.nn.Linear(4, 9), torch.nn.Linear(9, 1))
        like = torch_loop(root / "like")
        loop = FitLoop(model, like.train_loader, dict(like.val_loaders)[""], callbacks=[])
        told(
            lambda: loop.fit(epochs=2, resume=folder),
            CheckpointMismatchError, "0.weight", "(9, 4)", "(8, 4)", loop=loop,
        )  # fmt: skip
        loop = torch_loop(root / "third")
        loop.model[0].weight = torch.nn.Parameter(torch.zeros(8, 4, dtype=torch.float64))
        told(
            lambda: loop.fit(epochs=2, resume=folder, allow_changed=["optimizer"]),
            CheckpointMismatchError, "0.weight", "float64", "float32", loop=loop,
        )  # fmt: skip

    def newer(checkpoints):
        for name in Store(checkpoints).names():
            path = checkpoints / name / "manifest.json"
            path.write_bytes(to_json({"format": FORMAT + 1, "chunk_bytes": 1, "files": {}}))

    def a_file(name, data, *tokens):
        (root / name).write_bytes(data)
        trial(root / name, CheckpointError, name, *tokens)

    def auto_without_place():
        like = torch_loop(root / "like2")
        loop = FitLoop(like.model, like.train_loader, callbacks=[Checkpoint()])
        told(lambda: loop.fit(1, resume="auto"), ConfigError, "run_dir=", "auto")

    return [
        typo,
        empty,
        of_another_model,
        lambda: trial(None, CheckpointError, f"format {FORMAT + 1}", str(FORMAT), change=newer),
        lambda: a_file("model.pt", b"PK\x03\x04", "zip"),
        lambda: a_file("model.keras", b"PK\x03\x04", ".keras"),
        lambda: a_file("model.h5", b"\x89HDF\r\n", "HDF5"),
        lambda: a_file("model.ckpt", b"\x80\x02}", "pickle"),
        lambda: trial(3, ConfigError, "resume=3", "int"),
        auto_without_place,
    ]


def folders(root):
    """U45, U46: a folder that holds a run already, or cannot hold one."""
    root = Path(root)

    def used():
        torch_loop(root / "used").fit(epochs=1)
        loop = torch_loop(root / "used", extra=(Seen(),))
        told(lambda: loop.fit(1), ConfigError, str(root / "used"), "step-00000040", 'resume="auto"',
             "run_dir", loop=loop)  # fmt: skip

    def a_file():
        (root / "file").write_text("mine")
        loop = torch_loop(root / "file", extra=(Seen(),))
        told(lambda: loop.fit(1), ConfigError, str(root / "file"), "irectory", loop=loop)
        assert (root / "file").read_text() == "mine"

    def not_writable():
        loop = torch_loop(root / "locked", extra=(Seen(),))

        def around(name, real, args, kwargs):
            if name == "mkdir":
                raise PermissionError(13, "Permission denied")
            return real(*args, **kwargs)

        def fit():
            with patched(around):
                loop.fit(1)

        told(fit, ConfigError, str(root / "locked"), "Permission denied", loop=loop)

    return [used, a_file, not_writable]


def everything(root):
    return [*arguments(root), *monitors(root), *resumes(root), *folders(root)]


def without_checks(root):
    """Arguments that nobody looks at."""
    return failing_without(lambda: arguments(root), *off.UNCHECKED)


ROWS = [Row("U11 to U46", "mistakes with checkpoints", everything, without_checks, share=3)]
