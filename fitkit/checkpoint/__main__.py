"""Look into checkpoints: `python -m fitkit.checkpoint inspect|verify DIR [--digest SHA256]`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from fitkit.errors import CheckpointError
from fitkit.store import Saved, Store, find, load


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0, or 1 if a checkpoint is damaged or there is none."""
    parser = argparse.ArgumentParser(prog="python -m fitkit.checkpoint", description=__doc__)
    parser.add_argument("command", choices=("inspect", "verify"))
    parser.add_argument("dir", type=Path, help="a checkpoint, a folder of them, or a run")
    parser.add_argument("--digest", help="what the digest of the checkpoint must be")
    given: Any = parser.parse_args(arguments)
    if given.command == "inspect":
        return _inspect(given.dir)
    paths = _paths(given.dir)
    bad = [path for path in paths if not _is_intact(path, given.digest)]
    if not paths:
        print(f"no checkpoint was found in {given.dir}", file=sys.stderr)
    return 1 if bad or not paths else 0


def _inspect(folder: Path) -> int:
    try:
        saved = find(folder)
    except CheckpointError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(_lines(saved)))
    return 0


def _lines(saved: Saved) -> list[str]:
    counters, sizes = saved.meta["counters"], [t.numel() for t in saved.model.values()]
    rows = {
        "digest": saved.digest,
        "versions": ", ".join(
            f"{name} {number}" for name, number in saved.meta["versions"].items()
        ),
        "counters": ", ".join(f"{name}={value}" for name, value in counters.items()),
        "monitored": str(saved.meta.get("monitored")),
        "logs": ", ".join(f"{name}={value:g}" for name, value in saved.meta["logs"].items()),
        "data": "; ".join(f"{name}: {value}" for name, value in saved.meta["data"].items()),
        "callbacks": ", ".join(key for key, state in saved.state["callbacks"].items() if state),
        "model": f"{saved.meta['model']}, {len(sizes)} tensors, {sum(sizes):,} numbers",
    }
    tensors = [
        f"  {_shown(name)}  {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in saved.model.items()
    ]
    return [str(saved.path), *(f"{k}: {_shown(v)}" for k, v in rows.items()), *tensors]


def _shown(text: str) -> str:
    """Return text from a file without what a terminal would obey."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _paths(folder: Path) -> list[Path]:
    if (folder / "manifest.json").exists():
        return [folder]
    stores = [Store(each) for each in (folder, folder / "checkpoints")]
    return [store.folder / name for store in stores for name in store.names()]


def _is_intact(path: Path, digest: str | None) -> bool:
    try:
        saved = load(path, digest=digest)
    except CheckpointError as error:
        print(f"DAMAGED {_shown(str(error).splitlines()[0])}")
        return False
    print(f"intact  {path}  {saved.digest}")
    return True


if __name__ == "__main__":
    sys.exit(main())
