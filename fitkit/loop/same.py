"""Whether a checkpoint is of the program that wants to go on from it."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from fitkit.data import describe_loader
from fitkit.errors import CheckpointMismatchError, ConfigError, brief
from fitkit.interop import state_tensors
from fitkit.loop.snapshot import keyed, loaders_of, only_reads, trained_flags, versions
from fitkit.store import Saved

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["check_same"]

FIELDS = ("versions", "data", "trainable", "optimizer", "callbacks")


def check_same(loop: "FitLoop", saved: Saved, allowed: Collection[str]) -> None:
    """Check that a run may go on from a checkpoint.

    Raises:
        ConfigError: If something is allowed that is none of `FIELDS`.
        CheckpointMismatchError: If the program differs in something that is not allowed; it is
            listed field by field.
    """
    unknown = sorted(set(allowed) - set(FIELDS))
    if unknown:
        raise ConfigError(
            f"allow_changed={brief(list(allowed))} names {brief(unknown[0])}, which is no field\n"
            f"Use some of: {', '.join(FIELDS)}."
        )
    found = [
        *(("versions", *row) for row in _differences(saved.meta["versions"], versions())),
        *(("data", *row) for row in _data(loop, saved.meta["data"])),
        *_trained(loop, saved.meta.get("trained", [])),
        *_callbacks(loop, saved.state["callbacks"], saved.meta.get("watching", [])),
    ]
    refused = [row for row in found if row[0] not in allowed]
    if refused:
        fields = sorted({row[0] for row in refused})
        rows = "\n".join(
            f"  {what}: saved {_shown(old)}, now {_shown(new)}" for _, what, old, new in refused
        )
        raise CheckpointMismatchError(
            f"{saved.path.name} is of another program: {len(refused)} differences\n{rows}\n"
            f"Restore what has changed; or go on without exactness: allow_changed={fields}."
        )


def _shown(value: Any) -> str:
    return "nothing" if value is None else brief(value)


def _differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    names = [*saved, *(name for name in now if name not in saved)]
    pairs = [(prefix + name, saved.get(name), now.get(name)) for name in names]
    return [(name, old, new) for name, old, new in pairs if old != new]


def _data(loop: "FitLoop", saved: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    now = {name: describe_loader(loader) for name, loader in loaders_of(loop).items()}
    rows: list[tuple[str, Any, Any]] = []
    for name in {**saved, **now}:
        if name not in saved or name not in now:
            rows.append((name, name in saved or None, name in now or None))
        else:
            rows += _differences(saved[name], now[name], f"{name}.")
    return rows


def _trained(loop: "FitLoop", saved: list[bool | None]) -> list[tuple[str, str, Any, Any]]:
    """Return the first weight that was trained and is not now, or the other way round."""
    now, names = trained_flags(loop), list(state_tensors(loop.model))
    if len(saved) != len(now):
        return []  # another model, which is told by its tensors
    odd = [i for i, pair in enumerate(zip(saved, now, strict=True)) if set(pair) == {True, False}]
    if not odd:
        return []
    more = f" and {len(odd) - 1} more weights" if len(odd) > 1 else ""
    old, new = ("trained", "frozen") if saved[odd[0]] else ("frozen", "trained")
    return [("trainable", f"{names[odd[0]]}{more}", old, new)]


def _callbacks(
    loop: "FitLoop", saved: Mapping[str, Any], watching: Collection[str]
) -> list[tuple[str, str, Any, Any]]:
    """Return the callbacks with state that are new or gone, and optimizers of another class.

    Those that only read may come and go.
    """
    rows: list[tuple[str, str, Any, Any]] = []
    callbacks = keyed(loop.callbacks)
    now = {key: callback.state_dict() for key, callback in callbacks.items()}
    watching = {*watching, *(key for key, callback in callbacks.items() if only_reads(callback))}
    for key in [key for key in {**saved, **now} if key not in watching]:
        old, new = saved.get(key), now.get(key)
        if (old is None and new) or (new is None and old):
            field = "optimizer" if "optimizer" in (old or new or {}) else "callbacks"
            rows.append(
                (
                    field,
                    key,
                    "attached" if new is None else None,
                    "attached" if old is None else None,
                )
            )
        elif old and new and "optimizer" in old and "optimizer" in new:
            pair = old["optimizer"]["class"], new["optimizer"]["class"]
            if pair[0] != pair[1]:
                rows.append(("optimizer", f"{key}.optimizer", *pair))
    return rows
