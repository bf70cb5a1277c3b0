"""Where in a pass a loader is: how a later process begins the same pass behind that batch.

The order of a pass follows from what the loader is, the epoch, and the random streams at the moment
the pass began; so those streams are kept, the indices drawn again, and those of the batches that
were trained on thrown away. Samples are fetched only where a loader has no indices.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, cast

from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, TensorDataset

from fitkit.data.fast_path import gathers, rows_of
from fitkit.data.gather import Gather
from fitkit.data.source import Loader, LoaderWrapper, is_pydataset, length, open_source
from fitkit.data.streams import (
    is_stateful,
    process_streams,
    restore_process,
    restore_streams,
    streams_of,
)
from fitkit.data.structure import Structure
from fitkit.data.tensor_loader import TensorLoader
from fitkit.data.workers import begin

__all__ = [
    "describe_loader",
    "doubts",
    "has_workers",
    "open_at",
    "opening_of",
    "own_state",
    "put_back",
    "start_workers",
]

_KNOWN = ("batch_size", "drop_last", "shuffle", "seed", "num_samples")


def opening_of(loader: Loader) -> dict[str, Any]:
    """Return what the order of a pass follows from; called right before the pass begins."""
    if isinstance(_innermost(loader), TensorLoader | list | tuple):
        return {}
    return {
        "process": process_streams(),
        "own": streams_of(loader),
        "started": has_workers(loader),
    }


def own_state(loader: Loader) -> Any:
    """Return the state of a loader that keeps its position itself, None of any other."""
    inner = _innermost(loader)
    return inner.state_dict() if is_stateful(inner) and not is_pydataset(inner) else None


def open_at(
    loader: Loader, num_batches: int, opening: Mapping[str, Any], state: Any = None
) -> Iterator[Gather | Structure]:
    """Begin a pass behind its first `num_batches`.

    Args:
        loader: It was told the epoch.
        num_batches: At least 1.
        opening: What `opening_of` returned when the pass began. The streams are those of then
            afterwards, as far as the indices used them up; so put them back later.
        state: What `own_state` returned at the position, if it returned anything.
    """
    if isinstance(loader, LoaderWrapper) and type(loader).read is LoaderWrapper.read:
        return map(loader.adapt, open_at(loader.loader, num_batches, opening, state))
    if isinstance(loader, TensorLoader):
        return loader.gathers(num_batches)
    if opening:
        put_back(loader, opening)
    if state is not None:
        cast("Any", loader).load_state_dict(state)
        return begin(cast("Any", loader))
    if isinstance(loader, list | tuple):
        return islice(cast("Any", loader), num_batches, None)
    if (rows := rows_of(loader)) is not None:
        return gathers(loader, rows, num_batches)
    if _has_indices(loader):
        return _open_by_index(cast("Any", loader), num_batches, opening)
    if is_pydataset(loader) and length(loader) is not None:
        return open_source(loader, num_batches)
    source = open_source(loader)
    next(islice(source, num_batches - 1, None), None)
    return source


def has_workers(loader: Loader) -> bool:
    """Whether it keeps workers that an earlier pass has started."""
    return getattr(_innermost(loader), "_iterator", None) is not None


def start_workers(loader: Loader) -> None:
    """Start persistent workers, if that is not done yet.

    The first pass would do it, and draw a number for their seeds that later passes do not draw.
    """
    inner = _innermost(loader)
    if _has_indices(inner) and inner.persistent_workers and not has_workers(inner):
        _open_by_index(inner, None, {})


def doubts(loader: Loader, num_batches: int) -> list[str]:
    """Say why the rest of the data may differ from that of a run that was never interrupted.

    Args:
        loader: The loader.
        num_batches: Of the pass, that were trained on; 0 between two passes.
    """
    inner: Any = _innermost(loader)
    if is_stateful(inner) or isinstance(inner, TensorLoader | list | tuple) or rows_of(inner):
        return []
    if is_pydataset(inner):
        return _doubts_of_pydataset(inner)
    if not isinstance(inner, DataLoader):
        if hasattr(inner, "as_numpy_iterator"):
            return ["the random order of tf.data is TensorFlow's and is not saved"]
        return [_READ] if num_batches else []
    if isinstance(cast("Any", inner).dataset, IterableDataset) and num_batches:
        return [_READ]
    persists = inner.num_workers > 0 and inner.persistent_workers
    if (
        inner.num_workers > 0
        and (num_batches or persists)
        and not _is_fixed(cast("Any", inner).dataset)
    ):
        return [
            f"the order is exact, but its {inner.num_workers} workers begin anew: random numbers "
            "that the dataset draws in them are others"
        ]
    return []


_READ = (
    "it has no indices, so the batches of before were read and dropped; the rest is exact if it "
    "yields the same batches in every process"
)


def _doubts_of_pydataset(loader: Any) -> list[str]:
    kind = cast("Any", type(loader))
    base: Any = next(each for each in kind.__mro__ if each.__module__.startswith("keras."))
    hooks = ("on_epoch_begin", "on_epoch_end")
    own = [name for name in hooks if getattr(kind, name) is not getattr(base, name)]
    return [f"what its {own[0]} changed is not saved; give it state_dict()"] if own else []


def describe_loader(loader: Loader) -> dict[str, Any]:
    """Return what must be the same when a run goes on, by the name a message gives it."""
    inner: Any = _innermost(loader)
    found: dict[str, Any] = {"type": type(inner).__name__, "batches": length(inner)}
    for name in _KNOWN:
        value = getattr(inner, name, None)
        if isinstance(value, int | None) and value is not None:
            found[name] = value
    if isinstance(inner, DataLoader):
        found["samples"] = length(cast("Any", inner).dataset)
        found["sampler"] = type(cast("Any", inner).sampler).__name__
        if isinstance(cast("Any", inner).dataset, IterableDataset):
            found["num_workers"] = inner.num_workers  # each of them yields batches of its own
    return found


def _innermost(loader: Any) -> Any:
    while isinstance(loader, LoaderWrapper):
        loader = loader.loader
    return loader


def put_back(loader: Loader, opening: Mapping[str, Any]) -> None:
    """Put the random streams back to where `opening_of` has found them."""
    restore_process(opening["process"])
    restore_streams(loader, opening["own"])


def _has_indices(loader: Any) -> bool:
    return isinstance(loader, DataLoader) and not isinstance(
        cast("Any", loader).dataset, IterableDataset
    )


def _is_fixed(dataset: Any) -> bool:
    """Whether a dataset is known to draw no random numbers."""
    if isinstance(dataset, ConcatDataset):
        return all(map(_is_fixed, cast("Any", dataset).datasets))
    return type(dataset) is TensorDataset or (
        type(dataset) is Subset and _is_fixed(cast("Any", dataset).dataset)
    )


def _open_by_index(
    loader: Any, num_batches: int | None, opening: Mapping[str, Any]
) -> Iterator[Any]:
    """Begin a pass of a DataLoader with the indices of its first batches thrown away; None: all."""
    name = "batch_sampler" if loader.batch_sampler is not None else "sampler"
    sampler = cast("dict[str, Any]", vars(loader))[name]
    # Persistent workers draw no seed when their second pass begins; those of this process will.
    again = (lambda: put_back(loader, opening)) if opening.get("started") else None
    shortened = _Shortened(sampler, num_batches, again)
    vars(loader)[name] = shortened  # by assignment, the DataLoader would refuse it
    try:
        source = begin(loader)
    finally:
        vars(loader)[name] = sampler
    shortened.settle()
    return source


class _Shortened:
    """A sampler whose first pass lacks its first batches; every later one is whole.

    A DataLoader with workers takes two iterators for its first pass and reads the second.
    """

    def __init__(
        self, inner: Any, num_batches: int | None, again: Callable[[], None] | None
    ) -> None:
        self.inner = inner
        self.num_batches = num_batches
        self.again = again
        self._last: _Rest | None = None
        self._settled = False

    def __iter__(self) -> Iterator[Any]:
        if self._settled:
            return iter(self.inner)
        self._last = _Rest(self)
        return self._last

    def __len__(self) -> int:
        return len(self.inner)

    def settle(self) -> None:
        """Draw the indices to be thrown away, if that is not done yet; the next pass is whole."""
        self._settled = True
        if self._last is not None:
            self._last.skip()


class _Rest:
    """What a sampler yields behind the first batches."""

    def __init__(self, of: _Shortened) -> None:
        self._of = of
        self._inner: Iterator[Any] = iter(of.inner)
        self._skipped = False

    def __iter__(self) -> "_Rest":
        return self

    def __next__(self) -> Any:
        self.skip()
        return next(self._inner)

    def skip(self) -> None:
        """Throw the first batches away, once."""
        if self._skipped:
            return
        self._skipped = True
        if self._of.num_batches is None:
            self._inner = iter(())
            return
        if self._of.again is not None:
            self._of.again()
            self._inner = iter(self._of.inner)
        next(islice(self._inner, self._of.num_batches - 1, None), None)
