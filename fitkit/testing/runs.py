"""Whether two runs are the same run, bit for bit."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from fitkit.interop import state_tensors
from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.snapshot import snapshot
from fitkit.loop.state import State
from fitkit.store import Store

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["assert_resume_exact", "assert_same_as_loop"]


def assert_resume_exact(
    make: Callable[[Path], "FitLoop"], *, epochs: int = 3, cut_at: Iterable[int] = (1, 7)
) -> None:
    """Demand that a run that was cut and resumed ends as one that never was.

    Compared are the weights, the state of every callback, the history and the random streams.

    Args:
        make: Makes the loop, from the same seeds each time; it is given the run_dir. A `Checkpoint`
            is not needed.
        epochs: The length of the whole run.
        cut_at: After so many batches the run is saved and dies, one trial for each; within an
            accumulation window, after its end.

    Raises:
        AssertionError: Naming the cut and the first values that differ.
    """
    with TemporaryDirectory() as folder:
        whole = make(Path(folder) / "whole")
        whole.fit(epochs)
        expected = _all_of(whole)
        for cut in cut_at:
            run_dir = Path(folder) / str(cut)
            dying = make(run_dir)
            dying.attach(_Cut(dying, cut))
            with suppress(_Dies):
                dying.fit(epochs)
            resumed = make(run_dir)
            resumed.fit(epochs, resume="auto")
            found = _all_of(resumed)
            found["model"] = _renamed(found["model"], expected["model"])
            if odd := list(_differences(expected, found)):
                raise AssertionError(f"cut after batch {cut}, it ends otherwise: {'; '.join(odd)}")


def assert_same_as_loop(
    loop: "FitLoop", by_hand: Callable[[], nn.Module], *, epochs: int = 1
) -> None:
    """Demand that a run ends with the very weights of a loop written by hand.

    Args:
        loop: Is trained first.
        by_hand: Trains another model of the same beginning, and returns it. It finds the random
            numbers of torch as `loop` found them.
        epochs: How long the loop is trained.

    Raises:
        AssertionError: Naming the tensors that differ, and by how much.
    """
    streams = torch.get_rng_state()
    loop.fit(epochs)
    torch.set_rng_state(streams)
    expected, found = state_tensors(by_hand()), state_tensors(loop.model)
    if odd := list(_differences(expected, _renamed(found, expected))):
        raise AssertionError(f"not the loop by hand: {'; '.join(odd)}")


class _Dies(BaseException):
    """The end of a run that a test wants to see cut."""


class _Cut(Callback):
    phases = TRAIN_ONLY

    def __init__(self, loop: "FitLoop", at: int) -> None:
        self._loop = loop
        self._at = at

    def on_batch_end(self, state: State) -> None:
        if state.num_batches >= self._at and not self._loop.runner.window_is_open:
            self._loop.detach(self)  # it has no state, but a place in the list of those that do
            Store(state.run_dir / "checkpoints").write(snapshot(self._loop))
            raise _Dies


def _renamed(tensors: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under the names of another model of the same kind: Keras numbers its names."""
    return dict(zip(like, tensors.values(), strict=True))


def _all_of(loop: "FitLoop") -> dict[str, Any]:
    content = snapshot(loop)
    content.meta["counters"].pop("elapsed_s")
    return {
        "model": dict(content.model),
        "counters": content.meta["counters"],
        "logs": content.meta["logs"],
        **{name: content.state[name] for name in ("callbacks", "streams", "loaders")},
    }


def _differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            yield f"{path} is {tuple(other.shape)} {other.dtype}"
        elif not torch.equal(one.nan_to_num(), other.nan_to_num()):
            far = (one.detach().double() - other.detach().double()).abs().max()
            yield f"{path} by {float(far):.3g}"  # sync: in tests only, to say how far
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        pair = cast("tuple[Mapping[Any, Any], Mapping[Any, Any]]", (one, other))
        for key in sorted({*pair[0], *pair[1]}, key=str):
            yield from _differences(pair[0].get(key), pair[1].get(key), f"{path}.{key}".strip("."))
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        many = cast("tuple[list[Any], list[Any]]", (one, other))
        if len(many[0]) != len(many[1]):
            yield f"{path} has {len(many[1])} items, expected {len(many[0])}"
        for index, each in enumerate(zip(*many, strict=False)):
            yield from _differences(*each, f"{path}[{index}]")
    else:
        texts = [repr(each) for each in cast("list[object]", [one, other])]
        if texts[0] != texts[1]:  # NaN equals NaN here
            yield f"{path} is {texts[1]}, expected {texts[0]}"[:200]
