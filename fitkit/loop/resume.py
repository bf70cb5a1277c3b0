"""`fit(resume=)`: find a checkpoint, check that it is of this program, put everything back.

A run that goes on fires FIT_BEGIN, EPOCH_BEGIN and PASS_BEGIN like any other, because callbacks set
themselves up there. What they have reset or drawn by that is put back once more, right before the
first batch.
"""

import time
import warnings
from collections.abc import Collection, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fitkit.data import (
    Feed,
    doubts,
    restore_process,
    restore_streams,
    start_workers,
)
from fitkit.errors import CheckpointError, CheckpointMismatchError, ConfigError, brief
from fitkit.interop import is_keras, set_global_seed, state_tensors
from fitkit.loop.events import Phase
from fitkit.loop.same import check_same
from fitkit.loop.snapshot import COUNTERS, keyed, loaders_of
from fitkit.store import Saved, Store, find

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Resume", "copy_weights", "prepare_resume", "restore", "stores_of"]


def prepare_resume(
    loop: "FitLoop", resume: object, allow_changed: Collection[str]
) -> "Resume | None":
    """Find what to resume from and restore it; None if there is nothing yet.

    Raises:
        ConfigError: If `resume` is neither "auto" nor a path, or "auto" has nowhere to look.
        CheckpointError: If the path leads to no checkpoint, all are damaged, or it is of another
            program. The weights are as they were then.
    """
    if resume is None:
        return None
    if not isinstance(resume, str | Path):
        raise ConfigError(
            f'resume={brief(resume)} is a {type(resume).__name__}, expected "auto" or a path\n'
            'Give resume="auto", or the folder of a run or of a checkpoint.'
        )
    saved = _latest(loop) if resume == "auto" else find(Path(resume))
    if saved is None:
        _warn_if_never_saved(loop)
        return None
    _matching(loop.model, saved.model, saved.path)  # first: another model differs in all the rest
    check_same(loop, saved, allow_changed)
    going_on = Resume(loop, saved, frozenset(allow_changed))
    going_on.restore()
    going_on.warn()
    return going_on


def stores_of(loop: "FitLoop") -> list[Store]:
    """Return where the checkpoints of a loop are: those of its callbacks, or below its run_dir."""
    found = [getattr(callback, "store", None) for callback in loop.callbacks]
    stores = [store for store in found if isinstance(store, Store)]
    return stores or [Store(loop.run_dir / "checkpoints")]


def _latest(loop: "FitLoop") -> Saved | None:
    stores = stores_of(loop)
    if not loop.has_given_run_dir and all(s.folder.is_relative_to(loop.run_dir) for s in stores):
        raise ConfigError(
            f'resume="auto" looks in {loop.run_dir}, a new name that no earlier run can have used\n'
            "Name the folder of the run: FitLoop(..., run_dir=), or Checkpoint(dir)."
        )
    found = [saved for store in stores if (saved := store.latest()) is not None]
    return max(found, key=lambda saved: saved.meta["counters"]["num_updates"], default=None)


def _warn_if_never_saved(loop: "FitLoop") -> None:
    """Tell who asks to go on where nothing is ever saved: a forgotten Checkpoint."""
    if not any(isinstance(getattr(each, "store", None), Store) for each in loop.callbacks):
        warnings.warn(
            'resume="auto" found no checkpoint, and no callback writes one: the run begins anew\n'
            "Attach Checkpoint(), so that the next one can go on.",
            stacklevel=5,  # who calls fit
        )


class Resume:
    """A run that goes on from a checkpoint. The runner calls it at FIT_BEGIN and PASS_BEGIN."""

    def __init__(self, loop: "FitLoop", saved: Saved, allowed: frozenset[str]) -> None:
        self._loop = loop
        self._saved = saved
        self._allowed = allowed
        self.path = saved.path

    def __call__(self, feed: Feed | None) -> bool:
        """Put everything back; return whether this was the last time.

        Args:
            feed: The first training pass, None at FIT_BEGIN.
        """
        loop, of_pass = self._loop, self._saved.state["pass"]
        if of_pass is not None and feed is None:
            self.restore()
            return False
        for name, loader in loaders_of(loop).items():
            if name in self._saved.state["workers"] and (
                of_pass is None or loader is not loop.train_loader
            ):
                start_workers(loader)
        if of_pass is not None and feed is not None:
            num_batches = self._saved.meta["counters"]["epoch_batches"]
            feed.start_at(num_batches, of_pass["opening"], of_pass["loader"])
        self.restore()
        if of_pass is not None:
            self._reenter(of_pass)
        return True

    def restore(self) -> None:
        """Put back all but the position in the data."""
        restore(self._loop, self._saved, self._allowed)

    def _reenter(self, of_pass: Mapping[str, Any]) -> None:
        """Be where the last batch ended; there may be no other one in this epoch."""
        state = self._loop.state
        state.logged.of(Phase.TRAIN).load_state_dict(of_pass["logged"], state.device)
        state.logs.clear()
        state.logs.update(of_pass["logs"])
        state.batch_index = state.epoch_batches - 1
        state.opens_update = state.closes_update = True
        if of_pass["step_logs"] is not None:
            state.step_logs = _on(of_pass["step_logs"], state.device)

    def warn(self) -> None:
        """Say once where the data may differ from that of a run that was never interrupted."""
        num_batches = self._saved.meta["counters"]["epoch_batches"]
        for name, loader in loaders_of(self._loop).items():
            in_pass = num_batches if loader is self._loop.train_loader else 0
            for reason in doubts(loader, in_pass):
                warnings.warn(
                    f"{name}, a {type(loader).__name__}, may not go on as it would have: {reason}\n"
                    "The run goes on; it need not be bit-identical to an uninterrupted one.",
                    stacklevel=5,  # who calls fit
                )


def restore(loop: "FitLoop", saved: Saved, allowed: Collection[str] = ()) -> None:
    """Put model, optimizers, callbacks, counters and random streams back, in place.

    Args:
        loop: Its program is that of the checkpoint, see `check_same`.
        saved: The checkpoint; it is not changed, and can be restored again.
        allowed: What may differ, and then is left as it is.
    """
    state, counters = loop.state, saved.meta["counters"]
    for name in COUNTERS:
        setattr(state, name, deepcopy(counters[name]))
    state.started_at = time.perf_counter() - counters["elapsed_s"]
    state.logs.clear()
    state.logs.update(saved.meta["logs"])
    for key, callback in keyed(loop.callbacks).items():
        if key in saved.state["callbacks"]:
            _load(key, callback, deepcopy(saved.state["callbacks"][key]), allowed)
    copy_weights(loop.model, saved.model, saved.path)
    for name, loader in loaders_of(loop).items():
        restore_streams(loader, saved.state["loaders"].get(name, {}))
    _restore_process(saved.state["streams"])


def _restore_process(streams: Mapping[str, Any]) -> None:
    restore_process(streams)
    if "keras" in streams:
        set_global_seed(streams["keras"])
    if "cuda" in streams and torch.cuda.device_count() == len(streams["cuda"]):
        torch.cuda.set_rng_state_all([each.cpu() for each in streams["cuda"]])  # sync: never, CPU


def _load(key: str, callback: Any, state: Mapping[str, Any], allowed: Collection[str]) -> None:
    try:
        callback.load_state_dict(state)
    except CheckpointMismatchError:
        if not {"optimizer", "callbacks"} & set(allowed):
            raise
    except Exception as error:
        raise CheckpointError(
            f"{key}.load_state_dict refused what its state_dict had returned: {error!r}\n"
            "The weights are as they were. Mend it, or allow_changed=['callbacks'] and remove it."
        ) from error


def copy_weights(model: Any, saved: Mapping[str, Tensor], path: Path) -> None:
    """Copy saved tensors into a model, in place, after checking that all of them fit.

    They are matched by name; those of Keras also by order, because Keras numbers its names.

    Raises:
        CheckpointMismatchError: If one is missing, too many, or of another shape or dtype.
    """
    with torch.no_grad():
        for _, old, new in _matching(model, saved, path):
            old.copy_(new)


def _matching(
    model: Any, saved: Mapping[str, Tensor], path: Path
) -> list[tuple[str, Tensor, Tensor]]:
    """Return name, tensor and saved tensor, for each that a model has."""
    now = state_tensors(model)
    names = dict(zip(now, saved, strict=False))
    by_name = now.keys() == saved.keys()
    if not by_name and len(now) == len(saved) and is_keras(model, "Layer"):
        pairs = [(name, now[name], saved[other]) for name, other in names.items()]
    else:
        pairs = [(name, now[name], saved[name]) for name in now if name in saved]
    odd = [
        f"{name}: {_kind(old)}, saved {_kind(new)}"
        for name, old, new in pairs
        if old.shape != new.shape or old.dtype != new.dtype
    ]
    if odd or len(pairs) != len(now) or len(pairs) != len(saved):
        raise _mismatch(now, saved, odd, path, by_order=not by_name and len(pairs) == len(now))
    return pairs


def _mismatch(
    now: Mapping[str, Tensor],
    saved: Mapping[str, Tensor],
    odd: list[str],
    path: Path,
    *,
    by_order: bool,
) -> CheckpointMismatchError:
    missing = [] if by_order else sorted(now.keys() - saved.keys())
    extra = [] if by_order else sorted(saved.keys() - now.keys())
    return CheckpointMismatchError(
        f"{path.name} is of another model: {len(missing)} tensors missing, {len(extra)} too many, "
        f"{len(odd)} differ\n"
        f"Missing: {', '.join(missing[:5]) or 'none'}.\n"
        f"Too many: {', '.join(extra[:5]) or 'none'}.\n"
        f"Other shape or dtype: {'; '.join(odd[:5]) or 'none'}.\n"
        "Build the model as it was built in the saved run."
    )


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _on(value: Any, device: torch.device) -> Any:
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in value.items()}
